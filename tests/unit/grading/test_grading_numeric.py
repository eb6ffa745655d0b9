"""Rejection by values: never of what is equal, at no cost where numbers have no bound. And what sizes settle."""

from __future__ import annotations

import time

import pytest

from vpgea.grading.base import GradeRequest, Status
from vpgea.grading.math import grade_math
from vpgea.grading.normalise import normalise
from vpgea.grading.numeric import clearly_different, formula_values
from vpgea.grading.sizes import spelling

EQUAL = [
    (r"x^2-3x+2", "(x-1)(x-2)"),
    (r"\frac{1}{\sqrt{2}+1}", r"\sqrt{2}-1"),
    (r"\cos 2x", r"\cos^2 x-\sin^2 x"),
    (r"\sin 20^\circ", r"\cos 70^\circ"),
    (r"e^{i\pi}", "-1"),
    (r"(1+i)^2", "2i"),
    (r"\sqrt{x^2}", "x"),
    (r"|x-3|", r"\sqrt{(x-3)^2}"),
    (r"10^{20}+1-10^{20}", "1"),
    (r"2^{100}+1", r"2^{100}"),  # not equal, but not told apart by floating-point numbers
    (r"\lfloor 3\cdot\frac{1}{3}\rfloor", "1"),
    (r"\lfloor \sqrt{2}^2 \rfloor", "2"),
    (r"\sin(10^{22})", r"\sin(10^{22}+\pi)"),
    (r"\cos(n\pi)", r"(-1)^n"),
    (r"(-8)^{1/3}", "-2"),
    (r"\frac{x^3}{3}+C", r"\frac{x^3}{3}+c"),
    (r"\arctan 1", r"\frac{\pi}{4}"),
    (r"\log_2 64", "6"),
    (r"\binom{10}{3}", "120"),
    (r"\frac{13!}{720}", "8648640"),
    (r"\frac{a^{-1}+b^{-1}}{2}", r"\frac{a+b}{2ab}"),
    (r"\frac{9^{9^9}}{9^{9^9}}", r"x-x+\frac{y}{y}"),
    (r"m v_0^2", r"v_{0}^2 m"),
    ("0.333333x", r"\frac{x}{3}"),
]
DIFFERENT = [
    (r"\frac{R}{r}", "1"),
    (r"\frac{R}{r}", r"\frac{r}{R}"),
    (r"\frac{M}{M+m}", r"\frac{m}{M+m}"),
    ("V-v", "0"),
    (r"3r^2", r"3R^2"),
    (r"5\sqrt{2}", r"5\sqrt{3}"),
    ("4.6x", "4.57x"),
    (r"10^{-24}x", r"10^{-23}x"),
    ("x_1+x_2", "x_1-x_2"),
    (r"\sin x", r"\cos x"),
    (r"e^{i\pi/3}", r"e^{i\pi/4}"),
    (r"\frac{1}{2}\ln 2", r"\ln 2"),
    ("5", "9^{9^9}"),
    ("5", "(10^7)!"),
    ("5", r"\sin(10^{10^6})"),
    ("5", "10^{-999999999}"),
    (r"\sqrt{2}", r"\frac{9^{9^9}}{9^{9^9}}"),
]
UNCERTAIN = [
    "1/2x",
    "2^10",
    r"1\frac{4}{5}x",
    r"\sin x^2",
    r"\sin x \cdot y",
    r"\log 10",
    "f'(x)",
    "2 3",
    "3x10",
    "1e-5x",
]
UNCERTAIN += [
    r"\frac{d}{dx}x^3",
    "x=5",
    "x<5",
    "1,2",
    r"5\%",
    r"5\text{ m}",
    "east",
    r"\infty",
    r"\pm 2",
    "52_8",
    "[1]",
]
UNCERTAIN += [
    r"\Gamma(5)",
    r"\sin^{-1} x",
    "x^2^3",
    "5!!",
    r"\sum_{k=1}^{9} k",
    "(" * 100 + "1" + ")" * 100,
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_what_is_equal_or_not_certain_is_never_rejected(one: str, other: str) -> None:
    assert not clearly_different(one, other, 1e-6)
    assert not clearly_different(other, one, 1e-6)


@pytest.mark.parametrize(("gold", "found"), DIFFERENT)
def test_what_differs_is_rejected_without_sympy(gold: str, found: str) -> None:
    assert clearly_different(gold, found, 1e-6)


@pytest.mark.parametrize("text", UNCERTAIN)
def test_what_has_two_readings_has_no_values(text: str) -> None:
    assert formula_values(text) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("(0,5)", r"2\sqrt{10}"),
        (r"(-\infty,3) \cup (5,\infty)", r"\sqrt{3}"),
        (r"\begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix}", r"\sqrt{3}"),
        ("Sunday", r"2\sqrt{5}"),
        (r"-\sqrt{3}, 1", r"2 \sin 5x"),
        ("(a+5)(b+2)", r"1\frac{4}{5}"),
    ],
)
def test_things_of_another_kind_are_rejected_without_sympy(one: str, other: str) -> None:
    assert clearly_different(one, other, 1e-6)
    assert clearly_different(other, one, 1e-6)


