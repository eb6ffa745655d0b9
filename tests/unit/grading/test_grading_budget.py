"""Who is to blame where an answer uses up its time: the answer, or what two formulas are."""

from __future__ import annotations

import time

import pytest

from vpgea.grading.base import GradeRequest, Status
from vpgea.grading.budget import is_own_fault
from vpgea.grading.normalise import normalise
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


@pytest.mark.parametrize(
    "looping", [r"(\(" * 20_000 + "x" + r"\))" * 20_000, '"`' * 40_000 + "x" + '`"' * 40_000, "**" * 80_000]
)
def test_blame_and_wrappers_take_time_in_proportion_to_the_text(looping: str) -> None:
    begin = time.process_time()
    is_own_fault(GradeRequest(rf"\boxed{{{looping}}}", "x+1"))
    normalise(looping)
    assert time.process_time() - begin < 3.0
