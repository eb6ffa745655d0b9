"""`vpgea loop`: rounds of rollout, filter, distill and a quick evaluation."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vpgea.config.contradictions import require_consistent
from vpgea.config.schema import RunConfig
from vpgea.errors import UsageError
from vpgea.report.text import with_interval
from vpgea.runs.stopping import StopRequest
from vpgea_cli.commands.slurm import SiteOption, show_launched
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
    ObjectiveOption,
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
from vpgea_cli.phase import required, running, say_devices, with_ranks

if TYPE_CHECKING:
    from vpgea.phases.loop import Loop
    from vpgea.runs.records import RoundLine


class Launcher(StrEnum):
    """Where a loop's steps run."""

    HERE = "here"
    SLURM = "slurm"


COLUMNS = ("round", "accuracy", "tokens", "truncated", "ε³", "accepted", "pseudo-efficient", "KL", "λ", "time")


def command(
    *,
    model: ModelOption = None,
    adapter: AdapterOption = None,
    dtype: DtypeOption = None,
    devices: DevicesOption = None,
    dataset: DatasetOption = None,
    eval_dataset: Annotated[
        str | None, typer.Option("--eval-dataset", help="Held-out questions, measured after every round.")
    ] = None,
    output_dir: OutputDirOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    rounds: Annotated[int | None, typer.Option("--rounds", help="Rounds in all; may be raised later.")] = None,
    questions_per_round: Annotated[
        int | None, typer.Option("--questions-per-round", help="Questions drawn for each round.")
    ] = None,
    eval_every: Annotated[
        int | None, typer.Option("--eval-every", help="Measure only each so-many-th round, and the last.")
    ] = None,
    num_samples: NumSamplesOption = None,
    limit: LimitOption = None,
    objective: ObjectiveOption = None,
    seed: SeedOption = None,
    skip_bad_rows: SkipBadRowsOption = None,
    keep_rounds: Annotated[
        int | None, typer.Option("--keep-rounds", help="Keep the weights of only so many rounds, and of the best.")
    ] = None,
    step: Annotated[
        str | None,
        typer.Option("--step", help="Only this step of a run that was opened before, e.g. round-003/rollout."),
    ] = None,
    shard: ShardOption = "0/1",
    launcher: Annotated[
        Launcher, typer.Option("--launcher", help="Here, or as a chain of jobs on a SLURM cluster.")
    ] = Launcher.HERE,
    site: SiteOption = None,
    server_url: ServerUrlOption = None,
    sglang_python: ServerPythonOption = None,
    keep_servers: Annotated[
        bool | None,
        typer.Option("--keep-servers", help="Own servers stay up in training, with new weights after."),
    ] = None,
    resume: ResumeOption = True,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    options: ServerOptionsArgument = None,
) -> None:
    """Rounds of rollout, filter, distill and evaluation; run it again to continue where it stopped."""
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
            "loop.eval_dataset": eval_dataset,
            "loop.rounds": rounds,
            "loop.questions_per_round": questions_per_round,
            "loop.eval_every": eval_every,
            "sglang.keep_servers": keep_servers,
            "loop.keep_rounds": keep_rounds,
            "rollout.seed": seed,
            "distill.seed": seed,
            "objective": objective,
        },
        config=config,
        sets=sets,
        samples=num_samples,
    )
    require_consistent(resolved.config)
    output = Output(quiet=quiet, verbose=verbose, as_json=as_json)
    _require_fitting(step, shard, launcher, site)
    with running(output, offline=offline) as stop:
        if dry_run:
            _show_costs(resolved.config, None if overwrite else output_dir, output, offline=offline)
            return
        target = required(output_dir)
        how = {"resume": resume, "overwrite": overwrite, "offline": offline}
        if launcher is Launcher.SLURM:
            from vpgea.cluster.launch import launch
            from vpgea.cluster.site import Site

            launched = launch(resolved.config, target, Site.read(site), **how, reporter=output, stop=stop)
            show_launched(launched, target, output)
            return
        if step is not None:
            _one_step(resolved.config, target, step, shard, offline=offline, output=output, stop=stop)
            return
        from vpgea.phases.loop import Loop

        loop = Loop.open(resolved.config, target, **how, reporter=output, stop=stop)
        say_devices(resolved.config, output)
        _all_rounds(loop, output)


