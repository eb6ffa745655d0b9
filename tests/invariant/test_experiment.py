"""A small slice of the testbed's experiment, whose full figures stand in docs/experiments.md."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples.overthinker.experiment import COLUMNS, main


def test_one_round_of_the_experiment_gives_a_whole_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("loop.rounds=1", "loop.questions_per_round=64", "loop.eval_limit=60", "eval.bootstrap=200")
    overrides = [word for value in small for word in ("--set", value)]
    main(["--output-dir", str(tmp_path), "--dial", "global", "--variant", "full", "--seeds", "1", *overrides])
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines()]
    assert [len(row) for row in rows] == [len(COLUMNS) + 2] * 3
    (result,) = (json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines())
    assert result["base"]["accuracy"]["n"] == result["test"]["accuracy"]["n"] == 600
    assert result["test"]["tokens"]["value"] < result["base"]["tokens"]["value"]
    assert result["sound_share"]["accepted"] > 0.9 > 0.8 > result["sound_share"]["correct"]
