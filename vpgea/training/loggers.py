"""Where the lines of metrics.jsonl go besides the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vpgea.config import RunConfig
from vpgea.errors import UsageError
from vpgea.runs import flat_config

Log = Callable[[dict[str, Any]], None]


@contextmanager
def step_log(config: RunConfig, output_dir: Path) -> Iterator[Log]:
    """A function that takes each optimiser step's line; with distill.wandb_project it goes to Weights & Biases.

    Raises UsageError when wandb is asked for and not installed.
    """
    project = config.distill.wandb_project
    if project is None:
        yield lambda line: None
        return
    try:
        import wandb
    except ImportError as error:
        raise UsageError(
            "Weights & Biases is not installed",
            why=f"distill.wandb_project is {project!r}",
            mend="pip install 'vpgea[wandb]', or leave distill.wandb_project out",
        ) from error
    # One run per output folder: a resumed training continues its own curves.
    with wandb.init(
        project=project,
        name=output_dir.resolve().name,
        dir=str(output_dir),
        config=flat_config(config),
        settings=wandb.Settings(silent=True),
    ) as run:
        yield lambda line: run.log(line, step=line["step"])
