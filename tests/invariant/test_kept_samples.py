"""Finished samples are kept: a stop or a kill in mid-chunk loses none of them, in every phase that samples."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from tests.support.recording import Recording
from vpgea.config.schema import RunConfig
from vpgea.engines.base import GenerateRequest, Sampling
from vpgea.engines.lease import EngineLease
from vpgea.engines.transformers import TransformersEngine
from vpgea.errors import Stopped
from vpgea.grading.pool import GraderPool
from vpgea.grading.samples import grader_pool
from vpgea.modeling.load import load_model
from vpgea.modeling.local_model import LocalModel
from vpgea.phases.evaluate import evaluate
from vpgea.phases.filter import filter_rollout
from vpgea.phases.rollout import RolloutPlan, rollout
from vpgea.questions.load import load_questions
from vpgea.runs import journals
from vpgea.runs.progress import NullProgress
from vpgea.runs.stopping import StopRequest
from vpgea.storage.journal import read_journal

TOGETHER = 4
Config = Callable[..., RunConfig]


class Counts(NullProgress):
    """Asks for a stop after so many sampled tokens; counts what is said of the progress."""

    def __init__(self, stop: StopRequest | None = None, tokens: int = 0) -> None:
        self.stop, self.left, self.calls = stop, tokens, list[int]()

    def advance(self, steps: int, tokens: int = 0) -> None:
        self.calls.append(steps)
        self.left -= tokens
        if self.stop is not None and self.left <= 0 and tokens:
            self.stop.request("a test")


@dataclass
class Lent:
    """A lease with one engine that is open already, and graders."""

    engine: Recording
    pool: GraderPool

    def get(self, config: RunConfig, model: LocalModel) -> Recording:
        return self.engine

    def graders(self, config: RunConfig) -> GraderPool:
        return self.pool


@dataclass
class Phase:
    """One phase with an engine whose requests are counted."""

    name: str
    config: RunConfig
    source: Path
    model: TransformersEngine
    graders: GraderPool
    asked: list[int] = field(default_factory=list)
    tokens: int = 0

    def run(self, folder: Path, progress: Counts | None = None) -> StopRequest:
        engine, stop = Recording(self.model), progress.stop if progress and progress.stop else StopRequest()
        lease, progress = cast(EngineLease, Lent(engine, self.graders)), progress or Counts()
        questions = load_questions(self.config.data).questions
        try:
            if self.name == "rollout":
                rollout(RolloutPlan.make(self.config, questions), folder, lease=lease, stop=stop, progress=progress)
            elif self.name == "eval":
                evaluate(self.config, questions, folder, lease=lease, stop=stop, progress=progress)
            else:
                filter_rollout(self.config, self.source, folder, lease=lease, stop=stop, progress=progress)
        finally:
            self.asked = [drawn.request.seed for drawn in engine.drawn]
            self.tokens = sum(len(drawn.completion.ids) for drawn in engine.drawn)
        return stop


@pytest.fixture(scope="module")
def model(run_config: Config) -> TransformersEngine:
    return TransformersEngine(load_model(LocalModel.resolve(run_config().model)), batch_size=TOGETHER)


@pytest.fixture(scope="module")
def graders(run_config: Config) -> Iterator[GraderPool]:
    """One worker for all runs: its start takes longer than they do."""
    with grader_pool(run_config(grading__workers=1)) as pool:
        yield pool


@pytest.fixture(params=["rollout", "eval", "filter"])
def phase(
    request: pytest.FixtureRequest,
    run_config: Config,
    model: TransformersEngine,
    graders: GraderPool,
    tiny_rollout: Path,
) -> Phase:
    """One chunk of two questions; the filter measures three chunks."""
    config = run_config(
        data__limit=2,
        rollout__batch_size=TOGETHER,
        eval__samples=8,
        eval__max_new_tokens=48,
        eval__bootstrap=100,
        filter__min_selected=0,
        filter__answerability__samples=4,
        filter__answerability__max_new_tokens=16,
    )
    return Phase(request.param, config, tiny_rollout, model, graders)


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("parts/*/*.arrow")}


def kept(folder: Path) -> int:
    return sum(len(read_journal(path).rows) for path in folder.glob("parts/*/*.journal"))


def test_a_stop_in_mid_chunk_keeps_every_finished_sample(phase: Phase, tmp_path: Path) -> None:
    """What is asked for again is the missing ones, and those beside them whose bits depend on them."""
    phase.run(tmp_path / "straight")
    all_seeds, expected = phase.asked, shards(tmp_path / "straight")
    assert len(set(all_seeds)) == len(all_seeds) > 3 * TOGETHER
    again, finished = tmp_path / "again", set[int]()
    whole = phase.tokens
    for share in (0.1, 0.4) if phase.name == "filter" else (0.4, 0.4):
        stop = StopRequest()
        with pytest.raises(Stopped) as stopped:
            phase.run(again, Counts(stop, int(share * whole)))
        new, counted = set(phase.asked) - finished, stop.account.completions
        assert len(new) == counted > 0
        assert stopped.value.why.startswith(f"all {counted} completions (")
        assert len(phase.asked) - counted < TOGETHER, "drawn again: of one stretch alone"
        finished |= new
        if phase.name != "filter" or share == 0.1:  # later it is in another chunk
            assert kept(again) == len(finished)
    phase.run(again)
    assert set(phase.asked) | finished == set(all_seeds)
    assert len(set(phase.asked) & finished) < TOGETHER
    assert shards(again) == expected
    assert kept(again) == 0
    assert not list(again.rglob("*.journal"))


def test_what_is_finished_with_a_token_comes_before_a_stop_is_heard(model: TransformersEngine) -> None:
    """Else a stop would abandon it: what `on_tokens` raises ends the drawing."""
    steps, seen = [0], dict[int, int]()

    def on_tokens(count: int) -> None:
        steps[0] += 1

    requests = [GenerateRequest([5, 6, 7], seed, cap) for seed, cap in enumerate((1, 3, 3, 9))]
    for _, index, completion in model.generate([requests], Sampling(max_new_tokens=9, stop_ids=()), on_tokens):
        assert steps[0] == len(completion.ids) - 1
        seen[index] = len(completion.ids)
    assert seen == {0: 1, 1: 3, 2: 3, 3: 9}


class StopAtQuestion(Counts):
    """Asks for a stop once a question has all its samples."""

    def advance(self, steps: int, tokens: int = 0) -> None:
        assert self.stop is not None
        if self.calls and steps:
            self.stop.request("a test")
        self.calls.append(steps)


@pytest.mark.parametrize("phase", ["rollout", "eval"], indirect=True)
def test_progress_begins_where_it_was(phase: Phase, tmp_path: Path) -> None:
    """Of questions that had all their samples before nothing is told again."""
    with pytest.raises(Stopped):
        phase.run(tmp_path, StopAtQuestion(StopRequest()))
    assert kept(tmp_path) >= 8
    resumed = Counts()
    phase.run(tmp_path, resumed)
    assert resumed.calls[0] == 1
    assert sum(resumed.calls) == 2


def draw(config: RunConfig, folder: Path) -> None:
    """In a process of its own, which writes its journals more often than it would, and is killed amid them."""
    journals.EVERY_S = 0.02
    threading.Thread(target=kill, args=(folder,), daemon=True).start()
    rollout(RolloutPlan.make(config, load_questions(config.data).questions), folder)


def kill(folder: Path) -> None:
    while kept(folder) < 2 * TOGETHER:
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_kill_in_mid_chunk_keeps_what_was_written(
    run_config: Config, model: TransformersEngine, graders: GraderPool, tmp_path: Path
) -> None:
    config = run_config(data__limit=3, rollout__batch_size=TOGETHER, rollout__questions_per_chunk=3)
    phase, folder = Phase("rollout", config, tmp_path, model, graders), tmp_path / "killed"
    fork = multiprocessing.get_context("fork").Process(target=draw, args=(config, folder))
    fork.start()
    fork.join(timeout=100)
    assert fork.exitcode == -signal.SIGKILL
    before = kept(folder)
    assert 2 * TOGETHER <= before < 24
    phase.run(folder)
    assert len(phase.asked) <= 24 - before + TOGETHER - 1
    phase.run(tmp_path / "straight")
    assert shards(folder) == shards(tmp_path / "straight")
