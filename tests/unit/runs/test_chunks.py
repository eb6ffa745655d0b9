"""The loop over chunks: each is on disk before it counts, and a stop is heeded between two."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from vpgea.errors import Stopped, UsageError
from vpgea.runs.chunks import Made, run_chunks
from vpgea.runs.journals import Journals
from vpgea.runs.manifest import Manifest
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.runs.progress import NullProgress
from vpgea.runs.stopping import StopRequest

MANIFEST = Manifest(phase="filter", identity={"seed": 0}, inputs={"rollout": "abc"}, config={})
UNFINISHED = "drawn or scored for what is not finished are dropped, and made again"
TABLE = pa.table({"row": [1, 2]})


def made(folder: PhaseFolder, chunks: list[int], stop: StopRequest, stop_at: int | None = None) -> list[int]:
    """The chunks that were begun; a stop is asked for while one of them is made."""
    begun = []

    def work() -> Made:
        for chunk in chunks:
            begun.append(chunk)
            if chunk == stop_at:
                stop.request("a test")
            yield chunk, {"teacher": TABLE, "chunk": TABLE}

    make(folder, chunks, stop, work)
    return begun


def make(folder: PhaseFolder, chunks: list[int], stop: StopRequest, work: Callable[[], Made]) -> None:
    with Journals(folder, chunks, stop, NullProgress()) as journals:
        run_chunks(folder, chunks, stop, work, journals)


def test_every_chunk_is_committed_with_all_its_shards(tmp_path: Path) -> None:
    folder = PhaseFolder.open(tmp_path, MANIFEST)
    assert made(folder, [4, 0, 2], StopRequest()) == [4, 0, 2]
    assert folder.missing(range(5), "chunk", "teacher") == [1, 3]


@pytest.mark.parametrize(("stop_at", "left"), [(0, [2, 5]), (2, [5]), (5, [])])
def test_a_stop_is_heeded_once_the_chunk_under_way_is_on_disk(tmp_path: Path, stop_at: int, left: list[int]) -> None:
    folder = PhaseFolder.open(tmp_path, MANIFEST)
    with pytest.raises(Stopped) as stopped:
        made(folder, [0, 2, 5], StopRequest(), stop_at)
    assert stopped.value.why == "everything finished so far is saved"
    assert folder.missing([0, 2, 5]) == left


def test_no_chunk_is_begun_that_may_not_fit_before_the_time_limit(tmp_path: Path) -> None:
    clock = iter(range(0, 1000, 10))
    stop = StopRequest(time_limit=30, now=lambda: 0.0, steady=lambda: float(next(clock)))
    folder = PhaseFolder.open(tmp_path, MANIFEST)
    with pytest.raises(Stopped, match="too little time"):
        made(folder, [0, 1, 2, 3], stop)
    assert folder.missing(range(4)) == [1, 2, 3]


def test_a_clock_that_is_set_meanwhile_is_no_long_unit(tmp_path: Path) -> None:
    wall, steady = [1000.0], [50.0]
    stop = StopRequest(time_limit=8200, now=lambda: wall[0], steady=lambda: steady[0])
    stop.begin()
    for jump in (0, 0, 3600, -7200, 90000):
        wall[0] += 10 + jump
        steady[0] += 10
        stop.unit_done(more=True)
    assert not stop.requested
    steady[0] = 50 + 7200 - 20
    stop.begin()
    steady[0] += 10
    stop.unit_done(more=True)
    assert stop.cause == "itself: too little time is left before the job's limit"


def test_what_a_stop_says_is_counted() -> None:
    stop = StopRequest()
    stop.begin()
    assert stop.account.words == "everything finished so far is saved"
    stop.account.drawn += 60
    stop.account.finished(30)
    stop.account.finished(25)
    assert (
        stop.account.words == "all 2 completions (55 tokens) that this call finished are saved; 5 tokens " + UNFINISHED
    )
    stop.account.again += 5
    saved = "all 2 completions (55 tokens) that this call finished are saved"
    assert stop.account.words == saved
    stop.account.underway = 3
    assert stop.account.words.startswith(f"{saved}; 3 requests are withdrawn from servers")


def test_tokens_that_were_scored_are_those_of_the_one_chunk_under_way(tmp_path: Path) -> None:
    stop = StopRequest()

    def work() -> Made:
        stop.account.scored += 1000
        yield 0, {"chunk": TABLE}
        stop.account.scored += 1500
        stop.request("a test")
        stop.check()

    with pytest.raises(Stopped, match="stopped by a test") as stopped:
        make(PhaseFolder.open(tmp_path, MANIFEST), [0, 1], stop, work)
    assert stopped.value.why == "everything finished so far is saved; 1,500 tokens " + UNFINISHED


def test_no_chunk_is_committed_to_a_folder_that_became_another_runs(tmp_path: Path) -> None:
    folder = PhaseFolder.open(tmp_path, MANIFEST)

    def work() -> Made:
        yield 0, {"chunk": TABLE}
        (folder.part / "manifest.json").write_text(json.dumps(replace(MANIFEST, identity={"seed": 9}).as_json()))
        yield 1, {"chunk": TABLE}

    with pytest.raises(UsageError, match="is another run's now"):
        make(folder, [0, 1], StopRequest(), work)
    assert folder.missing([0, 1]) == [1]
