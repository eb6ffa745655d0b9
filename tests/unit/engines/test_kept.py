"""Which requests are drawn again, and which completions are those of a request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from vpgea.engines.base import Completion, Engine, GenerateRequest, Sampling
from vpgea.engines.kept import Batch, KeptChunk, left_to_draw
from vpgea.runs.journals import Journals
from vpgea.runs.manifest import Manifest
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.runs.progress import NullProgress
from vpgea.runs.stopping import StopRequest

MANIFEST = Manifest(phase="rollout", identity={"seed": 0}, inputs={"model": "abc"}, config={})
SAMPLING = Sampling(max_new_tokens=8, stop_ids=(1,))
REQUESTS = [GenerateRequest([5, 6], seed) for seed in range(5)]
DRAWN = Completion(np.array([2, 1], np.int32), np.array([-0.5, -1], np.float32), "stop")


def engine(together: int = 1) -> Engine:
    return cast(Engine, SimpleNamespace(name="server 1", logprobs_of="temperature", draws_together=together))


@pytest.mark.parametrize(
    ("found", "together", "left"),
    [
        ({}, 3, [0, 1, 2, 3, 4, 5, 6, 7]),
        ({0, 1, 2}, 3, [3, 4, 5, 6, 7]),
        ({0, 2, 3, 4, 5}, 3, [0, 1, 2, 6, 7]),
        ({6, 7}, 3, [0, 1, 2, 3, 4, 5]),
        (set(range(8)), 3, []),
        ({0, 2, 3, 7}, 1, [1, 4, 5, 6]),
        ({0, 1}, 100, [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_whole_stretches_are_left_out(found: set[int], together: int, left: list[int]) -> None:
    assert left_to_draw(8, found, together) == left


@pytest.fixture
def kept(tmp_path: Path) -> Callable[[], KeptChunk]:
    """What is kept of a chunk of which the requests 1 and 3 were drawn."""
    folder = PhaseFolder.open(tmp_path, MANIFEST)

    def journals() -> Journals:
        return Journals(folder, [0], StopRequest(), NullProgress())

    with journals() as opened:
        batch = Batch(REQUESTS, SAMPLING, KeptChunk(opened, 0), StopRequest())
        assert batch.ask(engine()) == REQUESTS
        assert [batch.take(index, DRAWN) for index in (3, 1)] == [3, 1]
    return lambda: KeptChunk(journals(), 0)


def test_what_was_drawn_is_found_and_not_taken_twice(kept: Callable[[], KeptChunk]) -> None:
    stop = StopRequest()
    batch = Batch(REQUESTS, SAMPLING, kept(), stop)
    assert sorted(batch.found) == [1, 3]
    found = batch.found[3]
    assert (found.engine, found.logprobs_of, found.completion.finish_reason) == ("server 1", "temperature", "stop")
    assert found.completion.ids.tobytes() == DRAWN.ids.tobytes()
    assert found.completion.logprobs.tobytes() == DRAWN.logprobs.tobytes()
    assert batch.ask(engine(together=2)) == REQUESTS
    assert [batch.take(index, DRAWN) for index in range(3)] == [0, None, 2]
    assert (stop.account.completions, stop.account.tokens, stop.account.again) == (2, 4, 2)
    assert batch.ask(engine()) == [REQUESTS[place] for place in (0, 2, 4)]


@pytest.mark.parametrize(
    ("request_", "sampling"),
    [
        (replace(REQUESTS[3], seed=9), SAMPLING),
        (replace(REQUESTS[3], prompt_ids=[5, 7]), SAMPLING),
        (replace(REQUESTS[3], max_new_tokens=7), SAMPLING),
        (REQUESTS[3], replace(SAMPLING, max_new_tokens=9)),
        (REQUESTS[3], replace(SAMPLING, stop_ids=(1, 2))),
        (REQUESTS[3], replace(SAMPLING, temperature=0.5)),
        (REQUESTS[3], replace(SAMPLING, top_p=0.5)),
        (REQUESTS[3], replace(SAMPLING, top_k=5)),
    ],
)
def test_a_completion_is_of_its_own_request_alone(
    request_: GenerateRequest, sampling: Sampling, kept: Callable[[], KeptChunk]
) -> None:
    assert Batch([request_], sampling, kept(), StopRequest()).found == {}
    same = replace(REQUESTS[3], max_new_tokens=20, group="another")  # the cap that holds is the sampling's
    assert list(Batch([same], SAMPLING, kept(), StopRequest()).found) == [0]
