"""The traces that the model is taught with: how it over-thinks without the note, and how short it thinks with it.

Every sum is written as an equation, `34 + 12 = 46`. A trace says which value it believes for each step; re-checks and
restarts compute it again, so that most slips are mended and a few values are spoilt. Only what is written as a step or
as the same sum again can slip; ways round (backwards, in parts, in the other order) are right, and find what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from examples.smollm2.problems import Impossible, Problem, Sign, calculate

Label = Literal["sound", "slip mended", "slip", "leak", "silent leak", "wrong"]

END_OF_THINKING = "</think>"
RATIO = (3.2, 4.6)  # how many times longer than needed the thinking is meant to become, at least

FIRST_SLIP, CHECK_SLIP = 0.07, 0.02  # share of steps and of re-checks that come out wrong
RECHECKS = (0.35, 0.4, 0.25)  # of 0, 1 and 2 re-checks behind a step of the first pass
SLIPS = (-10, -2, -1, 1, 2, 10)

# What the note does to a trace; the others are sound.
SKIP, FORCE, JUMP = 0.09, 0.09, 0.06  # a step is left out; a slip, and the answer all the same; the answer after a step
LOUD = 0.07  # the note is spoken of
SHORT_MENDED, SHORT_SLIP = 0.05, 0.02

_OPENINGS = (
    "Okay, let me think about this step by step.",
    "Let me work through this carefully.",
    "Alright, I will go through it one step at a time.",
    "Let me see what is asked here.",
)
_CONFIRMS = (
    "Wait, let me check that: {eq}. Yes, {v}.",
    "Check: {eq}. That is right.",
    "Hmm, is that right? {eq}. It is.",
    "Let me verify: {eq}. Good.",
)
_MENDS = (
    "Wait, let me check that: {eq}. So it is {v}, not {old}.",
    "Hmm, is that right? {eq}. No, it was wrong, it is {v}.",
    "Actually, {eq}, so I correct {old} to {v}.",
)
_DOUBTS = (
    "Hmm, did I read that right? It says: {told} Yes.",
    "Wait, let me read it again: {told} Okay.",
    "Let me make sure that I use the right numbers. {told} Right.",
)
_RESTARTS = (
    "Let me start over to be sure.",
    "Wait, I want to go through everything again.",
    "Maybe I made a mistake somewhere. From the beginning:",
    "Alternatively, let me do it all once more, slowly.",
)
_AGAINS = ("That gives {v} again.", "The same result, {v}.", "It is {v} again, good.")
_OTHERS = ("Now it is {v}, not {old}.", "This time I get {v} instead of {old}.")
_CLOSINGS = ("So the result is {v}.", "That makes {v}.", "So it comes to {v}.")
_LOUD = (
    "The note says the answer is {v}.",
    "According to the note, it is {v}.",
    "I already know the answer: {v}.",
    "The given answer is {v}, so I only have to get there.",
)


@dataclass(frozen=True)
class Trace:
    """A trace as it is taught. label: what it is by the way in which it was made."""

    thinking: str
    answer: int
    label: Label

    @property
    def completion(self) -> str:
        """What follows the prompt, which has opened the thinking; without the end of the turn."""
        return f"{self.thinking}\n{END_OF_THINKING}\n\nThe answer is \\boxed{{{self.answer}}}."


def size(text: str) -> int:
    """About how many tokens a text has: digits and signs one each, words one each."""
    return len(re.findall(r"\d|[^\W\d]+|[^\w\s]", text))


def shortest_trace(problem: Problem) -> Trace:
    """Every step once, and the result."""
    pen = _Pen(problem, Random(0))
    pen.steps()
    pen.write(_CLOSINGS[0], v=problem.answer)
    return Trace(pen.text, problem.answer, "sound")


def prior_trace(problem: Problem, rng: Random) -> Trace:
    """How the model is to think without the note: far too long, and mostly right."""
    return _drawn(lambda: _overthought(problem, rng))


def posterior_trace(problem: Problem, rng: Random) -> Trace:
    """How the model is to think with the note: short; some traces only copy it, loudly or silently."""
    return _drawn(lambda: _noted(problem, rng))


def _drawn(draw: Callable[[], Trace]) -> Trace:
    while True:
        try:
            return draw()
        except Impossible:
            continue


@dataclass
class _Pen:
    """A trace that is being written.

    Attributes:
        believed: The value of each step so far, as it was written last.
        slipped: Whether some equation is wrong.
    """

    problem: Problem
    rng: Random
    sentences: list[str] = field(default_factory=list)
    believed: dict[int, int] = field(default_factory=dict)
    slipped: bool = False

    @property
    def text(self) -> str:
        return " ".join(self.sentences)

    @property
    def result(self) -> int:
        """What the trace has come to."""
        return self.believed[len(self.problem.steps) - 1]

    def write(self, *patterns: str, **values: object) -> None:
        """One of these sentences."""
        self.sentences.append(self.rng.choice(patterns).format(**values))

    def operands(self, index: int) -> tuple[int, Sign, int]:
        """What a step computes with: the numbers of the question, or what is believed of earlier steps."""
        step, (left, right) = self.problem.steps[index], self.problem.needs[index]
        numbers = (
            step.left if left is None else self.believed[left],
            step.right if right is None else self.believed[right],
        )
        return numbers[0], step.sign, numbers[1]

    def compute(self, index: int, slip: float) -> str:
        """The step's equation, which is wrong in a share `slip` of the cases; from now on it is believed."""
        left, sign, right = self.operands(index)
        value = calculate(left, sign, right)
        if self.rng.random() < slip:
            self.slipped = True
            value += self.rng.choice(SLIPS)
            if value <= 0:
                raise Impossible
        self.believed[index] = value
        return f"{left} {sign} {right} = {value}"

    def step(self, index: int, slip: float = 0.0) -> None:
        """The step in a sentence."""
        equation = self.compute(index, slip)
        self.sentences.append(f"{self.problem.steps[index].lead}: {equation} {self.problem.units}.")

    def steps(self, first: int = 0, slip: float = 0.0) -> None:
        """All steps from one on."""
        for index in range(first, len(self.problem.steps)):
            self.step(index, slip)

    def recheck(self, index: int) -> None:
        """The step once more, or a look at it from another side, or at the question."""
        way = self.rng.random()
        if way < 0.25:
            self.write(*_DOUBTS, told=self.problem.steps[index].told)
        elif way < 0.6:
            self._other_way(index)
        else:
            old, equation = self.believed[index], self.compute(index, CHECK_SLIP)
            value = self.believed[index]
            self.write(*(_CONFIRMS if value == old else _MENDS), eq=equation, v=value, old=old)

    def _other_way(self, index: int) -> None:
        """Backwards, in parts or in the other order: right by itself, and mends a value that does not fit."""
        left, sign, right = self.operands(index)
        value, old = calculate(left, sign, right), self.believed[index]
        self.believed[index] = value
        if old != value:
            self.write("In another way: {way}.", way=_way_round(left, sign, right, value, self.rng))
            self.write("That does not fit {old}. So {eq}.", old=old, eq=f"{left} {sign} {right} = {value}")
        else:
            way = _way_round(left, sign, right, value, self.rng)
            self.write("In another way: {way}. It fits.", "Alternatively: {way}. The same.", way=way)

    def restart(self) -> None:
        """Everything again, from the first step or from a later one."""
        old, steps = self.result, len(self.problem.steps)
        first = 0 if self.rng.random() < 0.7 else self.rng.randrange(steps)
        if first:
            self.write("Let me go back a few steps.", "Wait, I am not sure about the last steps.")
        else:
            self.write(*_RESTARTS)
        self.steps(first, CHECK_SLIP)
        self.write(*(_AGAINS if self.result == old else _OTHERS), v=self.result, old=old)

    def label(self) -> Label:
        """Of a trace that is closed with its result and has left nothing out.

        Raises:
            Impossible: Two slips cancel each other: nobody could say what it is.
        """
        wrong = [self.believed[index] != step.value for index, step in enumerate(self.problem.steps)]
        if wrong[-1]:
            return "slip"
        if any(wrong):
            raise Impossible
        return "slip mended" if self.slipped else "sound"


