"""Word problems of two to six arithmetic steps: their text, their steps, and the split that each belongs to.

A problem is a story about one amount. What it gives are whole numbers, and so is every result; no result stands in the
question or comes twice, so that a number in a trace says which step it is of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import Literal

from examples.smollm2.themes import NAMES, THEMES, Event, Kind, Theme

Split = Literal["taught", "train", "dev", "test"]
Sign = Literal["+", "-", "*", "/"]

# Of 100 parts: what the model is taught with, what a loop trains on, what it is chosen by, what it is measured on.
SHARES: dict[Split, int] = {"taught": 60, "train": 28, "dev": 4, "test": 8}
GROUPS = 0.35  # share of the problems with products that open with one
_TIMES = {2: "doubles", 3: "triples"}
_SIGNS: dict[Kind, Sign] = {"add": "+", "take": "-", "add_groups": "+", "take_groups": "-", "times": "*", "share": "/"}


@dataclass(frozen=True, kw_only=True)
class Level:
    """A level of difficulty.

    Attributes:
        steps: Their number; one is drawn.
        kinds: What may happen, with weights.
        start: Smallest and largest amount at the beginning.
        change: Smallest and largest number that is added or taken.
        groups: Largest number of groups, and of what is in one.
        limit: No amount is larger.
    """

    steps: tuple[int, ...]
    kinds: Mapping[Kind, int]
    start: tuple[int, int]
    change: tuple[int, int]
    groups: tuple[int, int]
    limit: int


_EASY: dict[Kind, int] = {"add": 3, "take": 3}
_MEDIUM: dict[Kind, int] = {**_EASY, "add_groups": 2, "take_groups": 2}
LEVELS = {
    1: Level(steps=(2, 3), kinds=_EASY, start=(10, 40), change=(2, 20), groups=(0, 0), limit=80),
    2: Level(steps=(3, 4), kinds=_MEDIUM, start=(10, 60), change=(2, 30), groups=(6, 9), limit=150),
    3: Level(
        steps=(4, 5, 6),
        kinds={**_MEDIUM, "times": 1, "share": 1},
        start=(12, 90),
        change=(3, 60),
        groups=(9, 12),
        limit=300,
    ),
}


class Impossible(Exception):
    """A draw led to a number that cannot be: draw again."""


def calculate(left: int, sign: Sign, right: int) -> int:
    """The result, a positive whole number.

    Raises:
        Impossible: There is none.
    """
    if sign == "/" and (right == 0 or left % right):
        raise Impossible
    value = {"+": left + right, "-": left - right, "*": left * right}.get(sign)
    value = left // right if value is None else value
    if value <= 0:
        raise Impossible
    return value


@dataclass(frozen=True)
class Step:
    """One step of the right way.

    Attributes:
        lead: How a trace names it.
        told: The sentence of the question that asks for it.
    """

    left: int
    sign: Sign
    right: int
    value: int
    lead: str = ""
    told: str = ""

    def __str__(self) -> str:
        return f"{self.left} {self.sign} {self.right} = {self.value}"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A word problem with its only way of steps."""

    question: str
    units: str
    level: int
    theme: str
    steps: tuple[Step, ...]

    @property
    def answer(self) -> int:
        return self.steps[-1].value

    @cached_property
    def needs(self) -> tuple[tuple[int | None, int | None], ...]:
        """Of each step, which earlier step gave its left and its right number; None where the question gives it."""
        made = {step.value: index for index, step in enumerate(self.steps)}
        return tuple((made.get(step.left), made.get(step.right)) for step in self.steps)

    @property
    def key(self) -> str:
        """What makes it another problem: its arithmetic, whoever it is about."""
        return "; ".join(map(str, self.steps))

    @property
    def split(self) -> Split:
        """A function of `key` alone: no draw of any seed puts a problem into two splits."""
        place = int.from_bytes(hashlib.sha256(self.key.encode()).digest()[:8], "big") % 100
        for split, share in SHARES.items():
            place -= share
            if place < 0:
                return split
        raise AssertionError("the shares add up to 100")


