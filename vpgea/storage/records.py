"""JSON records as frozen dataclasses: read strictly, written in the order of their fields.

A field may be a str, int, float, bool or None, one of some words, a list or dict of such, another record, or a union of
these. A float may stand as a whole number, and stays one, so that what is read and written again keeps its bytes. A
record whose entries must agree says so with a ValueError from its __post_init__.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from vpgea.errors import DamagedError
from vpgea.storage.files import read_json

T = TypeVar("T")


def read_record(path: Path, kind: type[T]) -> T:
    """The record of a JSON file.

    Raises:
        DamagedError: It is gone, or is none of this kind.
    """
    return from_json(kind, read_json(path), path)


def from_json(kind: type[T], value: object, path: Path) -> T:
    """A record from a JSON value.

    Args:
        kind: A dataclass whose fields are all there in the value, those with a default excepted.
        value: What the file at `path` holds, or a part of it.
        path: For the error alone.

    Raises:
        DamagedError: An entry is missing, unknown or of another type, or the record refuses what its entries say.
    """
    try:
        record: T = _value(kind, value, "it")
    except ValueError as error:
        raise damaged_record(path, str(error)) from error
    return record


def json_of(record: Any) -> dict[str, Any]:
    """The JSON object of a record, nested records included."""
    kind: Any = type(record)
    return {name: _plain(getattr(record, name)) for name, _, _ in _fields(kind)}


def _plain(value: Any) -> Any:
    """As dataclasses.asdict does it, which copies every value and takes twice as long and more."""
    if dataclasses.is_dataclass(value):
        return json_of(value)
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return {key: _plain(each) for key, each in value.items()} if isinstance(value, dict) else value


def read_entry(path: Path, name: str, kind: type[T]) -> T:
    """One entry of a JSON file that has others too.

    Raises:
        DamagedError: The file or the entry is gone, or the entry is none of this kind.
    """
    value = read_json(path)
    try:
        entry: T = _value(kind, _entry(value, name), name)
    except _Mismatch as error:
        raise damaged_record(path, str(error)) from error
    return entry


def read_by_name(path: Path, kind: type[T]) -> dict[str, T]:
    """A JSON file that says something of each file beside it, by their names.

    Raises:
        DamagedError: It is gone, says something else, or names what is not beside it.
    """
    found = read_record(path, dict[str, kind])  # type: ignore[valid-type]
    try:
        return {require_name(name): value for name, value in found.items()}
    except ValueError as error:
        raise damaged_record(path, str(error)) from error


def require_name(name: str) -> str:
    """A record's word for a file is a name inside the record's folder: a path would lead out of it.

    Raises:
        ValueError: It is none, for the __post_init__ of a record or for whoever turns it into an error of a file.
    """
    if name != Path(name).name or name in ("", ".", "..") or "\0" in name:
        raise ValueError(f"{name!r} is not the name of a file in its folder")
    return name


def damaged_record(path: Path, why: str) -> DamagedError:
    """The error for a JSON file that does not say what it must."""
    return DamagedError(
        f"damaged file: {path}",
        why=why,
        mend="`vpgea doctor FOLDER --repair` on the folder it belongs to makes again what can be made again",
    )


class _Mismatch(ValueError):
    """What a value is not."""


@cache
def _form(kind: Any) -> tuple[Any, tuple[Any, ...], bool]:
    """Origin and arguments of a type, and whether it is a record's class."""
    return typing.get_origin(kind), typing.get_args(kind), dataclasses.is_dataclass(kind)


@cache
def _fields(kind: type) -> tuple[tuple[str, Any, bool], ...]:
    """Name and type of each field of a record, and whether it may be missing."""
    hints, missing = typing.get_type_hints(kind), dataclasses.MISSING
    return tuple(
        (field.name, hints[field.name], field.default is not missing or field.default_factory is not missing)
        for field in dataclasses.fields(kind)
    )


def _entry(value: Mapping[str, object], name: str) -> object:
    if name not in value:
        raise _Mismatch(f"it has no entry {name!r} where there must be one")
    return value[name]


def _value(kind: Any, value: object, name: str) -> Any:
    """The value as a `kind`; name: of the entry."""
    origin, arguments, is_record = _form(kind)
    if origin in (types.UnionType, typing.Union):
        return _one_of(arguments, value, name)
    if origin is list and isinstance(value, list):
        return [_value(arguments[0], each, name) for each in value]
    if origin is dict and isinstance(value, dict):
        return (
            dict(value)
            if arguments[1] is object
            else {k: _value(arguments[1], each, name) for k, each in value.items()}
        )
    if origin is typing.Literal and value in arguments and isinstance(value, str):
        return value
    if is_record and isinstance(value, dict):
        return _record(kind, value)
    if kind is object or (kind is float and type(value) is int) or type(value) is kind:
        return value
    raise _Mismatch(f"{name} is of another type")


def _one_of(kinds: tuple[Any, ...], value: object, name: str) -> Any:
    for kind in kinds:
        if kind is not types.NoneType:
            try:
                return _value(kind, value, name)
            except _Mismatch as error:
                mismatch = error
        elif value is None:
            return None
    raise mismatch


def _record(kind: Any, value: dict[str, object]) -> Any:
    entries = {}
    for name, hint, has_default in _fields(kind):
        if name in value or not has_default:
            entries[name] = _value(hint, _entry(value, name), name)
    if unknown := value.keys() - entries.keys():
        raise _Mismatch(f"it has an entry {min(unknown)!r} where there must be none")
    return kind(**entries)
