"""What a reference's final answer is, and whether an answer could ever equal it."""

from __future__ import annotations

import pytest

from vpgea.grading.references import final_answer, is_readable


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("Four crates hold 4*12=<<4*12=48>>48 jars.\nIn all 48+24=<<48+24=72>>72.\n#### 72", "72"),
        ("#### 1,200", "1,200"),
        (r"With the denominator 6 this is $\frac36+\frac26=\boxed{\frac{5}{6}}$.", r"\frac{5}{6}"),
        ("Therefore, the answer is: 180.", "180"),
        ("**Answer:** 12", "12"),
        ("  x^2 + 1 ", "x^2 + 1"),
        ("1/2 or 0.5", "1/2"),
        ("2 or 3", "2 or 3"),
    ],
)
def test_final_answer_of_a_math_reference(reference: str, answer: str) -> None:
    assert final_answer(reference, "math") == answer


def test_final_answer_to_other_graders() -> None:
    assert final_answer(r"\text{(C)}", "choice") == "C"
    assert final_answer(" #### 5 ", "exact") == "#### 5"
    assert final_answer(" #### 5 ", "my.module:grade") == "#### 5"


@pytest.mark.parametrize(
    "reference",
    [
        *(r"\begin{pmatrix} 4 \\ -3 \end{pmatrix}", r"3\text{ hours } 20\text{ minutes}", r"\text{October 30}"),
        *("72", r"\frac{1}{2}", r"\text{no solution}", "east", "(1, 2)", r"x \in [0, 1]", "5 cm", "#### 1,200"),
    ],
)
def test_readable_math_references(reference: str) -> None:
    assert is_readable(reference, "math")


@pytest.mark.parametrize("reference", ["", "Tom has 5 apples left and Ann has none", "See the solution of exercise 4"])
def test_prose_is_not_readable(reference: str) -> None:
    assert not is_readable(reference, "math")


@pytest.mark.parametrize(
    "reference",
    [
        *(r"\boxed{5", "####", "<think>5</think>", r"x \boxed{5} wait, that is wrong", "Ans: 5", "So x=5"),
        *("oxed{5}", "\boxed{5}", "\frac{1}{2}", "rac{1}{2}"),
    ],
)
def test_what_is_marked_in_vain_or_has_lost_its_backslash_is_not_readable(reference: str) -> None:
    assert not is_readable(reference, "math")


@pytest.mark.parametrize("reference", ["3:4", "AB:BC = 2:3", "12:30", r"\sqrt{2}", "It", "x=5", "Thus"])
def test_ratios_names_and_equations_are_readable(reference: str) -> None:
    assert is_readable(reference, "math")


def test_a_choice_must_be_the_letter_of_an_option() -> None:
    assert is_readable("(B)", "choice", ["1", "2"])
    assert not is_readable("C", "choice", ["1", "2"])
    assert not is_readable("fifteen", "choice")
    assert not is_readable("", "exact")
