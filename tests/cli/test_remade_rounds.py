"""A repair that trains again on another machine gets other bits: what came from the old ones goes with them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.loops import metrics, write_config
from vpgea.inspection.verify import verify
from vpgea.runs.layout import round_record
from vpgea_cli.main import run

ROUNDS = 2


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The configuration of a loop of two rounds, beside it what it made."""
    folder = tmp_path_factory.mktemp("remade")
    file = write_config(folder, tiny_model, loop__rounds=ROUNDS, distill__train="lora", distill__learning_rate=1e-2)
    assert run(["loop", "-c", str(file), "-o", str(folder / "run"), "-q"]) == 0
    return file


@pytest.fixture
def folder(finished: Path) -> Iterator[Path]:
    """A copy of the run, where it was made."""
    kept = finished.parent / "kept"
    shutil.copytree(finished.parent / "run", kept)
    yield finished.parent / "run"
    shutil.rmtree(finished.parent / "run")
    kept.rename(finished.parent / "run")


@pytest.fixture
def another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps come out at weights that differ in their last digits, so much that samples differ too."""
    step = torch.optim.AdamW.step

    def rounded(self: torch.optim.AdamW, *arguments: Any, **options: Any) -> Any:
        done = step(self, *arguments, **options)
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.mul_(1.02)
        return done

    monkeypatch.setattr(torch.optim.AdamW, "step", rounded)


def assert_it_goes_on(config: Path, folder: Path) -> None:
    """It is whole, its lines are its own, and it takes another round."""
    assert [(str(one.path), one.problem) for one in verify(folder).findings] == []
    assert metrics(folder) == [json.loads(round_record(folder, index).read_text()) for index in (None, *range(ROUNDS))]
    assert run(["loop", "-c", str(config), "-o", str(folder), "--rounds", str(ROUNDS + 1), "-q"]) == 0
    assert len(metrics(folder)) == ROUNDS + 2


@pytest.mark.parametrize("lost", ["distill/adapter", "distill", "filter/summary.json", "eval/results.json"])
def test_one_repair_makes_a_run_of_one_piece(
    lost: str, another_machine: None, finished: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = folder / "round-000" / lost
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    assert run(["doctor", str(folder), "--repair"]) == 0, capsys.readouterr().err
    assert_it_goes_on(finished, folder)


def test_what_came_from_the_old_bits_is_set_aside_and_not_lost(
    another_machine: None, finished: Path, folder: Path
) -> None:
    before = {index: round_record(folder, index).read_bytes() for index in range(ROUNDS)}
    shutil.rmtree(folder / "round-000" / "distill" / "adapter")
    assert run(["doctor", str(folder), "--repair", "--quiet"]) == 0
    for index in range(ROUNDS):
        assert round_record(folder / "damaged", index).read_bytes() == before[index]
    assert (folder / "damaged" / "round-001" / "rollout" / "COMPLETE").is_file()
    assert not (folder / "damaged" / "round-000" / "rollout").exists()  # which the training did not make


def test_a_phase_that_was_begun_from_the_old_bits_is_begun_anew(
    another_machine: None, finished: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = folder / "round-001"
    for name in ("filter", "distill", "eval"):
        shutil.rmtree(last / name)
    for name in ("round.json", "rollout/COMPLETE", "rollout/parts/0-of-1/COMPLETE"):
        (last / name).unlink()
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:ROUNDS]))
    shutil.rmtree(folder / "round-000" / "distill" / "adapter")
    assert run(["doctor", str(folder), "--repair"]) == 0, capsys.readouterr().err
    assert not (last / "rollout").exists()
    assert run(["loop", "-c", str(finished), "-o", str(folder), "-q"]) == 0
    assert_it_goes_on(finished, folder)


def test_a_repair_that_was_stopped_half_way_is_finished(
    another_machine: None, finished: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vpgea.phases import round as of_round

    shutil.rmtree(folder / "round-000" / "distill" / "adapter")
    with monkeypatch.context() as patch:
        patch.setattr(of_round, "evaluate", _stopped)
        assert run(["doctor", str(folder), "--repair", "--quiet"]) == 130
    steps = folder / "round-000" / "distill" / "metrics.jsonl"
    trained = steps.read_bytes()
    assert run(["doctor", str(folder), "--repair", "--quiet"]) == 0
    assert steps.read_bytes() == trained, "it was trained once"
    assert_it_goes_on(finished, folder)


def _stopped(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt
