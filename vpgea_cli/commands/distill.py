"""`vpgea distill`: phase 3."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vpgea_cli.options import (
    AdapterOption,
    ConfigOption,
    DevicesOption,
    DryRunOption,
    DtypeOption,
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
from vpgea_cli.phase import inherited_from, required, running, with_ranks


def command(
    filter_dir: Annotated[Path, typer.Argument(help="Folder that `vpgea filter` wrote.")],
    *,
    output_dir: OutputDirOption = None,
    model: ModelOption = None,
    adapter: AdapterOption = None,
    dtype: DtypeOption = None,
    devices: DevicesOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    seed: SeedOption = None,
    full: Annotated[
        bool | None, typer.Option("--full/--lora", help="Train all weights, or an adapter (the default).")
    ] = None,
    lora_rank: Annotated[int | None, typer.Option("--lora-rank", help="Rank of the adapter.")] = None,
    lora_alpha: Annotated[float | None, typer.Option("--lora-alpha", help="Scale of the adapter.")] = None,
    lora_target: Annotated[
        list[str] | None,
        typer.Option("--lora-target", help="Name of the layers with an adapter, or all-linear; repeatable."),
    ] = None,
    optimizer: Annotated[str | None, typer.Option("--optimizer", help="Name of the optimiser: adamw.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", help="Peak learning rate.")] = None,
    schedule: Annotated[str | None, typer.Option("--schedule", help="constant, linear or cosine.")] = None,
    max_tokens_per_batch: Annotated[
        int | None, typer.Option("--max-tokens-per-batch", help="Tokens of a forward pass: memory, never the loss.")
    ] = None,
    gradient_checkpointing: Annotated[
        bool | None,
        typer.Option("--gradient-checkpointing/--no-gradient-checkpointing", help="Less memory, a third more work."),
    ] = None,
    compile_layers: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="Compile the decoder's layers.")
    ] = None,
    log_to: Annotated[
        list[str] | None,
        typer.Option("--log-to", help="tensorboard, wandb or trackio, besides metrics.jsonl; repeatable."),
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

    The model is that of the rollout: the samples of other weights are refused. One process trains on each of --devices;
    over several machines they are started with torchrun or srun.
    """
    output = Output(quiet=quiet, verbose=verbose, as_json=as_json)
    with running(output, offline=offline) as stop:
        resolved = resolve_options(
            {
                "model.path": model,
                "model.adapter": adapter,
                "model.dtype": dtype,
                "model.devices": devices,
                "distill.seed": seed,
                "distill.train": None if full is None else ("full" if full else "lora"),
                "distill.lora.rank": lora_rank,
                "distill.lora.alpha": lora_alpha,
                "distill.lora.targets": lora_target or None,
                "distill.optimizer": optimizer,
                "distill.learning_rate": learning_rate,
                "distill.schedule": schedule,
                "distill.max_tokens_per_batch": max_tokens_per_batch,
                "distill.gradient_checkpointing": gradient_checkpointing,
                "distill.compile": compile_layers,
                "distill.log_to": log_to or None,
            },
            config=config,
            sets=sets,
            inherited=inherited_from(filter_dir, "filter"),
        )
        from vpgea.estimate.phases import forecast_distill, training_memory_warning
        from vpgea.runs.complete_phase import CompletePhase
        from vpgea.storage.records import json_of
        from vpgea.training.data import TrainingSet

        data = TrainingSet(CompletePhase.open(filter_dir, "filter"), resolved.config.distill)
        if dry_run:
            from vpgea.runs.phase_folder import begun
            from vpgea_cli.dry_run import show

            warn = None if overwrite or begun(output_dir) is None else output.warn  # of a training that goes on
            show(forecast_distill(resolved.config, data, warn=warn), output)
            return
        target = required(output_dir)
        from vpgea.phases.distill import warnings_of
        from vpgea.phases.distill_ranks import distill_on_devices
        from vpgea.runs.layout import LOGS

        with with_ranks(output) as ranks:
            if ranks.is_first and (too_large := training_memory_warning(resolved.config, data)):
                output.warn(too_large)
            with output.progress(data.total_steps, "distill: steps") as progress:
                train = partial(distill_on_devices, resolved.config, filter_dir, target, target / LOGS)
                summary = train(resume=resume, overwrite=overwrite, stop=stop, progress=progress, ranks=ranks)
            if ranks.is_first:
                output.warn_all(warnings_of(summary))
                output.result({"path": str(target / summary.output), **json_of(summary)})
