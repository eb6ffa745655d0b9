"""A question with its reference answer."""

from __future__ import annotations

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
