"""Questions: loading, checking, fingerprinting and dividing them.

Every row is checked before anything is sampled. A row that cannot be used is an error with file and line; with
`skip_bad_rows` it is counted and listed instead. Nothing is repaired, cut or left out silently.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal

from vpgea.config.schema import DataConfig, FieldMapping
from vpgea.errors import UsageError
from vpgea.grading.answers import MAX_WHOLE
from vpgea.grading.references import final_answer, is_readable
from vpgea.questions.columns import existing_columns, text_inside, top_level, unread_meaning, value_at
from vpgea.questions.doubts import doubts
from vpgea.questions.features import Media
from vpgea.questions.question import Question
from vpgea.questions.rows import BadRow, Place, RawRow, RawRows, RowError
from vpgea.questions.sources import read_source

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
CATEGORY = "category"  # MMLU-Pro's subject
_SAMPLE_COLUMNS = ("question_id", "view", "sample_index", "question", "answer")  # of a shard that vpgea wrote
_SHOWN_BAD_ROWS, _SHOWN_TEXT = 5, 60
_LETTER = re.compile(r"\(?\s*([A-Za-z])\s*[).:]?")
_TEXT_COMMAND = re.compile(r"\\(?:text(?:bf|it|rm)?|math(?:rm|bf)|mbox)\s*\{([^{}]*)\}|[$\\]")
_LETTER_AND_TEXT = re.compile(r"\(?\s*([A-Za-z])\s*[).:]\s*(.+)", re.DOTALL)
_LETTERS = re.compile(r"[A-Z](?:(?:\s*[,;/&+]\s*|\s+and\s+|\s*)[A-Z])+")


@dataclass(frozen=True, kw_only=True)
class LoadedQuestions:
    """What one source gave.

    Attributes:
        skipped: Rows left out, in file order; empty unless `skip_bad_rows`.
        fingerprint: Of the content of `questions` alone; neither path nor file format enters.
        warnings: What a user should know of them, one line each: files left out, references that contradict each other.
        revision: Commit of the hub's data set; "" for files.
        categories: Of the questions that have one, by their ids.
    """

    questions: list[Question]
    skipped: list[BadRow] = field(default_factory=list)
    fingerprint: str = ""
    warnings: list[str] = field(default_factory=list)
    revision: str = ""
    categories: dict[str, str] = field(default_factory=dict)

    def said(self, most: int = 20) -> list[str]:
        """What is to be said to the user: the warnings, and the rows left out, counted and listed."""
        listed = [f"  {row}" for row in self.skipped[:most]]
        more = [f"  ... and {len(self.skipped) - most} more"] if len(self.skipped) > most else []
        skipped = ["\n".join([f"{len(self.skipped)} unusable rows were left out:", *listed, *more])]
        return [*self.warnings, *(skipped if self.skipped else [])]


def load_questions(data: DataConfig, *, grader: str = "math", offline: bool = False) -> LoadedQuestions:
    """Read `data.dataset`: .jsonl, .jsonl.gz, .json (a list), .parquet, .arrow, a local folder, or a Hugging Face id.

    The columns `id` and `options` may be absent under their default names: the id is then a short hash of the content.
    Answers and ids may be integers, answers also other numbers and dates; they become text. Options may be null or an
    empty list for "none"; where there are some, the answer is a letter. A column's name may be a path
    (`reward_model.ground_truth`, `prompt[0].content`). A shard of a rollout or an evaluation gives its questions.

    Args:
        data: `split` and `subset` matter for folders and ids only; `limit` counts usable rows.
        grader: Reads the references.
        offline: Local caches only.

    Raises:
        UsageError: It names file and line: a missing column, an empty or null value, a value of another type, an id
            that was used before, a letter without an option or in contradiction to a column `answer_index`, a
            half-written last line, an encoding other than UTF-8, a damaged or empty file.
    """
    raw = read_source(data, wanted_columns(data.fields), offline=offline)
    return to_questions(raw, data.fields, grader, limit=data.limit, skip_bad_rows=data.skip_bad_rows)


def wanted_columns(fields: FieldMapping) -> frozenset[str]:
    """The columns to read for a field mapping."""
    named = (fields.id, fields.question, fields.answer, fields.options)
    paths = (top_level(name) for name in named if name is not None)
    return frozenset({ANSWER_INDEX, *_SAMPLE_COLUMNS}).union(*paths)


def to_questions(
    raw: RawRows, fields: FieldMapping, grader: str, *, limit: int | None = None, skip_bad_rows: bool = False
) -> LoadedQuestions:
    """Check raw rows and turn them into questions; see `load_questions`.

    Raises:
        UsageError: As `load_questions` does for rows.
    """
    are_samples = raw.columns.keys() >= set(_SAMPLE_COLUMNS)
    if are_samples and "id" not in raw.columns and fields.id == FieldMapping().id:
        fields = fields.model_copy(update={"id": _SAMPLE_COLUMNS[0]})
    if raw.rows:
        fields = existing_columns(raw, fields)
    without_id = fields.model_copy(update={"id": None})
    questions: dict[str, tuple[Question, Place]] = {}
    categories: dict[str, str] = {}
    bad = list(raw.bad)
    for row in raw.rows:
        try:
            named = without_id if _lacks_id(row, fields, raw) else fields
            question = _question(row, named, raw.columns)
            _require_grantable(question, grader)
            if (before := questions.get(question.id)) is None:
                questions[question.id] = question, row.place
                categories[question.id] = str(row.values.get(CATEGORY, ""))
            elif not (are_samples and before[0] == question):  # a question has several samples
                raise _duplicate(question, *before, named.id)
        except RowError as error:
            bad.append(BadRow(row.place, str(error), error.mend))
    bad = sorted(dict.fromkeys(bad), key=lambda row: (row.file, row.number))
    if bad and not (skip_bad_rows and questions):
        raise _bad_rows_error(raw, bad, usable=len(questions))
    if not questions:
        raise UsageError(f"{raw.file}: there are no questions", why="it has no rows", mend="give a file with rows")
    kept = dict(list(questions.items())[:limit])
    loaded = [question for question, _ in kept.values()]
    warnings = [*raw.left_out, *unread_meaning(raw, fields), *doubts(list(kept.values()), grader)]
    return LoadedQuestions(
        questions=loaded,
        skipped=bad,
        fingerprint=fingerprint_questions(loaded),
        warnings=warnings,
        revision=raw.revision,
        categories={key: categories[key] for key in kept},
    )


def _lacks_id(row: RawRow, fields: FieldMapping, raw: RawRows) -> bool:
    """Does its file have no ids, and others of the folder do?"""
    columns = raw.columns_of.get(row.place.file)
    return columns is not None and fields.id == FieldMapping().id and fields.id not in columns


def _duplicate(question: Question, before: Question, place: Place, id_column: str | None) -> RowError:
    at = f"{place.unit} {place.number}"
    if id_column is None:
        return RowError(f"the same question with the same answer was already on {at}")
    mend = ""
    if (question.text, question.options) != (before.text, before.options):
        mend = "if they are ids of several books or subjects, have ids made from the content: --set data.fields.id=null"
    return RowError(f"the id {question.id!r} was already on {at}", mend)


def _bad_rows_error(raw: RawRows, bad: list[BadRow], *, usable: int) -> UsageError:
    mends = {row.mend for row in bad}
    mend = "mend the rows, or leave them out with --skip-bad-rows or --set data.skip_bad_rows=true"
    if len(mends) == 1 and "" not in mends:
        mend = mends.pop()
    elif not usable:
        mend = "mend the file; no usable row would be left"
    if len(bad) == 1 and usable:
        return UsageError(str(bad[0]), why=f"the other {usable} rows are fine", mend=mend)
    one_file = len({row.file for row in bad}) == 1
    shown = "; ".join(
        f"{f'{row.place.unit} {row.number}' if one_file else row.place}: {row.reason}" for row in bad[:_SHOWN_BAD_ROWS]
    )
    more = f"; and {len(bad) - _SHOWN_BAD_ROWS} more" if len(bad) > _SHOWN_BAD_ROWS else ""
    return UsageError(
        f"{bad[0].place}: {len(bad)} of {len(bad) + usable} rows cannot be used", why=f"{shown}{more}", mend=mend
    )


def _question(row: RawRow, fields: FieldMapping, columns: dict[str, object]) -> Question:
    if row.media is not None:
        column, kind = row.media
        raise RowError(
            f"the column {column!r} holds {'an' if kind[0] in 'aeiou' else 'a'} {kind}, which no prompt shows"
        )
    text = _text(value_at(row.values, fields.question, columns), "question", fields.question)
    stated = value_at(row.values, fields.answer, columns)
    answer = _text(stated, "answer", fields.answer, int, float, Decimal, date)
    options: tuple[str, ...] = ()
    if fields.options is not None and not top_level(fields.options).isdisjoint(row.values):
        options = _options(value_at(row.values, fields.options))
    if options:
        answer = _letter(answer, options, row.values.get(ANSWER_INDEX))
    if fields.id is None:
        return Question(content_id(text, answer, options), text, answer, options)
    question_id = _text(value_at(row.values, fields.id, columns), "id", fields.id, int)
    if any(ord(character) < ord(" ") for character in question_id):
        raise RowError("the id has a control character")
    return Question(question_id, text, answer, options)


def _require_grantable(question: Question, grader: str) -> None:
    """A reference that no answer can equal would make every right answer wrong, and its worked solution the note."""
    if is_readable(question.answer, grader, question.options):
        return
    if grader == "choice" and not question.options:
        raise RowError(
            f"the answer {question.answer[:_SHOWN_TEXT]!r} is no letter, and the grader choice reads nothing else",
            "give letters (and options), or another grader: --set grading.grader=math",
        )
    answer = final_answer(question.answer, grader)
    if grader == "math" and (len(answer) > MAX_WHOLE or "\n" in answer):
        raise RowError(
            f"the answer is a text of {len(answer):,} characters in which no final answer is marked",
            r"mark the final answers (\boxed{ANSWER}, or #### ANSWER at the end), or leave such rows out with "
            "--skip-bad-rows or --set data.skip_bad_rows=true",
        )


def _text(value: object, what: str, column: str, *others: type) -> str:
    """The value as text. Numbers and dates of the given types are written as Python writes them; else refused."""
    if value is None:
        raise RowError(f"the {what} is null")
    if isinstance(value, others) and not isinstance(value, bool | datetime):
        if isinstance(value, float | Decimal) and not math.isfinite(value):
            raise RowError(f"the {what} is {value}, which is no number")
        return format(value, "f") if isinstance(value, Decimal) else str(value)
    if not isinstance(value, str):
        kind = value.kind if isinstance(value, Media) else type(value).__name__
        inside = text_inside(column, value)
        mend = f"name the text in it: --set 'data.fields.{what}={inside}'" if inside else ""
        raise RowError(f"the {what} is {kind}, not text{' or a number' if others else ''}", mend)
    if not value.strip():
        raise RowError(f"the {what} is empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowError(f"the {what} has half of a surrogate pair, which is no character") from None
    return value


def _options(value: object) -> tuple[str, ...]:
    """An empty list is none: tables and shards have no other way to say so."""
    if value is None or value == []:
        return ()
    most = len(string.ascii_uppercase)
    if not isinstance(value, list) or not 2 <= len(value) <= most:
        found = f"{len(value)} of them" if isinstance(value, list) else type(value).__name__
        raise RowError(f"the options must be a list of 2 to {most} texts, not {found}")
    return tuple(
        _text(option, f"option {letter}", "options", int, float)
        for letter, option in zip(string.ascii_uppercase, value, strict=False)
    )


def _letter(answer: str, options: tuple[str, ...], index: object) -> str:
    """The capital that an answer such as `B`, `b`, `(B)` or `B) its text` names; for `B, D` both, one after the other.

    What is not certainly a letter of these options is refused, with what it may mean: an index may count from 0 or 1.
    """
    letters = string.ascii_uppercase[: len(options)]
    texts, stated = [option.strip() for option in options], answer.strip()
    readings = (stated, _TEXT_COMMAND.sub(r"\1", final_answer(answer, "math")))
    letter = next((named for reading in readings if (named := _named_letters(reading.strip(), texts))), "")
    if not letter or not set(letter) <= set(letters) or (letter != answer and stated in texts):
        hint = ""
        if stated in texts:
            hint = f"; it is the text of option {letters[texts.index(stated)]}: write that letter"
        elif stated.isdecimal():
            hint = "; an index may count from 0 or from 1: write the letter"
        raise RowError(
            f"the answer {answer!r} is none of the letters A-{letters[-1]} of its {len(options)} options{hint}"
        )
    if index is not None and index not in (letters.find(letter), [letters.index(one) for one in letter]):
        raise RowError(f"the answer {answer!r} contradicts {ANSWER_INDEX} {index!r}")
    return letter


def _named_letters(stated: str, texts: Sequence[str]) -> str:
    if named := _LETTER.fullmatch(stated):
        return named[1].upper()
    if _LETTERS.fullmatch(stated):
        return "".join(sorted({character for character in stated if character.isupper()}))
    if named := _LETTER_AND_TEXT.fullmatch(stated):
        number = string.ascii_uppercase.index(named[1].upper())
        return named[1].upper() if number < len(texts) and texts[number] == named[2].strip() else ""
    return ""


def _canonical(*parts: object) -> bytes:
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode()


def content_id(text: str, answer: str, options: tuple[str, ...]) -> str:
    return f"q-{hashlib.blake2b(_canonical(text, answer, options), digest_size=8).hexdigest()}"


def shared_questions(some: Sequence[Question], others: Sequence[Question]) -> list[str]:
    """Ids of those among some whose text is among the others' too, whatever its spaces."""
    texts = {" ".join(question.text.split()) for question in others}
    return [question.id for question in some if " ".join(question.text.split()) in texts]


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
