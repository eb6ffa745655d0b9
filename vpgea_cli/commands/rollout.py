"""`vpgea rollout`: phase 1."""

from __future__ import annotations

from typing import Annotated

import typer

from vpgea.config.contradictions import require_consistent
from vpgea_cli.options import (
    AdapterOption,
    ConfigOption,
    DatasetOption,
    DevicesOption,
    DryRunOption,
    DtypeOption,
    JsonOption,
    LimitOption,
    ModelOption,
    NumSamplesOption,
    OfflineOption,
    OutputDirOption,
    OverwriteOption,
    QuietOption,
    ResumeOption,
    SeedOption,
    ServerOptionsArgument,
    ServerPythonOption,
    ServerUrlOption,
    SetOption,
    ShardOption,
    SkipBadRowsOption,
    VerboseOption,
    resolve_options,
    server_options,
)
from vpgea_cli.output import Output
from vpgea_cli.phase import required, running, say_devices


def command(
    *,
    model: ModelOption = None,
    adapter: AdapterOption = None,
    dtype: DtypeOption = None,
    devices: DevicesOption = None,
    dataset: DatasetOption = None,
    output_dir: OutputDirOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    num_samples: NumSamplesOption = None,
    prior_samples: Annotated[
        int | None, typer.Option("--prior-samples", help="Samples per question from the plain prompt; over -n.")
    ] = None,
    posterior_samples: Annotated[
        int | None, typer.Option("--posterior-samples", help="Samples per question with the note; over -n.")
    ] = None,
    limit: LimitOption = None,
    seed: SeedOption = None,
    shard: ShardOption = "0/1",
    skip_bad_rows: SkipBadRowsOption = None,
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
    """Sample every question from both views into Arrow shards."""
    resolved = resolve_options(
        {
            **server_options(server_url, sglang_python, options),
            "model.path": model,
            "model.adapter": adapter,
            "model.dtype": dtype,
            "model.devices": devices,
            "data.dataset": dataset,
            "data.limit": limit,
            "data.skip_bad_rows": skip_bad_rows,
            "rollout.prior_samples": prior_samples,
            "rollout.posterior_samples": posterior_samples,
            "rollout.seed": seed,
        },
        config=config,
        sets=sets,
        samples=num_samples,
    )
    require_consistent(resolved.config)
    output = Output(quiet=quiet, verbose=verbose, as_json=as_json)
    with running(output, offline=offline) as stop:
        from vpgea.phases.rollout import RolloutPlan, rollout
        from vpgea.questions.load import load_questions
        from vpgea.runs.parts import Part
        from vpgea.runs.phase_folder import begun_inputs
        from vpgea.storage.records import json_of

        target = None if dry_run else required(output_dir)
        loaded = load_questions(resolved.config.data, grader=resolved.config.grading.grader, offline=offline)
        output.warn_all(loaded.said())
        before = None if overwrite else begun_inputs(target)
        plan = RolloutPlan.make(resolved.config, loaded.questions, part=Part.parse(shard), begun=before)
        if plan.rejected:
            output.warn(f"{len(plan.rejected)} questions rejected, the first for: {next(iter(plan.rejected.values()))}")
        if target is None:
            from vpgea.estimate.phases import forecast_rollout
            from vpgea_cli.dry_run import show

            show(forecast_rollout(plan), output)
            return
        total = sum(len(plan.chunks[chunk]) for chunk in plan.own_chunks)
        say_devices(resolved.config, output)
        with output.progress(total, "rollout: questions") as progress:
            drawn = rollout(plan, target, resume=resume, overwrite=overwrite, stop=stop, progress=progress)
        if drawn.drawn_now == 0:
            output.info("nothing left to do: every chunk was already there")
        output.result({"path": str(target), **json_of(drawn.summary), "drawn_now": drawn.drawn_now})
