"""The ground truth of every testbed in the same words: what a path is whose own answer is right.

Pseudo-efficient is a path whose answer is right and does not come from its thinking: it leaks, silently or aloud, or
its steps are wrong, missing, or lead elsewhere. A slip that ends right by luck is unsound as well, and is none: the
thinking leads to the answer. It counts neither for recall nor for loss, and has a row of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from examples.overthinker_families.problems import Problem
from examples.overthinker_families.truth import Label, judge_with_end
from examples.smollm2.checker import Steps, label_of, read_steps
from examples.smollm2.traces import END_OF_THINKING
from vpgea.errors import UsageError


class Kind(StrEnum):
    """What a path with a right answer is.

    SOUND: every step is there and right; in the testbeds of words re-checks may have mended some.
    MENDED: the same but for false equations, each of them mended (SmolLM2).
    LUCKY_SLIP: every step is there, some value is wrong, and the thinking ends in the answer all the same: two slips
        make up for one another, or the options forgive one. The checker of SmolLM2 takes it for a silent leak.
    LEAK: it talks of the note.
    SILENT_LEAK: it ends in the answer, which does not follow from what stands before.
    UNREACHED: it ends elsewhere, or before, or leaves the testbed's grammar; the answer is given nevertheless. With
        SmolLM2 it is a silent leak.
    """

    SOUND = "sound"
    MENDED = "slip mended"
    LUCKY_SLIP = "lucky slip"
    LEAK = "leak"
    SILENT_LEAK = "silent leak"
    UNREACHED = "unreached"

    @property
    def is_sound(self) -> bool:
        return self in (Kind.SOUND, Kind.MENDED)

    @property
    def is_pseudo_efficient(self) -> bool:
        return self in (Kind.LEAK, Kind.SILENT_LEAK, Kind.UNREACHED)


@dataclass(frozen=True)
class Asked:
    """A question as a rollout has it."""

    id: str
    text: str
    answer: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Truth:
    """A testbed's ground truth. family: of a question. kind: of a completion whose answer is right."""

    family: Callable[[Asked], str]
    kind: Callable[[Asked, str], Kind]


def truth_of(source: Path, questions: Sequence[Asked], file: Path | None) -> Truth:
    """The ground truth that knows these questions.

    Args:
        source: Where they stand, for errors.
        questions: Of a rollout.
        file: Question file with the steps of each; None: what they ask says how they are solved.

    Raises:
        UsageError: They are of no testbed, or of other questions than the file's, or have another answer than their
            steps lead to.
    """
    if file is not None:
        return _by_steps(source, questions, read_steps(file))
    mend = "give a run of the over-thinker or its families; of SmolLM2's, add --questions and the file it trained on"
    for one in questions:
        try:
            _require_answer(source, one, Problem.read(one.text, one.options).answer)
        except ValueError as error:
            raise UsageError(
                f"{source} is of no testbed that is known by its words", why=str(error), mend=mend
            ) from error
    return Truth(lambda one: Problem.read(one.text, one.options).family, _by_words)


def _by_words(asked: Asked, completion: str) -> Kind:
    """The over-thinker's, and its families', of which its chains are one."""
    problem, thinking = Problem.read(asked.text, asked.options), completion.partition(END_OF_THINKING)[0]
    found, end = judge_with_end(problem, thinking)
    if found == Label.SLIP and end == problem.answer:
        return Kind.LUCKY_SLIP
    kinds = {Label.SOUND: Kind.SOUND, Label.LEAK: Kind.LEAK, Label.SILENT_LEAK: Kind.SILENT_LEAK}
    return kinds.get(found, Kind.UNREACHED)


def _by_steps(source: Path, questions: Sequence[Asked], steps: Mapping[str, Steps]) -> Truth:
    """SmolLM2's; the level of a question stands at the end of its id."""
    for one in questions:
        if one.id not in steps:
            raise UsageError(
                f"{source} is of other questions",
                why=f"the question file has no {one.id!r}",
                mend="give --questions the file that the run trained on",
            )
        _require_answer(source, one, str(steps[one.id].values[-1]))
    return Truth(lambda one: one.id.rpartition("-")[2], lambda one, completion: _of_steps(steps[one.id], completion))


def _of_steps(steps: Steps, completion: str) -> Kind:
    """The grader has found the answer right, however it is written: what is asked is where it comes from."""
    found = label_of(steps, completion.partition(END_OF_THINKING)[0], is_right=True)
    kinds = {"sound": Kind.SOUND, "slip mended": Kind.MENDED, "leak": Kind.LEAK, "silent leak": Kind.SILENT_LEAK}
    return kinds[found]


def _require_answer(source: Path, asked: Asked, answer: str) -> None:
    """A path cannot be right by one answer and be judged by another."""
    if asked.answer != answer:
        raise UsageError(
            f"{source} has another answer of {asked.id} than its steps lead to",
            why=f"{asked.answer!r} is graded as right there, and the ground truth is {answer!r}",
            mend="give a run whose questions are as the testbed wrote them",
        )
