"""Where a response states its final answer. Everything here is linear in the length of the (untrusted) text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Source = Literal["box", "tag", "marker", "whole"]

# A box opens with \boxed{ or \fbox{ (also with the backslash doubled, as in text that was escaped once too often);
# an escaped brace is no brace. The number of backslashes is bounded, so that a run of them is scanned once.
_BOX_TOKENS = re.compile(r"(?P<box>\\{1,3}(?:boxed|fbox)\s*\{)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL)
_BETWEEN_BOXES = re.compile(r"(?:[\s$,;&]|\\[()\[\]]|\\q?quad\b|\\[ ,;]|\\text\s*\{\s*(?:and|or)\s*\}|\b(?:and|or)\b)+")
_MAX_BETWEEN = 60  # characters that may stand between two boxes of one answer

_SPECIAL_TOKEN = re.compile(r"<[|｜][^<>|｜\n]{1,40}[|｜]>")
_TAG = re.compile(r"<answer>((?:(?!</?answer>).){0,2000})</answer>", re.DOTALL | re.IGNORECASE)
_MARKER = re.compile(
    r"(?:####|^[ \t*_]{0,8}A[ \t]?:(?!\w)|\banswer[*_]{0,3}(?:[ \t]{1,3}is\b|[ \t]{0,3}[:=]))[ \t*_:]{0,8}",
    re.MULTILINE | re.IGNORECASE,
)
_MAX_STATEMENT = 4000  # characters read behind a marker
_SENTENCE_END = re.compile(r"[.!?][*_\"')\]]*(?=\s|$)")
_LEADING_MATH = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_LAST_IS = re.compile(r"^[A-Za-z].*\s(?:is|are|equals)\s+(?=\S)")
_LEADING_NUMBER = re.compile(
    r"([$€£]?[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?\s?\\?%?)(?:[,;:]?\s+[A-Za-z(][^\d=^+*\\]*)?$"
)

MAX_WHOLE = 200  # characters; a longer line is prose, not an answer


@dataclass(frozen=True)
class Answer:
    """A stated answer.

    Attributes:
        text: What stands in the place of the answer, raw.
        source: Which place that is.
    """

    text: str
    source: Source


def boxes(text: str) -> list[tuple[int, int, int]]:
    """(start, content start, content end) of every closed box in the order in which they close. One pass."""
    found: list[tuple[int, int, int]] = []
    stack: list[tuple[int, int] | None] = []
    for token in _BOX_TOKENS.finditer(text):
        if token["box"]:
            stack.append((token.start(), token.end()))
        elif token["open"]:
            stack.append(None)
        elif token["close"] and stack and (opened := stack.pop()) is not None:
            found.append((*opened, token.start()))
    return found


def last_box(text: str) -> str | None:
    r"""Content of the last non-empty box; None without one.

    Boxes with nothing but commas, "and" and mathematics delimiters between them are one answer, joined by commas:
    `\boxed{1} and \boxed{2}` is `1, 2`. The same content repeated is that content.
    """
    run: list[str] = []
    start = 0
    for box_start, content_start, content_end in reversed(boxes(text)):
        content = text[content_start:content_end].strip()
        if not content:
            continue
        if run:
            if content_end + 1 > start:
                continue  # nested inside the box that was taken
            between = text[content_end + 1 : start]
            if len(between) > _MAX_BETWEEN or not _BETWEEN_BOXES.fullmatch(between):
                break
        run.append(content)
        start = box_start
    return ", ".join(dict.fromkeys(reversed(run))) if run else None


def after_thinking(text: str) -> str:
    """What follows the last stray `</think>`, without special tokens such as `<|im_end|>`."""
    return _SPECIAL_TOKEN.sub("", text.rpartition("</think>")[2])


def _statement(text: str) -> str:
    """The answer at the start of what follows a marker: `5 because ...` → `5`, `$x+1$ as shown` → `x+1`.

    A sentence such as `The largest n is 34` gives what follows its last `is`.
    """
    text = text[:_MAX_STATEMENT].strip().strip("*_").strip()
    if (math := _LEADING_MATH.match(text)) and not re.search(r"[\d\\=^$]", _first_line(text[math.end() :])):
        rest = text[math.end() :].lstrip().lower()
        inner = next(group for group in math.groups() if group)
        return inner.strip() + ("%" if rest.startswith(("%", "percent")) else "")
    line = _first_line(text)
    if end := _SENTENCE_END.search(line):
        line = line[: end.start()]
    if sentence := _LAST_IS.match(line):
        line = line[sentence.end() :]
    if number := _LEADING_NUMBER.match(line):
        unit = line[number.end(1) :].strip().lower()
        return number[1] + ("%" if unit.startswith(("percent", "pct")) else "")
    return line.strip(" *_")


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def find_answer(response: str) -> Answer | None:
    r"""The final answer of a response, or None.

    In this order: the last non-empty box; else the later of the last `<answer>…</answer>` (tag) and the last of
    `#### …`, `A: …` at a line's start, `answer: …`, `answer is …` (marker); else the response itself where it is one
    line of at most MAX_WHOLE characters (whole).
    """
    text = after_thinking(response)
    if (box := last_box(text)) is not None:
        return Answer(box, "box")
    tag = _last(_TAG, text)
    marker = _last(_MARKER, text)
    if tag and tag[1].strip() and (marker is None or tag.end() >= marker.start()):
        return Answer(tag[1].strip(), "tag")
    if marker and (statement := _statement(text[marker.end() :])):
        return Answer(statement, "marker")
    whole = text.strip()
    if whole and "\n" not in whole and len(whole) <= MAX_WHOLE and not marker:
        return Answer(whole, "whole")
    return None


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    last = None
    for last in pattern.finditer(text):  # noqa: B007
        pass
    return last
