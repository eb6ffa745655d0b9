"""What a check asks of the engine, in numbers that are known before it is asked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Lengths = npt.NDArray[np.int64]

ANSWER_TOKENS = 16  # taken for the cue, the answer and its closing delimiter, and for a value to be derived


@dataclass(frozen=True)
class Paths:
    """Sequences under one view: prompt and completion tokens, int64 (N,) each."""

    prompt: Lengths
    completion: Lengths

    @property
    def end(self) -> Lengths:
        return self.prompt + self.completion


@dataclass(frozen=True, kw_only=True)
class RolloutLengths:
    """The lengths of a rollout's samples, as the filter reads them.

    Attributes:
        prompts: tokens of the prior prompt of each question.
        prior: prior samples behind their prompt.
        posterior: posterior paths z behind the prior prompt.
        candidates: those of them that the checks look at. Which are correct is not known before: all that ended.
        noted_prior, noted_posterior, noted_candidates: the same three behind the posterior prompt.
        completion_tokens: of all samples, answers included.
    """

    prompts: Lengths
    prior: Paths
    posterior: Paths
    candidates: Paths
    noted_prior: Paths
    noted_posterior: Paths
    noted_candidates: Paths
    completion_tokens: int


@dataclass(frozen=True)
class Continuations:
    """Completions to be drawn: what stands before (tokens of each prompt), how many of each, and their cap."""

    starts: Lengths
    samples: int
    cap: int


@dataclass(frozen=True)
class Cost:
    """What a check asks for. scored: lengths of whole sequences that are scored, one array per kind."""

    continuations: tuple[Continuations, ...] = ()
    scored: tuple[Lengths, ...] = ()
