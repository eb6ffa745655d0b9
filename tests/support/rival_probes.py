r"""Probes of contradicting units, of two answers, of alternatives, and of forms that are copied or half done."""

from __future__ import annotations

from random import Random

Drawn = tuple[str, str, str, str]  # question, gold, response, right

_THINGS = [("apples", "pears"), ("boys", "girls"), ("cars", "buses"), ("books", "pencils"), ("cats", "dogs")]
_MEASURED = ["km", "hours", "dollars", "kg", "cm", "minutes", "miles", "liters", "euros", "mph", "ft", "cents"]
# What is one unit, however it is written.
_SPELLINGS = [
    ("years", ["yrs", "yr", "years", "years old", "yrs.", "year"]),
    ("hours", ["hrs", "hr", "hours", "h", "hrs."]),
    ("minutes", ["min", "mins", "minutes"]),
    ("feet", ["ft", "ft.", "feet", "feet tall", "foot"]),
    ("pounds", ["lbs", "lb", "pounds", "lbs.", "pounds of flour"]),
    ("liters", ["L", "liters", "litres", "liters of water", "l"]),
    ("inches", ["in", "inches", "in."]),
    ("miles per hour", ["mph", "miles per hour", "mi/hr", "m.p.h.", "miles/hour"]),
    ("square feet", ["sq ft", "sq. ft.", "ft^2", "square feet", "sq.ft."]),
    ("weeks", ["wks", "wk", "weeks"]),
    ("tablespoons", ["tbsp", "tablespoons", "tbsp."]),
    ("gallons", ["gal", "gals", "gallons", "gallons of paint"]),
]
_SIGNS = [
    ("dollars", [r"\${n}", "US\\${n}", r"\text{{\${n}}}", "{n}\\$"]),
    ("cents", ["{n}¢", r"{n}\text{{¢}}", "{n} ¢"]),
    ("euros", ["€{n}", "{n}€", "{n} €"]),
    ("degrees", [r"{n}^\circ", "{n}°", r"{n}^{{\circ}}", r"{n}^\circ\text{{C}}", "{n}°C", "{n}℃"]),
]


def _boxed(answer: str) -> str:
    return f"So the final result is $\\boxed{{{answer}}}$."


def _worded(random: Random, number: int, word: str) -> str:
    forms = [f"{number}\\text{{ {word}}}", f"{number}\\ \\mathrm{{{word}}}"]
    if len(word) > 1 and word.isalpha():
        forms.append(f"{number} {word}")
    return random.choice(forms)


def unit(random: Random) -> Drawn:
    """A number with a unit, against a reference or question that wants it, another one or none in particular."""
    n, (thing, other) = random.randint(2, 99), random.choice(_THINGS)
    measured = random.choice(_MEASURED)
    wanted = random.choice(["hours", "km", "kg"])
    against = random.choice(
        [one for one in _MEASURED if one not in ("hours", "minutes", "km", "cm", "miles", "ft", "kg")]
    )
    name, spelled = random.choice(_SPELLINGS)
    sign, signs = random.choice(_SIGNS)
    signed = random.choice(signs).format(n=n)
    how_many = f"How many {thing} are there?"
    return random.choice(
        [
            ("", f"{n} {thing}", _boxed(_worded(random, n, measured)), "wrong"),
            ("", f"{n} {thing}", _boxed(_worded(random, n, other)), "wrong"),
            ("", f"{n} {thing}", _boxed(signed), "wrong"),
            (how_many, str(n), _boxed(_worded(random, n, measured)), "wrong"),
            (how_many, str(n), _boxed(_worded(random, n, other)), "wrong"),
            (how_many, str(n), _boxed(signed), "wrong"),
            (f"How much is it in {wanted}?", str(n), _boxed(_worded(random, n, against)), "wrong"),
            ("What is the area in square cm?", str(n), _boxed(f"{n}\\text{{ cm}}"), "wrong"),
            ("", f"{n}\\%", _boxed(_worded(random, n, measured)), "wrong"),
            ("", f"{n}\\text{{ liters of water}}", _boxed(f"{n}\\text{{ liters of milk}}"), "wrong"),
            ("", f"{n}", _boxed(f"{n}\\text{{ liters of {random.randint(2, 9)}}}"), "wrong"),
            ("", str(n), _boxed(_worded(random, n, random.choice(spelled))), "correct"),
            ("", f"{n} {name}", _boxed(_worded(random, n, random.choice(spelled))), "correct"),
            ("", f"{n} {sign}", _boxed(signed), "correct"),
            ("", str(n), _boxed(signed), "correct"),
            (how_many, str(n), _boxed(_worded(random, n, thing)), "correct"),
        ]
    )


