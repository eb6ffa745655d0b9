"""The steps that answer questions: what each says, its right value, and the wrong ones that a thinker may write.

A step knows its words and its right value behind whatever values the steps before it carry, wrong ones included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from examples.overthinker.language import LARGEST, SLIPS

Verb = Literal["add", "subtract", "times", "divide"]
Which = Literal["smallest", "largest"]

LETTERS = "ABCD"
NAMES = ("ann", "bob", "eve", "tom", "sue", "max")
COLOURS = ("red", "blue", "green", "black", "white", "pink")
FRUITS = ("apples", "pears", "plums", "nuts", "figs", "dates")
LAYERS = (NAMES, COLOURS, FRUITS)  # what leads to what in a table; the last leads to numbers


class Step(Protocol):
    """One step of a question. before: what the question starts with, then the value that each earlier step carries."""

    def left(self, before: Sequence[str]) -> str:
        """What stands in front of `gives`."""

    def right(self, before: Sequence[str]) -> str | None:
        """What has to stand behind it; None where that is no token of the testbed."""

    def slips(self, before: Sequence[str]) -> list[str]:
        """Wrong values that a thinker may write instead."""


@dataclass(frozen=True)
class Operation:
    """`34 add 7`, on the value before. A division that leaves a rest gives its whole part."""

    verb: Verb
    operand: int

    def left(self, before: Sequence[str]) -> str:
        return f"{before[-1]} {self.verb} {self.operand}"

    def right(self, before: Sequence[str]) -> str | None:
        if not before[-1].isdecimal():
            return None
        value, operand = int(before[-1]), self.operand
        values = {"add": value + operand, "subtract": value - operand, "times": value * operand}
        return _token(values[self.verb] if self.verb in values else value // operand)

    def slips(self, before: Sequence[str]) -> list[str]:
        right = self.right(before)
        values = [] if right is None else [_token(int(right) + slip) for slip in SLIPS]
        return [value for value in values if value is not None]

    def leaves_rest(self, before: Sequence[str]) -> bool:
        return self.verb == "divide" and int(before[-1]) % self.operand != 0


@dataclass(frozen=True)
class Pick:
    """`smallest of 71 12 34`: of the numbers that no earlier step has taken."""

    which: Which
    numbers: tuple[str, ...]

    def left(self, before: Sequence[str]) -> str:
        return f"{self.which} of {' '.join(self._rest(before))}"

    def right(self, before: Sequence[str]) -> str | None:
        rest = sorted(self._rest(before), key=int, reverse=self.which == "largest")
        return rest[0] if rest else None

    def slips(self, before: Sequence[str]) -> list[str]:
        return [number for number in self._rest(before) if number != self.right(before)]

    def _rest(self, before: Sequence[str]) -> list[str]:
        return [number for number in self.numbers if number not in before[1:]]


@dataclass(frozen=True)
class Hop:
    """`ann`: one look into the table."""

    table: tuple[tuple[str, str], ...]

    def left(self, before: Sequence[str]) -> str:
        return before[-1]

    def right(self, before: Sequence[str]) -> str | None:
        return dict(self.table).get(before[-1])

    def slips(self, before: Sequence[str]) -> list[str]:
        layer = next((layer for layer in LAYERS if before[-1] in layer), ())
        return [value for key, value in self.table if key in layer and key != before[-1]]


@dataclass(frozen=True)
class Choose:
    """`option 41`: the letter of the option that is nearest to the value before, of two the first."""

    options: tuple[str, ...]

    def left(self, before: Sequence[str]) -> str:
        return f"option {before[-1]}"

    def right(self, before: Sequence[str]) -> str | None:
        if not before[-1].isdecimal():
            return None
        distances = [abs(int(option) - int(before[-1])) for option in self.options]
        return LETTERS[distances.index(min(distances))]

    def slips(self, before: Sequence[str]) -> list[str]:
        return [letter for letter in LETTERS if letter != self.right(before)]


def statement(left: str, value: str) -> str:
    """One step in words."""
    return f"{left} gives {value} ."


def _token(value: int) -> str | None:
    return str(value) if 0 <= value <= LARGEST else None
