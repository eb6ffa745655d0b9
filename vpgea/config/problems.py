"""What can be wrong with a configuration, in words: the key, where it came from, and what to give instead."""

from __future__ import annotations

import reprlib
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vpgea.config.experimental import meaning
from vpgea.config.schema import leaves
from vpgea.errors import UsageError, did_you_mean

FIELDS = dict(leaves())
SECTIONS = {key.rsplit(".", depth)[0] for key in FIELDS for depth in range(1, key.count(".") + 1)}
MAPPINGS = {key for key, field in FIELDS.items() if typing.get_origin(field.annotation) is dict}
ALL_KEYS = "`vpgea config show` lists all keys"

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlevel = 2

_WORDS: dict[object, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    types.NoneType: "null",
}
_LIMITS = {
    "ge": ", >= {}",
    "gt": ", > {}",
    "le": ", <= {}",
    "lt": ", < {}",
    "min_length": ", at least {} of them",
    "max_length": ", at most {} of them",
}


@dataclass(frozen=True)
class Problem:
    """The three lines of one error, before several are put together."""

    what: str
    why: str
    mend: str


def home_of(key: str) -> str | None:
    """The field that a dotted key belongs to: itself, or the mapping that it is an entry of; None when unknown."""
    if key in FIELDS:
        return key
    return next((home for home in MAPPINGS if key.startswith(f"{home}.") and key != f"{home}."), None)


def unknown_key(key: str, origin: str) -> Problem:
    where = f"it came from {origin}"
    if key in SECTIONS:
        keys = ", ".join(name for name in FIELDS if name.startswith(f"{key}."))
        return Problem(f"{key} is a section, not a value", where, f"give its keys instead: {keys}")
    return Problem(f"unknown configuration key {key}", where, did_you_mean(key, [*FIELDS, *SECTIONS], ALL_KEYS))


def wrong_value(key: str, value: object, origin: str, detail: str = "") -> Problem:
    what = f"{key} cannot be {shown(value)}"
    names, given = _names(FIELDS[home_of(key) or key].annotation), value if isinstance(value, list) else [value]
    wrong = next((one for one in given if isinstance(one, str) and one not in names), "")
    mend = did_you_mean(wrong, names, f"give {expected(key)}")
    return Problem(what, f"it came from {origin}{': ' if detail else ''}{detail}", mend)


def contradicts_objective(objective: str, key: str, wanted: object, value: object, origin: str) -> Problem:
    return Problem(
        f"objective {objective} cannot have {key}={shown(value)}",
        f"it came from {origin}, and {key}={shown(wanted)} is part of what makes that objective",
        f"leave {key} out, name another objective, or give objective=null and every key by itself",
    )


def keys_called(name: str) -> list[str]:
    """The keys whose last part is a name, in the order of the configuration."""
    return [key for key in FIELDS if key.rsplit(".", 1)[-1] == name]


def shown(value: object) -> str:
    """repr, shortened: neither a long text nor a structure that refers to itself many times fills the screen."""
    return _SHORT.repr(value)


def expected(key: str) -> str:
    """What the field of a key accepts, in words, with its meaning."""
    field = FIELDS[home_of(key) or key]
    return f"{_in_words(field.annotation)}{_limits(field.metadata)} ({meaning(field)})"


def combined(problems: Sequence[Problem]) -> UsageError:
    """One error that lists all of them."""
    if len(problems) == 1:
        return UsageError(problems[0].what, why=problems[0].why, mend=problems[0].mend)
    return UsageError(
        f"{len(problems)} things are wrong with the configuration",
        why="".join(f"\n  - {problem.what}: {problem.why}" for problem in problems),
        mend="".join(f"\n  - {problem.what}: {problem.mend}" for problem in problems),
    )


def _in_words(annotation: object) -> str:
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(str(part) for part in parts)
    if origin is typing.Annotated:
        return _in_words(parts[0]) + "".join(_limits(extra.metadata) for extra in parts[1:])
    if origin is list:
        return f"a list, each entry {_in_words(parts[0])}"
    if origin is dict:
        return f"a mapping, each value {_in_words(parts[1])}"
    if parts:
        return " or ".join(_in_words(part) for part in parts)
    return _WORDS[annotation]


def _names(annotation: object) -> list[str]:
    """The names that a field takes; none where it takes anything else."""
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) is Literal:
        return [part for part in parts if isinstance(part, str)]
    return [name for part in parts for name in _names(part)]


def _limits(metadata: Sequence[object]) -> str:
    limits = ((text, getattr(item, name, None)) for item in metadata for name, text in _LIMITS.items())
    return "".join(text.format(bound) for text, bound in limits if bound is not None)
