"""The engine protocol: token ids in, token ids and log-probabilities out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

FinishReason = Literal["stop", "length"]
OnTokens = Callable[[int], None]


def ignore_tokens(count: int) -> None:
    """Nobody wants to know how many tokens were sampled."""


@dataclass(frozen=True)
class Sampling:
    """How to sample.

    Log-probabilities that come back are those of the sampler: after temperature and truncation. Temperature 0 is
    greedy, with the log-probabilities of the untempered model.
    """

    max_new_tokens: int
    stop_ids: tuple[int, ...]
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    @property
    def truncated(self) -> bool:
        """True when the sampler's support or shape is not the model's own: no ELBO, no importance weights."""
        return self.temperature != 1.0 or self.top_p != 1.0 or self.top_k != 0


@dataclass(frozen=True)
class GenerateRequest:
    """One completion to draw.

    prompt_ids: token ids. seed: 64 bits; the same seed, prompt and weights give the same uniforms in any batch.
    """

    prompt_ids: Sequence[int]
    seed: int
    max_new_tokens: int | None = None  # below the sampling's cap, for this request alone


@dataclass(frozen=True)
class Completion:
    """ids: int32 (T,), the stop id included when one was sampled. logprobs: float32 (T,), nats."""

    ids: np.ndarray
    logprobs: np.ndarray
    finish_reason: FinishReason


@dataclass(frozen=True)
class ScoreRequest:
    """Log-probabilities of ids[start:] given what stands before them; 1 <= start <= len(ids)."""

    ids: Sequence[int]
    start: int


@dataclass
class EngineUsage:
    """What the engine did so far; sampled counts completion tokens, scored counts positions asked for."""

    sampled_tokens: int = 0
    prompt_tokens: int = 0
    scored_tokens: int = 0
    seconds: float = 0.0


class Engine(Protocol):
    """Samples and scores with one set of weights."""

    name: str
    usage: EngineUsage

    def generate(
        self, requests: Sequence[GenerateRequest], sampling: Sampling, on_tokens: OnTokens = ignore_tokens
    ) -> Iterator[tuple[int, Completion]]:
        """Yield (index of the request, completion) as completions finish, each request once, in any order.

        on_tokens is told of every few sampled tokens; what it raises abandons the rest.
        """
        ...

    def score(self, requests: Sequence[ScoreRequest]) -> list[np.ndarray]:
        """float32 log-probabilities (len(ids) - start,) per request, untempered, in the order of the requests."""
        ...

    def close(self) -> None:
        """Free the weights and stop whatever was started."""
        ...
