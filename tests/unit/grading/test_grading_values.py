"""Where a reference's value stands in a text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpgea.grading.registry import canonical_answers, find_value, value_is_distinct


@pytest.mark.parametrize(
    ("text", "reference", "offset"),
    [
        ("costs $18.", "18", 7),
        ("18 .", "18", 0),
        ("= 180, then 18", "18", 12),
        ("3.18 and 18", "18", 9),
        ("18,000", "18", None),
        ("18, 000", "18", 0),
        ("2,18", "18", None),
        ("x18", "18", None),
        ("18th", "18", None),
        (r"2\cdot18", "18", 6),
        ("20-18", "18", 3),
        ("20 - 18", "18", 5),
        ("= -18", "18", None),
        ("= -18", "-18", 2),
        ("3-18", "-18", None),
        ("18.0 left", "18", 0),
        ("18.05", "18", None),
        ("1/18", "18", None),
        ("18/5", "18", None),
        ("it is 1,234 or 1234", "1234", 6),
        ("it is 1234", "1,234", 6),
        ("11,234", "1234", None),
        (r"so \frac{3}{4} or 0.75", r"\frac{3}{4}", 3),
        ("0.75", "3/4", 0),
        ("3/4", "0.75", 0),
        ("13/4", "3/4", None),
        ("so x + 1", "x+1", 3),
        ("the East", r"\text{east}", 4),
        ("Easter", "east", None),
        ("twenty five sheep", "twenty five", 0),
        ("nothing", "18", None),
        ("", "18", None),
    ],
)
def test_find_value(text: str, reference: str, offset: int | None) -> None:
    assert find_value(text, reference) == offset


@given(st.integers(0, 10**7), st.integers(0, 10**7))
def test_a_number_is_found_in_itself_and_in_no_other(value: int, other: int) -> None:
    text = f"so we get {other:,} in all."
    assert (find_value(text, str(value)) is not None) == (value == other)


@pytest.mark.parametrize(
    ("reference", "question", "distinct"),
    [
        ("18", "How many?", True),
        ("18", "Take 18 of them.", False),
        ("18", "Take 180 of them.", True),
        ("5", "How many?", False),
        ("-5", "How many?", False),
        ("C", "Which?", False),
        (r"\text{east}", "Which way?", True),
        ("1,234", "There are 1234.", False),
    ],
)
def test_value_is_distinct(reference: str, question: str, distinct: bool) -> None:
    assert value_is_distinct(reference, question) is distinct


@pytest.mark.parametrize(
    ("reference", "grader", "strings"),
    [
        (" 18 ", "math", ["18"]),
        ("1,234", "math", ["1,234", "1234"]),
        (r"\frac12", "math", [r"\frac12", r"\frac{1}{2}", "1/2", "0.5"]),
        ("1/3", "math", ["1/3", r"\frac{1}{3}"]),
        ("0.50", "math", ["0.50", "0.5", r"\frac{1}{2}", "1/2"]),
        (r"\text{(C)}", "choice", [r"\text{(C)}", "C"]),
        ("two  five", "exact", ["two  five", "two five"]),
        ("1,234", "my.module:grade", ["1,234"]),
    ],
)
def test_canonical_answers(reference: str, grader: str, strings: list[str]) -> None:
    assert canonical_answers(reference, grader) == strings