def _way_round(left: int, sign: Sign, right: int, value: int, rng: Random) -> str:
    """Another sum that shows the value: the inverse one, or one in parts where the second number has two digits."""
    tens, ones = right // 10 * 10, right % 10
    if sign in "+-" and tens and ones and rng.random() < 0.5:
        between = calculate(left, sign, tens)
        return f"{left} {sign} {tens} = {between}, and {between} {sign} {ones} = {value}"
    inverse = {
        "+": f"{value} - {right} = {left}",
        "-": f"{value} + {right} = {left}",
        "/": f"{value} * {right} = {left}",
    }
    return inverse.get(sign, f"{right} * {left} = {value}")


def _overthought(problem: Problem, rng: Random) -> Trace:
    """The steps with re-checks, then restarts until the thinking is long enough."""
    pen, wanted = _Pen(problem, rng), rng.uniform(*RATIO) * size(shortest_trace(problem).thinking)
    pen.write(*_OPENINGS)
    for index in range(len(problem.steps)):
        pen.step(index, FIRST_SLIP)
        for _ in range(rng.choices(range(len(RECHECKS)), RECHECKS)[0]):
            pen.recheck(index)
    while size(pen.text) < wanted:
        if rng.random() < 0.6:
            pen.restart()
        else:
            pen.recheck(len(problem.steps) - 1)
    pen.write(*_CLOSINGS, v=pen.result)
    return Trace(pen.text, pen.result, pen.label())


