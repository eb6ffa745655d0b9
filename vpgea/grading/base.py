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

    Attributes:
        status: What it is.
        extracted: Canonical text of the answer that was found in the response; None where none was found.
        detail: Why, for `error` and `timeout`; else None.
        source: Where the answer stood: box, tag, marker or whole (answers.py); None where none was found, and for
            graders of one's own.
    """

    status: Status
    extracted: str | None = None
    detail: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class GradeRequest:
    """One response to grade.

    Attributes:
        response: Text *after* the thinking (model text, untrusted). Empty for a path that was cut off.
        reference: The question's reference answer.
        question: The question's text: `grade_math` reads units from it, and graders of one's own get it.
    """

    response: str
    reference: str
    question: str = ""


Grader = Callable[[GradeRequest], Grade]
