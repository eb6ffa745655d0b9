"""Which questions are one: numbers of questions, and of the records that they are orders or copies of."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from vpgea.questions.question import record_of


class Numbering:
    """Numbers that are the same in all tables that are held against one another; it grows.

    A record is a question wherever it stands: with its choices in another order, or once more under another id. Its
    number is that of its first question, so that where no two are of one record both numbers are the same.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, tuple[int, int]] = {}
        self._records: dict[Hashable, int] = {}

    def of(self, question_id: str, text: str, options: Sequence[str], *, is_imported: bool = False) -> tuple[int, int]:
        """The numbers of a question and of its record.

        Args:
            question_id: By which it is known again; its first text counts.
            text: Of the question.
            options: Of multiple choice.
            is_imported: Another tool's log may have the least part of what was asked, so that equal texts are no
                evidence that it was the same; with equal choices they are.
        """
        if question_id not in self._numbers:
            is_known = bool(options) or not is_imported
            record: Hashable = record_of(text, options) if is_known else question_id
            number = len(self._numbers)
            self._numbers[question_id] = number, self._records.setdefault(record, number)
        return self._numbers[question_id]

    @property
    def questions(self) -> int:
        return len(self._numbers)

    @property
    def records(self) -> int:
        return len(self._records)
