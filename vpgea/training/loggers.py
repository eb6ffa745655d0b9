"""Where the lines of metrics.jsonl go besides the file."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from vpgea.config.resolve import flat_config
from vpgea.config.schema import RunConfig
from vpgea.training.ranks import Ranks

Log = Callable[[dict[str, Any]], None]


@contextmanager
def step_log(config: RunConfig, output_dir: Path, ranks: Ranks | None = None) -> Iterator[Log]:
    """A function that takes each optimiser step's line and hands it to everything in distill.log_to, on rank 0.

    One run per output folder: a resumed training continues its own curves. Whether the packages are there was asked
    before (`require_trainable`).
    """
    kinds = list(dict.fromkeys(config.distill.log_to)) if ranks is None or ranks.is_first else []
    makers = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}
    with ExitStack() as stack:
        logs = [stack.enter_context(makers[kind](config, output_dir)) for kind in kinds]

        def log(line: dict[str, Any]) -> None:
            for log_to in logs:
                log_to(line)

        yield log


@contextmanager
def _tensorboard(config: RunConfig, output_dir: Path) -> Iterator[Log]:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(output_dir / "tensorboard")) as writer:

        def log(line: dict[str, Any]) -> None:
            for name, value in numbers_of(line).items():
                writer.add_scalar(f"distill/{name}", value, line["step"])

        yield log


@contextmanager
def _wandb(config: RunConfig, output_dir: Path) -> Iterator[Log]:
    wandb: Any = importlib.import_module("wandb")
    with wandb.init(
        project=config.distill.log_project,
        name=output_dir.resolve().name,
        dir=str(output_dir),
        config=flat_config(config),
        settings=wandb.Settings(silent=True),
    ) as run:
        yield lambda line: run.log(line, step=line["step"])


@contextmanager
def _trackio(config: RunConfig, output_dir: Path) -> Iterator[Log]:
    trackio: Any = importlib.import_module("trackio")
    # By its whole path: rounds of different runs have folders of the same name.
    name = str(output_dir.resolve()).strip("/").replace("/", "-")
    trackio.init(project=config.distill.log_project, name=name, config=flat_config(config), resume="allow", embed=False)
    try:
        yield lambda line: trackio.log(numbers_of(line), step=line["step"])
    finally:
        trackio.finish()


def numbers_of(line: dict[str, Any]) -> dict[str, float]:
    """The entries of a line that can be drawn as curves."""
    return {name: value for name, value in line.items() if isinstance(value, int | float) and name != "step"}
