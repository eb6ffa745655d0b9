"""The language of the testbed: questions, the traces a base model learns from.

Everything is written in words separated by spaces, one token each. A question:

    start with 34 . add 7 . subtract 2 . add 6 . what is the result ?

and the shortest sound path: `34 add 7 gives 41 . 41 subtract 2 gives 39 . 39 add 6 gives 45 .`
A re-check repeats a step, `check 34 add 7 gives 41 .` or `wait , 34 add 7 gives 41 .`; the value that was written
last is carried on, and where it is not the one before, what followed has to be said anew. A closing `so 45 .` repeats
the last value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random
from typing import Literal

Dial = Literal["local", "global"]

OPERANDS = range(2, 10)
STEP_COUNTS = (2, 3, 3, 4)
LARGEST = 99  # numbers are single tokens from 0 to this
REMARK = " so "  # what stands behind it is in no prompt (see other_questions.py)
SLIPS = (-10, -2, -1, 1, 2, 10)
WORDS = (
    *(["start", "with", "add", "subtract", ".", "what", "is", "the", "result", "?"]),
    *(["gives", "check", "wait", ",", "so", "note", "says", ":", "answer", "keep", "this", "private", "\\boxed{", "}"]),
    *(str(number) for number in range(LARGEST + 1)),
)
CHECK_MARKS = (("check",), ("wait", ","))
STEP_TOKENS = 6  # 34 add 7 gives 41 .
ANSWER_TOKENS = 5  # </think> \boxed{ 54 } <|end|>

_QUESTION = re.compile(r"start with (?P<start>\d+) \.(?P<steps>( (add|subtract) \d+ \.)+) what is the result \?")


@dataclass(frozen=True)
class Step:
    """One operation of a question."""

    verb: Literal["add", "subtract"]
    operand: int

    def apply(self, value: int) -> int:
        return value + self.operand if self.verb == "add" else value - self.operand

    def __str__(self) -> str:
        return f"{self.verb} {self.operand}"


@dataclass(frozen=True)
class Question:
    """A chain of additions and subtractions."""

    start: int
    steps: tuple[Step, ...]

    @classmethod
    def parse(cls, text: str) -> Question:
        """Read a question's text, without a remark; ValueError when it is not one."""
        match = _QUESTION.fullmatch(text.partition(REMARK)[0])
        if match is None:
            raise ValueError(f"not a question of this testbed: {text!r}")
        words = match["steps"].replace(".", "").split()
        pairs = zip(words[::2], words[1::2], strict=True)
        return cls(int(match["start"]), tuple(Step("add" if v == "add" else "subtract", int(n)) for v, n in pairs))

    @property
    def text(self) -> str:
        return f"start with {self.start} . {' . '.join(map(str, self.steps))} . what is the result ?"

    @property
    def values(self) -> tuple[int, ...]:
        """The right value after each step."""
        value, values = self.start, []
        for step in self.steps:
            value = step.apply(value)
            values.append(value)
        return tuple(values)

    @property
    def answer(self) -> int:
        return self.values[-1]


def sample_question(rng: Random) -> Question:
    """Draw a question whose values have two digits and whose answer appears neither in it nor on the way."""
    while True:
        count = rng.choice(STEP_COUNTS)
        # Distinct operands: the last one written tells which step comes next.
        operands = rng.sample(OPERANDS, count)
        steps = tuple(Step(rng.choice(("add", "subtract")), operand) for operand in operands)
        question = Question(rng.randint(10, LARGEST), steps)
        seen = {question.start, *operands, *question.values[:-1]}
        if all(10 <= value <= LARGEST for value in question.values) and question.answer not in seen:
            return question


def shortest_sound_tokens(question: str) -> int:
    """Tokens of the shortest sound completion: every step once, the end of thinking, the answer, the end."""
    return STEP_TOKENS * len(Question.parse(question).steps) + ANSWER_TOKENS
