"""The engine protocol: token ids in, token ids and log-probabilities out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

FinishReason = Literal["stop", "length"]
LogprobsOf = Literal["sampler", "temperature"]  # after temperature and truncation, or before truncation
OnTokens = Callable[[int], None]


def ignore_tokens(count: int) -> None:
    """Nobody wants to know how many tokens were sampled."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to sample.

    Log-probabilities that come back are those after temperature; Engine.logprobs_of says whether truncation is in them.
    Temperature 0 is greedy, with the log-probabilities of the untempered model.
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

    Attributes:
        prompt_ids: Token ids.
        seed: 64 bits; the same seed, prompt and weights give the same uniforms in any batch.
        group: Consecutive requests of one group share a prefix, which is computed once where they go together.
    """

    prompt_ids: Sequence[int]
    seed: int
    max_new_tokens: int | None = None  # below the sampling's cap, for this request alone
    group: str = ""


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


@dataclass(frozen=True)
class TopLogprobs:
    """The k likeliest tokens at each of T positions, largest first: ids int32 (T, k), logprobs float32 (T, k), nats."""

    ids: np.ndarray
    logprobs: np.ndarray


@dataclass(kw_only=True)
class EngineUsage:
    """What the engine did so far.

    sampled counts completion tokens, prompt those before them, scored the positions asked for; cached are the prompt
    and scored sequences' tokens that were not computed again because they shared a prefix. trouble: why nothing comes
    at present, or little.
    """

    sampled_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    scored_tokens: int = 0
    seconds: float = 0.0
    trouble: str = ""

    @property
    def prefix_cache_hit_rate(self) -> float | None:
        """Share of the prompt tokens that came from a cache; None before the first prompt."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else None

    @property
    def remark(self) -> str:
        """For people who watch: what is wrong, else what the cache saves; plain transformers has none that lasts."""
        rate = self.prefix_cache_hit_rate
        return self.trouble or (f"prefix cache {rate:.0%}" if rate else "")


class Engine(Protocol):
    """Samples and scores with one set of weights.

    Attributes:
        draws_together: How many consecutive requests of a batch may touch each other's completions, in their last bits:
            a batch is cut into stretches of so many from its start, and what comes back of a stretch follows from its
            requests alone. Whole stretches may be left out of a batch; 1: each request by itself.
    """

    name: str
    logprobs_of: LogprobsOf
    usage: EngineUsage
    draws_together: int

    def generate(
        self,
        batches: Iterable[Sequence[GenerateRequest]],
        sampling: Sampling,
        on_tokens: OnTokens = ignore_tokens,
    ) -> Iterator[tuple[int, int, Completion]]:
        """Yield (number of the batch, index in it, completion) as completions finish, each once, in any order.

        Batches are taken as there is room for them, so that a server does not run dry at the end of one.
        on_tokens is told of every few sampled tokens, and at least every second, once what is finished with them was
        yielded; what it raises abandons the rest.
        """
        ...

    def score(self, requests: Sequence[ScoreRequest]) -> list[np.ndarray]:
        """float32 log-probabilities (len(ids) - start,) per request, untempered, in the order of the requests."""
        ...

    def top_logprobs(self, requests: Sequence[ScoreRequest], k: int) -> list[TopLogprobs]:
        """The k likeliest tokens at every position that `score` gives a value for, untempered; 1 <= k < vocabulary."""
        ...

    def close(self) -> None:
        """Free the weights and stop whatever was started."""
        ...
