"""Rows of a folder by what they are about: those of one question, those that were rejected for one reason."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vpgea.errors import UsageError, did_you_mean
from vpgea.inspection.folders import Source, require_rows
from vpgea.storage.shards import read_table


def picked(source: Source, *, question: str | None, reason: str | None, count: int | None) -> list[dict[str, Any]]:
    """Rows in the order of the shards.

    Args:
        source: A folder with rows, or a shard.
        question: Of this question alone.
        reason: Rejected for this reason alone, whatever others there were.
        count: At most so many; None: all.

    Raises:
        UsageError: There is no such question or reason; those that there are are named.
    """
    require_rows(source)
    found = list(islice(_rows(source, question, reason), count))
    if not found and count != 0:
        _refuse(source, question, reason)
    return found


def _rows(source: Source, question: str | None, reason: str | None) -> Iterator[dict[str, Any]]:
    for path in source.rows():
        table = read_table(path)
        if reason is not None and "reasons" not in table.column_names:
            raise UsageError(
                f"nothing was rejected in {source.path}",
                why="its rows have no reasons: a filter's selection has them",
                mend="give the filter folder",
            )
        yield from _matching(table, question, reason).to_pylist()


def _matching(table: pa.Table, question: str | None, reason: str | None) -> pa.Table:
    if question is not None:
        table = table.filter(pc.equal(table["question_id"], question))
    if reason is not None:
        table = table.filter(pa.array([reason in reasons for reasons in table["reasons"].to_pylist()], pa.bool_()))
    return table


def _refuse(source: Source, question: str | None, reason: str | None) -> None:
    """Say which of the two there is not, if it is one of them."""
    questions, reasons = set[str](), set[str]()
    for path in source.rows():
        table = read_table(path)
        questions.update(table["question_id"].to_pylist())
        reasons.update(*(table["reasons"].to_pylist() if "reasons" in table.column_names else ()))
    if question is not None and question not in questions:
        nearest = difflib.get_close_matches(question, sorted(questions), n=3, cutoff=0.0)
        raise UsageError(
            f"no such question: {question}",
            why=f"{source.path} has none of its samples",
            mend=f"the nearest are {', '.join(nearest)}" if nearest else "it holds no samples yet",
        )
    if reason is not None and reason not in reasons:
        raise UsageError(
            f"nothing was rejected for {reason!r}",
            why=f"the reasons in {source.path} are {', '.join(sorted(reasons)) or 'none'}",
            mend=did_you_mean(reason, sorted(reasons), "give one of these")
            if reasons
            else "look at `vpgea inspect FOLDER --stats`",
        )
