"""The page: one file that runs our script alone, whatever stands in its texts, and is the same every time."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from vpgea.report import packing
from vpgea.report.model import (
    Bars,
    Download,
    Point,
    Points,
    Prompt,
    Report,
    Section,
    Series,
    Table,
    Trace,
    TracedQuestion,
    Traces,
    Words,
)
from vpgea.report.packing import pack, packed
from vpgea.report.page import page

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'\u2028\u202e\u0000{{ 7*7 }}"


def hostile_trace(place: int) -> Trace:
    return Trace(
        column=place % 3,
        source=HOSTILE,
        name=HOSTILE,
        status=HOSTILE,
        tokens=3,
        truncated=False,
        facts={"answer found": HOSTILE},
        reasons=[HOSTILE],
        pieces=["a", HOSTILE, "b"],
        thinking=2,
        ratios=[0.5, float("nan"), float("-inf")],
        marked=1,
    )


def hostile_question(number: int, group: str = HOSTILE) -> TracedQuestion:
    return TracedQuestion(
        group=group,
        question_id=f"{number}{HOSTILE}",
        question=HOSTILE * 20,
        answer=HOSTILE,
        change="",
        traces=[hostile_trace(place) for place in range(3)],
    )


def hostile_report() -> Report:
    series = [Series(HOSTILE, [Point(x=1, y=1, label=HOSTILE)])] * 2
    points = Points(name="p", title=HOSTILE, x_label=HOSTILE, y_label=HOSTILE, series=series, note=HOSTILE)
    bars = Bars(name="b", title=HOSTILE, x_label=HOSTILE, y_label=HOSTILE, labels=[HOSTILE], stacks=[(HOSTILE, [1])])
    table = Table(title=HOSTILE, head=(HOSTILE,) * 2, rows=[(HOSTILE,) * 2], note=HOSTILE, marked=frozenset({0}))
    prompt = Prompt(title=HOSTILE, text=HOSTILE, tokens=[(1, HOSTILE)])
    return Report(
        title=HOSTILE,
        verdict=[HOSTILE, HOSTILE],
        sections=[Section("one", HOSTILE, [Words(HOSTILE), table, replace(table, closed=True), prompt, points, bars])],
        traces=Traces(
            questions=[hostile_question(1), hostile_question(2)],
            columns=(HOSTILE,) * 3,
            rule=HOSTILE,
            available=9,
            notes=[HOSTILE],
        ),
        downloads=[Download(HOSTILE, HOSTILE, HOSTILE)],
    )


class Elements(HTMLParser):
    """Every element with its attributes, and what scripts and styles hold."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {"script": [], "style": []}
        self._open = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._open = tag
        if tag in self.inside:
            self.inside[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in self.inside:
            self.inside[self._open][-1] += data


@pytest.fixture(scope="module")
def elements() -> Elements:
    parser = Elements()
    parser.feed(page(hostile_report()))
    return parser


def test_nothing_of_a_text_becomes_an_element(elements: Elements) -> None:
    """Every script is ours or data, no element has a handler or a style of its own, none fetches anything."""
    scripts = [attributes.get("type") for tag, attributes in elements.found if tag == "script"]
    assert scripts.count(None) == 1
    assert set(scripts) == {None, "text/plain"}
    for tag, attributes in elements.found:
        assert tag not in ("img", "iframe", "object", "link", "base", "embed"), tag
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "src")], tag
        assert attributes.get("href", "#").startswith("#")  # type: ignore[union-attr]


def test_the_policy_knows_our_script_and_style_by_their_hashes_and_nothing_else(elements: Elements) -> None:
    policies = [dict(attributes) for tag, attributes in elements.found if attributes.get("http-equiv")]
    (policy,) = (str(one["content"]) for one in policies)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for kind, text in (("style", elements.inside["style"][0]), ("script", elements.inside["script"][-1])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_control_and_direction_characters_are_shown_and_templates_stay_texts() -> None:
    text = page(hostile_report())
    assert not [character for character in "\u2028\u202e\x00" if character in text]
    assert r"\u2028\u202e\x00{{ 7*7 }}" in text


def test_the_bytes_are_the_same_twice() -> None:
    assert page(hostile_report()) == page(hostile_report())


def test_traces_are_packed_one_by_one_and_hold_no_control_character() -> None:
    found = pack(Traces(questions=[hostile_question(1)], columns=("a", "b", "c"), rule="rule.", available=7))
    unpacked = [gzip.decompress(base64.b64decode(text)).decode() for text in (found.index, *found.chunks)]
    assert not [text for text in unpacked if re.search("[\u2028\u202e\x00]", text)]
    index, detail = map(json.loads, unpacked)
    assert len(index["questions"]) == len(found.chunks) == 1
    assert detail["t"][0]["r"] == [50, None, None]
    assert found.words == ["3 of 7 samples are in this file. rule."]


def test_what_does_not_fit_is_left_out_in_turns_over_the_groups_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(pack(Traces(questions=[hostile_question(1)], columns=("a", "b", "c"), rule="", available=0)).chunks[0])
    monkeypatch.setattr(packing, "MOST_BYTES", round(3.5 * size))
    questions = [hostile_question(number, group) for group in ("one", "two") for number in range(4)]
    found = pack(Traces(questions=questions, columns=("a", "b", "c"), rule="", available=24))
    index = json.loads(gzip.decompress(base64.b64decode(found.index)))
    assert [index["groups"][entry["g"]] for entry in index["questions"]] == ["one", "one", "two"]
    assert found.words[0].startswith("9 of 24 samples")
    assert found.words[1].startswith("5 questions that this would add are left out")


def test_packing_says_nothing_of_the_time() -> None:
    assert packed("a" * 100) == packed("a" * 100)
    assert base64.b64decode(packed("a"))[4:8] == bytes(4)
