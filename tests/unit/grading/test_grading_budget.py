"""Who is to blame where an answer uses up its time: the answer, or what two formulas are."""

from __future__ import annotations

import pytest

from vpgea.grading.base import GradeRequest, Status
from vpgea.grading.registry import not_worked_out


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("4", r"x^2+1"),
        (r"\frac{1}{2}", r"\int_0^1 \sin(x^x) dx"),
        ("x+1", r"x+\sum_{k=1}^{10^9} \frac{1}{k}"),
        ("x+1", "9^{9^9}"),
        (r"5\sqrt{2}", "(10^7)!"),
        (r"\pi", r"\lim_{n\to\infty} n"),
    ],
)
def test_an_answer_that_leaves_the_work_to_the_grader_is_wrong(reference: str, answer: str) -> None:
    request = GradeRequest(f"\\boxed{{{answer}}}", reference)
    assert not_worked_out("math", request, Status.TIMEOUT, "late").status is Status.WRONG


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        (r"A e^{-t} + B t e^{-t}", r"(A + B t) \exp(-t)"),
        (r"\sum_{k=1}^{n} k^5", r"\sum_{j=1}^{n} j^5"),
    ],
)
def test_two_formulas_that_nobody_can_settle_have_no_grade(reference: str, answer: str) -> None:
    grade = not_worked_out("math", GradeRequest(f"\\boxed{{{answer}}}", reference), Status.TIMEOUT, "late")
    assert (grade.status, grade.detail) == (Status.TIMEOUT, "late")


def test_a_grader_of_ones_own_is_taken_at_its_word() -> None:
    request = GradeRequest("9^{9^9}", "4")
    assert not_worked_out("mine:grade", request, Status.ERROR, "MemoryError").status is Status.ERROR
