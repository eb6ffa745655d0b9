"""`vpgea report` on stored evaluations and on a loop: what stands in the file, its formats, and what is refused."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import simulated_run
from tests.support import earlier
from tests.support.evaluations import Sample, write_evaluation
from vpgea.metrics.estimates import Estimate
from vpgea.protocols.asking import Rows
from vpgea.protocols.card import ProtocolCard, Setting, ShownPrompt, SourceLine
from vpgea.protocols.protocol import find_protocol
from vpgea.protocols.published import UNATTRIBUTED, Measurement, known_model, reproduce
from vpgea.runs.layout import PROTOCOL, RESULTS, round_dir, round_record
from vpgea.runs.records import Disagreement, Regraded
from vpgea.storage import files
from vpgea.storage.files import read_json, write_json
from vpgea.storage.records import json_of

Cli = Callable[..., subprocess.CompletedProcess[str]]
HOSTILE = "q<script>alert(1)</script>\u202e&amp;"


def samples(*, tokens: int = 100, right: int = 2) -> list[Sample]:
    """Twenty questions with four samples each, one of them with a hostile name."""
    return [
        Sample(
            question=HOSTILE if number == 0 else f"q{number:02d}",
            correct=number % right == 0,
            tokens=tokens + number,
            seed=10 * number + index,
        )
        for number in range(20)
        for index in range(4)
    ]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("report")
    base = write_evaluation(folder / "base", samples())
    return base, write_evaluation(folder / "tuned", samples(tokens=40, right=1), model="1" * 16)


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two rounds, with its model."""
    return earlier.settle(earlier.unpack(tmp_path_factory.mktemp("earlier"))) / "full"


def reported(here: Cli, tmp_path: Path, *arguments: str | Path) -> str:
    out = tmp_path / "report.html"
    done = here("report", *arguments, "-o", out)
    assert (done.returncode, done.stdout.strip()) == (0, str(out)), done.stderr
    return out.read_text(encoding="utf-8")


