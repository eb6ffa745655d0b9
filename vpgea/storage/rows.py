"""Rows of Arrow tables as objects: a dataclass names the columns, their Arrow types, and what they are in Python.

A row class is a frozen dataclass. Its fields are annotated with the types below, or are row classes themselves, whose
columns then stand at their place. `X | None` is a column that may be null, `X | None = None` one that shards of earlier
versions do not have. A class that names fewer columns than a shard has reads those alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import cache
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from types import NoneType
from typing import Annotated, Literal, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vpgea.storage.files import without_surrogates
from vpgea.storage.shards import damaged, read_table

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]

Bool = Annotated[bool, pa.bool_()]
Int32 = Annotated[int, pa.int32()]
Int64 = Annotated[int, pa.int64()]
UInt64 = Annotated[int, pa.uint64()]
Float32 = Annotated[float, pa.float32()]
Text = Annotated[str, pa.large_string()]
View = Annotated[Literal["prior", "posterior"], pa.large_string()]
FinishReason = Annotated[Literal["stop", "length"], pa.large_string()]
Texts = Annotated[tuple[str, ...], pa.large_list(pa.large_string())]
Words = Annotated[tuple[str, ...], pa.list_(pa.large_string())]
Shares = Annotated[tuple[float | None, ...], pa.list_(pa.float32())]
# Lists of thousands of numbers are arrays that look into the mapped file: read-only, and nothing is copied.
Ids = Annotated[IntArray, pa.large_list(pa.int32())]
Logprobs = Annotated[FloatArray, pa.large_list(pa.float32())]

SCHEMA_VERSION = 1

R = TypeVar("R")


@dataclass(frozen=True)
class _Column:
    """One column of a row class.

    Attributes:
        attribute: Dotted path from the row to its value.
        python: Its type there.
        is_later: Earlier versions did not write it; in their shards it is null.
    """

    attribute: str
    python: type
    field: pa.Field
    is_later: bool


def versioned(fields: Iterable[pa.Field]) -> pa.Schema:
    """A schema of these fields, marked with the version of our schemas."""
    return pa.schema(list(fields), metadata={b"vpgea.schema_version": str(SCHEMA_VERSION).encode()})


def schema_of(row_type: type) -> pa.Schema:
    """The Arrow schema of a row class: a field per column, in the order of the class."""
    return _schema(row_type)


def required_columns(row_type: type) -> set[str]:
    """Columns that a table must have to be read as rows of this class."""
    return {column.field.name for column in _columns(row_type) if not column.is_later}


def to_table(rows: Sequence[R], row_type: type[R]) -> pa.Table:
    """Rows to a table of the schema of their class."""
    arrays = []
    for column in _columns(row_type):
        arrays.append(_array(list(map(attrgetter(column.attribute), rows)), column.field.type))
        assert column.field.nullable or arrays[-1].null_count == 0, column.attribute
    return pa.Table.from_arrays(arrays, schema=schema_of(row_type))


def _array(values: list[object], kind: pa.DataType) -> pa.Array:
    """An array of these values. Texts from outside may hold half of a surrogate pair, which Arrow cannot write."""
    try:
        return pa.array(values, type=kind)
    except UnicodeEncodeError:
        return pa.array(list(map(_writable, values)), type=kind)


def _writable(value: object) -> object:
    if isinstance(value, str):
        return without_surrogates(value)
    return tuple(map(_writable, value)) if isinstance(value, (list, tuple)) else value


def from_table(table: pa.Table, row_type: type[R]) -> list[R]:
    """A table's rows; columns that the class does not name are left alone.

    Raises:
        ValueError: A column is absent, of another type, or null where it must not be.
    """
    places = [(_place(table.schema, column), column) for column in _columns(row_type)]
    rows: list[R] = []
    for batch in table.to_batches():
        values = (
            [None] * batch.num_rows if place is None else _values(batch.column(place), column)
            for place, column in places
        )
        rows += _build(row_type, values)
    return rows


def read_rows(path: Path, row_type: type[R]) -> list[R]:
    """The rows of a committed shard.

    Raises:
        DamagedError: It is damaged, or holds other columns than the class.
    """
    table = read_table(path)
    try:
        return from_table(table, row_type)
    except ValueError as error:
        raise damaged(path, str(error)) from error


def iterate_rows(paths: Sequence[Path], row_type: type[R]) -> Iterator[R]:
    """The rows of several shards, one shard at a time.

    Raises:
        DamagedError: As `read_rows` does.
    """
    for path in paths:
        yield from read_rows(path, row_type)


def _find_columns(row_type: type) -> tuple[_Column, ...]:
    found: list[_Column] = []
    defaults = {entry.name: entry.default for entry in fields(row_type)}
    for name, annotated in get_type_hints(row_type, include_extras=True).items():
        choices = get_args(annotated)
        nullable = NoneType in choices
        kind = next(choice for choice in choices if choice is not NoneType) if nullable else annotated
        if is_dataclass(kind):
            assert not nullable, f"{name}: a part of a row is always there"
            inner = _columns(kind)  # type: ignore[arg-type]
            found += [replace(column, attribute=f"{name}.{column.attribute}") for column in inner]
        else:
            python, arrow = get_args(kind)[:2]
            is_later = defaults[name] is not MISSING
            assert not is_later or (nullable and defaults[name] is None), f"{name}: what is absent is null"
            found.append(_Column(name, python, pa.field(name, arrow, nullable=nullable), is_later))
    return tuple(found)


# Shards are small and many: what a class says is looked up once, not for every shard.
_columns: Callable[[type], tuple[_Column, ...]] = cache(_find_columns)
_hints: Callable[[type], Mapping[str, type]] = cache(get_type_hints)
_schema: Callable[[type], pa.Schema] = cache(lambda row_type: versioned(column.field for column in _columns(row_type)))


def _place(schema: pa.Schema, column: _Column) -> int | None:
    """Where the column stands in a table; None where the table is older than it."""
    field = column.field
    if column.is_later and field.name not in schema.names:
        return None
    place: int = schema.get_field_index(field.name)
    if place < 0:
        raise ValueError(f"it has not exactly one column {field.name}")
    if (stored := schema.field(place).type) != field.type:
        raise ValueError(f"its column {field.name} holds {stored}, not {field.type}")
    return place


def _values(array: pa.Array, column: _Column) -> Sequence[object]:
    """A batch's column as Python values."""
    if array.null_count and not column.field.nullable:
        raise ValueError(f"its column {column.field.name} has a null, which it must not have")
    if get_origin(column.python) is np.ndarray:
        return _arrays(array, column.field.name)
    values: list[object] = array.to_pylist()
    if get_origin(column.python) is tuple:
        return [None if value is None else tuple(value) for value in values]  # type: ignore[arg-type]
    return values


def _arrays(array: pa.Array, name: str) -> list[object]:
    """Each list of numbers as a view of the numbers of all."""
    if array.values.null_count:
        raise ValueError(f"its column {name} has a null inside a list")
    numbers = array.values.to_numpy()
    bounds = pairwise(array.offsets.to_pylist())
    if not array.null_count:
        return [numbers[start:end] for start, end in bounds]
    valid = array.is_valid().to_pylist()
    return [numbers[start:end] if there else None for (start, end), there in zip(bounds, valid, strict=True)]


def _build(row_type: type[R], columns: Iterator[Sequence[object]]) -> list[R]:
    """Rows from the columns that the class needs, which are taken in its order."""
    names, parts = [], []
    for name, kind in _hints(row_type).items():
        names.append(name)
        parts.append(_build(kind, columns) if is_dataclass(kind) else next(columns))
    return [row_type(**dict(zip(names, values, strict=True))) for values in zip(*parts, strict=True)]
