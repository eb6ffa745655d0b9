"""Folders of runs hold no links that lead out of them: what is read or written there is what vpgea put there."""

from __future__ import annotations

import os
from pathlib import Path

from vpgea.errors import UsageError

_NOT_OURS = ("adapter", "model", "logs", "wandb", "tensorboard", "damaged")  # weights may be linked, as caches do


def refuse_links(root: Path, *, parts: bool = True) -> None:
    """Raise UsageError when anything below a phase's or a run's folder is a link to outside of it.

    The folder itself may be one. What an entry is stands in its folder's list, so that files are not touched. parts:
    look into part folders too, which hold most files; else who reads or writes one looks there (`refuse_links_in`).
    """
    _look(root.resolve(), [root], parts=parts)


def refuse_links_in(root: Path, part: Path) -> None:
    """The same for one part folder of a phase's folder."""
    if part.is_symlink():
        _require_inside(root.resolve(), part)
    if part.is_dir():
        _look(root.resolve(), [part], parts=True)


def _look(outside: Path, folders: list[Path], *, parts: bool) -> None:
    while folders:
        folder = folders.pop()
        goes_down = parts or folder.name != "parts"
        for entry in os.scandir(folder):
            if entry.is_symlink():
                _require_inside(outside, Path(entry.path))
            elif entry.is_dir(follow_symlinks=False) and entry.name not in _NOT_OURS and goes_down:
                folders.append(Path(entry.path))


def _require_inside(root: Path, link: Path) -> None:
    target = link.resolve()
    if not target.is_relative_to(root) and link.name not in _NOT_OURS:
        raise UsageError(
            f"{link} leads out of its folder",
            why=f"it is a link to {target}, and only what stands in {root} belongs to it",
            mend="copy what it leads to in its place; the outermost folder itself may be a link",
        )