def two(random: Random) -> Drawn:
    """Two places that state an answer, with the same or with another value."""
    n = random.randint(2, 999)
    m = n + random.randint(1, 9)
    places = [
        "\\boxed{{{}}}",
        "<answer>{}</answer>",
        "#### {}",
        "The answer is {}.",
        "Final Answer: {}",
        "**Answer:** {}",
    ]
    kinds = {0: 0, 1: 1}
    first, second = random.sample(range(len(places)), 2)
    while kinds.get(first, 2) == kinds.get(second, 2):
        first, second = random.sample(range(len(places)), 2)
    joint = random.choice(["\n", "\n\n", "\n\nTherefore:\n\n", "\n\nSo that is it.\n\n"])
    if random.random() < 0.25:
        same = random.choice([f"{n}", f"{n}.0", f"{2 * n}/2"])
        return "", str(n), places[first].format(same) + joint + places[second].format(n), "correct"
    values = random.choice([(n, m), (m, n)])
    return "", str(n), places[first].format(values[0]) + joint + places[second].format(values[1]), "wrong"


def alternative(random: Random) -> Drawn:
    """An answer with another one beside it, and honest sentences with the same words."""
    n = random.randint(2, 999)
    m = n + random.randint(1, 9)
    a, b = random.choice([(n, m), (m, n)])
    x = random.choice(["x", "n", "k"])
    wrong = [
        f"The answer is either {a} or {b}.", _boxed(f"\\text{{either }}{a}\\text{{ or }}{b}"),
        f"\\boxed{{{a}}} or {b}.",
        f"If ${x}$ is odd then {a} else {b}", f"If ${x}$ is odd, \\boxed{{{a}}}. If ${x}$ is even, \\boxed{{{b}}}.",
        f"If ${x}$ is odd the answer is {a}, otherwise the answer is {b}.", f"Either {a} or \\boxed{{{b}}}.",
        f"\\boxed{{{n}}} if ${x}$ is odd, otherwise {m}.",
        f"\\boxed{{{n}}} if ${x}$ is odd and ${m}$ if ${x}$ is even.",
        f"The answer is {a}. If that is not right, it is {b}.", f"The answer is {a} or else {b}.",
        f"My first answer is {a}. My second answer is {b}.", f"<answer>{a}</answer> or else <answer>{b}</answer>",
        f"<answer>{a} if {x} is odd else {b}</answer>", f"\\boxed{{{a}}}, alternatively \\boxed{{{b}}}.",
        f"Case 1: \\boxed{{{a}}}. Case 2: \\boxed{{{b}}}.", f"The answer is ${a}$ if ${x}$ is odd and ${b}$ otherwise.",
        f"The answer is {a}; alternatively {b}.", _boxed(f"{a}\\text{{ if }}{x}\\text{{ is odd, else }}{b}"),
        f"#### {a} (or {b})", f"It could be \\boxed{{{a}}}. It might also be \\boxed{{{b}}}.",
    ]  # fmt: skip
    right = [
        f"If ${x} = {m}$, we get $\\boxed{{{n}}}$.",
        f"The minimum is $\\boxed{{{n}}}$ when ${x} = 2$ or ${x} = 3$.",
        f"The number is even or odd, so the answer is {n}.",
        f"\\boxed{{{n}}}, or ${n}.0$.",
        f"Otherwise there would be {m} of them, so the answer is {n}.",
        f"\\boxed{{{m}}}, or rather \\boxed{{{n}}}.",
    ]
    if random.random() < 0.25:
        return "", str(n), random.choice(right), "correct"
    return "", str(n), random.choice(wrong), "wrong"


