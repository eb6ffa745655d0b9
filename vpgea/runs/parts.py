"""Parts i/N of a phase: the work of one phase shared among N processes, with a folder for each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vpgea.errors import UsageError
from vpgea.runs.layout import PARTS

T = TypeVar("T")

_NAME = re.compile(r"(\d+)-of-(\d+)")
_OPTION = re.compile(r"(\d{1,9})/(\d{1,9})", re.ASCII)


@dataclass(frozen=True, order=True)
class Part:
    """Part `index` of the `count` that a phase is cut into: chunk c is in part c modulo count."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Part:
        """`"i/N"` → part i of N, with 0 <= i < N.

        Raises:
            UsageError: The text is anything else.
        """
        match = _OPTION.fullmatch(text.strip())
        index, count = (int(match[1]), int(match[2])) if match else (0, 0)
        if index >= count:
            why = (
                f"part {index} of {count} does not exist; parts count from 0" if match else "it is not of the form i/N"
            )
            raise UsageError(
                f"{text!r} is no shard", why=why, mend="write i/N with 0 <= i < N, e.g. 0/4 for the first of 4"
            )
        return cls(index, count)

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.index}-of-{self.count}"

    @classmethod
    def named(cls, name: str) -> Part | None:
        """The inverse of `name`; None where a folder is called otherwise."""
        match = _NAME.fullmatch(name)
        return cls(int(match[1]), int(match[2])) if match else None

    def of(self, items: Sequence[T]) -> list[T]:
        """Those of all items (chunks, in their order) that this part has: all parts have about as many."""
        assert 0 <= self.index < self.count
        return list(items[self.index :: self.count])


WHOLE = Part(0, 1)


def part_folder(root: Path, part: Part) -> Path:
    """Where a part of a phase is."""
    return root / PARTS / part.name


def part_of_folder(folder: Path) -> Part:
    """The inverse of `part_folder`."""
    part = Part.named(folder.name)
    assert part is not None, folder
    return part


def part_folders(root: Path) -> list[Path]:
    """Part folders of a phase that are there, in order of their index."""
    return sorted((path for path in (root / PARTS).glob("*") if Part.named(path.name)), key=part_of_folder)


def foreign_names(root: Path) -> list[str]:
    """What stands among a phase's parts and is none."""
    return [path.name for path in (root / PARTS).glob("*") if not Part.named(path.name)]


def begun_parts(root: Path) -> list[Part]:
    """All parts with which a phase was begun, those that have no folder yet too; none before it was begun."""
    count = next((part_of_folder(folder).count for folder in part_folders(root)), 0)
    return [Part(index, count) for index in range(count)]
