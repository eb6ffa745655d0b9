"""What the phase commands share: folders that hand their configuration on, and the run's frame."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vpgea.errors import UsageError
from vpgea.runs.stopping import StopRequest
from vpgea_cli.options import go_offline
from vpgea_cli.output import Output
from vpgea_cli.signals import install_signal_handlers

if TYPE_CHECKING:
    from vpgea.config.schema import RunConfig
    from vpgea.runs.layout import Phase
    from vpgea.training.ranks import Ranks

Inherited = list[tuple[str, dict[str, Any]]]


def required(path: Path | None, option: str = "--output-dir") -> Path:
    """The folder to write to; it has no default, so that nothing lands where nobody looks."""
    if path is None:
        raise UsageError(f"{option} is missing", why="there is no default for it", mend=f"give {option} FOLDER")
    return path


def inherited_from(folder: Path, phase: Phase) -> Inherited:
    """The configuration that a complete phase folder was made with, as the lowest layer above the defaults.

    Without the section about servers, and without the devices: those of the phase before may be gone, or out of reach
    from this machine.
    """
    from vpgea.runs.complete_phase import CompletePhase

    recorded = CompletePhase.open(folder, phase).manifest.config
    kept = {key: value for key, value in recorded.items() if not key.startswith(("sglang.", "model.devices"))}
    return [(f"{phase} folder {folder}", kept)]


@contextmanager
def with_ranks(output: Output) -> Iterator[Ranks]:
    """The processes that were started to train together. Only rank 0 speaks, where not another one alone failed."""
    from vpgea.errors import Stopped
    from vpgea.training.ranks import OtherRankFailed, joined_ranks

    with joined_ranks() as ranks:
        output.quiet = output.quiet or not ranks.is_first
        try:
            yield ranks
        except (OtherRankFailed, Stopped) as error:
            if ranks.is_first:
                raise
            raise typer.Exit(error.exit_code) from error


@contextmanager
def running(output: Output, *, offline: bool) -> Iterator[StopRequest]:
    """The frame of every long command: signals and time limits become stop requests, libraries keep off the network."""
    go_offline(offline)
    with install_signal_handlers(StopRequest(_time_limit()), output.urgent) as stop:
        yield stop


def say_devices(config: RunConfig, output: Output) -> None:
    """Where a run with several devices samples and trains: one line."""
    from vpgea.engines.lease import placement
    from vpgea.modeling.device import devices_of

    if len(devices_of(config.model)) > 1:
        output.info("devices: " + "; ".join(f"{what}: {text}" for what, text in placement(config).items()))


def _time_limit() -> float | None:
    """When the job that this process is in will be ended, in seconds since 1970, as SLURM tells it; else None."""
    text = os.environ.get("SLURM_JOB_END_TIME", "")
    if not text:
        return None
    if not text.isdecimal():
        raise UsageError(
            "SLURM_JOB_END_TIME is not a number", why=f"it is {text!r}", mend="unset it, or give seconds since 1970"
        )
    return float(text)


def share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "-"
