"""Rows of a question source as they were read, each with its place, and what could not be read or was left out."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from vpgea.questions.features import media_in

Unit = Literal["line", "row"]


class RowError(Exception):
    """Why one row cannot be used, and how to mend it where that is known. Always caught, and turned into a `BadRow`."""

    def __init__(self, reason: str, mend: str = "") -> None:
        super().__init__(reason)
        self.mend = mend


class Place(NamedTuple):
    """Where a row stands: a file, or name and split of a data set, and a line of text or a row of a table, from 1."""

    file: str
    unit: Unit
    number: int

    def __str__(self) -> str:
        return f"{self.file}:{self.number}" if self.unit == "line" else f"{self.file}, row {self.number}"


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used."""

    place: Place
    reason: str
    mend: str = ""

    @property
    def file(self) -> str:
        """Path of its file, or name and split of a data set."""
        return self.place.file

    @property
    def number(self) -> int:
        """Of its line or row in its file."""
        return self.place.number

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


@dataclass(frozen=True, slots=True)
class RawRow:
    """The wanted columns of one row. media: the column that holds an image or the like, and what it is."""

    place: Place
    values: dict[str, object]
    media: tuple[str, str] | None = None


@dataclass(kw_only=True)
class RawRows:
    """The rows of one source in its order, and what could not be read.

    Attributes:
        file: What the source is called: a path, or name and split of a data set.
        unit: What its numbers count.
        columns: Every column that was seen, wanted or not, in order of appearance; Arrow's type where there is one.
        columns_of: Those of each file, where the source is a folder of several.
        example: The first row, with all columns that were read.
        left_out: What the source holds beside the rows, and why it was not read; in words.
        revision: Commit of the hub's data set; "" for files.
    """

    file: str
    unit: Unit = "row"
    columns: dict[str, object] = field(default_factory=dict)
    columns_of: dict[str, AbstractSet[str]] = field(default_factory=dict)
    rows: list[RawRow] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    example: dict[str, object] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    revision: str = ""

    def add(self, number: int, row: dict[str, object], wanted: AbstractSet[str]) -> None:
        for name in row:
            self.columns.setdefault(name, None)
        self.example = self.example or row
        kept = {name: value for name, value in row.items() if name in wanted}
        self.rows.append(RawRow(Place(self.file, self.unit, number), kept, media_in(row)))

    def add_bad(self, number: int, reason: str) -> None:
        self.bad.append(BadRow(Place(self.file, self.unit, number), reason))
