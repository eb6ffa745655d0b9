"""What a loop refuses before it touches its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import tiny
from tests.support.loops import loop, write_config


@pytest.fixture
def config(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    return write_config(tmp_path_factory.mktemp("loop"), tiny_model)


def test_held_out_questions_must_not_be_trained_on(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = tiny.write_questions(tmp_path / "shared.jsonl", [{**tiny.QUESTIONS[3], "id": "other"}])
    assert loop(config, tmp_path / "run", "--eval-dataset", shared) == 2
    assert "1 held-out questions are also trained on, e.g. other" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_held_out_questions_must_be_given(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert loop(config, tmp_path / "run", "--eval-dataset", "") == 2
    assert "no held-out questions were given" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_folder_with_other_files_is_left_alone(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    assert loop(config, tmp_path, "--overwrite") == 2
    assert "thesis.txt" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
