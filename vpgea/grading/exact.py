"""Grading by exact match after whitespace folding."""

from __future__ import annotations

from vpgea.grading.answers import find_answer
from vpgea.grading.base import Grade, GradeRequest, Status


def fold_whitespace(text: str) -> str:
    """Runs of whitespace become one space; none at the ends."""
    return " ".join(text.split())


def grade_exact(request: GradeRequest) -> Grade:
    """Correct when the last box, tag or final-answer line (see `find_answer`) is the reference, letter by letter."""
    answer = find_answer(request.response)
    if answer is None:
        return Grade(Status.WRONG)
    found = fold_whitespace(answer.text)
    correct = found == fold_whitespace(request.reference) and bool(found)
    return Grade(Status.CORRECT if correct else Status.WRONG, extracted=found or None, source=answer.source)
