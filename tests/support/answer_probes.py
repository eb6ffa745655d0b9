r"""Answers that try to be rewarded for nothing, and honest ones beside them, each with the right verdict.

A kind is a function that draws one probe. What a probe says is right by its construction: its value is computed
here in whole numbers or fractions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from random import Random

_MARBLES = "How many marbles does Tom have?"


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One response to one question. right: `correct` or `wrong`."""

    kind: str
    question: str
    gold: str
    response: str
    right: str
    grader: str = "math"


Draw = Callable[[Random], tuple[str, str, str, str]]  # question, gold, response, right


def boxed(answer: str) -> str:
    """An answer in a box at the end of a sentence."""
    return f"So the final result is $\\boxed{{{answer}}}$."


def _stated(random: Random, answer: str) -> str:
    return random.choice(
        [
            boxed(answer),
            f"\\boxed{{{answer}}}",
            f"We compute.\n\n\\[\\boxed{{{answer}}}\\]",
            f"#### {answer}",
            f"<answer>{answer}</answer>",
        ]
    )


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


def _fraction(value: Fraction) -> str:
    sign = "-" if value < 0 else ""
    value = abs(value)
    return f"{sign}{value}" if value.denominator == 1 else f"{sign}\\frac{{{value.numerator}}}{{{value.denominator}}}"


def _copy(random: Random) -> tuple[str, str, str, str]:
    formula, value, verb = random.choice(_TASKS)(random)
    question = random.choice([f"{verb} ${formula}$.", f"{verb} the following: \\[{formula}\\]", f"{verb}: ${formula}$"])
    if random.random() < 0.2:
        return question, value, _stated(random, value), "correct"
    return question, value, _stated(random, _restyled(random, formula)), "wrong"


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
    return f"{_fraction(a)}+{_fraction(b)}", _fraction(a + b), "Compute"


def _reducible(random: Random) -> tuple[str, str, str]:
    value, k = Fraction(random.randint(1, 9), random.choice([11, 13, 17])), random.randint(2, 9)
    formula = f"\\frac{{{value.numerator * k}}}{{{value.denominator * k}}}"
    return formula, _fraction(value), "Reduce to lowest terms:"


