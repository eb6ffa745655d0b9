"""What a grader is, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """Four values. `error` and `timeout` say nothing about the answer: they leave every mean and every count."""

    CORRECT = "correct"
    WRONG = "wrong"
    ERROR = "error"
    TIMEOUT = "timeout"

    @property
    def valid(self) -> bool:
        return self in (Status.CORRECT, Status.WRONG)


@dataclass(frozen=True)
class Grade:
    """One graded answer.

    extracted: canonical text of the answer that was found in the response; None where none was found.
    detail: why, for `error` and `timeout`; else None.
    source: where the answer stood: box, tag, marker or whole (answers.py); None where none was found, and for
    graders of one's own.
    """

    status: Status
    extracted: str | None = None
    detail: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class GradeRequest:
    """One response to grade.

    response: text *after* the thinking (model text, untrusted). Empty for a path that was cut off.
    reference: the question's reference answer.
    question: the question's text, for graders of one's own.
    """

    response: str
    reference: str
    question: str = ""


Grader = Callable[[GradeRequest], Grade]
