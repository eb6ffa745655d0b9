"""A distillation that is stopped or killed and run again ends with the same bits as one that ran straight through."""

from __future__ import annotations

import hashlib
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support import tiny
from tests.support.forks import Forks
from tests.support.selection_rows import distill_config, sample_rows, write_selection
from vpgea.config.schema import RunConfig
from vpgea.errors import Stopped
from vpgea.phases.distill import distill
from vpgea.runs.stopping import StopRequest

STEPS = 6  # three questions, one a step, two epochs

# Started with the model's folder, the filter's, the output's, lora or full, and where to die.
KILLED = """
import os, signal, sys
from pathlib import Path
from tests.invariant.test_distill_resume import configuration
from vpgea.phases import distill as phase
from vpgea.training import checkpoint

model, source, output, train, place = sys.argv[1:]

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def after_the_fourth_line(line):
    if place == "between steps" and line["step"] == 3:
        die()

publish = checkpoint.publish_folder
checkpoint.publish_folder = lambda temporary, final: (
    die() if place == "in a checkpoint" and final.name == "step-000004" else publish(temporary, final)
)
phase.distill(configuration(Path(model), train, every=1), Path(source), Path(output), log=after_the_fourth_line)
"""


def configuration(model: Path, train: str, *, every: int = 0) -> RunConfig:
    """With everything that has a state: epochs, warm-up and decay, moments, the adapter's dropout, a round teacher."""
    return distill_config(
        model,
        distill__train=train,
        distill__kl_form="dense-cv",
        distill__lora__dropout=0.2,
        distill__epochs=2,
        distill__questions_per_step=1,
        distill__max_tokens_per_batch=48,
        distill__learning_rate=0.003,
        distill__schedule="cosine",
        distill__warmup_steps=2,
        distill__weight_decay=0.1,
        distill__checkpoint_every=every,
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def selection(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = configuration(model, "lora")
    return write_selection(tmp_path_factory.mktemp("data") / "filter", config, sample_rows(config))


def outcome(output: Path) -> tuple[dict[str, str], list[dict[str, Any]], dict[str, Any]]:
    """Checksums of what was published, the metrics without their times, the summary."""
    published = [path for name in ("adapter", "model") for path in (output / name).glob("*")]
    checksums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in published}
    checksums.pop("README.md", None)  # names the base model's folder
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["seconds"]
    return checksums, lines, json.loads((output / "summary.json").read_text())


@pytest.fixture(scope="module", params=["lora", "full"])
def straight(
    request: pytest.FixtureRequest, model: Path, selection: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Any]:
    """How to train, and what an undisturbed run of it gives."""
    output = tmp_path_factory.mktemp("straight") / "out"
    distill(configuration(model, request.param), selection, output)
    result = outcome(output)
    assert [line["step"] for line in result[1]] == list(range(STEPS))
    return request.param, result


def test_a_second_run_gives_the_same_bits(
    straight: tuple[str, Any], model: Path, selection: Path, tmp_path: Path
) -> None:
    train, expected = straight
    distill(configuration(model, train), selection, tmp_path / "out")
    assert outcome(tmp_path / "out") == expected


def test_stopped_after_every_step(straight: tuple[str, Any], model: Path, selection: Path, tmp_path: Path) -> None:
    train, expected = straight
    output = tmp_path / "out"
    for step in range(STEPS):
        stop = StopRequest()
        seen: list[int] = []

        def ask(line: dict[str, Any], stop: StopRequest = stop, seen: list[int] = seen) -> None:
            seen.append(line["step"])
            stop.request("SIGUSR1")

        with pytest.raises(Stopped) as stopped:
            distill(configuration(model, train), selection, output, stop=stop, log=ask)
        assert stopped.value.exit_code == 75
        assert seen == [step]
        assert len((output / "metrics.jsonl").read_text().splitlines()) == step + 1
    distill(configuration(model, train), selection, output)  # nothing is left but to publish
    assert outcome(output) == expected


def test_killed(straight: tuple[str, Any], model: Path, selection: Path, forks: Forks, tmp_path: Path) -> None:
    train, expected = straight
    place = "between steps" if train == "lora" else "in a checkpoint"
    output = tmp_path / "out"
    killed = forks.start([model, selection, output, train, place], tmp_path, "killed", script=KILLED)
    assert killed.wait(120) == -signal.SIGKILL, killed.err.read_text()
    assert len((output / "metrics.jsonl").read_text().splitlines()) == 4
    checkpoints = output / "parts" / "0-of-1" / "checkpoints"
    assert sorted(path.name for path in checkpoints.glob("step-*")) == ["step-000002", "step-000003"]
    assert bool(list(checkpoints.glob(".*.tmp"))) == (place == "in a checkpoint")
    scored = (checkpoints.parent / "old_logprobs.safetensors").stat().st_mtime_ns
    again: list[int] = []
    distill(configuration(model, train, every=1), selection, output, log=lambda line: again.append(line["step"]))
    assert again == [3, 4, 5]
    assert (checkpoints.parent / "old_logprobs.safetensors").stat().st_mtime_ns == scored
    assert outcome(output) == expected
