r"""Answers that copy their question, with nothing computed: tasks with their values, and copies in other clothes."""

from __future__ import annotations

import math
from fractions import Fraction
from random import Random


def _restyled(random: Random, formula: str) -> str:
    """The same formula with other spacing and other commands."""
    for old, new in [
        (r"\frac", r"\dfrac"),
        (r"\cdot ", r"\times "),
        ("+", random.choice([" + ", r"\,+\,"])),
        ("-", " - "),
    ]:
        if random.random() < 0.3:
            formula = formula.replace(old, new)
    return formula


def fraction(value: Fraction) -> str:
    sign = "-" if value < 0 else ""
    value = abs(value)
    return f"{sign}{value}" if value.denominator == 1 else f"{sign}\\frac{{{value.numerator}}}{{{value.denominator}}}"


def _sum_of_products(random: Random) -> tuple[str, str, str]:
    a, b, c = (random.randint(2, 60) for _ in range(3))
    return f"{a}+{b}\\cdot {c}", str(a + b * c), "Compute"


def _power(random: Random) -> tuple[str, str, str]:
    a, b = random.randint(2, 12), random.randint(2, 7)
    return f"{a}^{{{b}}}", str(a**b), "Evaluate"


def _factorial(random: Random) -> tuple[str, str, str]:
    n = random.randint(3, 11)
    return f"{n}!", str(math.factorial(n)), "Evaluate"


def _square_root(random: Random) -> tuple[str, str, str]:
    n = random.randint(3, 90)
    return f"\\sqrt{{{n * n}}}", str(n), "Evaluate"


def _surd(random: Random) -> tuple[str, str, str]:
    a, b = random.randint(2, 12), random.choice([2, 3, 5, 6, 7, 10, 11, 13])
    return f"\\sqrt{{{a * a * b}}}", f"{a}\\sqrt{{{b}}}", "Simplify"


def _fractions(random: Random) -> tuple[str, str, str]:
    a, b = (Fraction(random.randint(1, 9), random.randint(2, 9)) for _ in range(2))
    if 1 in (a.denominator, b.denominator):
        a, b = Fraction(1, 2), Fraction(1, random.randint(3, 40))
    return f"{fraction(a)}+{fraction(b)}", fraction(a + b), "Compute"


def _reducible(random: Random) -> tuple[str, str, str]:
    value, k = Fraction(random.randint(1, 9), random.choice([11, 13, 17])), random.randint(2, 9)
    formula = f"\\frac{{{value.numerator * k}}}{{{value.denominator * k}}}"
    return formula, fraction(value), "Reduce to lowest terms:"


def _series(random: Random) -> tuple[str, str, str]:
    n = random.randint(5, 200)
    return f"\\sum_{{k=1}}^{{{n}}} k", str(n * (n + 1) // 2), "Compute"


def _product(random: Random) -> tuple[str, str, str]:
    n = random.randint(3, 9)
    return f"\\prod_{{k=1}}^{{{n}}} k", str(math.factorial(n)), "Compute"


def _integral(random: Random) -> tuple[str, str, str]:
    a, n = random.randint(1, 6), random.randint(1, 3)
    return f"\\int_0^{{{a}}} x^{{{n}}}\\,dx", fraction(Fraction(a ** (n + 1), n + 1)), "Compute"


def _limit(random: Random) -> tuple[str, str, str]:
    a = random.randint(2, 40)
    return f"\\lim_{{x\\to 0}}\\frac{{\\sin {a}x}}{{x}}", str(a), "Compute"


def _floor(random: Random) -> tuple[str, str, str]:
    a, tenth = random.randint(2, 90), random.randint(1, 9)
    return f"\\lfloor {a}.{tenth}\\rfloor", str(a), "Evaluate"


def _logarithm(random: Random) -> tuple[str, str, str]:
    base, n = random.randint(2, 7), random.randint(2, 6)
    return f"\\log_{{{base}}} {base**n}", str(n), "Evaluate"


def _divisor(random: Random) -> tuple[str, str, str]:
    a, b, g = random.randint(2, 9), random.randint(2, 9), random.randint(2, 30)
    return f"\\gcd({a * g},{b * g})", str(math.gcd(a * g, b * g)), "Find"


def _determinant(random: Random) -> tuple[str, str, str]:
    a, b, c, d = (random.randint(1, 9) for _ in range(4))
    return f"\\begin{{vmatrix}}{a}&{b}\\\\{c}&{d}\\end{{vmatrix}}", str(a * d - b * c), "Find the determinant"


def _quadratic(random: Random) -> tuple[str, str, str]:
    a, b = random.sample(range(1, 12), 2)
    return f"x^2-{a + b}x+{a * b}", f"(x-{a})(x-{b})", "Factor"


def _square(random: Random) -> tuple[str, str, str]:
    a = random.randint(1, 20)
    return f"(x+{a})^2", f"x^2+{2 * a}x+{a * a}", "Expand"


def _inequality(random: Random) -> tuple[str, str, str]:
    a, b = random.randint(2, 9), random.randint(1, 9)
    return f"{a}x-{a * b}<0", f"(-\\infty,{b})", "Solve"


def _percentage(random: Random) -> tuple[str, str, str]:
    n = random.randint(11, 99)
    return f"{n}\\%", str(n / 100), "Write as a decimal:"


_TASKS = [
    _sum_of_products, _power, _factorial, _square_root, _surd, _fractions, _reducible, _series, _product, _integral,
    _limit, _floor, _logarithm, _divisor, _determinant, _quadratic, _square, _inequality, _percentage,
]  # fmt: skip


def draw_copy(random: Random) -> tuple[str, str, str, bool]:
    """(question, value, answer, whether the answer is the value)."""
    formula, value, verb = random.choice(_TASKS)(random)
    question = random.choice([f"{verb} ${formula}$.", f"{verb} the following: \\[{formula}\\]", f"{verb}: ${formula}$"])
    if random.random() < 0.2:
        return question, value, value, True
    copied = _restyled(random, formula)
    if value.isdigit():  # what is not a number is none, however it is dressed
        dressed = [copied, f"({copied})", f"{copied}+0", f"1\\cdot ({copied})", f"\\frac{{{copied}}}{{1}}"]
        copied = random.choice([copied, *dressed])
    return question, value, copied, False
