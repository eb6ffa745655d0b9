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


SIMPLIFY = r"Simplify $\frac{x^2-1}{x-1}$."
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
        ("Expand $(x-1)(x-2)$.", "x^2-3x+2", "(x-2)(x-1)", False),
        ("Factor $2-3x+x^2$.", "(x-1)(x-2)", "x^2-3x+2", False),
        ("Which is larger, $2^{100}$ or $3^{60}$?", "2^{100}", "2^{100}", True),
        ("Compute $2^{8}$.", "256", "2^8", False),
        (SIMPLIFY, "x+1", r"\frac{x^{2}-1}{x-1}", False),
        (SIMPLIFY, "x+1", r"\frac{(x^2-1)}{(x-1)}", False),
        (SIMPLIFY, "x+1", r"y=\frac{x^2-1}{x-1}", False),
        (SIMPLIFY, "x+1", r"\frac{x^2-1}{x-1}=\frac{x^2-1}{x-1}", False),
        (SIMPLIFY, "x+1", r"\frac{x^2-1}{x-1}+0", False),
        (SIMPLIFY, "x+1", r"1\cdot \frac{x^2-1}{x-1}", False),
        (SIMPLIFY, "x+1", r"\frac{-1+x^2}{x-1}", False),
        (SIMPLIFY, "x+1", r"-\frac{1-x^2}{x-1}", False),
        (SIMPLIFY, "x+1", r"\frac{x^2-1}{x-1}=x+1", True),
        (r"Simplify $\frac{1}{\sqrt2}$.", r"\frac{\sqrt2}{2}", r"1/\sqrt{2}", False),
        ("Factor $x^2+5x+6$.", "(x+2)(x+3)", "1(x^2+5x+6)", False),
        ("Factor $x^2+5x+6$.", "(x+2)(x+3)", "x^2(1+5/x+6/x^2)", False),
        ("Factor $5y+10$.", "5(y+2)", "5y(1+2y^{-1})", False),
        (r"Simplify $\frac{6}{2x}$.", r"\frac{3}{x}", "3x^{-1}", True),
        ("How many subsets has a set of eight elements?", "256", "2^8", True),
        ("", "2.5 million", "2500000", True),
        ("", "12", "1<|im_end|>2", False),
        ("", "12", "12<|im_end|>", True),
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
        ("", r"\frac{x}{y}", "x/y", True),
        ("", r"\frac{1}{n}", "1/n", True),
        ("", r"\frac{2\pi}{T}", r"2\pi/T", True),
        ("", r"\frac{mv^2}{r}", "mv^2/r", True),
        ("", r"\frac{a+b}{c}", "(a+b)/c", True),
        ("", r"x+\frac1x", "x+1/x", True),
        ("", r"\frac{mg}{k}", r"m\cdot g/k", True),
        ("", "x/y", r"\frac{x}{y}", True),
        ("", r"5\text{ m/s}", "5 m/s", True),
        ("", "5 m/s", r"5\text{ m/s}", True),
        ("", "5 m/s", "5", True),
        ("", r"5\frac{\text{m}}{\text{s}}", "5 m/s", True),
        ("", "5 m/s", "5 m/s", True),
        ("", r"60\text{ km/h}", "60 km/h", True),
        ("", "60 km/h", "60", True),
        ("", r"\$5/hour", "5", True),
        ("", r"\frac{c}{\lambda}", r"c/\lambda", True),
        ("", r"\frac{3}{x}", "3/x", True),
        ("", "1/n", r"\frac1n", True),
        ("", r"2\pi/T", r"\frac{2\pi}{T}", True),
        ("", "x^2/4", "x^2/4", True),
        ("", r"m\cdot g", "mg", True),
        ("", r"m \cdot g/k", r"\frac{mg}{k}", True),
        ("", r"3\text{ g/L}", "3 g/L", True),
        ("", "30 mg/L", r"30\text{ mg/L}", True),
        ("", r"9.8\text{ m/s}^2", "9.8 m/s^2", True),
        ("", "9.8 m/s^2", "9.8", True),
        ("", r"\frac{5}{2}\text{ m/s}", r"\frac52 m/s", True),
        ("", "E/c", r"\frac{E}{c}", True),
        ("", "5", "5 m/s", True),
        ("", r"6\text{ kg}\cdot\text{m/s}", r"6\text{ kg m/s}", True),
        ("", "x/y", "x", False),
        ("", "1/n", "1", False),
        ("", "3/x", "3", False),
        ("", "mv^2/r", "mv^2", False),
        ("", r"2\pi/T", r"2\pi", False),
        ("", "60/h", "60", False),
        ("", "x/y", "x/z", False),
        ("", "1/n", "1/m", False),
        ("", "a/b", "a/c", False),
        ("", "m/s", "m", False),
        ("", "x/s", "x", False),
        ("", r"a\cdot b", "a", False),
        ("", "5 m/s", "5 km/s", False),
        ("", "5 m/s", "5 s", False),
        ("", "3/m", "3", False),
        ("", "3/s", "3", False),
        ("", "2/L", "2", False),
        ("", "n/2", "n", False),
        ("", "5m/s", "5m", False),
        ("", r"x\leq 5", r"x\leq5", True),
        ("", "x<3", r"x\lt3", True),
        ("", r"x\geq 5", r"x\geq5", True),
        ("", r"x\neq 5", r"x\neq5", True),
        ("", r"x\leqslant 5", r"x\leqslant5", True),
        ("", r"x\le 5", r"x\leq5", True),
        ("", "x>3", r"x\gt3", True),
        ("", r"x\geqslant 2", r"x\geqslant2", True),
        ("", r"x\leq 5", r"x\geq5", False),
        ("", r"x\neq5", r"x\neq6", False),
        ("", r"x\lt3", "x<4", False),
        ("", "90", r"90\degrees", True),
        ("", r"\emptyset", r"\varnothing", True),
        ("Find $m+n$.", "73", "m+n=73", True),
        ("Find $m+n$.", "73", "m+n=8+65=73", True),
        ("Compute $|z|$.", "5", "|z|=5", True),
        ("", "5", "|z|=5", True),
        ("", r"60^\circ", r"\angle ABC=60^\circ", True),
        ("", "12", r"\text{Area}=12", True),
        ("", "12", "[ABC]=12", True),
        ("", r"\frac23", r"\frac{a}{b}=\frac23", False),
        (r"Find $\frac{a}{b}$.", r"\frac23", r"\frac{a}{b}=\frac23", True),
        (r"Find $\frac ab$.", r"\frac23", r"\frac{a}{b}=\frac23", True),
        ("What is $f(3)+f(4)$?", "7", "f(3)+f(4)=7", True),
        ("", r"\frac13", r"P(A\cap B)=\frac13", True),
        ("", r"\frac13", r"E[X]=\frac13", True),
        ("", "5", r"\overline{AB}=5", True),
        ("", "-2", "x_1=x_2=-2", True),
        ("", "5", "a+b=5", False),
        ("Find $m+n$.", "73", "a+b=73", False),
        ("Find $m+n$.", "73", "m+n=74", False),
        ("Find $m+n$.", "73", "m+n=8+66=73", False),
        ("Find $m+n$.", "73", "m-n=73", False),
        ("Find $x^2+y^2$.", "25", "x^2+y^2=25", True),
        ("Find $x^2+y^2$.", "25", "x^2+y^2=24", False),
        ("", "5", "|3|=5", False),
        ("", "5", "|-3|=5", False),
        ("", "5", "P(A)=4", False),
        ("", "5", "2+2=5", False),
        ("What is 2+2?", "4", "2+2=4", True),
        ("What is 2+2?", "5", "2+2=5", False),
        ("What is $2+3$?", "5", "2+3=5", True),
        ("Find $a+b+c$", "10", "a+b+c = 10", True),
        ("Find $100m+n$.", "127", "100m+n=127", True),
        ("What is $ab$?", "6", "ab=6", True),
        ("Find $abc$.", "6", "abc=6", True),
        (r"Find $\cos C$.", r"\frac12", r"\cos C=\frac12", True),
        (r"Find $\sin 2x$.", r"\frac12", r"\sin 2x=\frac12", True),
        ("If $x+y=7$ find $x$.", "7", "x+y=7", False),
        ("$a+b=5$. Find $ab$", "5", "a+b=5", False),
        ("", "5", r"m\angle ABC=5", True),
        ("", "5", r"\measuredangle ABC=5", True),
        ("", "5", r"\text{Total cost}=5", True),
        ("", "5", r"\text{Area}=2+3=5", True),
        ("", "5", r"\text{Area}=2+2=5", False),
        ("", "5", r"\text{not area}=5", False),
        ("", "12,000", "12,0", False),
        ("", "12,000", "12,000", True),
        ("", "12,000", "12000", True),
        ("", "12,000", "0,12", False),
        ("", "1,234", "234,1", False),
        ("", "1,234", "1,234", True),
        ("", "1,234", "1{,}234", True),
        ("Find all values of x", "12,000", "12000", True),
        ("What are the two numbers?", "100,200", "200,100", True),
        ("What are the two numbers?", "100,200", "100, 200", True),
        ("", "1,234,567", "1,234,567", True),
        ("", "1,234", r"\{1,234\}", False),
        ("", "1,234", "(1,234)", False),
        ("", "12,000", "12; 0", False),
        ("", "[0,10]", "0,10", False),
        ("", "[0,10)", "0,10", False),
        ("", "(0,10]", "0,10", False),
        ("", "(0,10)", "0,10", True),
        ("What is the domain of $f$?", "(0,10)", "0,10", False),
        ("What is the range?", "(0,10)", "0,10", False),
        ("Solve the inequality $x^2<1$", "(-1,1)", "-1,1", False),
        ("Solve $x^2<1$", "(-1,1)", "-1,1", False),
        (r"Solve $x^2\le 1$", "[-1,1]", "-1,1", False),
        ("Find the point.", "(3,1)", "3,1", True),
        ("", "[0,10]", "[0,10]", True),
        ("What is the domain of $f$?", "(0,10)", "0<x<10", True),
        ("", "[0,10]", "10,0", False),
        ("What is the domain of $f$?", "[0,10]", r"\{0,10\}", False),
        ("", "[3,4]", "(3,4)", False),
        ("", "Yes", "YES", True),
        ("", "Paris", "PARIS", True),
        ("", "even", "EVEN", True),
        ("", "No", "NO", True),
        ("", "AB", "ab", False),
        ("", "BAC", "bac", False),
        ("", "True", "TRUE", True),
        ("", "Paris", "LONDON", False),
        ("", "Monday", "MONDAY", True),
        ("", "AB", "AB", True),
        ("", "BAC", "BAC", True),
        ("", "no solution", "NONE", True),
        ("", "YES", "yes", True),
        ("", "NO", "no", True),
        ("", "DNE", "dne", True),
        ("", "[0,10]", r"[0,5]\cup[5,10]", True),
        ("", "[0,10]", r"[0,5)\cup(5,10]", False),
        ("", "[0,10]", r"[0,5)\cup[5,10]", True),
        ("", "[0,10]", r"[0,6]\cup[5,10]", True),
        ("", "[0,10]", r"[0,4]\cup[5,10]", False),
        ("", r"(-\infty,2)\cup(3,\infty)", r"\mathbb{R}\setminus[2,3]", True),
        ("", r"(-\infty,2]\cup[3,\infty)", r"\mathbb{R}\setminus(2,3)", True),
        ("", r"(-\infty,2)\cup(3,\infty)", r"\mathbb{R}\setminus(2,3)", False),
        ("", r"(-\infty,0)\cup(0,\infty)", r"\mathbb{R}\setminus\{0\}", True),
        ("", r"\mathbb{R}\setminus\{0\}", r"(-\infty,0)\cup(0,\infty)", True),
        ("", r"\mathbb{R}\setminus\{0\}", r"x\ne0", True),
        ("", r"\mathbb{R}\setminus\{0\}", r"\mathbb{R}\setminus\{1\}", False),
        ("", r"\mathbb{R}\setminus\{0,1\}", r"(-\infty,0)\cup(0,1)\cup(1,\infty)", True),
        ("", r"(-\infty,2)\cup(3,\infty)", r"x<2 \vee x>3", True),
        ("", r"(-\infty,2)\cup(3,\infty)", r"(-\infty,2)\bigcup(3,\infty)", True),
        ("", "[0,10]", r"x\ge0, x\le10", True),
        ("", "[0,10]", r"x\ge0, x<10", False),
        ("", r"[2,\infty)", "x ≧ 2", True),
        ("", r"x\ge2", "x ≧ 2", True),
        ("", r"x\le2", "x ≦ 2", True),
        ("", r"A\cup B", r"B\cup A", True),
        ("", r"A\cap B", r"B\cap A", True),
        ("", r"A\cup B", r"A\cap B", False),
        ("", r"A\cup B", r"A\cup C", False),
        ("", "52_8", "(52)_8", True),
        ("", "52_8", "{52}_8", True),
        ("", "52_8", r"52_{\text{eight}}", True),
        ("", "52_8", r"52\text{ (base 8)}", True),
        ("", "52_8", "52 (base 8)", True),
        ("", "52_8", r"52\text{ base 8}", True),
        ("", "52_8", r"52_{\text{base }8}", True),
        ("", "52_8", "5 2_8", False),
        ("", "52_8", "52_9", False),
        ("", "52_8", r"52\text{ (base 9)}", False),
        ("", r"5\sqrt{2}", "5√2", True),
        ("", r"5\sqrt{2}", "5√3", False),
        ("", r"5\sqrt2", "5√(2)", True),
        ("", "52_8", "(52)_9", False),
        ("", r"[-1,\infty)", r"x\in[-1,\infty)", True),
        ("Convert 10 to binary.", "1010", "1010_2", True),
        ("Convert 10 to binary.", "1010", "1010_3", False),
        ("Convert 8 to octal.", "10", "10_8", True),
        ("", "1010", "1010_2", False),
        ("Convert 1010 from binary.", "10", "10_2", False),
        (r"What is $\gcd(12,18)$?", "6", r"\gcd(12,18)=6", True),
        (r"Find $x+y$ if $x-y=3$.", "3", "x-y=3", False),
    ],
)
def test_what_the_question_and_the_form_decide(question: str, reference: str, answer: str, right: bool) -> None:
    case = {"grader": "math", "question": question, "reference": reference, "response": f"\\boxed{{{answer}}}"}
    assert (_status(case) == "correct") is right


