"""A sample on its way through the filter: under measurement, in its chunk, and under judgement."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vpgea.filtering.log_ratios import PathStats
from vpgea.grading.base import Grade, Status
from vpgea.questions.load import Question
from vpgea.storage.schemas import POSTERIOR, PRIOR, SampleKey, SampleRow

Value = str | int | float | Sequence[float | None] | np.ndarray | None  # of a column of MEASUREMENTS


@dataclass(kw_only=True)
class MeasuredSample:
    """A sample under measurement; `found` collects columns of MEASUREMENTS."""

    row: SampleRow
    question: Question
    prior_prompt: list[int]
    z: list[int]
    z_text: str
    grade: Grade
    value_offset: int | None = None  # of a candidate: first character of the reference's value in z_text
    prior_logprobs: np.ndarray | None = None  # of a posterior path: log pi(z), float32 (|z|,), where it was scored
    found: dict[str, Value] = field(default_factory=dict)
    check_tokens: int = 0
    score_tokens: int = 0

    @property
    def key(self) -> SampleKey:
        return self.row.key

    @property
    def is_candidate(self) -> bool:
        """A posterior path that passed the pre-filter: its own answer, written with the note in sight, is right."""
        return self.key.view == POSTERIOR and self._is_right

    @property
    def is_correct_prior(self) -> bool:
        return self.key.view == PRIOR and self._is_right

    @property
    def _is_right(self) -> bool:
        return self.grade.status == Status.CORRECT and not self.row.cut_off


@dataclass(frozen=True)
class Chunk:
    """The samples of whole questions that are measured together; more_answers: of questions in other chunks."""

    samples: Sequence[MeasuredSample]
    more_answers: Iterable[str] = ()

    @property
    def candidates(self) -> list[MeasuredSample]:
        return [sample for sample in self.samples if sample.is_candidate]

    @property
    def posterior(self) -> list[MeasuredSample]:
        return [sample for sample in self.samples if sample.key.view == POSTERIOR]


@dataclass(kw_only=True)
class JudgedSample:
    """What selection needs to know of one sample, and what it decides; no log-probabilities per token.

    Attributes:
        length: tokens; of a posterior path |z| + mean |y| over its prior-view continuations.
        log_ratio: sum over z of log q - log pi, nats; None where one of them is not known.
        own_logprob: mean over z under the view that sampled it, nats.
        completion_tokens: as they were sampled, z and y.
        unended: the response ended by itself, and its thinking did not.
        stats: of what of z may be learnt.
        learnt_tokens: of z, where only its beginning may be learnt; None: z may be learnt as a whole, or not at all.
    """

    key: SampleKey
    status: Status
    cut_off: bool
    length: float
    measured: dict[str, Any]
    log_ratio: float | None
    own_logprob: float | None
    thinking_tokens: int
    stats: PathStats | None
    completion_tokens: int = 0
    reasons: list[str] = field(default_factory=list)
    utility: float = float("nan")
    advantage: float | None = None
    gate: float | None = None
    unended: bool = False
    learnt_tokens: int | None = None

    @property
    def is_in_part(self) -> bool:
        """Whether the beginning of it is learnt, and no more."""
        return self.learnt_tokens is not None and not self.reasons

    @property
    def priced_length(self) -> float:
        """Tokens that its utility is of; of a beginning that may be learnt, of the prior's right samples behind it."""
        tokens = None if self.learnt_tokens is None else self.measured["beginning_tokens"]
        return self.length if tokens is None else float(tokens)

    def reaches(self, token: int | None) -> bool:
        """Whether what may be learnt of z goes as far as this token; None: it is not known where it stands."""
        return self.learnt_tokens is None or token is None or token < self.learnt_tokens

    @property
    def view(self) -> str:
        return self.key.view

    @property
    def r(self) -> float:
        """Correctness in [0, 1]; NaN when no grade, or no continuation, is valid.

        The grade of a prior sample, the answerability of a posterior path where it was measured; where only its
        beginning may be learnt, how often the prior gets to the answer from there.
        """
        if not self.status.valid:
            return float("nan")
        if self.learnt_tokens is not None:
            beginning = self.measured["beginning_answerability"]
            return float("nan") if beginning is None else float(beginning)
        if self.measured["answerability_valid"] is None:
            return float(self.status == Status.CORRECT)
        share = self.measured["answerability"]
        return float("nan") if share is None else float(share)


def by_question(samples: Sequence[JudgedSample]) -> dict[str, list[JudgedSample]]:
    groups: dict[str, list[JudgedSample]] = {}
    for sample in samples:
        groups.setdefault(sample.key.question_id, []).append(sample)
    return groups
