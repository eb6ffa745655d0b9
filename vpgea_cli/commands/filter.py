"""`vpgea filter`: phase 2."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vpgea.config.contradictions import require_consistent
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
    ServerOptionsArgument,
    ServerPythonOption,
    ServerUrlOption,
    SetOption,
    ShardOption,
    VerboseOption,
    resolve_options,
    server_options,
)
from vpgea_cli.output import Output
from vpgea_cli.phase import inherited_from, required, running, say_devices, share

if TYPE_CHECKING:
    from vpgea.runs.records import FilterSummary


def command(
    rollout_dir: Annotated[Path, typer.Argument(help="Folder that `vpgea rollout` wrote.")],
    *,
    output_dir: OutputDirOption = None,
    model: ModelOption = None,
    adapter: AdapterOption = None,
    dtype: DtypeOption = None,
    devices: DevicesOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    max_grade_errors: Annotated[
        float | None,
        typer.Option("--max-grade-errors", help="Exit 3 when a larger share of the samples cannot be graded."),
    ] = None,
    store_teacher_topk: Annotated[
        int | None,
        typer.Option(
            "--store-teacher-topk",
            min=1,
            help="Store the posterior view's so many likeliest tokens along its paths, for distill.teacher=stored.",
        ),
    ] = None,
    shard: ShardOption = "0/1",
    server_url: ServerUrlOption = None,
    sglang_python: ServerPythonOption = None,
    resume: ResumeOption = True,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    options: ServerOptionsArgument = None,
) -> None:
    """Grade the samples, look at posterior paths from the prior's view, and select what to learn from.

    Model, prompts and sampling are taken from the rollout, and must be the same when they are given.
    """
    output = Output(quiet=quiet, verbose=verbose, as_json=as_json)
    with running(output, offline=offline) as stop:
        resolved = resolve_options(
            {
                **server_options(server_url, sglang_python, options),
                "model.path": model,
                "model.adapter": adapter,
                "model.dtype": dtype,
                "model.devices": devices,
                "grading.max_grade_errors": max_grade_errors,
                "filter.teacher_top_k": store_teacher_topk,
            },
            config=config,
            sets=sets,
            inherited=inherited_from(rollout_dir, "rollout"),
        )
        require_consistent(resolved.config)
        from vpgea.phases.filter import filter_rollout
        from vpgea.runs.complete_phase import chunk_paths
        from vpgea.runs.parts import Part
        from vpgea.storage.records import json_of

        if dry_run:
            from vpgea.estimate.phases import forecast_filter
            from vpgea_cli.dry_run import show

            show(forecast_filter(resolved.config, rollout_dir), output)
            return
        target, part = required(output_dir), Part.parse(shard)
        chunks = len(chunk_paths(rollout_dir, share=part))
        say_devices(resolved.config, output)
        with output.progress(chunks, "filter: chunks") as progress:
            summary = filter_rollout(
                resolved.config,
                rollout_dir,
                target,
                part=part,
                resume=resume,
                overwrite=overwrite,
                stop=stop,
                progress=progress,
            )
        if summary is None:
            output.info("this part is measured; the selection is made when the last part is")
            output.result({"path": str(target), "complete": False})
            return
        show_summary(summary, output)
        output.result({"path": str(target), "complete": True, **json_of(summary)})


def show_summary(summary: FilterSummary, output: Output) -> None:
    """The table of counts, the checks, what limits them, and the terms of the bound."""
    counts = summary.counts
    rows = [
        (name.replace("_", " "), f"{count:,}", share(count, counts[f"{name.split('_', maxsplit=1)[0]}_sampled"]))
        for name, count in counts.items()
    ]
    output.table("samples", ("", "count", "share"), rows)
    checks = [(name, f"{value:.3f}") for name, value in summary.checks.items() if isinstance(value, float)]
    output.table("cross-view measurements, means over posterior paths", ("", "mean"), checks)
    if isinstance(summary.plausibility_limits, str):
        output.info(f"plausibility: {summary.plausibility_limits}")
    if in_part := counts.get("posterior_in_part"):
        learnt, masked = summary.tokens["in_part_learnt"], summary.tokens["in_part_masked"]
        output.info(f"of {in_part:,} paths in part {learnt:,} tokens of thinking are learnt and {masked:,} masked")
    if summary.tempering_power is not None:
        output.info(f"importance gate: weights to the power of {summary.tempering_power:.3f}, mean over questions")
    if summary.no_end_of_thinking:
        count = summary.no_end_of_thinking
        output.info(f"{count:,} samples ended by themselves without an end of thinking; they count as cut off")
    if summary.needs_no_thinking:
        count = len(summary.needs_no_thinking)
        output.info(f"{count:,} questions need no thinking: the prior view answers them without any (see summary.json)")
    from vpgea.filtering.report import warnings_of

    for warning in warnings_of(summary):
        output.warn(warning)
    from vpgea.runs.records import Term

    bound = summary.elbo
    if isinstance(bound, str):
        output.info(f"efficiency-aware ELBO: {bound}")
        return
    terms = [
        (field.name, f"{term.value:.3f}", "-" if term.standard_error is None else f"{term.standard_error:.3f}")
        for field in fields(bound)
        if isinstance(term := getattr(bound, field.name), Term) and term.value is not None
    ]
    output.table("efficiency-aware ELBO, nats", ("term", "value", "standard error"), terms)
