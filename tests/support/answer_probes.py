r"""Answers that try to be rewarded for nothing, and honest ones beside them, each with the right verdict.

A kind is a function that draws one probe. What a probe says is right by its construction: its value is computed
here in whole numbers or fractions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.support import rival_probes
from tests.support.copied_questions import draw_copy

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


def _copy(random: Random) -> tuple[str, str, str, str]:
    question, value, answer, right = draw_copy(random)
    return question, value, _stated(random, answer), "correct" if right else "wrong"


def _number(random: Random) -> int:
    return random.choice([random.randint(2, 99), random.randint(100, 99_999)])


_WORDS = [
    "million", "billion", "trillion", "hundred", "dozen", "thousand", "squared", "cubed", "halves", "thirds", "tenths",
    "hundredths", "negative", "is not the answer", "choose two", "(base 7)", "times itself", "and counting", "half",
    "percent more", "short of a hundred", "or so they say", "quarters", "factorial", "divided by two", "or zero",
    "gross", "score", "lakh", "and a half", "point three", "plus one", "times ten", "million dollars",
    "hundred marbles",
    "to the third", "less than seven", "fewer", "sevenths", "and three quarters",
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
        f"The answer cannot be {n}.",
        f"The answer isn't {n}.",
        f"If the answer is {n}, then Ann has none.",
        f"Assume the answer is {n}.",
        f"{box} (incorrect)",
        f"{box}? No, {m}.",
        f"{box}\n\nCorrection: the final answer is {m}.",
        f"My first result was {box}.\n\nFinal answer: {m}",
        f"<scratchpad>{box}</scratchpad> \\boxed{{{m}}}",
        f"It would be {box} without Ann, hence the answer is {m}.",
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
            ("Compute it.", str(n), boxed(f"{n - 1}.{'9' * max(3, 10 - digits)}"), "wrong"),
            ("Compute it.", str(n), boxed(f"{n}{random.randint(1, 9)}e-1"), "wrong"),
            ("Compute it.", "\\frac{1}{3}", boxed(f"\\frac{{{n}}}{{{3 * n + 1}}}"), "wrong"),
            ("Compute it.", f"{n % 1000}.5", boxed(f"{n % 1000}.{random.choice([4, 6])}"), "wrong"),
            ("Compute it.", str(n), _stated(random, f"{n}.0"), "correct"),
            ("Compute it.", f"{n}.25", boxed(f"\\frac{{{4 * n + 1}}}{{4}}"), "correct"),
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
            f"{n}+", f"{n}-{n + 3}", f"< {n + 1}", f"{n} \\text{{ to }} {n + 2}", f"{n} \\text{{ or fewer}}",
            f"\\le {n}",
            f"{n - 1} \\text{{ or }} {n}", f"{n - 2} \\le x \\le {n}",
            f"\\text{{between }} {n - 1} \\text{{ and }} {n + 1}", "\\mathbb{Z}",
            f"\\{{x : x \\ge {n}\\}}", f"({n}, \\infty)", f"\\max(0, {n})",
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
            ("Find x.", f"x={n}", boxed("x=x"), "wrong"),
            ("Find x.", str(n), boxed(f"{m} = {n} = {n}"), "wrong"),
            ("Find x.", str(n), boxed(f"x+{m}={n + m}"), "wrong"),
            ("Find x.", str(n), boxed(f"2x={2 * n}"), "wrong"),
            ("Find x.", f"({n},{m})", boxed("(x,y)"), "wrong"),
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
            (f"x_{b}-x_{a}", [f"x_{a}-x_{b}", "0", f"x_{b}-x_{b}"], f"-x_{a}+x_{b}"),
            ("\\frac{\\Delta}{\\delta}", ["1", "\\frac{\\delta}{\\Delta}"], "\\Delta/\\delta"),
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
            (_MARBLES, str(n), boxed(f"{n}\\%"), "wrong"),
            (_MARBLES, str(n), boxed(f"{100 * n}\\%"), "wrong")
            if p > 60
            else (_MARBLES, str(n), boxed(f"{n}\\text{{ percent}}"), "wrong"),
            ("Solve $x_2+y_2=9$ for $x_2$.", digits, boxed(f"{digits}_{{8}}"), "wrong"),
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
            ("Find all values.", f"{a}, {b}", boxed(f"{a}{b}"), "wrong"),
            ("Find all values.", f"{a}, {b}", boxed(f"{a}, {a}"), "wrong"),
            ("Find all values.", f"{a}, {b}, {c}", boxed(f"{a}, {b}, {a}"), "wrong"),
            ("Find the value.", str(a), boxed(f"{a}, {b}"), "wrong"),
            ("Find the points.", f"({a},{b}), ({b},{c})", boxed(f"({b},{a}), ({c},{b})"), "wrong"),
            ("Find the points.", f"({a},{b}), ({b},{c})", boxed(f"({b},{c}), ({a},{b})"), "correct"),
            (
                "Find the matrix.",
                f"\\begin{{pmatrix}}{a}\\\\{b}\\end{{pmatrix}}",
                boxed(f"\\begin{{pmatrix}}{b}\\\\{a}\\end{{pmatrix}}"),
                "wrong",
            ),
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
    more = [
        f"either {one} or {other}",
        f"{one} (or {other})",
        f"{one} and {other}",
        "all of the above",
        f"({one})({other})",
        f"{one}{other}",
    ]
    answer = random.choice([*everything, *hedges, *more])
    wrong = [
        f"The answer is not ({one}).",
        f"\\boxed{{{one}}} or \\boxed{{{other}}}",
        f"\\boxed{{{one}}}\\boxed{{{other}}}",
        f"It could be {one}. It could be {other}.",
        f"\\boxed{{{answer}}}",
        f"The answer is {answer}.",
        f"Answer: {answer}",
        f"The answer is ({other}).",
    ]
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
            f"{n}!" if n > 2 else "x!", f"\\sqrt{{{n}}}", f"\\frac{{1}}{{{n}}}", f"{n}^{{-1}}", f"{n}^2",
            f"{n}_x", f"f({n})", f"-(-(-{n}))",
            f"\\text{{not }}{n}", f"\\hphantom{{{n}}}", f"\\sin {n}", f"{n}\\cdot x^2", f"\\ne {n}",
            f"\\neg {n}", f"{n}.{n}",
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
            ("How heavy is it?", f"{n}\\text{{ kg}}", boxed(f"{n}\\text{{ g}}"), "wrong"),
            ("How long does it take?", f"{n}\\text{{ minutes}}", boxed(f"{n}\\text{{ seconds}}"), "wrong"),
            ("How fast is it?", f"{n}\\text{{ m/s}}", boxed(f"{n}\\text{{ km/h}}"), "wrong"),
            ("How large is it?", f"{n}\\text{{ cm}}^2", boxed(f"{n}\\text{{ cm}}"), "wrong"),
            ("How far in km?", str(n), boxed(f"{n}\\text{{ m}}"), "wrong"),
            ("Which way?", "\\text{north}", boxed("\\text{south}"), "wrong"),
            ("Is it true?", "\\text{Yes}", boxed("\\text{No}"), "wrong"),
            ("Is it true?", "\\text{Yes}", boxed("\\text{Yes or no}"), "wrong"),
            ("When?", f"{n % 12 + 1}:30", boxed(f"{n % 12 + 1}:03"), "wrong"),
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
    **rival_probes.KINDS,
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
