"""Runs that version 0.1.0 wrote: loops of two rounds, `full` and `lora`, of a tiny model that stands beside them."""

from __future__ import annotations

import tarfile
from pathlib import Path

_ARCHIVE = Path(__file__).parents[1] / "data" / "runs" / "version-0.1.0.tar.xz"
_MADE_IN = "/srv/vpgea-run"


def unpack(folder: Path) -> Path:
    """The runs as they were written, elsewhere."""
    with tarfile.open(_ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def settle(folder: Path) -> Path:
    """Let unpacked runs say that they were made where they stand."""
    for file in (*folder.rglob("config.yaml"), *folder.rglob("manifest.json")):
        file.write_text(file.read_text().replace(_MADE_IN, str(folder)))
    return folder
