"""The reward that a rival is trained by: right by our grader, and the price of its length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.peers.rivals import Charge
from vpgea.config.filtering import UtilityConfig
from vpgea.config.schema import RunConfig
from vpgea.filtering.reference_lengths import reference_length
from vpgea.filtering.utility import FloatArray, relative_length, utility
from vpgea.grading.base import Status
from vpgea.grading.pool import GraderPool, check_error_share
from vpgea.grading.samples import grade_rows
from vpgea.prompts.views import Views
from vpgea.questions.question import Question
from vpgea.runs.stopping import StopRequest
from vpgea.storage.rows import IntArray


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """A completion as the grader wants it: `vpgea.grading.samples.Gradable`."""

    question: str
    answer: str
    completion_ids: IntArray
    thinking_tokens: int
    cut_off: bool


class LengthReward:
    """A sample's r with the price of its length; none where it has no grade.

    `correct`: r (1 - λ σ((ℓ - mean) / std)), mean and population std (at least one token) over the right samples of the
    step's question, as in arXiv 2502.04463: a wrong sample earns 0 at any length. `all`: r - λ ℓ / L_ref, so that wrong
    ones earn more the shorter they are. L_ref is that of our objectives: of the samples with which a question is drawn
    first, and kept from then on (docs/method.md). No sample is drawn for it.

    Args:
        config: Of the run: its grader, λ as `filter.utility.length_price`, and the floor of L_ref.
        charge: Which of the two; λ is at most 1 with `correct`.
        views: With which the questions were rendered.
        questions: All that can be drawn.
        graders: Of the configuration.
    """

    def __init__(
        self, config: RunConfig, charge: Charge, views: Views, questions: Sequence[Question], graders: GraderPool
    ) -> None:
        self._config, self._views, self._graders = config, views, graders
        self._price = config.filter.utility.length_price
        self._of_correct = UtilityConfig(kind="sigmoid", length_price=self._price) if charge == "correct" else None
        self._questions = {question.id: question for question in questions}
        self._references: dict[str, float] = {}

    def rewards(
        self, completion_ids: Sequence[Sequence[int]], question_id: Sequence[str], **_: Any
    ) -> list[float | None]:
        """Of each completion of a step; called by name, with all columns of the rows, as TRL does.

        Args:
            completion_ids: Of each sample, the end included.
            question_id: Of each sample.

        Raises:
            QualityGateError: More samples than grading.max_grade_errors allows could not be graded.
        """
        drawn = [self._drawn(identifier, ids) for identifier, ids in zip(question_id, completion_ids, strict=True)]
        grades = grade_rows(self._views, self._graders, drawn, StopRequest())
        check_error_share(grades, self._config.grading.max_grade_errors)
        r = np.array([float(grade.status == Status.CORRECT) if grade.status.valid else math.nan for grade in grades])
        lengths, asked = np.array([float(len(ids)) for ids in completion_ids]), np.array(question_id)
        found = np.full(len(drawn), math.nan)
        for identifier in dict.fromkeys(question_id):
            own = asked == identifier
            found[own] = self._of_question(identifier, r[own], lengths[own])
        return [None if math.isnan(reward) else float(reward) for reward in found]

    def _drawn(self, identifier: str, ids: Sequence[int]) -> _Drawn:
        question, thinking = self._questions[identifier], self._views.thinking_length(ids)
        return _Drawn(
            question=question.text,
            answer=question.answer,
            completion_ids=np.asarray(ids, np.int32),
            thinking_tokens=len(ids) if thinking is None else thinking,
            cut_off=thinking is None,
        )

    def _of_question(self, identifier: str, r: FloatArray, lengths: FloatArray) -> FloatArray:
        """(n,), NaN where r is."""
        graded = ~np.isnan(r)
        if not graded.any():
            return r
        if self._of_correct:  # which does not look at L_ref
            return utility(self._of_correct, r, lengths, 1.0, correct_lengths=lengths[r == 1])
        if identifier not in self._references:
            length = reference_length(lengths[graded].tolist(), r[graded].tolist())
            assert length is not None, "a sample has a grade"
            self._references[identifier] = max(length, self._config.filter.min_reference_tokens)
        return r - self._price * relative_length(lengths, self._references[identifier])
