"""Distillation on all devices of the machine: one rank on each, which this process starts, and what each rank does."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

import torch

from vpgea.config.resolve import flat_config, from_flat
from vpgea.config.schema import RunConfig
from vpgea.engines.lease import EngineLease
from vpgea.modeling.device import devices_of
from vpgea.phases.distill import distill, trained
from vpgea.runs.layout import COMPLETE
from vpgea.runs.parts import WHOLE, part_folder
from vpgea.runs.progress import NullProgress, Progress
from vpgea.runs.records import DistillSummary
from vpgea.runs.stopping import StopRequest
from vpgea.training.launch import run_together
from vpgea.training.parent import Parent, report_to_parent
from vpgea.training.ranks import Ranks, joined_ranks


def distill_on_devices(
    config: RunConfig,
    filter_dir: Path,
    output_dir: Path,
    logs: Path,
    *,
    resume: bool = True,
    overwrite: bool = False,
    stop: StopRequest | None = None,
    progress: Progress | None = None,
    ranks: Ranks | None = None,
    continued: bool = False,
    rounds_left: int = 1,
    lease: EngineLease | None = None,
) -> DistillSummary:
    """`distill`, by one rank on each device of the configuration; by this process where it has one, or is a rank.

    logs: folder for what the ranks print. lease: lends and is offered weights by this process alone, not by ranks.

    Raises:
        EngineError: A rank died.
        VpgeaError: As `distill`.
    """
    stop, progress, ranks = stop or StopRequest(), progress or NullProgress(), ranks or Ranks()
    options: dict[str, Any] = {
        "resume": resume,
        "overwrite": overwrite,
        "continued": continued,
        "rounds_left": rounds_left,
    }
    is_done = not overwrite and (part_folder(output_dir, WHOLE) / COMPLETE).is_file()
    devices = devices_of(config.model)
    if len(devices) == 1 or ranks.world > 1 or is_done:
        return distill(
            config, filter_dir, output_dir, stop=stop, progress=progress, ranks=ranks, lease=lease, **options
        )
    stop.check("nothing was begun")
    if lease is not None:
        lease.held.drop()
    _free_memory()
    task = {"config": flat_config(config), "filter_dir": str(filter_dir), "output_dir": str(output_dir), **options}
    run_together(__name__, task, devices, logs=logs, stop=stop, progress=progress)
    return trained(output_dir)


def _free_memory() -> None:
    """What a model that sampled here has left on a device belongs to the ranks now."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _train(parent: Parent) -> None:
    """One rank's work."""
    task = parent.task
    config = from_flat(task.pop("config"))
    folders = [Path(task.pop(name)) for name in ("filter_dir", "output_dir")]
    with joined_ranks() as ranks:
        distill(config, *folders, stop=parent.stop, progress=parent, ranks=ranks, **task)


if __name__ == "__main__":
    sys.exit(report_to_parent(_train))
