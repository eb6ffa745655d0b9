"""The paths that a base model learns from, each with its label: how it thinks without the note, and with it.

The dial is the bottleneck: the share of prior paths that are right and within 1.3 times the shortest sound one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from examples.overthinker.language import CHECK_MARKS
from examples.overthinker_families.problems import Problem
from examples.overthinker_families.steps import statement
from examples.overthinker_families.truth import LEAKS, Label

BOTTLENECKS = (0.001, 0.5)  # the dial goes from the one to the other

# Without the note.
SLIP, CHECK_SLIP = 0.04, 0.025  # wrong first statements, and wrong re-checks, whatever stood before
QUIT = 0.01  # paths that end before their last step
CONCLUDE = 0.04  # paths that repeat the last value at the end
LONG_CHECKS = (0.0, 0.35, 0.4, 0.25)  # weights of 0, 1, 2, ... re-checks of each step of a path that is not short
NO_CHECKS = (1.0,)
FREE_CHECKS = (0.4, 0.25, 0.15, 0.1, 0.1)  # where no habit is to be learned

# With the note.
POSTERIOR_SLIP = 0.03
NOTICED, POSTERIOR_CHECK = 0.3, 0.04  # slips, and right steps, that are re-checked once
OWN_ANSWER = 0.5  # where a path ends elsewhere, how often its own value is the answer, and not the note's
LEAK = 0.06  # paths of any kind with a sentence of LEAKS somewhere


@dataclass(frozen=True)
class Path:
    """Thinking, the answer behind it, and what the thinking is."""

    thinking: str
    answer: str
    label: Label


class DrawAgain(Exception):
    """What was drawn has no words here, or is not of its kind by chance."""


def prior_path(problem: Problem, bottleneck: float, rng: Random) -> Path:
    """A path as the base model writes it without the note.

    A short one has every step once. It is right with probability (1 - SLIP)^steps (1 - QUIT), so that there are more
    short ones than `bottleneck`. Every other path re-checks each step, which takes it beyond 1.3 times the shortest.
    """
    right = (1 - SLIP) ** len(problem.steps) * (1 - QUIT)
    checks = NO_CHECKS if rng.random() < bottleneck / right else LONG_CHECKS
    return _drawn(_prior, problem, rng, checks)


def free_path(problem: Problem, rng: Random) -> Path:
    """A prior path with any number of re-checks."""
    return _drawn(_prior, problem, rng, FREE_CHECKS)


def posterior_path(problem: Problem, rng: Random) -> Path:
    """A path as the base model writes it with the note."""
    kind = rng.choices(list(POSTERIOR_KINDS), list(POSTERIOR_KINDS.values()))[0]
    path = _drawn(kind, problem, rng)
    if rng.random() >= LEAK:
        return path
    sentences = path.thinking.split(" . ")
    sentences.insert(rng.randrange(len(sentences)), rng.choice(LEAKS).format(problem.answer).removesuffix(" ."))
    return Path(" . ".join(sentences), path.answer, Label.LEAK)


def _drawn(kind: Callable[..., Path], *inputs: object) -> Path:
    while True:
        try:
            return kind(*inputs)
        except DrawAgain:
            continue


class _Writer:
    """Writes a path step by step. before: the start, then what each step carries; rights: was that right?"""

    def __init__(self, problem: Problem, rng: Random) -> None:
        self.problem, self.rng = problem, rng
        self.before, self.rights, self.sentences = [problem.start], list[bool](), list[str]()

    @property
    def thinking(self) -> str:
        return " ".join(self.sentences)

    @property
    def label(self) -> Label:
        """Of a path with every step."""
        return Label.SOUND if all(self.rights) else Label.SLIP

    def right(self) -> str:
        """The right value of the next step behind what is carried."""
        value = self.problem.steps[len(self.rights)].right(self.before)
        if value is None:
            raise DrawAgain
        return value

    def step(self, slip: float = 0.0) -> None:
        """The next step, wrong with this probability. No slip hits on the answer: that would be a silent leak."""
        right, step = self.right(), self.problem.steps[len(self.rights)]
        wrong = [value for value in step.slips(self.before) if value != self.problem.answer]
        self.write(self.rng.choice(wrong) if wrong and self.rng.random() < slip else right)

    def write(self, value: str) -> None:
        """The next step with this value."""
        step = self.problem.steps[len(self.rights)]
        self.sentences.append(statement(step.left(self.before), value))
        self.rights.append(value == step.right(self.before))
        self.before.append(value)

    def check(self, slip: float) -> None:
        """The last step once more; its new value is carried on."""
        self.before.pop()
        self.rights.pop()
        self.step(slip)
        self.sentences[-1] = f"{' '.join(self.rng.choice(CHECK_MARKS))} {self.sentences[-1]}"

    def say(self, value: str) -> None:
        self.sentences.append(f"so {value} .")


def _prior(problem: Problem, rng: Random, checks: tuple[float, ...]) -> Path:
    writer, count = _Writer(problem, rng), len(problem.steps)
    quits = rng.random() < QUIT
    for _ in range(rng.randrange(1, count) if quits else count):
        writer.step(SLIP)
        for _ in range(rng.choices(range(len(checks)), checks)[0]):
            writer.check(CHECK_SLIP)
    value = writer.before[-1]
    if quits and value == problem.answer:
        raise DrawAgain
    if not quits and rng.random() < CONCLUDE:
        writer.say(value)
    return Path(writer.thinking, value, Label.WRONG if quits else writer.label)


def _plain(problem: Problem, rng: Random) -> Path:
    """Every step, with a slip now and then, some of which are noticed."""
    writer = _Writer(problem, rng)
    for _ in problem.steps:
        writer.step(POSTERIOR_SLIP)
        if rng.random() < (POSTERIOR_CHECK if writer.rights[-1] else NOTICED):
            writer.check(CHECK_SLIP)
    return Path(writer.thinking, writer.before[-1] if rng.random() < OWN_ANSWER else problem.answer, writer.label)


def _made_up_for(problem: Problem, rng: Random) -> Path:
    """A slip, and right behind it another one that comes back to the right value; with two steps plain."""
    if len(problem.steps) < 3:
        return _plain(problem, rng)
    writer, at = _Writer(problem, rng), rng.randrange(len(problem.steps) - 2)
    _slip_at(writer, at)
    writer.write(problem.values[at + 1])
    while len(writer.rights) < len(problem.steps):
        writer.step()
    return Path(writer.thinking, problem.answer, writer.label)


def _forced(problem: Problem, rng: Random) -> Path:
    """A slip is carried on, and the reference answer stands behind the last step all the same."""
    writer = _Writer(problem, rng)
    _slip_at(writer, rng.randrange(len(problem.steps) - 1))
    while len(writer.rights) < len(problem.steps) - 1:
        writer.step()
    if writer.right() == problem.answer:
        raise DrawAgain
    writer.write(problem.answer)
    return Path(writer.thinking, problem.answer, Label.SILENT_LEAK)


def _jump(problem: Problem, rng: Random) -> Path:
    """Steps are left out, and the last one gives the reference answer."""
    writer = _some_steps(problem, rng.randrange(len(problem.steps) - 1), rng)
    writer.sentences.append(statement(problem.steps[-1].left(writer.before), problem.answer))
    return Path(writer.thinking, problem.answer, Label.SILENT_LEAK)


def _asserted(problem: Problem, rng: Random) -> Path:
    """Steps are left out, all of them at times, and the reference answer is said."""
    writer = _some_steps(problem, rng.randrange(len(problem.steps)), rng)
    writer.say(problem.answer)
    return Path(writer.thinking, problem.answer, Label.SILENT_LEAK)


def _stopped(problem: Problem, rng: Random) -> Path:
    """The path ends before the answer, which is given nevertheless."""
    writer = _some_steps(problem, rng.randrange(1, len(problem.steps)), rng)
    return Path(writer.thinking, problem.answer, Label.WRONG)


def _some_steps(problem: Problem, count: int, rng: Random) -> _Writer:
    """The first steps, all right."""
    writer = _Writer(problem, rng)
    for _ in range(count):
        writer.step()
    return writer


def _slip_at(writer: _Writer, index: int) -> None:
    """Right steps up to this one, and a slip there."""
    while len(writer.rights) < index:
        writer.step()
    writer.step(slip=1.0)
    if writer.rights[-1]:
        raise DrawAgain


POSTERIOR_KINDS: dict[Callable[[Problem, Random], Path], float] = {
    _plain: 0.66,
    _made_up_for: 0.05,
    _forced: 0.09,
    _jump: 0.1,
    _asserted: 0.07,
    _stopped: 0.03,
}
