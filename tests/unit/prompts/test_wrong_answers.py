"""The control's wrong answers: another value, of the same kind, always the same."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpgea.grading.values import answer_value
from vpgea.prompts.wrong_answers import wrong_answer
from vpgea.questions.question import Question


@given(st.integers(-(10**6), 10**6), st.text("abc", max_size=4))
def test_a_whole_number_becomes_another_one_near_it(value: int, name: str) -> None:
    question = Question(name, "How many?", f"Work. #### {value}")
    found = int(wrong_answer(question, "math"))
    assert 1 <= abs(found - value) <= 9
    assert found >= 0 or value <= 0
    assert found == int(wrong_answer(question, "math"))


@given(st.fractions(Fraction(-50), Fraction(50), max_denominator=60))
def test_a_fraction_becomes_another_fraction(value: Fraction) -> None:
    text = rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
    found = wrong_answer(Question("q", "?", text), "math")
    assert answer_value(found, "math") != answer_value(text, "math")


@pytest.mark.parametrize(
    ("answer", "options", "allowed"),
    [
        ("B", ("one", "two", "three"), {"A", "C"}),
        ("0.75", (), {f"{0.75 + step:.2f}" for step in range(-9, 10) if step and 0.75 + step > 0}),
        ("x^2+1", (), {"0"}),
        ("Monday", (), {"0"}),
        (r"\sqrt{0}", (), {"0", "1"}),
        (r"50\%", (), {"0"}),
    ],
)
def test_other_kinds(answer: str, options: tuple[str, ...], allowed: set[str]) -> None:
    grader = "choice" if options else "math"
    found = {wrong_answer(Question(str(index), "?", answer, options), grader) for index in range(40)}
    assert found <= allowed
    assert answer_value(answer, grader) not in {answer_value(text, grader) for text in found}
