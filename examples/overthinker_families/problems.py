"""The families of questions: what they say, the steps that answer them, and how these are read back from a text.

Everything is written in words separated by spaces, one token each. A path is a row of statements, one a step:

    arithmetic  start with 34 . add 7 . subtract 2 . what is the result ?
                34 add 7 gives 41 . 41 subtract 2 gives 39 .
    equation    x times 3 add 5 is 26 . what is x ?
                26 subtract 5 gives 21 . 21 divide 3 gives 7 .
    sorting     sort 71 12 34 . what is the second smallest ?
                smallest of 71 12 34 gives 12 . smallest of 71 34 gives 34 .
    lookup      bob to blue . ann to red . red to 34 . blue to 12 . where does ann lead ?
                ann gives red . red gives 34 .
    words       ann has 24 apples . bob has 7 pears . ann eats 4 . ... . how many apples has ann ?
                24 subtract 4 gives 20 . 20 divide 5 gives 4 .
    choice      the same with four options, and one more step: option 4 gives B .
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from random import Random
from typing import Literal, cast, get_args

from examples.overthinker.language import ANSWER_TOKENS, LARGEST, OPERANDS, sample_question
from examples.overthinker.language import Question as Chain
from examples.overthinker_families.steps import (
    COLOURS,
    FRUITS,
    LAYERS,
    LETTERS,
    NAMES,
    Choose,
    Hop,
    Operation,
    Pick,
    Step,
    Verb,
    Which,
    statement,
)

Family = Literal["arithmetic", "equation", "sorting", "lookup", "words", "choice"]

FAMILIES: tuple[Family, ...] = get_args(Family)
INVERSE: dict[Verb, Verb] = {"add": "subtract", "subtract": "add", "times": "divide", "divide": "times"}
FACTORS = range(2, 6)  # by which is multiplied and divided
STARTS = range(10, 61)  # of word problems
RANKS = ("second", "third")
EVENTS: tuple[tuple[str, Verb], ...] = (
    ("finds {}", "add"),
    ("buys {}", "add"),
    ("eats {}", "subtract"),
    ("loses {}", "subtract"),
    ("fills {} such bags", "times"),
    ("shares among {} friends", "divide"),
)
ONE_DIGIT = 0.5  # share of the word problems that are drawn with an answer of one digit
SMALL_UNKNOWN = 0.7  # share of the equations with such an answer

WORDS = (
    *("x", "times", "divide", "sort", "smallest", "largest", "of", "option"),
    *("to", "where", "does", "lead", "how", "many", "has"),
    *(word for phrase, _ in EVENTS for word in phrase.split() if word != "{}"),
    *(*RANKS, *LETTERS, *NAMES, *COLOURS, *FRUITS),
)

_EQUATION = re.compile(r"x(?P<terms>( (times|add|subtract) \d+)+) is (?P<result>\d+) \. what is x \?")
_SORTING = re.compile(
    rf"sort (?P<numbers>\d+( \d+)+) \. what is the (?P<rank>{'|'.join(RANKS)}) (?P<which>smallest|largest) \?"
)
_LOOKUP = re.compile(r"(?P<table>(\w+ to \w+ \. )+)where does (?P<key>\w+) lead \?")
_HOW_MANY = re.compile(r"how many (?P<noun>\w+) has (?P<name>\w+) \?")


@dataclass(frozen=True)
class Problem:
    """A question with its ground truth. start: what its first step starts from. options: texts of A, B, C and D."""

    family: Family
    text: str
    start: str
    steps: tuple[Step, ...]
    options: tuple[str, ...] = ()

    @classmethod
    def read(cls, text: str, options: Sequence[str] = ()) -> Problem:
        """Read a question from its text and options; ValueError when it is none of a family."""
        for reader in (_read_arithmetic, _read_equation, _read_sorting, _read_lookup):
            if not options and (problem := reader(text)) is not None:
                return problem
        if (problem := _read_words(text, tuple(options))) is not None:
            return problem
        raise ValueError(f"not a question of these families: {text!r} with the options {list(options)}")

    @cached_property
    def values(self) -> tuple[str, ...]:
        """The right value of each step; ValueError where one is no token of the testbed."""
        before = [self.start]
        for step in self.steps:
            value = step.right(before)
            if value is None:
                raise ValueError(f"{step.left(before)!r} has no value here: {self.text!r}")
            before.append(value)
        return tuple(before[1:])

    @property
    def answer(self) -> str:
        return self.values[-1]

    @property
    def shortest_path(self) -> str:
        """Every step once, and right."""
        before = (self.start, *self.values)
        lefts = [step.left(before[: index + 1]) for index, step in enumerate(self.steps)]
        return " ".join(map(statement, lefts, self.values))

    @property
    def shortest_tokens(self) -> int:
        """Tokens of the shortest sound completion: that path, the end of thinking, the answer, the end."""
        return len(self.shortest_path.split()) + ANSWER_TOKENS

    @property
    def is_fair(self) -> bool:
        """True when all numbers are tokens, divisions leave no rest, and the answer is not met on the way."""
        numbers = [word for word in (*self.text.split(), *self.options) if word.isdecimal()]
        try:
            before = (self.start, *self.values)
        except ValueError:
            return False
        operations = [(index, step) for index, step in enumerate(self.steps) if isinstance(step, Operation)]
        return (
            all(int(number) <= LARGEST for number in numbers)
            and not any(step.leaves_rest(before[: index + 1]) for index, step in operations)
            and self.answer not in before[:-1]
        )


def draw(rng: Random, family: Family | None = None) -> Problem:
    """A fair question of one family, else of any."""
    write = _WRITERS[rng.choice(FAMILIES) if family is None else family]
    while True:
        text, options = write(rng)
        problem = Problem.read(text, options)
        if problem.is_fair:
            return problem


def _read_arithmetic(text: str) -> Problem | None:
    try:
        chain = Chain.parse(text)
    except ValueError:
        return None
    steps = tuple(Operation(step.verb, step.operand) for step in chain.steps)
    return Problem("arithmetic", text, str(chain.start), steps)


def _read_equation(text: str) -> Problem | None:
    match = _EQUATION.fullmatch(text)
    if match is None:
        return None
    words = match["terms"].split()
    terms = [(cast(Verb, verb), int(operand)) for verb, operand in zip(words[::2], words[1::2], strict=True)]
    steps = tuple(Operation(INVERSE[verb], operand) for verb, operand in reversed(terms))
    return Problem("equation", text, match["result"], steps)


def _read_sorting(text: str) -> Problem | None:
    match = _SORTING.fullmatch(text)
    if match is None:
        return None
    pick = Pick(cast(Which, match["which"]), tuple(match["numbers"].split()))
    return Problem("sorting", text, "", (pick,) * (2 + RANKS.index(match["rank"])))


def _read_lookup(text: str) -> Problem | None:
    match = _LOOKUP.fullmatch(text)
    if match is None:
        return None
    words = match["table"].replace(" to ", " ").replace(".", "").split()
    hop = Hop(tuple(zip(words[::2], words[1::2], strict=True)))
    reached, hops = match["key"], 0
    while (found := hop.right([reached])) is not None and hops < len(LAYERS):
        reached, hops = found, hops + 1
    return Problem("lookup", text, match["key"], (hop,) * hops) if hops else None


def _read_words(text: str, options: tuple[str, ...]) -> Problem | None:
    """A word problem; what is said of others than the one who is asked about does not matter."""
    *told, asked = text.split(" . ")
    question = _HOW_MANY.fullmatch(asked)
    if question is None or len(options) not in (0, len(LETTERS)):
        return None
    start, steps = "", list[Step]()
    for sentence in told:
        name, _, event = sentence.partition(" ")
        if name == question["name"]:
            if has := re.fullmatch(rf"has (\d+) {question['noun']}", event):
                start = has[1]
            elif (operation := _event(event)) is None:
                return None
            else:
                steps.append(operation)
    if not start or not steps:
        return None
    if options:
        steps.append(Choose(options))
    return Problem("choice" if options else "words", text, start, tuple(steps), options)


def _event(text: str) -> Operation | None:
    for phrase, verb in EVENTS:
        if match := re.fullmatch(phrase.format(r"(\d+)"), text):
            return Operation(verb, int(match[1]))
    return None


def _write_arithmetic(rng: Random) -> tuple[str, tuple[str, ...]]:
    return sample_question(rng).text, ()


def _write_equation(rng: Random) -> tuple[str, tuple[str, ...]]:
    unknown = rng.randint(2, 9) if rng.random() < SMALL_UNKNOWN else rng.randint(10, LARGEST // 4)
    factor = rng.choice(FACTORS)
    # Distinct operands: the last one written tells which step comes next.
    others = rng.sample([operand for operand in OPERANDS if operand != factor], rng.choice((1, 2)))
    terms: list[tuple[Verb, int]] = [("times", factor), *((rng.choice(("add", "subtract")), one) for one in others)]
    value = unknown * factor + sum(operand if verb == "add" else -operand for verb, operand in terms[1:])
    if value < 0:
        return _write_equation(rng)
    return f"x {' '.join(f'{verb} {operand}' for verb, operand in terms)} is {value} . what is x ?", ()


def _write_sorting(rng: Random) -> tuple[str, tuple[str, ...]]:
    rank = rng.randrange(len(RANKS))
    # At least one number more than steps: a slip can lead elsewhere.
    numbers = rng.sample(range(10, LARGEST + 1), rank + rng.choice((3, 4)))
    return f"sort {' '.join(map(str, numbers))} . what is the {RANKS[rank]} {rng.choice(get_args(Which))} ?", ()


def _write_lookup(rng: Random) -> tuple[str, tuple[str, ...]]:
    hops = rng.choice((2, 2, 3))
    width = 5 - hops
    numbers = [str(number) for number in rng.sample(range(10, LARGEST + 1), width)]
    rows = [*(rng.sample(layer, width) for layer in LAYERS[:hops]), numbers]
    layers = pairwise(rows)
    entries = [f"{key} to {value} ." for keys, values in layers for key, value in zip(keys, values, strict=True)]
    rng.shuffle(entries)
    return f"{' '.join(entries)} where does {rng.choice(rows[0])} lead ?", ()


def _write_words(rng: Random) -> tuple[str, tuple[str, ...]]:
    (name, other), (noun, another) = rng.sample(NAMES, 2), rng.sample(FRUITS, 2)
    told = _events(rng, name, noun, is_one_digit=rng.random() < ONE_DIGIT)
    while told is None:
        told = _events(rng, name, noun, is_one_digit=rng.random() < ONE_DIGIT)
    if rng.random() < 0.5:  # a sentence that does not matter
        told.insert(rng.randrange(len(told) + 1), f"{other} has {rng.randint(10, LARGEST)} {another}")
    return f"{' . '.join(told)} . how many {noun} has {name} ?", ()


def _write_choice(rng: Random) -> tuple[str, tuple[str, ...]]:
    text, _ = _write_words(rng)
    problem = Problem.read(text)
    wrong = problem.steps[-1].slips((problem.start, *problem.values)[:-1])
    options = [problem.answer, *rng.sample(wrong, len(LETTERS) - 1)]
    rng.shuffle(options)
    return text, tuple(options)


def _events(rng: Random, name: str, noun: str, *, is_one_digit: bool) -> list[str] | None:
    """A start and two or three events, made from the last one back; None when they lead to no start."""
    events = rng.choices(EVENTS[:-1], k=rng.choice((2, 3)))
    if is_one_digit:
        events[-1] = EVENTS[-1]
    value, told, operands = str(rng.randint(*((1, 9) if is_one_digit else (10, LARGEST)))), list[str](), list[int]()
    for phrase, verb in reversed(events):
        possible = FACTORS if verb in ("times", "divide") else OPERANDS
        operands.append(rng.choice([operand for operand in possible if operand not in operands]))
        told.append(f"{name} {phrase.format(operands[-1])}")
        back = Operation(INVERSE[verb], operands[-1])
        before = back.right([value])
        if before is None or back.leaves_rest([value]):
            return None
        value = before
    return [f"{name} has {value} {noun}", *reversed(told)] if int(value) in STARTS else None


_WRITERS: dict[Family, Callable[[Random], tuple[str, tuple[str, ...]]]] = {
    "arithmetic": _write_arithmetic,
    "equation": _write_equation,
    "sorting": _write_sorting,
    "lookup": _write_lookup,
    "words": _write_words,
    "choice": _write_choice,
}
