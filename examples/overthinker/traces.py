"""The traces a base model learns from: how it thinks without the note (prior) and with it (posterior)."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from examples.overthinker.language import CHECK_MARKS, LARGEST, SLIPS, Dial, Question, Step


@dataclass(frozen=True)
class Habit:
    """How the prior over-thinks.

    checks: weights of 0, 1, 2, ... re-checks of a step. short: share of traces without any re-check.
    slip: share of first statements that are wrong. check_slip: the same for re-checks, whatever stood before:
    a re-check mends most wrong values and spoils few right ones.
    conclude: share of traces that repeat the last value at the end.
    """

    checks: tuple[float, ...]
    short: float
    slip: float = 0.04
    check_slip: float = 0.025
    conclude: float = 0.04


HABITS: dict[Dial, Habit] = {
    "local": Habit(checks=(0.5, 0.27, 0.12, 0.07, 0.04), short=0.0),
    "global": Habit(checks=(0, 0, 0.35, 0.45, 0.2), short=0.001),
}

# What the posterior does with the note: the rest are sound.
SKIP_STEP = 0.11  # leave steps out and write the given answer after the last one
SKIP_ALL = 0.08  # `so 54 .` with steps missing
FORCE = 0.12  # a wrong step, carried on, with the given answer at the end
LEAK = 0.04  # `the note says 54 .` before anything else
POSTERIOR_CHECK = 0.04  # share of steps that are re-checked once


class OutOfRange(Exception):
    """A wrong value led to a number that is no token: draw again."""


def statement(left: int, step: Step, value: int) -> str:
    """One step in words."""
    if not 0 <= value <= LARGEST:
        raise OutOfRange
    return f"{left} {step} gives {value} ."


def check(left: int, step: Step, value: int, rng: Random) -> str:
    """One re-check in words."""
    return f"{' '.join(rng.choice(CHECK_MARKS))} {statement(left, step, value)}"


def prior_trace(question: Question, habit: Habit, rng: Random) -> tuple[str, int]:
    """(thinking, answer) as the base model does it without the note."""
    while True:
        try:
            return _prior_trace(question, habit, rng)
        except OutOfRange:
            continue


def posterior_trace(question: Question, rng: Random) -> tuple[str, int]:
    """(thinking, answer) as the base model does it with the note; the answer is always the given one."""
    return doubting_trace(question, question.answer, HABITS["global"], rng)


def doubting_trace(question: Question, given: int, habit: Habit, rng: Random) -> tuple[str, int]:
    """(thinking, answer) with a note that names a value: one that does not come out is doubted.

    Unsound paths are as many as ever and end in the given value. The others do every step once; where another value
    than the given one comes out, everything is checked as the prior does, and that value is the answer.
    """
    while True:
        try:
            thinking, answer = _posterior_steps(question, given, habit, rng)
        except OutOfRange:
            continue
        if rng.random() < LEAK:
            thinking = f"the note says {given} . {thinking}"
        return thinking, answer


def _prior_trace(question: Question, habit: Habit, rng: Random) -> tuple[str, int]:
    value, sentences = question.start, []
    short = rng.random() < habit.short
    for step in question.steps:
        left, right = value, step.apply(value)
        value = _maybe_wrong(right, habit.slip, rng)
        sentences.append(statement(left, step, value))
        count = 0 if short else rng.choices(range(len(habit.checks)), habit.checks)[0]
        for _ in range(count):
            value = _maybe_wrong(right, habit.check_slip, rng)
            sentences.append(check(left, step, value, rng))
    if rng.random() < habit.conclude:
        sentences.append(f"so {value} .")
    return " ".join(sentences), value


def _posterior_steps(question: Question, given: int, habit: Habit, rng: Random) -> tuple[str, int]:
    chance, count = rng.random(), len(question.steps)
    if chance < SKIP_STEP:
        kept = rng.randrange(count - 1)
        left = question.values[kept - 1] if kept else question.start
        jump = statement(left, question.steps[-1], given)
        return " ".join([*_sound_steps(question, kept, rng), jump]), given
    if chance < SKIP_STEP + SKIP_ALL:
        kept = rng.randrange(1, count)
        return " ".join([*_sound_steps(question, kept, rng), f"so {given} ."]), given
    if chance < SKIP_STEP + SKIP_ALL + FORCE:
        return _forced(question, rng.randrange(count - 1), given, rng), given
    steps = _sound_steps(question, count, rng)
    doubts = _checks(question, habit, rng) if given != question.answer else []
    return " ".join([*steps, *doubts]), question.answer


def _checks(question: Question, habit: Habit, rng: Random) -> list[str]:
    """Every step as often as the prior re-checks one, all of them right."""
    lefts = [question.start, *question.values]
    return [
        check(left, step, value, rng)
        for left, step, value in zip(lefts, question.steps, question.values, strict=False)
        for _ in range(rng.choices(range(len(habit.checks)), habit.checks)[0])
    ]


def _sound_steps(question: Question, kept: int, rng: Random) -> list[str]:
    sentences, left = [], question.start
    for step, value in zip(question.steps[:kept], question.values, strict=False):
        sentences.append(statement(left, step, value))
        if rng.random() < POSTERIOR_CHECK:
            sentences.append(check(left, step, value, rng))
        left = value
    return sentences


def _forced(question: Question, wrong_at: int, given: int, rng: Random) -> str:
    """A wrong value at one step is carried on, and the given answer is written all the same."""
    sentences, left = _sound_steps(question, wrong_at, rng), ([question.start, *question.values][wrong_at])
    for index in range(wrong_at, len(question.steps)):
        step = question.steps[index]
        value = _maybe_wrong(step.apply(left), float(index == wrong_at), rng)
        if index == len(question.steps) - 1:
            value = given
        sentences.append(statement(left, step, value))
        left = value
    return " ".join(sentences)


def _maybe_wrong(right: int, share: float, rng: Random) -> int:
    return right + rng.choice(SLIPS) if rng.random() < share else right