@pytest.mark.parametrize(
    ("one", "other"),
    [("2, 2", "2"), ("x=1, y=2", "y"), (r"\det\begin{pmatrix}1\end{pmatrix}", "1"), ("east", "aest"), ("(x)", "x")],
)
def test_things_that_may_be_of_one_kind_are_not(one: str, other: str) -> None:
    assert not clearly_different(one, other, 1e-6)
    assert not clearly_different(other, one, 1e-6)


def test_a_configured_tolerance_is_kept_clear_of() -> None:
    assert clearly_different(r"\pi", "3.14", 1e-6)
    assert not clearly_different(r"\pi", "3.14", 1e-3)


SETTLED = {
    "a tower of powers in two spellings": ("9^{9^9}", "9^{9^{9}}", True),
    "a tower of powers": ("3", "9^{9^{9^9}}", False),
    "a tower without braces": ("3", "9^9^9", False),
    "factorials of factorials": ("3", "((((9!)!)!)!)", False),
    "a sum of so many terms": ("3", r"\sum_{k=1}^{1000000000} \frac{1}{k^3}", False),
    "nested fractions": ("1", r"\frac{1}{1+" * 3000 + "1" + "}" * 3000, False),
    "nested braces": ("5", "{" * 100_000 + "5" + "}" * 100_000, True),
    "nested boxes": ("5", r"\boxed{" * 30_000 + "5" + "}" * 30_000, True),
    "thin spaces": ("5", r"\," * 100_000 + "5", True),
    "backslashes and spaces": ("5", r"\ " * 100_000 + "5", True),
    "quads": ("5", r"\quad" * 20_000 + " 5", True),
    "digits against a number": ("5", "9" * 200_000, False),
    "digits against a formula": ("x+1", "9" * 200_000, False),
    "radicals in another order": (
        ", ".join(rf"\sqrt{{{n}}}" for n in range(400)),
        ", ".join(rf"\sqrt{{{n}}}" for n in reversed(range(400))),
        True,
    ),
    "a set in another order": (
        r"\{" + ",".join(map(str, range(3000))) + r"\}",
        r"\{" + ",".join(map(str, reversed(range(3000)))) + r"\}",
        True,
    ),
    "another list of radicals": (
        ", ".join(rf"\sqrt{{{n}}}" for n in range(400)),
        ", ".join(rf"\sqrt{{{n}}}" for n in range(1, 401)),
        False,
    ),
}


@pytest.mark.parametrize("case", SETTLED)
def test_what_is_large_is_settled_at_once(case: str) -> None:
    gold, found, right = SETTLED[case]
    began = time.process_time()
    grade = grade_math(GradeRequest(f"\\boxed{{{found}}}", gold), 1e-6)
    assert grade.status is (Status.CORRECT if right else Status.WRONG)
    assert time.process_time() - began < 1.5


def test_normalising_takes_linear_time() -> None:
    for command in (r"\quad", r"\,", r"\!", r"\text{ }", " "):
        began = time.process_time()
        assert normalise("5" + command * 20_000) == "5"
        assert time.process_time() - began < 1.0


def test_spelling_drops_braces_around_one_thing_alone() -> None:
    assert spelling("x^{2} + y_{1}") == spelling("x^2+y_1")
    assert spelling(r"\sqrt{{12}}") == spelling(r"\sqrt{12}")
    assert spelling("x^{12}") != spelling("x^12")
    assert spelling("{ab}c") != spelling("abc")
