"""A repair under way: what was found damaged, what has still to be set aside, and so what is still to be made again.

The record stands in the folder that is mended until all of it is made, so that a repair that was stopped or has failed
is seen by whoever opens the folder next, and finished.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from vpgea.errors import UsageError
from vpgea.runs.layout import DAMAGED, REPAIR
from vpgea.storage.files import publish_folder, said_of, write_json
from vpgea.storage.records import json_of, read_record


@dataclass(frozen=True, kw_only=True)
class Damage:
    """What was found. Paths are relative to the folder that is mended; phase: the folder in which it must be redone."""

    path: str
    problem: str
    redo: str
    phase: str
    aside: list[str]

    def __post_init__(self) -> None:
        for path in (self.path, self.phase, *self.aside):
            _require_inside(path)


@dataclass(frozen=True, kw_only=True)
class Repair:
    """repair.json. aside: what has still to be moved away; nothing is made again before."""

    damages: list[Damage] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for path in self.aside:
            _require_inside(path)

    @classmethod
    def read(cls, root: Path) -> Repair | None:
        """The repair that is under way in a folder; None when there is none.

        Raises:
            DamagedError: Its record is none.
        """
        return read_record(root / REPAIR, cls) if (root / REPAIR).is_file() else None

    def write(self, root: Path) -> None:
        write_json(root / REPAIR, json_of(self))

    def set_aside(self, root: Path) -> list[Path]:
        """Move what is damaged to root/damaged/, where it keeps its relative path; return where it went.

        Nothing is deleted, and nothing that was set aside earlier is replaced: the later one gets a number.
        """
        moved = [_move(root, Path(path)) for path in dict.fromkeys(self.aside) if os.path.lexists(root / path)]
        replace(self, aside=[]).write(root)
        return moved


def set_rest_aside(root: Path) -> Repair | None:
    """The repair that is under way, with the first half of it done."""
    repair = Repair.read(root)
    if repair is not None and repair.aside:
        repair.set_aside(root)
    return repair


def end_repair(root: Path) -> None:
    """All of it is made again."""
    (root / REPAIR).unlink(missing_ok=True)


def _require_inside(path: str) -> None:
    if PurePath(path).is_absolute() or ".." in PurePath(path).parts or "\0" in path:
        raise ValueError(f"{path!r} leads out of the folder")


def _move(root: Path, path: Path) -> Path:
    target = _free_place(root / DAMAGED / path)
    for folder in (root / path.parent, target.parent):
        _require_no_link(root, folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        (root / path).rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:  # overlays refuse to rename a folder of a lower layer
            raise
        _copy_and_delete(root / path, target)
    return target


def _copy_and_delete(source: Path, target: Path) -> None:
    """A move between file systems; the name appears once all is on disk, and only then is the source deleted."""
    temporary = target.with_name(f".{target.name}.tmp")
    with said_of(target, temporary):
        if source.is_dir() and not source.is_symlink():
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.copytree(source, temporary, symlinks=True)
            publish_folder(temporary, target)
            shutil.rmtree(source)
        else:
            temporary.unlink(missing_ok=True)
            shutil.copy2(source, temporary, follow_symlinks=False)
            temporary.rename(target)
            source.unlink()


def _free_place(wanted: Path) -> Path:
    place, number = wanted, 0
    while os.path.lexists(place):
        number += 1
        place = wanted.with_name(f"{wanted.name}.{number}")
    return place


def _require_no_link(root: Path, folder: Path) -> None:
    """What is set aside stays in its folder: also the folder `damaged` may be no link to elsewhere."""
    for place in _between(root, folder):
        if place.is_symlink():
            raise UsageError(
                f"{place} is a link",
                why="a repair moves files, and only inside of the folder that it mends",
                mend="put a folder in its place, or move the link away",
            )


def _between(root: Path, folder: Path) -> Iterable[Path]:
    return (place for place in (folder, *folder.parents) if place != root and place.is_relative_to(root))
