"""Outside rivals swept beside a small experiment: trained, chosen, tested, compared, and not made twice."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.peers import rival_sweep
from tests.support import overthinker
from vpgea_cli.main import run

pytestmark = pytest.mark.trl

GRID: dict[str, Any] = {
    "config": str(overthinker.ROOT / "overthinker.yaml"),
    "keys": {
        "rollout.prior_samples": 2,
        "rollout.posterior_samples": 2,
        "loop.questions_per_round": 6,
        "loop.eval_limit": 6,
        "distill.questions_per_step": 6,
        "eval.bootstrap": 100,
        "grading.workers": 1,
        "filter.note_dependence.enabled": False,
    },
    "objectives": {"method": {"objective": None}, "free": {"objective": None, "filter.utility.length_price": 0.0}},
    "prices": [0.1],
    "seeds": [0],
    "sampled_tokens": 1,
    "test": {"dataset": str(overthinker.ROOT / "questions/test.jsonl"), "limit": 6},
    "tests": {"fewer": {"dataset": str(overthinker.ROOT / "questions/test.jsonl"), "limit": 4}},
}
SWEEPS = ["--sweep", "grpo-all", "0.1", "1", "--sweep", "sdft", "1e-4"]
PRICES = {price: f"trl-grpo-all_length-price-{price}_seed-0" for price in ("0.1", "1")}
SDFT = "trl-sdft_learning-rate-0.0001_seed-0"


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The file and the folder of a finished one."""
    folder = tmp_path_factory.mktemp("experiment")
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(GRID, sort_keys=False))
    assert run(["experiment", str(file), "-o", str(folder / "out"), "--offline", "-q"]) == 0
    return str(file), str(folder / "out")


@pytest.fixture(scope="module")
def swept(experiment: tuple[str, str]) -> Path:
    """Its folder with the rivals: two of the trainings were made as a shard of two, the rest with the comparison."""
    folder = Path(experiment[1])
    assert rival_sweep.main([*experiment, *SWEEPS, "--shard", "0/2"]) == 0
    assert {path.name for path in (folder / "rivals").iterdir()} == {PRICES["0.1"], SDFT}
    assert rival_sweep.main([*experiment, *SWEEPS]) == 0
    return folder


