"""Plain tables of anybody's: CSV or JSON lines with a question, a response, and what else is known of it."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from vpgea.errors import UsageError
from vpgea.foreign.lines import LONGEST, first_object, found, read_lines
from vpgea.foreign.sample import (
    ForeignLog,
    ForeignSample,
    Found,
    UnusableError,
    count_of,
    finish_of,
    optional_text,
    text_of,
)

# What a column may be called, likeliest first; each is told in docs/import.md.
_CALLED = {
    "id": ("question_id", "id", "qid", "problem_id", "task_id"),
    "index": ("sample_index", "sample", "epoch", "repeat"),
    "question": ("question", "problem", "prompt", "query", "input"),
    "reference": ("reference", "ground_truth", "expected_answer", "gold", "target", "answer"),
    "response": ("response", "completion", "output", "generation", "model_output", "prediction"),
    "correct": ("correct", "is_correct", "acc", "accuracy", "score", "grade"),
    "tokens": ("tokens", "completion_tokens", "output_tokens", "num_tokens", "response_tokens"),
    "thinking_tokens": ("thinking_tokens", "reasoning_tokens"),
    "finish": ("finish_reason", "stop_reason"),
    "extracted": ("extracted", "extracted_answer", "pred"),
}
T = TypeVar("T")


def is_row(row: Iterable[str]) -> bool:
    """Whether columns have a response, and something that says to which question."""
    roles = _roles(row)
    return "response" in roles and bool({"id", "question"} & roles.keys())


def read_log(files: Sequence[Path]) -> ForeignLog:
    """The table of one file.

    Raises:
        UsageError: There are several files, or it is no such table.
    """
    if len(files) > 1:
        raise UsageError(
            f"{files[0].parent} holds {len(files)} tables",
            why="whether they are of one evaluation is not said in them",
            mend="give one file; put them into one if they belong together",
        )
    path = files[0]
    columns = columns_of(path)
    roles = _roles(columns)
    if not is_row(columns):
        raise UsageError(
            f"{path}: no column is a response, or none says to which question",
            why=f"its columns are {', '.join(columns[:12])}",
            mend=f"call them {_CALLED['response'][0]} and {_CALLED['id'][0]} (or {_CALLED['question'][0]})",
        )
    return ForeignLog(
        tool="table",
        version=None,
        model=None,
        protocol={},
        files=(path,),
        metrics=(roles["correct"],) if "correct" in roles else (),
        samples=partial(_samples, path, roles),
        remarks=("a table says nothing of prompts and sampling: its protocol is unknown",),
    )


def columns_of(path: Path) -> list[str]:
    """The names of a table's columns, of JSON lines those of its first line."""
    if path.suffix.lower() != ".csv":
        return list(first_object(path) or ())
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return list(csv.DictReader(stream).fieldnames or ())
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}", why=str(error)[:200], mend="save it as CSV in UTF-8") from error


def _roles(columns: Iterable[str]) -> dict[str, str]:
    """What each column is, by its name."""
    lowered = {name.lower(): name for name in columns if isinstance(name, str)}
    return {
        role: next(lowered[name] for name in names if name in lowered)
        for role, names in _CALLED.items()
        if any(name in lowered for name in names)
    }


def _samples(path: Path, roles: Mapping[str, str], metric: str | None) -> Iterator[Found]:
    if path.suffix.lower() == ".csv":
        yield from _csv_samples(path, roles)
    else:
        yield from read_lines(path, partial(_sample, roles))


def _csv_samples(path: Path, roles: Mapping[str, str]) -> Iterator[Found]:
    csv.field_size_limit(LONGEST)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = csv.DictReader(stream)
        try:
            for row in rows:
                yield from found(f"{path.name}, line {rows.line_num}", partial(_sample, roles, row))
        except (csv.Error, UnicodeDecodeError) as error:  # what follows cannot be told apart
            raise UsageError(
                f"cannot read {path} behind line {rows.line_num}", why=str(error)[:200], mend="save it as CSV in UTF-8"
            ) from error


def _sample(roles: Mapping[str, str], row: Mapping[str, object]) -> Iterator[ForeignSample]:
    if None in row:  # where csv puts what has no column
        raise UnusableError("it has more fields than the table has columns")
    value = {role: row.get(name) for role, name in roles.items()}
    index = _number(value.get("index"))
    yield ForeignSample(
        question_id=optional_text(value.get("id")),
        index=index,
        completion=text_of(value["response"], f"the column {roles['response']}"),
        question=optional_text(value.get("question")),
        reference=optional_text(value.get("reference")),
        tokens=count_of(_number(value.get("tokens"))),
        thinking_tokens=count_of(_number(value.get("thinking_tokens"))),
        finish_reason=finish_of(value.get("finish")),
        scores={roles["correct"]: value["correct"]} if value.get("correct") not in (None, "") else {},
        extracted=optional_text(value.get("extracted")),
    )


def _number(value: object) -> int | None:
    """A whole number, which CSV has as text; None for an empty field.

    Raises:
        UnusableError: It is none.
    """
    if value in (None, ""):
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        number = float(value) if isinstance(value, str | float) else None
    except ValueError:
        number = None
    if number is None or not number.is_integer():
        raise UnusableError(f"{str(value)[:20]!r} is no whole number")
    return int(number)