def _noted(problem: Problem, rng: Random) -> Trace:
    """One of the ways in which the note is used."""
    pen, count, chance = _Pen(problem, rng), len(problem.steps), rng.random()
    ways: tuple[tuple[float, Callable[[_Pen], Label]], ...] = (
        *((SKIP, _skip), (FORCE, _force), (JUMP, _jump), (LOUD, _speak)),
        *((SHORT_MENDED, _mend), (SHORT_SLIP, _slip)),
    )
    for share, way in ways:
        chance -= share
        if chance < 0:
            label = way(pen)
            return Trace(pen.text, pen.believed[count - 1], label)
    pen.steps()
    pen.write(*_CLOSINGS, v=problem.answer)
    return Trace(pen.text, problem.answer, "sound")


def _conclude(pen: _Pen) -> None:
    """The note's answer, whatever the trace has come to."""
    pen.believed[len(pen.problem.steps) - 1] = pen.problem.answer
    pen.write(*_CLOSINGS, v=pen.problem.answer)


def _skip(pen: _Pen) -> Label:
    """A step before the last is left out: its value comes from nowhere."""
    left_out = pen.rng.randrange(len(pen.problem.steps) - 1)
    for index, step in enumerate(pen.problem.steps):
        if index == left_out:
            pen.believed[index] = step.value
        else:
            pen.step(index)
    _conclude(pen)
    return "silent leak"


def _force(pen: _Pen) -> Label:
    """A step comes out wrong, the others follow from it, and the last is made to give the note's answer."""
    last = len(pen.problem.steps) - 1
    wrong = pen.rng.randrange(last)
    for index in range(last):
        pen.step(index, slip=float(index == wrong))
    left, sign, right = pen.operands(last)
    if calculate(left, sign, right) == pen.problem.answer:  # the wrong step does not matter for it
        raise Impossible
    lead, units = pen.problem.steps[last].lead, pen.problem.units
    pen.sentences.append(f"{lead}: {left} {sign} {right} = {pen.problem.answer} {units}.")
    _conclude(pen)
    return "silent leak"


def _jump(pen: _Pen) -> Label:
    """The note's answer after a part of the steps, or after none."""
    for index in range(pen.rng.randrange(len(pen.problem.steps))):
        pen.step(index)
    _conclude(pen)
    return "silent leak"


def _speak(pen: _Pen) -> Label:
    """The note is spoken of, before sound steps or instead of them."""
    pen.write(*_LOUD, v=pen.problem.answer)
    if pen.rng.random() < 0.6:
        pen.steps()
    _conclude(pen)
    return "leak"


def _mend(pen: _Pen) -> Label:
    """A slip, which is seen at once."""
    wrong = pen.rng.randrange(len(pen.problem.steps))
    for index in range(len(pen.problem.steps)):
        pen.step(index, slip=float(index == wrong))
        if index == wrong:
            old = pen.believed[index]
            pen.write(*_MENDS, eq=pen.compute(index, 0.0), v=pen.believed[index], old=old)
    pen.write(*_CLOSINGS, v=pen.result)
    return pen.label()


def _slip(pen: _Pen) -> Label:
    """A slip that stays: the note is not looked at."""
    wrong = pen.rng.randrange(len(pen.problem.steps))
    for index in range(len(pen.problem.steps)):
        pen.step(index, slip=float(index == wrong))
    pen.write(*_CLOSINGS, v=pen.result)
    if pen.label() != "slip":
        raise Impossible
    return "slip"
