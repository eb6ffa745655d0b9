"""A loop that measures only some of its rounds: which, what follows from them, how it is continued and mended."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from benchmarks.simulated_run import round_line
from tests.support.loops import essence, metrics, write_config
from vpgea.config.resolve import load, resolve
from vpgea.errors import DamagedError
from vpgea.phases.schedule import best_round, ended_early, length_price
from vpgea.runs.history import phases_of, planned_evaluations, possible_phases
from vpgea.runs.layout import PHASES, Step, all_steps, round_record
from vpgea.runs.manifest import Manifest
from vpgea.runs.records import RoundLine
from vpgea.storage.files import read_json, write_json
from vpgea_cli.main import run

LORA = ("--set", "distill.train=lora", "--questions-per-round", "2", "--quiet")
NOT_MEASURED = RoundLine(
    round=0,
    seconds=None,
    **dict.fromkeys(
        f"{name}{bound}" for name in ("accuracy", "tokens", "truncated", "e3") for bound in ("", "_low", "_high")
    ),
)


def loop(config: Path, run_dir: Path, rounds: int, *options: str, every: int = 2) -> int:
    words = ["--rounds", str(rounds), "--eval-every", str(every), *options]
    return run(["loop", "-c", str(config), "-o", str(run_dir), *LORA, *words])


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    return write_config(tmp_path_factory.mktemp("loop"), tiny_model)


@pytest.fixture(scope="module")
def finished(config: Path) -> Path:
    """Three rounds, of which the second is measured in its turn and the third as the last; do not change it."""
    folder = config.parent / "finished"
    assert loop(config, folder, 3) == 0
    return folder


@pytest.fixture
def copy_of(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def without_evaluation(run_dir: Path) -> dict[str, object]:
    """What was sampled and learned."""
    return {
        path: content
        for path, content in essence(run_dir).items()
        if path.endswith((".arrow", ".safetensors")) and "/eval/" not in path
    }


def test_rounds_between_have_a_line_without_held_out_figures(finished: Path) -> None:
    lines = metrics(finished)
    assert [line["accuracy"] is not None for line in lines] == [True, False, True, True]
    assert [(finished / str(Step(index, "eval"))).exists() for index in range(3)] == [False, True, True]
    assert lines[1]["e3"] is lines[1]["accuracy_gain_low"] is None
    assert lines[1]["trained_tokens"] > 0
    assert lines[1]["times"].keys() == {"rollout", "filter", "distill"}
    assert RoundLine.read(round_record(finished, 0)).as_json() == lines[1]
    assert best_round(finished, load(finished / "config.yaml")) in (1, 2, None)


def test_a_finished_run_is_whole_and_shown(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", str(finished), "--quiet"]) == 0
    capsys.readouterr()
    assert run(["inspect", str(finished)]) == 0
    rows = capsys.readouterr().out.split("round  accuracy")[1].splitlines()
    assert [row.split()[1] == "-" for row in rows[1:5]] == [False, True, False, False]
    assert run(["compare", f"{finished}@base", f"{finished}@0"]) == 2
    told = capsys.readouterr().err
    assert f"round 0 of {finished} was not measured" in told
    assert "name one that was (1, 2)" in told


def test_steps_are_the_loop_of_one_process(
    config: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "steps"
    shutil.copytree(finished / "parts", folder / "parts")
    settings = str(shutil.copy(finished / "config.yaml", folder))
    phases = partial(phases_of, folder, config=load(folder / "config.yaml").loop)
    for step in [*all_steps(3, phases), Step(0, "eval")]:
        assert run(["loop", "-c", settings, "-o", str(folder), "--step", str(step), "--quiet"]) == 0
    assert essence(folder) == essence(finished)
    assert "round-000/eval is not needed: loop.eval_every is 2" in capsys.readouterr().err


def test_a_run_that_is_made_longer_learns_what_it_would_have_learned(
    config: Path, finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "longer"
    assert loop(config, folder, 1) == 0
    assert metrics(folder)[1]["accuracy"] is not None, "the last round"
    assert loop(config, folder, 3) == 0
    assert [line["accuracy"] is not None for line in metrics(folder)] == [True, True, True, True]
    assert without_evaluation(folder) == without_evaluation(finished)
    assert run(["doctor", str(folder), "--quiet"]) == 0


def test_the_round_that_uses_up_what_may_be_sampled_is_measured_as_the_last(
    config: Path, finished: Path, tmp_path: Path
) -> None:
    folder, sampled = tmp_path / "bound", metrics(finished)[1]["sampled_tokens"]
    assert loop(config, folder, 3, "--set", f"loop.max_sampled_tokens={sampled}") == 0
    assert [line["accuracy"] is not None for line in metrics(folder)] == [True, True]
    theirs = without_evaluation(finished)
    assert without_evaluation(folder) == {path: theirs[path] for path in theirs if "round-000" in path}
    assert run(["doctor", str(folder), "--quiet"]) == 0
    bounded = resolve(options={"loop.eval_every": 9, "loop.max_sampled_tokens": sampled + 1}).config.loop
    assert phases_of(folder, 1, bounded) == PHASES[:-1]
    assert possible_phases(folder, 1, bounded) == PHASES, "a chain of jobs is queued before that is known"
    round_record(folder, 0).unlink()
    shutil.rmtree(folder / str(Step(0, "eval")))
    assert [
        phases_of(folder, 0, bounded.model_copy(update={"max_sampled_tokens": sampled + more})) for more in (0, 1)
    ] == [
        PHASES,
        PHASES[:-1],
    ]


def test_another_interval_is_refused_by_name(config: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert loop(config, finished, 3, every=3) == 2
    assert "loop.eval_every was 2 and is now 3" in capsys.readouterr().err


@pytest.mark.parametrize("lost", ["round-001/eval", "round-000/round.json", "round-000/distill/parts/0-of-1/COMPLETE"])
def test_what_is_lost_is_made_again_and_no_evaluation_besides(
    lost: str, finished: Path, copy_of: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = copy_of / lost
    shutil.rmtree(victim) if victim.is_dir() else victim.unlink()
    assert run(["doctor", str(copy_of), "--quiet"]) == 2
    assert run(["doctor", str(copy_of), "--repair", "--quiet"]) == 0, capsys.readouterr().err
    shutil.rmtree(copy_of / "damaged", ignore_errors=True)
    ours, theirs = essence(copy_of), essence(finished)
    assert ours.keys() == theirs.keys()
    names = (".arrow", ".safetensors", "round.json", "metrics.jsonl")
    assert [path for path in ours if path.endswith(names) and ours[path] != theirs[path]] == []


def test_a_line_that_has_lost_its_figures_is_found(copy_of: Path) -> None:
    record = round_record(copy_of, 1)
    line = read_json(record)
    write_json(
        record, {name: None if name in vars(NOT_MEASURED) and name.startswith("acc") else line[name] for name in line}
    )
    with pytest.raises(DamagedError, match="lacks others"):
        RoundLine.read(record)
    held_out = ("accuracy", "tokens", "truncated", "e3")
    write_json(record, {name: None if name.startswith(held_out) else value for name, value in line.items()})
    assert run(["doctor", str(copy_of), "--quiet"]) == 2


def test_what_follows_is_decided_by_measured_rounds() -> None:
    options = {"loop.eval_every": 2, "loop.rounds": 3, "loop.token_target": 50.0, "loop.max_accuracy_drop": 0.1}
    config = resolve(options=options).config
    base, unknown = round_line(None, accuracy=0.9, tokens=90.0), NOT_MEASURED
    assert length_price(config, [base, unknown]) == 0.1
    in_turn = round_line(1, accuracy=0.9, tokens=40.0)
    assert length_price(config, [base, unknown, in_turn]) == 0
    assert length_price(config, [base, unknown, in_turn, replace(unknown, round=2)]) == 0
    once_last = round_line(2, accuracy=0.9, tokens=90.0)
    assert length_price(config, [base, unknown, in_turn, once_last]) == 0, "of a run that was made longer"
    worse = round_line(1, accuracy=0.7, tokens=40.0)
    assert ended_early(config, [base, unknown]) is None
    assert "0.700" in str(ended_early(config, [base, unknown, worse, replace(unknown, round=2)]))
    assert planned_evaluations(config.loop) == [None, 1, 2]


def test_an_evaluation_that_was_begun_is_finished(config: Path, tmp_path: Path) -> None:
    loop_config = resolve(options={"loop.eval_every": 4, "loop.rounds": 8}).config.loop
    assert phases_of(tmp_path, 1, loop_config) == PHASES[:-1]
    (tmp_path / "round-001" / "eval" / "parts").mkdir(parents=True)
    assert phases_of(tmp_path, 1, loop_config) == PHASES
    assert json.dumps(phases_of(tmp_path, None, loop_config)) == '["eval"]'


def test_a_price_that_follows_its_target_is_the_same_in_a_run_that_went_on(config: Path, tmp_path: Path) -> None:
    follows = [f"--set=loop.{value}" for value in ("token_target=10", "price_step=0.5", "accuracy_margin=1")]
    for rounds in (1, 2):
        assert loop(config, tmp_path / "run", rounds, *follows, every=1) == 0
    _, first, second = metrics(tmp_path / "run")
    assert first["length_price"] == 0.1
    assert second["length_price"] == pytest.approx(0.1 * math.exp(0.5 * min(first["tokens"] / 10 - 1, 1)), rel=1e-12)
    assert second["length_price"] > first["length_price"]
    used = Manifest.read(tmp_path / "run" / "round-001" / "filter" / "manifest.json").identity
    assert used["filter.utility.length_price"] == second["length_price"]
