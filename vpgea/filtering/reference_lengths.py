"""L_ref: how long a question's correct answers were when it was first drawn, by the base model where it could be."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from vpgea.config.fields import Section
from vpgea.errors import UsageError
from vpgea.filtering import utility
from vpgea.filtering.samples import JudgedSample, by_question
from vpgea.storage.files import read_json
from vpgea.storage.schemas import PRIOR

Tokens = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ReferenceLengths(Section):
    """L_ref in tokens: of each question, and for questions that are not among them."""

    questions: dict[str, Tokens]
    default: Tokens

    @classmethod
    def read(cls, path: Path) -> ReferenceLengths:
        """The lengths in a file.

        Raises:
            UsageError: `vpgea filter` did not write it.
        """
        value = read_json(path)
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise UsageError(
                f"not a file of reference lengths: {path}",
                why=" ".join(str(error).split()),
                mend="give the reference_lengths.json that `vpgea filter` wrote for the base model's rollout",
            ) from error

    def floored(self, floor: float) -> ReferenceLengths:
        lengths = {question: max(length, floor) for question, length in self.questions.items()}
        return ReferenceLengths(questions=lengths, default=max(self.default, floor))

    def of(self, question_id: str) -> float:
        return self.questions.get(question_id, self.default)

    def extended(self, own: ReferenceLengths) -> ReferenceLengths:
        """These, and of questions that are not among them what a rollout of theirs says: each keeps its first."""
        return ReferenceLengths(questions={**own.questions, **self.questions}, default=self.default)

    def continues(self, first: ReferenceLengths) -> bool:
        """Whether these are others' extension."""
        return self.default == first.default and first.questions.items() <= self.questions.items()


def reference_length(lengths: Sequence[float], r: Sequence[float]) -> float | None:
    """Of a question: mean length of its correct prior samples, else the median of all of them; None without any.

    Args:
        lengths: Of its prior samples that have a grade, in tokens.
        r: Correctness of each.
    """
    correct = utility.mean_correct_length(lengths, r)
    return statistics.median(lengths) if correct is None and lengths else correct


def own_reference_lengths(samples: Sequence[JudgedSample]) -> ReferenceLengths:
    """Each question's mean length of its correct prior samples, else the median of all that have a grade; and the
    median over the questions as default. Of a question's first rollout, this is its L_ref in every later round."""
    lengths: dict[str, float] = {}
    for question_id, group in by_question(samples).items():
        prior = [sample for sample in group if sample.view == PRIOR and sample.status.valid]
        length = reference_length([sample.length for sample in prior], [sample.r for sample in prior])
        if length is not None:
            lengths[question_id] = length
    everything = list(lengths.values()) or [sample.length for sample in samples]
    return ReferenceLengths(questions=lengths, default=statistics.median(everything))
