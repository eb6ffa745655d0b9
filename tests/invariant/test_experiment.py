"""A small slice of the testbed's experiment, whose full figures stand in docs/results/testbed.md."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples.detection.figures import figures
from examples.detection.rounds import read_round
from examples.overthinker.experiment import COLUMNS, CONFIGURATIONS, main, record
from examples.overthinker.other_questions import exempt_questions
from tests.support import overthinker, rollouts
from vpgea.config.resolve import resolve
from vpgea.phases.filter import filter_rollout

TESTED = 90


def test_one_round_of_the_experiment_gives_a_whole_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, count in {"dev": 20, "test": TESTED}.items():
        lines = (overthinker.ROOT / "questions" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (tmp_path / f"{name}.jsonl").write_text("".join(lines[:count]), encoding="utf-8")
    held_out = f"loop.eval_dataset={tmp_path / 'dev.jsonl'}"
    small = ("loop.rounds=1", "loop.questions_per_round=40", held_out, "eval.bootstrap=200")
    overrides = [word for value in small for word in ("--set", value)]
    main(["--output-dir", str(tmp_path), "--dial", "global", "--variant", "full", "--seeds", "1", *overrides])
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines()]
    assert [len(row) for row in rows] == [len(COLUMNS) + 2] * 3
    (result,) = (json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines())
    assert result["base"]["accuracy"]["n"] == result["test"]["accuracy"]["n"] == TESTED
    assert result["test"]["tokens"]["value"] < result["base"]["tokens"]["value"]
    assert result["sound_share"]["accepted"] > 0.9 > 0.8 > result["sound_share"]["correct"]


def test_a_run_that_is_made_again_has_one_result(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    results = [{"dial": "global", "variant": "full", "seed": seed, "test": seed} for seed in (0, 1)]
    for result in (*results, {**results[0], "test": 5}):
        record(file, result)
    assert [json.loads(line)["test"] for line in file.read_text().splitlines()] == [1, 5]


def test_unsound_paths_are_found_where_no_derivation_can_be_judged(tmp_path: Path) -> None:
    """Every question contains its answer: what is left is note dependence, judged against the ground truth."""
    config = resolve(
        file=CONFIGURATIONS["global"],
        sets=[*exempt_questions(1.0, tmp_path), "data.limit=64", "rollout.prior_samples=1", "filter.min_selected=1"],
    ).config
    rollouts.run(config, tmp_path / "round" / "rollout")
    filter_rollout(config, tmp_path / "round" / "rollout", tmp_path / "round" / "filter")
    of = read_round(tmp_path / "round")
    found = figures(of)
    taken, alone = found.whole.filter, found.checks["note_dependence"].alone
    assert found.right >= 200
    assert found.checks["derivation"].not_judged.value == 1
    assert found.whole.sound < 0.75 * found.right
    accepted = [path.kind.is_sound for path in of.posterior if not path.is_rejected]
    assert sum(accepted) >= 0.97 * len(accepted), taken
    assert alone.recall.value is not None
    assert alone.recall.value >= 0.95, alone
    assert alone.loss.value is not None
    assert alone.loss.value <= 0.01, alone