def of(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return found


def test_a_rival_has_the_cost_and_the_samples_of_the_reference(swept: Path) -> None:
    for price, name in PRICES.items():
        record = of(swept / "rivals" / name, "rival.json")
        asked = [record[key] for key in ("rival", "charge", "price", "budget", "steps")]
        assert asked == ["grpo", "all", float(price), 1, 1]
        assert record["settings"]["num_generations"] == 4
    settings = of(swept / "rivals" / SDFT, "rival.json")["settings"]
    assert (settings["learning_rate"], settings["seed"]) == (1e-4, 0)


def test_the_price_that_is_best_on_held_out_questions_is_tested_alone(swept: Path) -> None:
    e3 = {
        name: of(swept / "rivals" / name / "dev", "results.json")["metrics"]["e3"]["value"] for name in PRICES.values()
    }
    best = max(PRICES.values(), key=lambda name: e3[name])  # the first where they are as good
    for folder in (swept / "tests", swept / "tests" / "fewer"):
        assert {path.name for path in folder.iterdir() if path.name.startswith("trl-")} == {best, SDFT}
    base = swept / "runs" / "method_price-0.1_seed-0" / "base" / "eval"
    assert of(swept / "rivals" / best / "dev", "results.json")["baseline"] == str(base)


def test_the_page_has_the_rivals_among_the_objectives(swept: Path) -> None:
    page = (swept / "rivals" / "report.md").read_text(encoding="utf-8")
    sections = {part.splitlines()[0]: part.splitlines()[1:] for part in page.split("\n## ")}
    sdft = "trl-sdft (λ: learning rate)"
    for title in ("6 test questions", "fewer: 4 test questions"):
        names = [line.split(" | ")[0].removeprefix("| ") for line in sections[title] if line.startswith("| ")]
        figures, against = ["base", "method", "free", "trl-grpo-all", sdft], ["free", "trl-grpo-all", sdft]
        assert [name for name in names if name not in ("objective", "---")] == [*figures, *against]
    row = next(line for line in sections["6 test questions"] if line.startswith(f"| {sdft} |"))
    sampled = of(swept / "rivals" / SDFT, "rival.json")["sampled_tokens"]
    accuracy = of(swept / "tests" / SDFT, "results.json")["metrics"]["accuracy"]["value"]
    assert [cell.strip() for cell in row.split("|")[2:6]] == ["0.0001", "0", f"{sampled:,}", "-"]
    assert row.split("|")[6].strip().startswith(f"{accuracy:.3f}")
    prices = [line.split(" | ")[:2] for line in sections["rivals on the held-out questions"] if "| trl-" in line]
    assert prices == [["| trl-grpo-all", "0.1"], ["| trl-grpo-all", "1"], [f"| {sdft}", "0.0001"]]
    seeds = [line for line in sections["Each seed by itself against method"] if line.startswith("| trl-")]
    assert [line.split(" | ")[1] for line in seeds] == ["test", "test", "fewer", "fewer"]
    assert seeds[1].startswith(f"| {SDFT} | test | tokens ")


def test_a_second_call_makes_nothing_and_says_the_same(
    experiment: tuple[str, str], swept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("everything is there")

    monkeypatch.setattr(subprocess, "run", refuse)
    monkeypatch.setattr("vpgea.engines.lease.EngineLease.get", refuse)
    before = (swept / "rivals" / "report.md").read_bytes()
    assert rival_sweep.main([*experiment, *SWEEPS]) == 0
    assert (swept / "rivals" / "report.md").read_bytes() == before
    assert capsys.readouterr().out == before.decode()
    assert rival_sweep.main([*experiment, "--sweep", "sdft", "1e-4"]) == 0
    assert (swept / "rivals" / "report.md").read_bytes() == before  # a later sweep of one rival keeps the others


def test_a_training_that_was_moved_away_is_left_out(experiment: tuple[str, str], swept: Path, tmp_path: Path) -> None:
    page, kept = swept / "rivals" / "report.md", tmp_path / "kept"
    (swept / "rivals" / SDFT).rename(kept)
    try:
        assert rival_sweep.main([*experiment, *SWEEPS[:4]]) == 0
        assert "trl-sdft" not in page.read_text(encoding="utf-8")
    finally:
        kept.rename(swept / "rivals" / SDFT)
    assert rival_sweep.main([*experiment, *SWEEPS]) == 0
    assert "trl-sdft" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("there is no rival gpro", ["--sweep", "gpro", "1"]),
        ("did you mean grpo?", ["--sweep", "gpro", "1"]),
        ("the price of length is 1.5", ["--sweep", "grpo", "1.5"]),
        ("a value is no number", ["--sweep", "grpo", "much"]),
        ("has no values", ["--sweep", "sdft"]),
        ("length_price", ["--sweep", "grpo", "nan"]),
        ("seed-0 stands twice", ["--sweep", "grpo", "0.1", "0.10"]),
        ("has no seed 7", ["--sweep", "grpo", "0.1", "--seeds", "7"]),
    ],
)
def test_what_cannot_be_swept_is_refused_before_anything_is_trained(
    experiment: tuple[str, str], words: str, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert rival_sweep.main([*experiment, *options]) == 2
    assert words in capsys.readouterr().err
    assert not (Path(experiment[1]) / "rivals" / "trl-grpo_length-price-0.1_seed-0").exists()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"seeds": [1]}, "it has another run with seed 0"),
        ({"tests": {}}, "it has the test fewer"),
        ({"reference": "free"}, "its reference is another one"),
        ({"keys": {**GRID["keys"], "distill.questions_per_step": 3}}, "holds another rival"),
        ({"sampled_tokens": None}, "would sample without end"),
    ],
)
def test_another_experiment_is_refused(
    swept: Path, tmp_path: Path, changed: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "experiment.yaml"
    other.write_text(yaml.safe_dump({**GRID, **changed}, sort_keys=False))
    assert rival_sweep.main([str(other), str(swept), *SWEEPS]) == 2
    assert words in capsys.readouterr().err


def test_an_experiment_that_is_not_finished_is_refused(
    experiment: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rival_sweep.main([experiment[0], str(tmp_path), *SWEEPS]) == 2
    assert "it has no results.json" in capsys.readouterr().err
