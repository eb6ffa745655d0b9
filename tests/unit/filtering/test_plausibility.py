"""What the check of plausibility needs to be there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.measured_rows import posterior, prior
from tests.support.rollouts import as_samples
from vpgea.errors import DamagedError
from vpgea.filtering.checks.plausibility import PLAUSIBILITY
from vpgea.filtering.samples import Chunk, MeasuredSample
from vpgea.grading.base import Grade, Status
from vpgea.questions.load import Question


def test_a_question_whose_posterior_samples_are_lost_is_named() -> None:
    rows = as_samples([prior("a", 0), posterior("a", 0), prior("b", 0)])
    grade = Grade(Status.CORRECT)
    samples = [
        MeasuredSample(row=row, question=Question.from_row(row), prior_prompt=[1], z=[5], z_text="", grade=grade)
        for row in rows
    ]
    view: Any = SimpleNamespace(is_truncated=False)  # it is not asked
    with pytest.raises(DamagedError, match="question b has prior samples and no posterior ones"):
        PLAUSIBILITY.measure(Chunk(samples), view)