LEAVES = "At what time does the train leave?"


@pytest.mark.parametrize(
    ("question", "reference", "answer", "right"),
    [
        (LEAVES, "5:30", r"\frac{1}{6}", False), (LEAVES, "5:30", "10:60", False),
        (LEAVES, "5:30", r"5:30\text{ p.m.}", True), (LEAVES, r"5:30\text{ p.m.}", "5:30 PM", True),
        (LEAVES, r"5:30\text{ p.m.}", "5:30", True), (LEAVES, r"5:30\text{ p.m.}", r"5:30 \text{ a.m.}", False),
        ("What is the ratio?", "5:30", "1:6", True), ("What is the ratio of the hours?", "3:20", r"\frac{3}{20}", True),
        ("On which day?", "2024-01-05", "2018", False), ("On which day?", "2024-01-05", "2024-05-01", False),
        ("On which day?", "10/5/2020", r"\frac{1}{1010}", False), ("On which day?", "10/5/2020", "10/5/2020", True),
        ("Which animal?", r"\text{cat}", r"\text{act}", False), ("Which animal?", r"\text{cat}", "cat", True),
        ("Which animal?", r"\text{cat}", r"\text{Cat}", True), ("Which day?", r"\text{Sun}", "nuS", False),
        ("Is it?", r"\text{no}", "on", False), ("Is it?", r"\text{no}", r"\text{No}", True),
        ("Find the volume.", "abc", "bca", True),
    ],
)  # fmt: skip
def test_dates_times_and_words_are_no_sums_quotients_and_products(
    question: str, reference: str, answer: str, right: bool
) -> None:
    grade = grade_math(GradeRequest(rf"\boxed{{{answer}}}", reference, question), 1e-6)
    assert grade.status == ("correct" if right else "wrong")