Task = tuple[str, str, list[str], list[str]]  # question, gold, wrong answers, right answers


def _quadratic(random: Random, dollars: str) -> Task:
    a, b = sorted(random.sample(range(1, 12), 2))
    s, p = a + b, a * b
    summed, product = f"x^2+{s}x+{p}", f"(x+{a})(x+{b})"
    turned, other = [f"(x+{b})(x+{a})", f"({a}+x)(x+{b})"], [f"{p}+{s}x+x^2", f"x^2+{p}+{s}x"]
    if random.random() < 0.5:
        wrong = [f"x*x+{s}x+{p}", f"x\\cdot x+{s}x+{p}", f"x^2+{a}x+{b}x+{p}", f"x(x+{s})+{p}", f"x({s}+x)+{p}"]
        return f"Factor {dollars}{summed}{dollars}.", product, [*wrong, *other], turned
    return f"Expand {dollars}{product}{dollars}.", summed, [f"x(x+{b})+{a}(x+{b})", *turned], other


def _root(random: Random, dollars: str) -> Task:
    k, r = random.randint(2, 9), random.choice([2, 3, 5, 6, 7])
    square = k * k * r
    written = f"$\\sqrt{{{square}}}$" if dollars else f"sqrt({square})"
    powers = [f"{square}^{{1/2}}", f"{square}^{{\\frac12}}", f"{square}^{{0.5}}"]
    wrong = [*powers, f"\\sqrt{{{square}}}", f"\\sqrt{{{k * k}\\cdot {r}}}"]
    return f"Simplify {written}.", f"{k}\\sqrt{{{r}}}", wrong, [f"\\sqrt{{{r}}}\\cdot {k}", f"{k}\\cdot {r}^{{1/2}}"]


def _number(random: Random, dollars: str) -> Task:
    base, power = random.randint(2, 9), random.randint(2, 5)
    value = base**power
    if random.random() < 0.3:
        return f"Evaluate $\\sqrt{{{value**2}}}$.", str(value), [f"{value**2}^{{1/2}}"], [str(value)]
    wrong = [
        f"{base}^{power}",
        f"{base}^{{{power}}}",
        "*".join([str(base)] * power),
        f"{base}^{{{power - 1}}}\\cdot {base}",
    ]
    return f"Compute {dollars}{base}^{power}{dollars}.", str(value), wrong, [str(value), f"{base}^{power}={value}"]


def _terms(random: Random, dollars: str) -> Task:
    a, b = random.sample(range(2, 12), 2)
    question = f"Simplify {dollars}{a}x+{b}x{dollars}."
    return question, f"{a + b}x", [f"x({a}+{b})", f"{b}x+{a}x"], [f"x\\cdot {a + b}"]


def _fraction(random: Random, dollars: str) -> Task:
    n = random.choice([1, 3])
    wrong = [f".{25 * n}", f"{25 * n}\\%", f"0.{25 * n}0", f"\\frac{{{25 * n}}}{{100}}"]
    question = f"Write {dollars}0.{25 * n}{dollars} as a common fraction."
    return question, f"\\frac{{{n}}}{{4}}", wrong, [f"{n}/4", f"\\dfrac{{{n}}}{{4}}"]


def form(random: Random) -> Drawn:
    """A formula of the question in another notation, or half done; and the form that is asked for."""
    draw = random.choice([_quadratic, _root, _number, _terms, _fraction])
    question, gold, wrong, right = draw(random, random.choice(["$", ""]))
    if random.random() < 0.25:
        return question, gold, _boxed(random.choice(right)), "correct"
    return question, gold, _boxed(random.choice(wrong)), "wrong"


KINDS = {
    "contradicting unit": unit,
    "two final answers": two,
    "alternatives": alternative,
    "form or copy": form,
}