def problems(split: Split, seed: int) -> Iterator[Problem]:
    """Problems of a split, none twice, the three levels in turn; without end."""
    rng, seen = Random(f"{split} {seed}"), set[str]()
    while True:
        for level in LEVELS:
            problem = sample_problem(level, rng)
            while problem.split != split or problem.key in seen:
                problem = sample_problem(level, rng)
            seen.add(problem.key)
            yield problem


def sample_problem(level: int, rng: Random) -> Problem:
    """Draw a problem of a level."""
    while True:
        try:
            return _Story(level, rng).problem()
        except Impossible:
            continue


@dataclass
class _Story:
    """A problem that is being made up."""

    number: int
    rng: Random
    value: int = 0
    told: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    given: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.level = LEVELS[self.number]
        self.theme: Theme = self.rng.choice(THEMES)
        self.units = self.rng.choice(self.theme.units)
        self.name, self.they, self.their = self.rng.choice(NAMES)

    def problem(self) -> Problem:
        """The whole of it.

        Raises:
            Impossible: A number of it cannot be.
        """
        steps = self.rng.choice(self.level.steps)
        self._open()
        while len(self.steps) < steps:
            self._happen(steps - len(self.steps))
        ask = self._text(self.rng.choice(self.theme.asks))
        values = [step.value for step in self.steps]
        if len({*values}) < len(values) or {*values} & {*self.given} or max(values) > self.level.limit:
            raise Impossible
        return Problem(
            question=" ".join([*self.told, ask]),
            units=self.units,
            level=self.number,
            theme=self.theme.name,
            steps=tuple(self.steps),
        )

    def _open(self) -> None:
        if "add_groups" in self.level.kinds and self.rng.random() < GROUPS:
            self.value = self._groups(self.theme.start_groups, self.theme.start_groups.lead)
        else:
            self.value = self.rng.randint(*self.level.start)
            self.given.append(self.value)
            self.told.append(self._text(self.theme.start.told, n=self.value))

    def _happen(self, left: int) -> None:
        """One event, of no more than `left` steps, that has not happened yet."""
        weights = {
            kind: weight
            for kind, weight in self.level.kinds.items()
            if kind in self.theme.events and (left > 1 or not kind.endswith("_groups"))
        }
        (kind,) = self.rng.choices(list(weights), list(weights.values()))
        event = self.rng.choice(self.theme.events[kind])
        if kind.endswith("_groups"):
            number = self._groups(event, event.groups_lead)
        else:
            number = self._number(kind)
            self.given.append(number)
            self.told.append(self._text(event.told, n=number, times=_TIMES.get(number, "")))
        if len({*self.told}) < len(self.told):
            raise Impossible
        self._step(self.value, _SIGNS[kind], number, event.lead)
        self.value = self.steps[-1].value

    def _groups(self, event: Event, lead: str) -> int:
        """So many of so many: told, and a step."""
        n, m = self.rng.randint(2, self.level.groups[0]), self.rng.randint(2, self.level.groups[1])
        self.given += [n, m]
        self.told.append(self._text(event.told, n=n, m=m))
        self._step(n, "*", m, lead)
        return self.steps[-1].value

    def _number(self, kind: Kind) -> int:
        if kind == "times":
            return self.rng.choice(list(_TIMES))
        return self.rng.randint(2, 6) if kind == "share" else self.rng.randint(*self.level.change)

    def _step(self, left: int, sign: Sign, right: int, lead: str) -> None:
        told = self.told[-1]
        self.steps.append(Step(left, sign, right, calculate(left, sign, right), self._text(lead), told))

    def _text(self, text: str, **numbers: int | str) -> str:
        people = {"they": self.they, "They": self.they.title(), "their": self.their, "Their": self.their.title()}
        return text.format(name=self.name, units=self.units, **people, **numbers)
