"""The loop over chunks: each is on disk before it counts, and a stop is heeded between two."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from vpgea.errors import Stopped
from vpgea.runs.chunks import Made, run_chunks
from vpgea.runs.manifest import Manifest
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.runs.stopping import StopRequest

MANIFEST = Manifest(phase="filter", identity={"seed": 0}, inputs={"rollout": "abc"}, config={})
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

    run_chunks(folder, chunks, stop, work)
    return begun


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
    stop = StopRequest(time_limit=30, now=lambda: float(next(clock)))
    folder = PhaseFolder.open(tmp_path, MANIFEST)
    with pytest.raises(Stopped, match="too little time"):
        made(folder, [0, 1, 2, 3], stop)
    assert folder.missing(range(4)) == [1, 2, 3]
