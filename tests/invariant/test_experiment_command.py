"""`vpgea experiment` on the testbed: runs in shards and together, chosen prices, tests, and what is written."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import overthinker
from vpgea.storage.shards import read_table
from vpgea_cli.main import run

GRID: dict[str, Any] = {
    "config": str(overthinker.ROOT / "overthinker.yaml"),
    "keys": {
        "loop.questions_per_round": 6,
        "loop.eval_limit": 6,
        "distill.questions_per_step": 6,
        "eval.bootstrap": 100,
        "grading.workers": 1,
        "filter.note_dependence.enabled": False,
    },
    "objectives": {
        "method": {"objective": None},
        "free": {"objective": None, "filter.utility.length_price": 0.0, "views.note": "wrong"},  # the base is one
    },
    "prices": [0.1, 1.0],
    "seeds": [0],
    "sampled_tokens": 1,
    "test": {"dataset": str(overthinker.ROOT / "questions/test.jsonl"), "limit": 6, "samples": 2},
    "tests": {"other": {"dataset": "other.jsonl"}},
}
RUNS = {"method_price-0.1_seed-0", "method_price-1_seed-0", "free_seed-0"}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("experiment")
    lines = (overthinker.ROOT / "questions/test.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "other.jsonl").write_text("".join(lines[6:12]), encoding="utf-8")
    (folder / "experiment.yaml").write_text(yaml.safe_dump(GRID, sort_keys=False))
    return folder / "experiment.yaml"


@pytest.fixture(scope="module")
def done(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of its runs were made as a shard of two, the rest with the comparison."""
    folder = tmp_path_factory.mktemp("done") / "out"
    assert run(["experiment", str(file), "-o", str(folder), "--shard", "0/2", "--offline", "-q"]) == 0
    assert {path.name for path in (folder / "runs").iterdir()} == {"method_price-0.1_seed-0", "free_seed-0"}
    assert not (folder / "results.json").exists()
    assert run(["experiment", str(file), "-o", str(folder), "--offline", "-q"]) == 0
    return folder


def test_every_run_is_made_and_ends_at_its_bound(done: Path) -> None:
    assert {path.name for path in (done / "runs").iterdir()} == RUNS
    for name in RUNS:
        assert [path.name for path in (done / "runs" / name).glob("round-*")] == ["round-000"]  # of two rounds


def test_the_chosen_runs_alone_are_tested_each_against_the_base(done: Path) -> None:
    for folder, others in ((done / "tests", {"other"}), (done / "tests" / "other", set())):
        tested = {path.name for path in folder.iterdir()} - others
        assert "base_seed-0" in tested
        assert "free_seed-0_round-000" in tested
        assert len(tested) == 3


def test_results_say_what_was_found(done: Path) -> None:
    setting, other = json.loads((done / "results.json").read_text())["settings"]
    assert (setting["test"], other["test"]) == ("", "other")
    assert setting["questions"] == other["questions"] == 6
    method, free = setting["objectives"]
    assert (method["objective"], free["objective"]) == ("method", "free")
    assert method["price"] in (0.1, 1.0)
    assert free["price"] is None
    assert method["against"] is None  # the reference
    assert free["against"]["verdict"]
    assert method["metrics"]["accuracy"]["n"] == 12
    assert [one["metrics"]["accuracy"]["n"] for one in other["objectives"]] == [6, 6]
    assert all(one["gain_verdict"] for each in (setting, other) for one in each["objectives"])
    page = (done / "report.md").read_text(encoding="utf-8")
    assert "Against method:" in page
    assert page.count("are said of other questions, by these same seeds") == 3  # beside each table that says anything
    assert "## other: 6 test questions" in page
    assert "## kept and forgotten" in page
    assert "| free |" in page


def test_the_table_has_a_row_for_each_round_with_its_cost(done: Path) -> None:
    rows = read_table(done / "rounds.arrow").to_pylist()
    assert {row["run"] for row in rows} == RUNS
    assert {row["round"] for row in rows} == {None, 0}
    for row in rows:
        line = json.loads((done / "runs" / row["run"] / "round-000" / "round.json").read_text())
        assert row["sampled_tokens"] == (line["sampled_tokens"] if row["round"] == 0 else 0)
        assert row["trained_tokens"] == (line["trained_tokens"] if row["round"] == 0 else 0)
    assert {row["run"] for row in rows if row["is_chosen"]} >= {"free_seed-0"}
    assert len({row["run"] for row in rows if row["is_chosen"]}) == 2
    for row in rows:
        told = json.loads((done / "runs" / row["run"] / "round-000/filter/summary.json").read_text())["counts"]
        assert all(row[name] == (count if row["round"] == 0 else None) for name, count in told.items())
        if row["round"] == 0:
            assert row["k"] == 4
            assert row["mean_at_k"] == told["prior_correct"] / told["prior_sampled"]
            assert row["mean_at_k"] <= row["pass_at_k"] <= 1
            assert row["entropy"] > 0
            assert 0 < row["ess_share"] <= 1


