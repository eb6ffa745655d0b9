"""A real engine whose requests and results can be looked at afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vpgea.engines.base import (
    Completion,
    Engine,
    GenerateRequest,
    OnTokens,
    Sampling,
    ScoreRequest,
    TopLogprobs,
    ignore_tokens,
)


@dataclass(frozen=True)
class Drawn:
    """One completion that was asked for, and what came back."""

    request: GenerateRequest
    sampling: Sampling
    completion: Completion


class Recording:
    """Hands everything on to the engine and keeps it."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.name, self.usage = engine, engine.name, engine.usage
        self.logprobs_of, self.draws_together = engine.logprobs_of, engine.draws_together
        self.drawn: list[Drawn] = []
        self.scored: list[ScoreRequest] = []

    def generate(
        self,
        batches: Iterable[Sequence[GenerateRequest]],
        sampling: Sampling,
        on_tokens: OnTokens = ignore_tokens,
    ) -> Iterator[tuple[int, int, Completion]]:
        kept = list(batches)
        for number, index, completion in self.engine.generate(kept, sampling, on_tokens):
            self.drawn.append(Drawn(kept[number][index], sampling, completion))
            yield number, index, completion

    def score(self, requests: Sequence[ScoreRequest]) -> list[np.ndarray]:
        self.scored.extend(requests)
        return self.engine.score(requests)

    def top_logprobs(self, requests: Sequence[ScoreRequest], k: int) -> list[TopLogprobs]:
        self.scored.extend(requests)
        return self.engine.top_logprobs(requests, k)

    def close(self) -> None:
        self.engine.close()

    def by_seed(self) -> dict[int, Drawn]:
        """Every completion by its seed: the seeds of the checks are derived from the path and the check's name."""
        assert len({drawn.request.seed for drawn in self.drawn}) == len(self.drawn), "no seed is used twice"
        return {drawn.request.seed: drawn for drawn in self.drawn}