def traces_of(page: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The list, and every question's detail."""
    texts = re.findall(r'<script type="text/plain" id="(traces-index|t\d+)">([^<]*)</script>', page)
    unpacked = [json.loads(gzip.decompress(base64.b64decode(text))) for _, text in texts]
    return unpacked[0], unpacked[1:]


def test_two_evaluations_have_the_verdict_the_figures_and_the_traces(
    here: Cli, tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    page = reported(here, tmp_path, *pair)
    verdict = here("compare", *pair).stdout.strip()
    assert verdict.startswith("tokens -54")
    assert verdict in page
    for text in ("accuracy against mean tokens", "if every response were cut", ": flips", "how hard a question is"):
        assert text in page, text
    assert "no protocol" in page
    index, details = traces_of(page)
    assert len(index["questions"]) == len(details) == 20
    assert index["questions"][0]["c"] == "more often right"
    assert "160 of 160 samples are in this file" in page
    assert {trace["col"] for trace in details[0]["t"]} == {0, 2}


def test_the_file_is_the_same_twice_and_holds_no_script_of_a_model(
    here: Cli, tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    page = reported(here, tmp_path, *pair)
    assert page == reported(here, tmp_path, *pair)
    assert "alert(1)</script>" not in page
    assert "\u202e" not in page
    assert r"q&lt;script&gt;alert(1)&lt;/script&gt;\u202e&amp;amp;" in page


def test_a_folder_may_have_any_name(here: Cli, tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / '"><script>alert(2)<' / "eval", samples())
    page = reported(here, tmp_path, folder)
    assert "<script>alert(2)" not in page
    assert "one evaluation: nothing was compared" in page


def test_the_protocol_is_named_and_what_differs_is_marked(here: Cli, tmp_path: Path) -> None:
    protocol = {"protocol.benchmark": "aime24", "protocol.name": "deepseek", "protocol.version": 3}
    runs = [
        write_evaluation(tmp_path / model, samples(), model=model * 16, protocol=protocol, eval__seed=int(model))
        for model in "12"
    ]
    page = reported(here, tmp_path, *runs)
    assert "aime24: deepseek, version 3" in page
    differing = re.findall(r'<tr class="differs"><th scope="row">([^<]*)', page)
    assert {"model", "eval.seed"} <= set(differing)
    assert "protocol" not in differing


def card(rows: int = 30, **used: float) -> ProtocolCard:
    """Of AIME 2024 with a known model; what was used otherwise by its names in `eval`."""
    one = find_protocol("aime24", "deepseek")
    settings = [
        Setting(key, value, used.get(key.rpartition(".")[2], value))  # type: ignore[arg-type]
        for key, value in one.settings.items()
    ]
    shown = ShownPrompt(
        question_id="q00", text="", ids=[], tokens=[], user_turn="What is q00? Box it.", training_turn="Think of q00."
    )
    made = Measurement(
        benchmark="aime24",
        protocol="deepseek",
        samples=64,
        rows=rows,
        differs=[],
        accuracy=Estimate(value=0.3, low=0.2, high=0.4, n=80),
    )
    model = known_model("DeepSeek-R1-Distill-Qwen-1.5B", None, 1536, 28)
    assert model is not None
    return ProtocolCard(
        benchmark="aime24",
        name=one.name,
        version=one.version,
        fingerprint="f" * 16,
        system=None,
        prompt=one.prompt,
        choice=None,
        order=one.order,
        examples=0,
        rows=Rows(source=HOSTILE, revision="", sha256="5" * 64, count=rows),
        example_rows=None,
        missing=one.missing,
        guess=None,
        aggregation=one.aggregation,
        ungraded="leaves every figure",
        figure="mean@4",
        settings=settings,
        differs=one.differs,
        deviations=[],
        template="t" * 16,
        vpgea_version="0",
        sources=[SourceLine(source.what, source.read) for source in one.sources],
        shown=shown,
        reproduction=reproduce(model, made),
    )


def test_a_card_is_shown_with_what_others_have_published(here: Cli, tmp_path: Path) -> None:
    """Hollow in the picture, in a table with sources; by the same protocol only where nothing was set otherwise."""
    folder = write_evaluation(tmp_path / "eval", samples())
    for own, same in ((card(samples=4), 1), (card(temperature=0.0), 0), (card(rows=20), 0)):
        write_json(folder / PROTOCOL, json_of(own))
        page = reported(here, tmp_path, folder)
        for text in (
            "protocol deepseek, version 1, of aime24",
            "usage recommendations and evaluation, read 2026-11-27",
            "counts as wrong",
            "what stands between the question and the instruction is not published",
            "{{ question }}",
            "What is q00? Box it.",
            "Think of q00.",
            "0.24 to 0.35 of 7: ",
            "<td>readme of deepseek-ai/DeepSeek-R1</td>",
        ):
            assert text in page, text
        (chart,) = re.findall(r'<figure id="figure-accuracy-tokens">.*?</figure>', page, re.DOTALL)
        kinds = 2 + bool(same)
        assert chart.count('class="hollow"') == 6 + 2 + kinds
        assert page.count(f"<td>{UNATTRIBUTED}</td>") == 2
        assert page.count("<td>published, same protocol</td>") == same
        assert page.count("<td>published, other protocol</td>") == 6 - same
        differing = re.findall(r'<tr class="differs"><th scope="row">([^<]*)', page)
        assert differing == [one.key for one in own.settings if one.used != one.protocol]


def test_figures_of_no_stated_model_are_hollow_where_no_band_is(here: Cli, tmp_path: Path) -> None:
    """Once for runs of both models, and never for another model."""
    names = ("DeepSeek-R1-Distill-Qwen-1.5B", "DeepSeek-R1-Distill-Qwen-7B")
    runs = [write_evaluation(tmp_path / name, samples(), model=name) for name in names]
    for run, name in zip(runs, names, strict=True):
        own = replace(card(), benchmark="gsm8k", reproduction=None, model=name)
        write_json(run / PROTOCOL, json_of(own))
    page = reported(here, tmp_path, *runs)
    (chart,) = re.findall(r'<figure id="figure-accuracy-tokens">.*?</figure>', page, re.DOTALL)
    assert chart.count(f"<title>{UNATTRIBUTED}: VPG-EA: 0.") == 2
    for value in ("0.920", "0.892"):
        assert f"<td>{value}</td><td>one of {', '.join(names)}</td><td>{UNATTRIBUTED}</td>" in page
    assert "is no verdict" in page
    write_json(runs[0] / PROTOCOL, json_of(replace(card(), benchmark="gsm8k", reproduction=None)))
    assert "VPG-EA" not in reported(here, tmp_path, runs[0])


def test_what_other_graders_say_is_shown(here: Cli, tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "eval", samples())
    said = {"as stored": "wrong", "last box, as a string": "correct"}
    share = Estimate(value=0.25, low=None, high=None, n=80)
    regraded = Regraded(
        source="elsewhere",
        accuracy=dict.fromkeys(said, share),
        not_graded=dict.fromkeys(said, 0),
        disagreements=[Disagreement("q03", 1, said)] * 60,
    )
    write_json(folder / RESULTS, {**read_json(folder / RESULTS), "regraded": json_of(regraded)})
    page = reported(here, tmp_path, folder)
    assert "samples on which they differ, 50 of 60" in page
    assert '<th scope="row">q03</th><td>1</td><td>wrong</td><td>correct</td>' in page


def test_choices_are_counted_by_letter(here: Cli, tmp_path: Path) -> None:
    given = [replace(one, answer="B") for one in samples()]
    folder = write_evaluation(tmp_path / "eval", given, grading__grader="choice")
    page = reported(here, tmp_path, folder)
    assert "accuracy where it is right" in page
    assert '<th scope="row">B</th><td>0.0%</td><td>100.0%</td><td>-</td>' in page


def test_a_loop_shows_its_rounds_its_log_ratios_and_where_the_time_went(here: Cli, tmp_path: Path, loop: Path) -> None:
    page = reported(here, tmp_path, loop)
    for text in ("posterior paths: accepted, and why not", "where the time went", "engine against trainer", "ESS / K"):
        assert text in page, text
    assert "a prompt as the model saw it" in page
    _, details = traces_of(page)
    posterior = [trace for one in details for trace in one["t"] if trace["col"] == 1]
    measured = [trace for trace in posterior if trace["r"]]
    assert measured
    for trace in measured:
        assert len(trace["r"]) == trace["z"] <= len(trace["p"]) == trace["tokens"]
    assert any(trace["reasons"] for trace in posterior)
    place = re.findall(r'data-file="([^"]*)" data-name="rounds.csv"', page)[0]
    (packed,) = re.findall(rf'<script type="text/plain" id="{place}">([^<]*)</script>', page)
    rows = list(csv.DictReader(io.StringIO(gzip.decompress(base64.b64decode(packed)).decode())))
    assert [row["round"] for row in rows] == ["", "0", "1"]


def test_a_loop_without_an_evaluation_shows_its_rounds(here: Cli, tmp_path: Path, loop: Path) -> None:
    run = shutil.copytree(loop, tmp_path / "run")
    shutil.rmtree(run / "base")
    page = reported(here, tmp_path, run)
    assert "has no finished evaluation of its base model" in page
    assert "where the time went" in page


def test_three_hundred_rounds_are_shown(here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulated_run, "PARTS", 1)
    monkeypatch.setattr(files, "fsync", lambda path: None)
    run = tmp_path / "run"
    simulated_run.begin_run(run, 300)
    simulated_run.write_round(run, 0, 1)
    for index in range(1, 300):
        shutil.copytree(round_dir(run, 0), round_dir(run, index), copy_function=os.link)
        round_record(run, index).unlink()
        write_json(round_record(run, index), simulated_run.round_line(index, e3=1 + index / 1000).as_json())
    page = reported(here, tmp_path, run)
    assert '<th scope="row">299</th>' in page
    groups = traces_of(page)[0]["groups"]
    assert [name for name in groups if name.endswith((" round 0", " round 299"))] == [groups[1], groups[-1]]


def test_formats_and_plots_hold_the_same_figures(here: Cli, tmp_path: Path, pair: tuple[Path, Path]) -> None:
    compared = json.loads(here("compare", *pair, "--json").stdout)
    found = json.loads(here("report", *pair, "--format", "json").stdout)
    assert found["comparison"]["sets"][0]["runs"] == compared["sets"][0]["runs"]
    for form in ("csv", "latex"):
        assert here("report", *pair, "--format", form).stdout == here("compare", *pair, "--format", form).stdout
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(tmp_path / "there")
    os.mkfifo(pipe)
    waiting = os.open(pipe, os.O_RDWR)
    for out in (link, pipe):
        assert here("report", *pair, "--format", "csv", "-o", out).returncode == 0
    assert (link.is_symlink(), pipe.is_fifo()) == (True, True)
    assert os.read(waiting, 1 << 20) == (tmp_path / "there").read_bytes() != b""
    os.close(waiting)
    done = here("report", *pair, "--plots", tmp_path / "plots", "--json")
    written = json.loads(done.stdout)["plots"]
    assert tmp_path / "plots" / "accuracy-tokens.svg" in map(Path, written)
    for path in map(Path, written):
        assert path.stat().st_size > 0


def test_what_cannot_be_reported_is_refused_in_words(here: Cli, tmp_path: Path, loop: Path) -> None:
    out = tmp_path / "report.html"
    begun = tmp_path / "begun"
    simulated_run.begin_run(begun, 1)
    shutil.rmtree(begun / "base")
    (begun / "base").mkdir()
    for arguments, said in (
        ((loop / "round-000" / "rollout", "-o", out), "is a rollout folder"),
        ((tmp_path / "nothing", "-o", out), "not found"),
        ((loop,), "--output is missing"),
        ((loop, "--format", "pdf"), "no such format"),
        ((loop, "--format", "htlm"), "did you mean html?"),
        ((loop, "-o", tmp_path), f"cannot write {tmp_path}\nwhy:   Is a directory\n"),
        ((loop, "--plots", loop / "config.yaml"), f"cannot write {loop / 'config.yaml'}\n"),
        ((begun, "-o", out), "nothing was measured yet"),
    ):
        done = here("report", *arguments)
        assert done.returncode == 2, arguments
        assert said in done.stderr
    assert not out.exists()