def test_the_page_shows_its_pictures_and_what_became_of_each_run(done: Path) -> None:
    page = (done / "report.md").read_text(encoding="utf-8")
    linked = re.findall(r"!\[.*?\]\((.*?)\)", page)
    costs = ("sampled-tokens", "trained-tokens", "seconds")
    names = [f"{worth}-{cost}" for cost in costs for worth in ("accuracy", "tokens")]
    assert linked == [f"pictures/{name}.svg" for name in (*names, "prices")]
    assert {f"pictures/{path.name}" for path in (done / "pictures").iterdir()} == set(linked)
    for name in linked:
        ET.fromstring((done / name).read_bytes())
    record = json.loads((done / "results.json").read_text())
    for one in record["training"]:  # one round is the best and the last
        assert (one["verdict"] == "rising") == (one["last_e3"] > 1)
        assert (one["rounds"], one["last_round"]) == (1, 0)
    assert [len(one["mean"]) for one in record["learning"]] == [2, 2]
    (sweep,) = record["prices"]
    assert [one["price"] for one in sweep["prices"]] == [0.1, 1.0, None]
    assert sum(one["is_chosen"] for one in sweep["prices"]) == 2


def test_a_second_call_samples_nothing_and_writes_the_same(
    file: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(done, copy)
    names = ["report.md", "results.json", "rounds.arrow", "pictures/prices.svg", "pictures/accuracy-seconds.svg"]
    before = {name: (copy / name).read_bytes() for name in names}
    gone, other = (copy / "pictures" / name for name in ("an-old-setting-prices.svg", "mine.svg"))
    gone.touch()
    other.touch()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("everything is there")

    monkeypatch.setattr("vpgea.engines.lease.EngineLease.get", refuse)
    assert run(["experiment", str(file), "-o", str(copy), "--offline", "-q"]) == 0
    assert {name: (copy / name).read_bytes() for name in names} == before
    assert (gone.exists(), other.exists()) == (False, True)  # a picture of a setting that is no more


def test_a_dry_run_says_what_would_run_and_touches_nothing(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["experiment", str(file), "--dry-run", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert set(said["runs"]) == RUNS
    assert said["sampled_tokens"] == 3
    tests = {one["test"]: (one["questions"], one["samples"], one["evaluations"]) for one in said["tests"]}
    assert tests == {"": (6, 2, 3), "other": (6, 1, 3)}  # two objectives at one price each, and the base
    assert [one["tokens_at_most"] for one in said["tests"]] == [6 * 2 * 3 * 192, 6 * 3 * 192]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_runs_is_refused(file: Path, done: Path, tmp_path: Path) -> None:
    other = file.with_name("other.yaml")
    other.write_text(yaml.safe_dump({**GRID, "keys": {**GRID["keys"], "rollout.temperature": 0.5}}, sort_keys=False))
    copy = tmp_path / "copy"
    shutil.copytree(done, copy)
    assert run(["experiment", str(other), "-o", str(copy), "--offline", "-q"]) == 2


def test_other_test_questions_need_another_folder(
    file: Path, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fewer = file.with_name("fewer.yaml")
    fewer.write_text(yaml.safe_dump({**GRID, "test": {**GRID["test"], "limit": 5}}, sort_keys=False))
    shutil.copytree(done, tmp_path / "copy")
    assert run(["experiment", str(fewer), "-o", str(tmp_path / "copy"), "--offline", "-q"]) == 2
    assert "base_seed-0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"test": {"dataset": "none.jsonl"}}, "none.jsonl"),
        (
            {"test": {"dataset": str(overthinker.ROOT / "questions/dev.jsonl")}},
            "test questions are also among those of",
        ),
        (
            {"tests": {"seen": {"dataset": str(overthinker.ROOT / "questions/dev.jsonl")}}},
            "test questions of seen are also among those of",
        ),
        ({"settings": {"a": {"model.path": "no/such"}}}, "no/such"),
        ({"keys": {"eval.max_new_tokens": 5000}}, "context"),
        (
            {
                "keys": {"views.template": str(overthinker.ROOT.with_name("overthinker_families") / "template.yaml")},
                "objectives": {"a": {"objective": None}, "b": {"objective": None, "views.note": "concise"}},
            },
            "no note without",
        ),
        (
            {"objectives": {"a": {"objective": None}, "b": {"objective": None, "eval.max_new_tokens": 30}}},
            "would be tested with another eval.max_new_tokens",
        ),
    ],
)
def test_what_the_end_would_refuse_is_refused_at_the_start(
    file: Path, tmp_path: Path, changed: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = file.with_name("wrong.yaml")
    wrong.write_text(yaml.safe_dump({**GRID, **changed}, sort_keys=False))
    assert run(["experiment", str(wrong), "-o", str(tmp_path / "out"), "--offline"]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_without_a_finished_round_is_said_and_counts_as_the_base(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """To leave it out would compare the seeds that went well alone."""
    strict = file.with_name("strict.yaml")
    keys = {**GRID["keys"], "filter.min_selected": 1000}
    strict.write_text(
        yaml.safe_dump(
            {**GRID, "keys": keys, "prices": [], "tests": {}, "objectives": {"free": {"objective": None}}},
            sort_keys=False,
        )
    )
    assert run(["experiment", str(strict), "-o", str(tmp_path / "out"), "--offline"]) == 0
    said = capsys.readouterr()
    assert "free_seed-0 ends after 0 rounds" in said.err
    record = json.loads((tmp_path / "out/results.json").read_text())
    assert list(record["ended"]) == ["free_seed-0"]
    (setting,) = record["settings"]
    (free,) = setting["objectives"]
    assert setting["without_round"] == ["free_seed-0"]
    assert (free["rounds"], free["sampled_tokens"], free["e3_of_seeds"]) == (0, 0, [1.0])
    assert free["metrics"]["accuracy_gain"]["value"] == free["metrics"]["token_saving"]["value"] == 0
    assert "Without a finished round" in (tmp_path / "out/report.md").read_text()
