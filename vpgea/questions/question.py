"""A question with its reference answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # questions are read where nothing needs pyarrow yet
    from vpgea.storage.schemas import SampleRow


@dataclass(frozen=True)
class Question:
    """One question with its reference answer.

    Attributes:
        id: Unique within the run; from the file, or made from the content.
        options: The choices of a multiple-choice question; then `answer` is one of their letters (A, B, ...).
    """

    id: str
    text: str
    answer: str
    options: tuple[str, ...] = ()

    @classmethod
    def from_row(cls, row: SampleRow) -> Question:
        """The question that a sample was drawn for."""
        return cls(row.key.question_id, row.question, row.answer, row.options)


def record_of(text: str, options: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """What a question is wherever it stands: its words and choices, whatever their spaces and the choices' order."""
    return folded(text), tuple(sorted(map(folded, options)))


def folded(text: str) -> str:
    """With one space wherever there is any white space."""
    return " ".join(text.split())
