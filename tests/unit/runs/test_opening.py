"""What opening a phase's folder would refuse can be asked before: in the same words, and nothing is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from vpgea.errors import UsageError
from vpgea.runs.manifest import Manifest
from vpgea.runs.parts import Part
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.storage.shards import write_table

MANIFEST = Manifest(phase="rollout", identity={"rollout.seed": 0}, inputs={"model": "abc"}, config={})
OTHER = replace(MANIFEST, identity={**MANIFEST.identity, "rollout.seed": 1})


def finished(root: Path) -> None:
    folder = PhaseFolder.open(root, MANIFEST)
    write_table(folder.chunk(0), pa.table({"chunk": [0]}))
    assert folder.complete({"chunks": 1})


@pytest.mark.parametrize(
    ("now", "options", "mine"),
    [
        (OTHER, {}, None),
        (replace(MANIFEST, phase="filter"), {}, None),
        (replace(MANIFEST, part=Part(0, 2)), {}, None),
        (MANIFEST, {"resume": False}, None),
        (MANIFEST, {}, "parts/notes.txt"),
        (OTHER, {"overwrite": True}, "notes.txt"),
        (replace(MANIFEST, phase="filter"), {"overwrite": True}, None),
    ],
)
def test_what_opening_would_refuse_is_said_in_the_same_words(
    tmp_path: Path, now: Manifest, options: dict[str, bool], mine: str | None
) -> None:
    root = tmp_path / "out"
    finished(root)
    if mine is not None:
        (root / mine).write_text("mine", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    said = []
    for opened in (PhaseFolder.require_open, PhaseFolder.open):
        with pytest.raises(UsageError) as error:
            opened(root, now, **options)
        said.append(str(error.value))
        assert sorted(tmp_path.rglob("*")) == before
    assert said[0] == said[1]


def test_what_could_be_opened_is_left_as_it_is(tmp_path: Path) -> None:
    """A folder that was only begun from other things, one to be overwritten, none, and a file."""
    PhaseFolder.open(tmp_path / "begun", MANIFEST)
    finished(tmp_path / "whole")
    before = sorted(tmp_path.rglob("*"))
    PhaseFolder.require_open(tmp_path / "begun", OTHER)
    PhaseFolder.require_open(tmp_path / "begun", OTHER, resume=False)
    PhaseFolder.require_open(tmp_path / "whole", MANIFEST)
    PhaseFolder.require_open(tmp_path / "whole", OTHER, overwrite=True)
    PhaseFolder.require_open(tmp_path / "none", MANIFEST)
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(UsageError, match="cannot create the folder"):
        PhaseFolder.require_open(tmp_path / "begun" / "parts" / "0-of-1" / "manifest.json", MANIFEST)
