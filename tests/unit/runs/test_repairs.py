"""What a repair moves away keeps its path and its content, also where nothing can be renamed."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from vpgea.runs.repairs import Repair


def test_what_is_damaged_is_set_aside_where_it_cannot_be_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on an overlay, which does not rename the folders of its lower layer."""
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.suffix != ".tmp":
            raise OSError(errno.EXDEV, "Invalid cross-device link", str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    (tmp_path / "rollout" / "parts").mkdir(parents=True)
    (tmp_path / "rollout" / "parts" / "COMPLETE").write_text("{}")
    (tmp_path / "round.json").write_text("damaged")
    moved = Repair(aside=["rollout/parts", "round.json"]).set_aside(tmp_path)
    assert [path.relative_to(tmp_path / "damaged").as_posix() for path in moved] == ["rollout/parts", "round.json"]
    assert (moved[0] / "COMPLETE").read_text() == "{}"
    assert moved[1].read_text() == "damaged"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged", "repair.json", "rollout"]
    assert not list((tmp_path / "rollout").iterdir())
