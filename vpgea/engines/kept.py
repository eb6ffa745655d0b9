"""Drawing each completion of a chunk once: what an earlier attempt has finished is taken from the chunk's journals.

What comes back of a request may depend, in its last bits, on the requests beside it (`Engine.draws_together`). A
stretch of those of which any completion is missing is drawn again as a whole, so that a row has the bits of an
undisturbed run; what was kept of it stays, and what is drawn beside the missing ones is dropped. Measured in float32 on
a CPU: without the 8 shortest of 16 rows 7 of the 8 others had other bits, with all of them none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np

from vpgea.engines.base import Completion, Engine, GenerateRequest, Sampling
from vpgea.runs.journals import Journals
from vpgea.runs.stopping import StopRequest
from vpgea.storage.journal import KeptRow


@dataclass(frozen=True)
class Kept:
    """A completion of an earlier attempt, and the engine that drew it."""

    completion: Completion
    engine: str
    logprobs_of: str


class KeptChunk:
    """What is finished of one chunk; it is read once."""

    def __init__(self, journals: Journals, chunk: int) -> None:
        self._journals, self._chunk = journals, chunk
        self.by_request = {
            row.request: Kept(
                Completion(row.completion_ids, row.logprobs, row.finish_reason), head.engine, head.logprobs_of
            )
            for head, row in journals.read(chunk)
        }

    def add(self, request: str, completion: Completion, engine: Engine) -> None:
        """Keep one more; request: its digest."""
        row = KeptRow(
            request=request,
            completion_ids=completion.ids,
            logprobs=completion.logprobs,
            finish_reason=completion.finish_reason,
        )
        self._journals.add(self._chunk, row, engine=engine.name, logprobs_of=engine.logprobs_of)

    def tick(self) -> None:
        """Called again and again while there is work: keep what is finished."""
        self._journals.tick()


class Batch:
    """Requests of one chunk, each of which is drawn once, in whatever attempt.

    Args:
        requests: All of them, in the same order in every attempt.
        sampling: How they are drawn.
        kept: What is kept of their chunk; None: nothing is.
        stop: Has the account of this call.

    Attributes:
        found: What earlier attempts have finished, by the request's position.
    """

    def __init__(
        self, requests: Sequence[GenerateRequest], sampling: Sampling, kept: KeptChunk | None, stop: StopRequest
    ) -> None:
        self._requests, self._kept, self._stop = requests, kept, stop
        self._digests = [] if kept is None else request_digests(requests, sampling)
        self._positions: list[int] = []
        known = {} if kept is None else kept.by_request
        self.found = {place: known[digest] for place, digest in enumerate(self._digests) if digest in known}
        self._before = frozenset(self.found)

    def ask(self, engine: Engine) -> list[GenerateRequest]:
        """What the engine is to draw now."""
        self._engine = engine
        self._positions = left_to_draw(len(self._requests), self._before, engine.draws_together)
        return [self._requests[position] for position in self._positions]

    def take(self, index: int, completion: Completion) -> int | None:
        """Keep what came back of what was asked for; the request's position, None where it was found before."""
        position = self._positions[index]
        if position in self._before:
            self._stop.account.again += len(completion.ids)
            return None
        self._stop.account.finished(len(completion.ids))
        if self._kept is not None:
            self._kept.add(self._digests[position], completion, self._engine)
        return position

    def close(self) -> None:
        """None is missing any more; what is drawn again beside the last ones may still come."""
        self._requests, self._digests, self.found, self._kept = [], [], {}, None


def left_to_draw(count: int, found: Container[int], together: int) -> list[int]:
    """Positions of requests to draw: all of every stretch of `together` of which one is not found."""
    stretches = (range(start, min(start + together, count)) for start in range(0, count, together))
    return [place for stretch in stretches if not all(one in found for one in stretch) for place in stretch]


def request_digests(requests: Sequence[GenerateRequest], sampling: Sampling) -> list[str]:
    """One for each request, of everything that its completion follows from but the weights."""
    common = repr((sampling.stop_ids, sampling.temperature, sampling.top_p, sampling.top_k))
    prompts: dict[int, bytes] = {}  # those of a question's samples are one object
    digests = []
    for request in requests:
        if (key := id(request.prompt_ids)) not in prompts:
            prompts[key] = hashlib.blake2b(np.asarray(request.prompt_ids, np.int64).tobytes()).digest()
        cap = min(request.max_new_tokens or sampling.max_new_tokens, sampling.max_new_tokens)
        text = f"{common} {request.seed} {cap} ".encode()
        digests.append(hashlib.blake2b(text + prompts[key], digest_size=16).hexdigest())
    return digests
