"""A trainer over a few made-up samples."""

from __future__ import annotations

from pathlib import Path

from tests.support.models import roles_of
from tests.support.selection_rows import Row, sample_rows, write_selection
from vpgea.config.schema import RunConfig
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.manifest import Manifest
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.training.data import TrainingSet
from vpgea.training.trainer import Trainer


def trainer_of(config: RunConfig, folder: Path, rows: list[Row] | None = None) -> Trainer:
    """It trains on `rows` (made up where none are given), and its folders lie in `folder`."""
    write_selection(folder / "filter", config, sample_rows(config) if rows is None else rows)
    data = TrainingSet(CompletePhase.open(folder / "filter", "filter"), config.distill)
    return Trainer(
        config,
        data,
        roles_of(config),
        PhaseFolder.open(folder / "out", Manifest(phase="distill", identity={}, inputs={}, config={})),
    )
