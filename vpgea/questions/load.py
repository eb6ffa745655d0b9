"""Questions: loading, checking, fingerprinting and dividing them.

Every row is checked before anything is sampled. A row that cannot be used is an error with file and line; with
`skip_bad_rows` it is counted and listed instead. Nothing is repaired, cut or left out silently.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vpgea.config.schema import DataConfig, FieldMapping
from vpgea.errors import UsageError
from vpgea.questions.files import BadRow, RawRows, RowError
from vpgea.questions.sources import read_source

if TYPE_CHECKING:  # questions are read where nothing needs pyarrow yet
    from vpgea.storage.schemas import SampleRow

__all__ = [
    "BadRow",
    "LoadedQuestions",
    "Question",
    "chunk_questions",
    "fingerprint_questions",
    "load_questions",
    "to_questions",
    "wanted_columns",
]

ANSWER_INDEX = "answer_index"  # MMLU-Pro's second statement of the answer, which must agree with the letter
_SHOWN_BAD_ROWS = 5


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


@dataclass(frozen=True)
class LoadedQuestions:
    """What one source gave.

    Attributes:
        skipped: Rows left out, in file order; empty unless `skip_bad_rows`.
        fingerprint: Of the content of `questions` alone; neither path nor file format enters.
    """

    questions: list[Question]
    skipped: list[BadRow] = field(default_factory=list)
    fingerprint: str = ""


def load_questions(data: DataConfig, *, offline: bool = False) -> LoadedQuestions:
    """Read `data.dataset`: .jsonl, .jsonl.gz, .json (a list), .parquet, .arrow, a local folder, or a Hugging Face id.

    The columns `id` and `options` may be absent under their default names: the id is then a short hash of the content.
    Answers and ids may be integers, answers also floats; they become text. Options may be null for "none".

    Args:
        data: `split` and `subset` matter for folders and ids only; `limit` counts usable rows.
        offline: Local caches only.

    Raises:
        UsageError: It names file and line: a missing column, an empty or null value, a value of another type, an id
            that was used before, a letter without an option or in contradiction to a column `answer_index`, a
            half-written last line, an encoding other than UTF-8, a damaged or empty file.
    """
    raw = read_source(data, wanted_columns(data.fields), offline=offline)
    return to_questions(raw, data.fields, limit=data.limit, skip_bad_rows=data.skip_bad_rows)


def wanted_columns(fields: FieldMapping) -> frozenset[str]:
    """The columns to read for a field mapping."""
    named = (fields.id, fields.question, fields.answer, fields.options, ANSWER_INDEX)
    return frozenset(name for name in named if name is not None)


def to_questions(
    raw: RawRows, fields: FieldMapping, *, limit: int | None = None, skip_bad_rows: bool = False
) -> LoadedQuestions:
    """Check raw rows and turn them into questions; see `load_questions`.

    Raises:
        UsageError: As `load_questions` does for rows.
    """
    if raw.rows:
        fields = _existing_columns(raw, fields)
    questions: list[Question] = []
    bad = list(raw.bad)
    seen: dict[str, int] = {}
    for number, row in raw.rows:
        try:
            question = _question(row, fields, raw.columns)
            if question.id in seen:
                raise RowError(_duplicate(question.id, fields.id, f"{raw.unit} {seen[question.id]}"))
        except RowError as error:
            bad.append(BadRow(raw.file, number, raw.unit, str(error)))
        else:
            seen[question.id] = number
            questions.append(question)
    bad = sorted(dict.fromkeys(bad), key=lambda row: row.number)
    if bad and not (skip_bad_rows and questions):
        raise _bad_rows_error(raw, bad, usable=len(questions))
    if not questions:
        raise UsageError(f"{raw.file}: there are no questions", why="it has no rows", mend="give a file with rows")
    questions = questions[:limit]
    return LoadedQuestions(questions, bad, fingerprint_questions(questions))


def _existing_columns(raw: RawRows, fields: FieldMapping) -> FieldMapping:
    """`fields` with id and options set to None where the source has no such column. Other columns must be there."""
    found: dict[str, str | None] = {}
    for role, default in FieldMapping().model_dump().items():
        name = getattr(fields, role)
        found[role] = name if name in raw.columns else None
        optional = role in ("id", "options") and name in (None, default)
        if found[role] is None and not optional:
            first = BadRow(raw.file, raw.rows[0][0], raw.unit, f"the field {name!r} is missing in every row")
            raise UsageError(
                str(first),
                why=f"the columns are {', '.join(raw.columns)}{_nearest(name, raw.columns)}",
                mend=f"name the column with --set data.fields.{role}=COLUMN",
            )
    return FieldMapping.model_validate(found)


def _nearest(name: str, columns: dict[str, None]) -> str:
    lowered = {column.lower(): column for column in columns if column != name}
    near = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    return f"; did you mean {lowered[near[0]]!r}?" if near else ""


def _duplicate(question_id: str, id_column: str | None, place: str) -> str:
    what = f"the id {question_id!r}" if id_column else "the same question with the same answer"
    return f"{what} was already on {place}"


def _bad_rows_error(raw: RawRows, bad: list[BadRow], *, usable: int) -> UsageError:
    mend = "mend the rows, or leave them out with --skip-bad-rows"
    if not usable:
        mend = "mend the file; no usable row would be left"
    if len(bad) == 1 and usable:
        return UsageError(str(bad[0]), why=f"the other {usable} rows are fine", mend=mend)
    shown = "; ".join(f"{row.unit} {row.number}: {row.reason}" for row in bad[:_SHOWN_BAD_ROWS])
    more = f"; and {len(bad) - _SHOWN_BAD_ROWS} more" if len(bad) > _SHOWN_BAD_ROWS else ""
    place = f"{raw.file}:{bad[0].number}" if raw.unit == "line" else f"{raw.file}, row {bad[0].number}"
    return UsageError(
        f"{place}: {len(bad)} of {len(bad) + usable} rows cannot be used", why=f"{shown}{more}", mend=mend
    )


def _question(row: dict[str, object], fields: FieldMapping, columns: dict[str, None]) -> Question:
    for name in (fields.id, fields.question, fields.answer):
        if name is not None and name not in row:
            raise RowError(f"the field {name!r} is missing{_nearest(name, columns)}")
    text = _text(row[fields.question], "question")
    answer = _text(row[fields.answer], "answer", int, float)
    options = _options(row.get(fields.options)) if fields.options else ()
    if options:
        _check_letter(answer, len(options), row.get(ANSWER_INDEX))
    if fields.id is None:
        return Question(_content_id(text, answer, options), text, answer, options)
    question_id = _text(row[fields.id], "id", int)
    if any(ord(character) < ord(" ") for character in question_id):
        raise RowError("the id has a control character")
    return Question(question_id, text, answer, options)


def _text(value: object, what: str, *numbers: type) -> str:
    """The value as text. Numbers of the given types are written as Python writes them; anything else is refused."""
    if value is None:
        raise RowError(f"the {what} is null")
    if isinstance(value, numbers) and not isinstance(value, bool):
        if isinstance(value, float) and not math.isfinite(value):
            raise RowError(f"the {what} is {value}, which is no number")
        return str(value)
    if not isinstance(value, str):
        raise RowError(f"the {what} is {type(value).__name__}, not text{' or a number' if numbers else ''}")
    if not value.strip():
        raise RowError(f"the {what} is empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowError(f"the {what} has half of a surrogate pair, which is no character") from None
    return value


def _options(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    most = len(string.ascii_uppercase)
    if not isinstance(value, list) or not 2 <= len(value) <= most:
        found = f"{len(value)} of them" if isinstance(value, list) else type(value).__name__
        raise RowError(f"the options must be a list of 2 to {most} texts, not {found}")
    return tuple(
        _text(option, f"option {letter}") for letter, option in zip(string.ascii_uppercase, value, strict=False)
    )


def _check_letter(answer: str, count: int, index: object) -> None:
    letters = string.ascii_uppercase[:count]
    if len(answer) != 1 or answer not in letters:
        raise RowError(f"the answer {answer!r} is none of the letters A-{letters[-1]} of its {count} options")
    if index is not None and index != letters.index(answer):
        raise RowError(f"the answer {answer!r} contradicts {ANSWER_INDEX} {index!r}")


def _canonical(*parts: object) -> bytes:
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode()


def _content_id(text: str, answer: str, options: tuple[str, ...]) -> str:
    return f"q-{hashlib.blake2b(_canonical(text, answer, options), digest_size=8).hexdigest()}"


def fingerprint_questions(questions: Sequence[Question]) -> str:
    """128-bit hash (hex) of ids, texts, answers and options in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for question in questions:
        digest.update(_canonical(question.id, question.text, question.answer, question.options) + b"\n")
    return digest.hexdigest()


def chunk_questions(questions: Sequence[Question], per_chunk: int) -> list[list[Question]]:
    """Cut into chunks of `per_chunk` in order (the last may be smaller): the units that are committed and resumed."""
    assert per_chunk >= 1
    return [list(questions[start : start + per_chunk]) for start in range(0, len(questions), per_chunk)]
