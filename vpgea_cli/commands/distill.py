"""`vpgea distill`: phase 3."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vpgea_cli.options import (
    ConfigOption,
    DryRunOption,
    JsonOption,
    ModelOption,
    OfflineOption,
    OutputDirOption,
    OverwriteOption,
    QuietOption,
    ResumeOption,
    SeedOption,
    SetOption,
    VerboseOption,
    resolve_options,
)
from vpgea_cli.output import Output
from vpgea_cli.phase import inherited_from, required, running


def command(
    filter_dir: Annotated[Path, typer.Argument(help="Folder that `vpgea filter` wrote.")],
    *,
    output_dir: OutputDirOption = None,
    model: ModelOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    seed: SeedOption = None,
    full: Annotated[
        bool | None, typer.Option("--full/--lora", help="Train all weights, or an adapter (the default).")
    ] = None,
    resume: ResumeOption = True,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Train the prior view on the selected paths; publish an adapter or a model.

    The model is that of the rollout: the samples of other weights are refused.
    """
    output = Output(quiet=quiet, verbose=verbose, as_json=as_json)
    with running(output, offline=offline) as stop:
        resolved = resolve_options(
            {
                "model.path": model,
                "distill.seed": seed,
                "distill.train": None if full is None else ("full" if full else "lora"),
            },
            config=config,
            sets=sets,
            inherited=inherited_from(filter_dir, "filter"),
        )
        from vpgea.distill import distill
        from vpgea.training.data import TrainingSet

        data = TrainingSet(filter_dir, resolved.config.distill)
        if dry_run:
            from vpgea_cli.dry_run import show_distill

            show_distill(resolved.config, data, output)
            return
        target = required(output_dir)
        with output.progress(data.total_steps, "distill: steps") as progress:
            summary = distill(
                resolved.config, filter_dir, target, resume=resume, overwrite=overwrite, stop=stop, progress=progress
            )
        output.result({"path": str(target / summary["output"]), **summary})