def _show_costs(config: RunConfig, run_dir: Path | None, output: Output, *, offline: bool) -> None:
    from vpgea.estimate.phases import forecast_loop
    from vpgea.phases.schedule import held_out_data
    from vpgea.questions.load import load_questions
    from vpgea.runs.phase_folder import begun
    from vpgea_cli.dry_run import show

    loaded = load_questions(config.data, grader=config.grading.grader, offline=offline)
    output.warn_all(loaded.said())
    held_out = load_questions(held_out_data(config), grader=config.grading.grader, offline=offline)
    output.warn_all(held_out.said())
    warn = None if begun(run_dir) is None else output.warn  # of a run that goes on
    show(forecast_loop(config, loaded.questions, held_out.questions, warn=warn), output)


def _all_rounds(loop: Loop, output: Output) -> None:
    from vpgea.phases.schedule import best_round

    before, target = loop.finished, loop.run_dir
    with output.live_table(f"rounds of {target}", COLUMNS) as add_row:
        lines = loop.run(lambda line: add_row(row(line)))
    best = best_round(target, loop.config)
    output.info(closing_words(target, lines, before, best))
    output.result({"path": str(target), "best_round": best, "rounds": [line.as_json() for line in lines]})


def _require_fitting(step: str | None, shard: str, launcher: Launcher, site: Path | None) -> None:
    """Options of one way to run a loop are not taken silently with another."""
    problems = [
        (step is not None and launcher is Launcher.SLURM, "--step", "a launched loop takes all of its steps"),
        (step is None and shard != "0/1", "--shard", "only a single --step has parts"),
        (site is not None and launcher is Launcher.HERE, "--site", "it belongs to --launcher slurm"),
    ]
    for is_wrong, option, why in problems:
        if is_wrong:
            raise UsageError(f"{option} cannot be used so", why=why, mend=f"leave {option} out, or see --help")


def _one_step(
    config: RunConfig, target: Path, step: str, shard: str, *, offline: bool, output: Output, stop: StopRequest
) -> None:
    from vpgea.phases.loop import Loop
    from vpgea.runs.layout import Step
    from vpgea.runs.parts import Part

    wanted = Step.parse(step)
    if wanted.phase == "distill" and shard != "0/1":
        raise UsageError("--shard cannot be used so", why="a distillation has no parts", mend="leave --shard out")
    with with_ranks(output) as ranks:
        loop = Loop.read(config, target, offline=offline, reporter=output, stop=stop)
        loop.require_opened()
        is_done = loop.step(wanted, part=Part.parse(shard), ranks=ranks)
        if ranks.is_first:
            output.info(f"{wanted} is done" if is_done else f"this part of {wanted} is done; other parts are not yet")
            output.result({"path": str(target / str(wanted)), "complete": is_done})


def closing_words(target: Path, lines: Sequence[RoundLine], before: int, best: int | None) -> str:
    """What was done and what comes next. lines: of the base and every finished round, `before` of which were there."""
    rounds = len(lines) - 1
    done = f"nothing left to do: all {rounds} rounds were finished" if rounds == before else f"{rounds} rounds finished"
    if not any(line.is_measured for line in lines[1:]):
        return f"{done}; none of them is measured yet"
    if best is None:
        return f"{done}; every one lost accuracy against the base model, by more than loop.accuracy_margin and chance"
    if next(line.measured.e3 for line in lines if line.round == best) <= 1:
        done = f"{done}; none is better than the base model"
    return f"{done}; the best is round {best}: vpgea export {shlex.quote(str(target))} --round best -o FOLDER"


def row(line: RoundLine) -> list[str]:
    """One round as cells; the base model's has no selection."""

    def number(value: float | None, style: str) -> str:
        return "-" if value is None else format(value, style)

    return [
        "base" if line.round is None else str(line.round),
        number(line.accuracy, ".3f"),
        number(line.tokens, ",.0f" if line.tokens is not None and line.tokens >= 1000 else ",.1f"),
        number(line.truncated, ".1%"),
        with_interval(line.e3, line.e3_low, line.e3_high, digits=2),
        number(line.accepted_share, ".1%"),
        number(line.pseudo_efficient_share, ".1%"),
        number(line.kl, ".2f"),
        number(line.length_price, ".3g"),
        number(line.seconds, ".0f") + (" s" if line.seconds is not None else ""),
    ]
