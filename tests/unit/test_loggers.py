"""Weights & Biases gets every step's line; the real client, offline."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vpgea.config import RunConfig
from vpgea.errors import UsageError
from vpgea.training.loggers import step_log


def test_without_a_project_nothing_is_written(tmp_path: Path, run_config: Callable[..., RunConfig]) -> None:
    with step_log(run_config(), tmp_path) as log:
        log({"step": 0, "loss": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_wandb_records_every_step_beside_the_output(
    tmp_path: Path, run_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    sizes = []
    for count in (0, 300):
        folder = tmp_path / str(count)
        folder.mkdir()
        with step_log(run_config(distill__wandb_project="test"), folder) as log:
            for step in range(count):
                log({"step": step, "loss": 1.0 / (step + 1)})
        (record,) = folder.glob("wandb/offline-run-*/*.wandb")
        sizes.append(record.stat().st_size)
    assert sizes[1] > sizes[0] + 300 * len("step") + 300 * len("loss")  # its own format, with every line in it


def test_wandb_is_asked_for_and_not_installed(
    tmp_path: Path, run_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # what an import of a missing package meets
    with pytest.raises(UsageError, match="not installed"), step_log(run_config(distill__wandb_project="x"), tmp_path):
        pass
