"""Folders of runs hold no links that lead out of them: what is read or written there is what vpgea put there."""

from __future__ import annotations

import os
from pathlib import Path

from vpgea.errors import UsageError
from vpgea.runs.layout import NOT_LOOKED_INTO


def refuse_links(root: Path) -> None:
    """Let nothing below a phase's or a run's folder be a link to outside of it.

    The folder itself may be one. What an entry is stands in its folder's list, so that files are not touched.

    Raises:
        UsageError: Something is.
    """
    outside, folders = root.resolve(), [root]
    while folders:
        folders += _look(outside, folders.pop())


def refuse_links_in(root: Path, *folders: Path) -> None:
    """The same for some folders below the root alone, without those below them: whoever opens those looks there."""
    outside = root.resolve()
    for folder in folders:
        if folder != root and folder.is_symlink():
            _require_inside(outside, folder)
        if folder.is_dir():
            _look(outside, folder)


def _look(outside: Path, folder: Path) -> list[Path]:
    """The folders in a folder that vpgea's own files are in."""
    below = []
    for entry in os.scandir(folder):
        if entry.is_symlink():
            _require_inside(outside, Path(entry.path))
        elif entry.is_dir(follow_symlinks=False) and entry.name not in NOT_LOOKED_INTO:
            below.append(Path(entry.path))
    return below


def _require_inside(root: Path, link: Path) -> None:
    target = link.resolve()
    if not target.is_relative_to(root) and link.name not in NOT_LOOKED_INTO:
        raise UsageError(
            f"{link} leads out of its folder",
            why=f"it is a link to {target}, and only what stands in {root} belongs to it",
            mend="copy what it leads to in its place; the outermost folder itself may be a link",
        )
