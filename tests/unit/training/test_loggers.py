"""Every logger gets every step's line; the real packages, offline."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from vpgea.config.schema import RunConfig
from vpgea.training.loggers import step_log
from vpgea.training.ranks import Ranks

Make = Callable[..., RunConfig]


def write(config: RunConfig, folder: Path, steps: range) -> None:
    with step_log(config, folder) as log:
        for step in steps:
            log({"step": step, "loss": 1.0 / (step + 1), "alarm": None, "skipped": False})


def test_without_a_logger_nothing_is_written(tmp_path: Path, run_config: Make) -> None:
    write(run_config(), tmp_path, range(1))
    assert list(tmp_path.iterdir()) == []


def test_wandb_records_every_step_beside_the_output(
    tmp_path: Path, run_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    sizes = []
    for count in (0, 300):
        folder = tmp_path / str(count)
        folder.mkdir()
        write(run_config(distill__log_to=["wandb"]), folder, range(count))
        (record,) = folder.glob("wandb/offline-run-*/*.wandb")
        sizes.append(record.stat().st_size)
    assert sizes[1] > sizes[0] + 300 * len("step") + 300 * len("loss")  # its own format, with every line in it


def test_tensorboard_has_a_curve_for_every_number(tmp_path: Path, run_config: Make) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = run_config(distill__log_to=["tensorboard"])
    write(config, tmp_path, range(3))
    write(config, tmp_path, range(3, 5))  # a resumed training
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"distill/loss", "distill/skipped"}
    curve = events.Scalars("distill/loss")
    assert [point.step for point in curve] == [0, 1, 2, 3, 4]
    assert [point.value for point in curve] == pytest.approx([1.0, 1 / 2, 1 / 3, 1 / 4, 1 / 5])


def test_trackio_continues_the_run_of_the_same_folder(
    tmp_path: Path, run_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    import trackio.utils

    monkeypatch.setattr(trackio.utils, "TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setattr(trackio.sqlite_storage, "TRACKIO_DIR", tmp_path / "trackio")
    config = run_config(distill__log_to=["trackio"], distill__log_project="try")
    for steps in (range(3), range(3, 5)):
        write(config, tmp_path / "out", steps)
    (database,) = (tmp_path / "trackio").glob("try*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("select run_name, step from metrics order by step").fetchall()
    assert [step for _, step in rows] == [0, 1, 2, 3, 4]
    assert len({name for name, _ in rows}) == 1


def test_only_the_first_rank_logs(tmp_path: Path, run_config: Make) -> None:
    config = run_config(distill__log_to=["tensorboard"])
    with step_log(config, tmp_path, Ranks(rank=1, world=2)) as log:
        log({"step": 0, "loss": 1.0})
    assert list(tmp_path.iterdir()) == []
