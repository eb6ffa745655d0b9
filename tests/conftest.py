"""Fixtures that every test may use: a tiny model, a few questions, and configurations that name them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.support import overthinker, rollouts, tiny
from tests.support.copies import graders_are_copies
from tests.support.forks import Forks
from vpgea.config.resolve import resolve
from vpgea.config.schema import RunConfig

TRAIN_STEPS = 100
settings.register_profile("no clock", deadline=None)  # a busy machine is no failure
settings.load_profile("no clock")


@pytest.fixture(scope="session", autouse=True)
def copied_graders() -> Iterator[None]:
    """Grading workers of pytest's own process: their start would take longer than most of what is tested."""
    with graders_are_copies():
        yield


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Processes of the command line that can be killed, and do not import everything anew."""
    with Forks() as original:
        yield original


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An R1-like model (its prompt opens `<think>`) that has learned to think, end, and sometimes be right.

    One for all processes of pytest: nothing changes it.
    """
    place = tmp_path_factory.getbasetemp()
    place = place.parent if "PYTEST_XDIST_WORKER" in os.environ else place
    folder, unfinished = place / "tiny-model", place / "tiny-model-unfinished"
    with (place / "tiny-model.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            tiny.make_model(unfinished, train_steps=TRAIN_STEPS).rename(folder)
    return folder


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rollout of eight testbed questions in four chunks; tests that change it copy it."""
    folder = tmp_path_factory.mktemp("drawn") / "rollout"
    rollouts.run(overthinker.config(), folder)
    return folder


@pytest.fixture(scope="session")
def tiny_questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The six questions of tests/tiny.py as a jsonl file."""
    return tiny.write_questions(tmp_path_factory.mktemp("tiny-questions") / "questions.jsonl")


@pytest.fixture(scope="session")
def run_config(tiny_model: Path, tiny_questions: Path) -> Callable[..., RunConfig]:
    """`run_config(rollout__seed=3)`: the tiny model and questions, few short samples, one thread; `__` for the dot."""

    def make(**dotted: Any) -> RunConfig:
        options: dict[str, Any] = {
            "model.path": str(tiny_model),
            "model.device": "cpu",
            "model.threads": 1,
            "data.dataset": str(tiny_questions),
            "views.max_prompt_tokens": 1024,
            "grading.workers": 1,
            "rollout.prior_samples": 4,
            "rollout.posterior_samples": 4,
            "rollout.max_new_tokens": 48,
            "rollout.questions_per_chunk": 2,
            "rollout.batch_size": 16,
        }
        options |= {key.replace("__", "."): value for key, value in dotted.items()}
        return resolve(options=options).config

    return make


@pytest.fixture(scope="session")
def tiny_rollout(run_config: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete rollout of `run_config()`; tests that change it copy it first."""
    folder = tmp_path_factory.mktemp("tiny-rollout") / "rollout"
    rollouts.run(run_config(), folder)
    return folder
