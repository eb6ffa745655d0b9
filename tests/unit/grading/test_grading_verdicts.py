"""What is an answer and what only looks like one: verdicts on responses written to try the graders."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from vpgea.grading.base import GradeRequest
from vpgea.grading.choice import grade_choice
from vpgea.grading.math import grade_math

VERDICTS = Path(__file__).parents[2] / "data" / "grading" / "verdicts.jsonl"


def _by_kind() -> dict[str, list[dict[str, str]]]:
    kinds: dict[str, list[dict[str, str]]] = defaultdict(list)
    for line in VERDICTS.read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        kinds[case["kind"]].append(case)
    return kinds


KINDS = _by_kind()


def _status(case: dict[str, str]) -> str:
    request = GradeRequest(case["response"], case["reference"], case["question"])
    grade = grade_choice(request) if case["grader"] == "choice" else grade_math(request, 1e-6)
    return str(grade.status)


@pytest.mark.parametrize("kind", KINDS)
def test_verdicts(kind: str) -> None:
    graded_otherwise = [case for case in KINDS[kind] if _status(case) != case["right"]]
    assert graded_otherwise == []


# To 5, without a question: (answer in a box, whether it is 5).
FIVE = [
    ("5.0", True), ("05", True), ("+5", True), (r"\$5", True), (r"\frac{10}{2}", True), ("n = 5", True),
    ("2+3=5", True), (r"4.\overline{9}", True), (r"5\text{ apples}", True), (r"5^\circ", True), ("５", True),
    (r"\underline{5}", True), (r"\textcolor{red}{5}", True), (r"\phantom{5}", False), (r"\cancel{5}", False),
    (r"\overline{5}", False), ("5 fifths", False), ("5 score", False), ("5 gazillion", False),
    ("5 fewer", False), (r"5\text{ more}", False), ("5k", False), ("5e", False), ("5+", False),
    (r"5\times", False), ("5 + C", False), (r"5 \pm 1", False), ("5?", False), (r"\ge 5", False),
    ("[5,5]", False), (r"\{5\}", False), ("5 or -5", False), ("|-5|", False), ("--5", False), ("2+3", False),
    (r"\sqrt{25}", False), (r"\log_2 32", False), ("5!/4!", False), (r"\binom{5}{1}", False),
    ("4.9999999999", False), ("5x^0", False), ("five and a half", False), ("2+2=5", False), ("a+b=5", False),
    (r"3 \ne 5", False), (r"7 \to 5", False), ("3–5", False), (r"3\text{ to }5", False), ("5:7", False),
    ("5 mod 7", False), (r"5 \bmod 7", False), ("5_8", False), (r"\lceil 4.2 \rceil", False),
    (r"\max(3,5)", False), (r"\int_0^5 dx", False), (r"5\text{ million dollars}", False),
    (r"5\text{ (wrong)}", False), ("5, 5", False), (r"5\text{?}", False),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "right"), FIVE)
def test_what_is_five(answer: str, right: bool) -> None:
    case = {"grader": "math", "question": "", "reference": "5", "response": f"\\boxed{{{answer}}}"}
    assert (_status(case) == "correct") is right


@pytest.mark.parametrize(
    ("question", "reference", "answer", "right"),
    [
        ("How many dollars?", "5", r"500\text{ cents}", True),
        ("How many dollars?", "5", r"5\text{ cents}", False),
        ("How far in m?", "1500", r"1.5\text{ km}", True),
        ("How many zorps are there?", "5", "5 zorps", True),
        ("How many are there?", "5", "5 zorps", False),
        ("Expand $(x-1)(x-2)$.", "x^2-3x+2", "(x-2)(x-1)", True),
        ("Factor $2-3x+x^2$.", "(x-1)(x-2)", "x^2-3x+2", False),
        ("Which is larger, $2^{100}$ or $3^{60}$?", "2^{100}", "2^{100}", True),
        ("Compute $2^{8}$.", "256", "2^8", False),
        ("How many subsets has a set of eight elements?", "256", "2^8", True),
        ("", "2.5 million", "2500000", True),
        ("", "y'", "y", False),
        ("", "BAC", "ABC", False),
        ("", "A-B-C", "A-C-B", False),
        ("", "cats", "acts", False),
        ("", r"-\frac{3}{4}", r"\frac{3}{-4}", True),
        ("", r"5\text{ m/s}^2", r"5\ \mathrm{m\,s^{-2}}", True),
        ("", r"5\text{ m/s}^2", r"5\ \mathrm{m\,s^{-1}}", False),
        ("", r"\text{Alice, Bob}", r"\text{Bob and Alice}", True),
        ("", r"\log_2 3", r"\frac{\ln 3}{\ln 2}", True),
        ("", "xyz", "zxy", True),
        ("", "C=2", "c=2", False),
        ("", r"\{1,2\}", "1, 2, 2", True),
        ("", "x=5, x=7", "7, 5", True),
        ("", r"\frac{e^x-e^{-x}}{2}", r"\sinh x", True),
        ("", r"\mathbb{R}", r"(-\infty,\infty)", True),
        ("", r"x \ne 2", r"(-\infty,2)\cup(2,\infty)", True),
        ("", "x < 1", "-x > -1", True),
        ("", "x^2 < 4", "(-2,2)", False),
        ("", "a) 3 b) 5", "3, 5", True),
        ("", "(A) 12", "(B) 12", False),
    ],
)
def test_what_the_question_and_the_form_decide(question: str, reference: str, answer: str, right: bool) -> None:
    case = {"grader": "math", "question": question, "reference": reference, "response": f"\\boxed{{{answer}}}"}
    assert (_status(case) == "correct") is right
