"""Folders of runs hold no links that lead out of them: what is read or written there is what vpgea put there."""

from __future__ import annotations

import os
from pathlib import Path

from vpgea.errors import UsageError

_NOT_OURS = ("adapter", "model", "logs", "wandb", "tensorboard", "damaged")  # weights may be linked, as caches do


def refuse_links(root: Path) -> None:
    """Raise UsageError when anything below a phase's or a run's folder is a link to outside of it.

    The folder itself may be one. What an entry is stands in its folder's list, so that files are not touched.
    """
    outside = root.resolve()
    folders = [root]
    while folders:
        for entry in os.scandir(folders.pop()):
            if entry.is_symlink():
                _require_inside(outside, Path(entry.path))
            elif entry.is_dir(follow_symlinks=False) and entry.name not in _NOT_OURS:
                folders.append(Path(entry.path))


def _require_inside(root: Path, link: Path) -> None:
    target = link.resolve()
    if not target.is_relative_to(root) and link.name not in _NOT_OURS:
        raise UsageError(
            f"{link} leads out of its folder",
            why=f"it is a link to {target}, and only what stands in {root} belongs to it",
            mend="copy what it leads to in its place; the outermost folder itself may be a link",
        )