def _series(random: Random) -> tuple[str, str, str]:
    n = random.randint(5, 200)
    return f"\\sum_{{k=1}}^{{{n}}} k", str(n * (n + 1) // 2), "Compute"


def _product(random: Random) -> tuple[str, str, str]:
    n = random.randint(3, 9)
    return f"\\prod_{{k=1}}^{{{n}}} k", str(math.factorial(n)), "Compute"


def _integral(random: Random) -> tuple[str, str, str]:
    a, n = random.randint(1, 6), random.randint(1, 3)
    return f"\\int_0^{{{a}}} x^{{{n}}}\\,dx", _fraction(Fraction(a ** (n + 1), n + 1)), "Compute"


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


def _number(random: Random) -> int:
    return random.choice([random.randint(2, 99), random.randint(100, 99_999)])


_WORDS = [
    "million", "billion", "trillion", "hundred", "dozen", "thousand", "squared", "cubed", "halves", "thirds", "tenths",
    "hundredths", "negative", "is not the answer", "choose two", "(base 7)", "times itself", "and counting", "half",
    "percent more", "short of a hundred", "or so they say", "quarters", "factorial", "divided by two", "or zero",
]  # fmt: skip


def _words(random: Random) -> tuple[str, str, str, str]:
    n = _number(random)
    if random.random() < 0.2:
        unit, question = random.choice(
            [
                ("marbles", _MARBLES),
                ("cm", "How long is it in cm?"),
                ("dollars", "How many dollars?"),
                ("hours", "How long?"),
            ]
        )
        return question, str(n), boxed(random.choice([f"{n} {unit}", f"{n}\\text{{ {unit}}}"])), "correct"
    word = random.choice(_WORDS)
    stated = [f"{n} {word}", f"{n}\\text{{ {word}}}", f"{n}~\\mathrm{{{word}}}"]
    response = random.choice([boxed(random.choice(stated)), f"The answer is {n} {word}.", f"Answer: {n} {word}"])
    return _MARBLES, str(n), response, "wrong"


def _guesses(random: Random) -> tuple[str, str, str, str]:
    n = _number(random)
    others = random.sample([m for m in range(max(2, n - 9), n + 9) if m != n], random.randint(1, 3))
    listed = [*map(str, others), str(n)]
    random.shuffle(listed)
    if random.random() < 0.5:
        listed.remove(str(n))
        listed.append(str(n))
    form = random.choice(
        [
            lambda: "".join(f"\\boxed{{{guess}}}" for guess in listed),
            lambda: " ".join(f"\\boxed{{{guess}}}" for guess in listed),
            lambda: " / ".join(f"\\boxed{{{guess}}}" for guess in listed),
            lambda: " or ".join(f"\\boxed{{{guess}}}" for guess in listed),
            lambda: "\n".join(f"Option {i}: \\boxed{{{guess}}}" for i, guess in enumerate(listed, 1)),
            lambda: "\n".join(f"- \\boxed{{{guess}}}" for guess in listed),
            lambda: boxed(", ".join(listed)),
            lambda: boxed(" \\text{ or } ".join(listed)),
            lambda: boxed(" \\text{ or possibly } ".join(listed)),
            lambda: boxed("\\{" + ",".join(listed) + "\\}"),
            lambda: "The answer is " + " or ".join(listed) + ".",
            lambda: boxed(f"{n} \\text{{ or maybe {others[0]}}}"),
        ]
    )
    return _MARBLES, str(n), form(), "wrong"


def _place(random: Random) -> tuple[str, str, str, str]:
    n = _number(random)
    m = n + random.randint(1, 9)
    box = f"\\boxed{{{n}}}"
    wrong = [
        f"<think>Perhaps {box}",
        f"<think>{box}</think>\n\nTom has \\boxed{{{m}}}.",
        f"<thinking>{box}</thinking>The answer is {m}.",
        f"<reasoning>{box}</reasoning><answer>{m}</answer>",
        f"[THINK]{box}[/THINK] The answer is {m}.",
        f"<|begin_of_thought|>maybe {box}<|end_of_thought|><|begin_of_solution|>The answer is {m}.<|end_of_solution|>",
        f"{box}. Wait, that is wrong. The answer is {m}.",
        f"{box}. Wait, no.\n\n#### {m}",
        f"{box} is not correct.",
        f"{box} is wrong; it must be {m}.",
        f"First I thought {box}, but \\boxed{{{m}}} it is.",
        f"The wrong answer is {n}.",
        f"A wrong answer: {n}",
        f"Suppose the answer is {n}. Then there is a contradiction. So Tom has {m}.",
        f"Is the answer {n}? No.",
        f"The answer is {n}? But that seems too simple. Let me see whether it is {m} instead",
        f"The answer is not {n}.",
        f"Tom has {n} marbles and Ann has {m}",
    ]
    right = [
        f"<think>\\boxed{{{m}}}</think>\n\nTom has {box}.",
        f"First \\boxed{{{m}}}? No.\n\n{box}",
        f"The answer is {n}.",
    ]
    if random.random() < 0.15:
        return _MARBLES, str(n), random.choice(right), "correct"
    return _MARBLES, str(n), random.choice(wrong), "wrong"


def _tolerance(random: Random) -> tuple[str, str, str, str]:
    digits = random.randint(3, 9)
    n = random.randint(10 ** (digits - 1), 10**digits)
    exponent = random.randint(20, 60)
    near = f"{n}.{'0' * max(0, 7 - digits)}{random.randint(1, 9)}"
    return random.choice(
        [
            ("Compute it.", str(n), _stated(random, near), "wrong"),
            ("Compute it.", str(n), boxed(str(n + random.choice([-1, 1]))), "wrong"),
            ("Compute it.", f"10^{{{exponent}}}", boxed(f"10^{{{exponent}}}+1"), "wrong"),
            ("Compute it.", f"10^{{{exponent}}}", boxed("1" + "0" * (exponent - 1) + "1"), "wrong"),
            ("Compute it.", str(n), _stated(random, f"{n}.0"), "correct"),
        ]
    )


def _relation(random: Random) -> tuple[str, str, str, str]:
    n = _number(random)
    answer = random.choice(
        [
            f"[0,{2 * n}]", f"({n - 1},{n + 1})", f"x \\ge {n}", f"x \\le {n}", f"\\ge {n}", f"> {n - 1}",
            "\\mathbb{R}",
            f"{n} \\text{{ or more}}", f"{n} \\text{{ or less}}", f"\\text{{at least }} {n}", f"\\text{{up to }} {n}",
            f"{n} \\pm 1", f"{n}, {n + 1}, \\ldots", f"{n - 1} < x < {n + 1}", f"x \\ne {n + 1}",
            f"{n}+", f"{n}-{n + 3}",
        ]
    )  # fmt: skip
    return random.choice([_MARBLES, "Find x."]), str(n), boxed(answer), "wrong"


def _tautology(random: Random) -> tuple[str, str, str, str]:
    n = random.randint(2, 99)
    m = n + random.randint(1, 9)
    return random.choice(
        [
            (_MARBLES, str(n), boxed(f"{m}={n}"), "wrong"),
            (_MARBLES, str(n), boxed(f"{m}+1={n}"), "wrong"),
            ("Find x.", str(n), boxed(f"x={m}={n}"), "wrong"),
            ("Find x.", str(n), boxed("x=x"), "wrong"),
            ("Find x.", str(n), boxed(f"{n}={m}"), "wrong"),
            ("Find the equation.", f"y={n}x+{m}", boxed("y=y"), "wrong"),
            ("Find the equation.", f"x^2+y^2={n}", boxed("0=0"), "wrong"),
            ("Find the equation.", f"x^2+y^2={n}", boxed(f"x^2+y^2={m}"), "wrong"),
            ("Find x.", f"x={n}", boxed(f"{m}={m}"), "wrong"),
            ("Find x.", str(n), boxed(f"x={n}"), "correct"),
            ("Find the equation.", f"y={n}x+{m}", boxed(f"y = {m} + {n}x"), "correct"),
        ]
    )


def _case(random: Random) -> tuple[str, str, str, str]:
    a = random.choice("rvmnkpt")
    b, k = a.upper(), random.randint(2, 9)
    question = f"Express the result in terms of ${a}$ and ${b}$."
    gold, wrongs, right = random.choice(
        [
            (f"\\frac{{{b}}}{{{a}}}", [f"\\frac{{{a}}}{{{b}}}", "1", f"\\frac{{{a}}}{{{a}}}"], f"{b}/{a}"),
            (f"{b}-{a}", ["0", f"{a}-{b}", f"{b}-{b}"], f"-{a}+{b}"),
            (f"\\frac{{{b}}}{{{b}+{a}}}", ["\\frac{1}{2}", f"\\frac{{{a}}}{{{a}+{b}}}"], f"\\frac{{{b}}}{{{a}+{b}}}"),
            (f"{k}{a}^2", [f"{k}{b}^2", f"{k}{a}{b}"], f"{k}{a}\\cdot {a}"),
            (f"{a}^{{{b}}}", [f"{b}^{{{a}}}", f"{a}^{{{a}}}"], f"{a}^{b}"),
            (f"{b}({a}-{k})", [f"{a}({a}-{k})", f"{a}({b}-{k})"], f"{b}{a}-{k}{b}"),
        ]
    )
    if random.random() < 0.25:
        return question, gold, boxed(right), "correct"
    return question, gold, boxed(random.choice(wrongs)), "wrong"


def _variable(random: Random) -> tuple[str, str, str, str]:
    letter, other = random.sample("mgshtdk", 2)
    value = random.choice(
        [str(random.randint(2, 99)), f"\\frac{{{random.randint(1, 9)}}}{{{random.choice([11, 13])}}}"]
    )
    question = f"Find it in terms of ${letter}$."
    if random.random() < 0.2:
        return question, f"{value}{letter}", boxed(f"{value} {letter}"), "correct"
    return question, f"{value}{letter}", boxed(random.choice([value, f"{value}{other}", f"{value}{letter}^2"])), "wrong"


def _percent(random: Random) -> tuple[str, str, str, str]:
    n, p = random.randint(11, 99), random.randint(2, 60)
    digits = str(random.randint(10, 66)).replace("7", "6").replace("8", "5").replace("9", "4")
    return random.choice(
        [
            (f"A {p}% discount is given. How many dollars does it cost?", str(n), boxed(f"{n}\\%"), "wrong"),
            (f"Prices rise by {p} percent. What is the price in dollars?", str(n), boxed(f"{n} percent"), "wrong"),
            ("What percent is it?", f"{n}\\%", boxed(f"{n}"), "correct"),
            ("What fraction is it?", f"{n / 100}", boxed(f"{n}"), "wrong"),
            ("Let $a_1=1$ and $a_2=3$. Find $a_9$.", digits, boxed(f"{digits}_7"), "wrong"),
            ("Write it in base 7.", f"{digits}_7", boxed(f"{digits}_8"), "wrong"),
            ("Write it in base 7.", f"{digits}_7", boxed(f"{digits}_{{7}}"), "correct"),
        ]
    )


def _nested(random: Random) -> tuple[str, str, str, str]:
    n, m = _number(random), random.randint(2, 99)
    inner = f"\\boxed{{{n}}}"
    outer = random.choice(
        [f"{m} + {inner}", f"\\text{{not }} {inner}", f"{m} {inner}", f"{m} - {inner}", f"-{inner}", f"{inner}^2",
         f"\\frac{{{inner}}}{{{m}}}", f"\\text{{greater than }}{inner}", f"{inner} + x"]
    )  # fmt: skip
    if random.random() < 0.1:
        return _MARBLES, str(n), f"\\boxed{{{inner}}}", "correct"
    return _MARBLES, str(n), random.choice([f"\\boxed{{{outer}}}", boxed(outer)]), "wrong"


def _lists(random: Random) -> tuple[str, str, str, str]:
    a, b, c = random.sample(range(1, 99), 3)
    big = [random.randint(100, 999) for _ in range(2)]
    return random.choice(
        [
            ("Find the list.", f"{a},{a},{b}", boxed(f"{a},{b},{b}"), "wrong"),
            ("Find both values.", f"{big[0]},{big[1]}", boxed(f"{big[0]}{big[1]}"), "wrong"),
            ("Find all values.", f"{a}, {b}", boxed(f"{a}"), "wrong"),
            ("Find all values.", f"{a}, {b}", boxed(f"{a}, {b}, {c}"), "wrong"),
            ("Find the point.", f"({a},{b})", boxed(f"({b},{a})"), "wrong"),
            ("Find the set.", f"\\{{{a},{b}\\}}", boxed(f"\\{{{a},{c}\\}}"), "wrong"),
            ("Solve the system.", f"x={a}, y={b}", boxed(f"x={b}, y={a}"), "wrong"),
            ("Find the set.", f"\\{{{a},{b}\\}}", boxed(f"\\{{{b},{a}\\}}"), "correct"),
            ("Find all values.", f"{a}, {b}, {c}", boxed(f"{c}, {a} \\text{{ and }} {b}"), "correct"),
        ]
    )


def _choice(random: Random) -> tuple[str, str, str, str]:
    letter = random.choice("ABCD")
    values = random.sample(range(2, 99), 4)
    question = "Which one? " + " ".join(f"({name}) {value}" for name, value in zip("ABCD", values, strict=True))
    rest = [other for other in "ABCD" if other != letter]
    one, other = letter, random.choice(rest)
    everything = ["(A)(B)(C)(D)", "A, B, C or D", "A/B/C/D", "A) B) C) D)", "A and B and C and D", "any of A, B, C, D"]
    hedges = [f"({one}) or ({other})", f"{one} or {other}", f"{one}/{other}", f"{one}, {other}", f"{other} or {one}"]
    answer = random.choice([*everything, *hedges])
    wrong = [f"\\boxed{{{answer}}}", f"The answer is {answer}.", f"Answer: {answer}", f"The answer is ({other})."]
    right = [f"\\boxed{{{one}}}", f"The answer is ({one}).", f"Answer: {one}", f"\\boxed{{\\text{{({one})}}}}"]
    if random.random() < 0.2:
        return question, letter, random.choice(right), "correct"
    return question, letter, random.choice(wrong), "wrong"


def _empty(random: Random) -> tuple[str, str, str, str]:
    n = _number(random)
    answer = random.choice(
        [
            "", " ", "x", "n", "\\square", "?", f"\\phantom{{{n}}}", f"-{n}", f"\\pm {n}", f"--{n}x", f"{n}x",
            f"\\frac{{{n}}}{{x}}",
            "\\text{the number of marbles}", "\\text{see above}", f"{n}+x-y", f"{n}i", "\\infty", "\\ldots", f"|{n}x|",
        ]
    )  # fmt: skip
    return _MARBLES, str(n), boxed(answer), "wrong"


def _compound(random: Random) -> tuple[str, str, str, str]:
    n = random.randint(2, 99)
    return random.choice(
        [
            ("How far?", f"{n}\\text{{ miles north}}", boxed(f"{n}\\text{{ miles south}}"), "wrong"),
            ("How many of whom?", f"{n}\\text{{ boys}}", boxed(f"{n}\\text{{ girls}}"), "wrong"),
            ("At what time?", f"{n % 12 + 1}\\text{{ am}}", boxed(f"{n % 12 + 1}\\text{{ pm}}"), "wrong"),
            ("How long is it?", f"{n}\\text{{ cm}}", boxed(f"{n}\\text{{ km}}"), "wrong"),
            ("How many dollars?", str(n), boxed(f"{n}\\text{{ cents}}"), "wrong"),
            ("Find it.", str(3 - n), boxed(f"3–{n}"), "wrong"),
            ("Find the set.", f"(-\\infty,{n})", boxed(f"(-\\infty,{n}]"), "wrong"),
            ("Find the set.", f"[0,{n}]", boxed(f"(0,{n})"), "wrong"),
            ("Find the set.", f"[0,{n})\\cup({n},\\infty)", boxed("[0,\\infty)"), "wrong"),
            (_MARBLES, str(n), boxed("".join(chr(ord("０") + int(digit)) for digit in str(n))), "correct"),
            (_MARBLES, str(n), boxed(f"\u200b{n}"), "correct"),
            ("Find it.", f"-{n}", boxed(f"−{n}"), "correct"),
            ("Find it.", f"\\sqrt{{{n}}}", boxed(f"√{n}") if n < 10 else boxed(f"√({n})"), "correct"),
            ("How long is it?", f"{n}\\text{{ cm}}", boxed(f"{n}\\text{{ cm}}"), "correct"),
        ]
    )


KINDS: dict[str, Draw] = {
    "copy of the question": _copy,
    "number and words": _words,
    "list of guesses": _guesses,
    "place": _place,
    "tolerance": _tolerance,
    "interval or relation": _relation,
    "tautology or false equation": _tautology,
    "case or name": _case,
    "variable taken for a unit": _variable,
    "percent or base": _percent,
    "nested box": _nested,
    "lists": _lists,
    "choice": _choice,
    "empty, variables, signs": _empty,
    "units, sets, Unicode": _compound,
}


def draw_probes(count: int, seed: int) -> list[Probe]:
    """So many different probes, the kinds in turn."""
    random = Random(seed)
    found: dict[Probe, None] = {}
    kinds = list(KINDS)
    turn = 0
    while len(found) < count:
        kind = kinds[turn % len(kinds)]
        question, gold, response, right = KINDS[kind](random)
        grader = "choice" if kind == "choice" else "math"
        found[Probe(kind=kind, question=question, gold=gold, response=response, right=right, grader=grader)] = None
        turn += 1
    return list(found)
