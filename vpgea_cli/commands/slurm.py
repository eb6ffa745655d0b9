"""`vpgea slurm`: a loop as a chain of jobs on a SLURM cluster."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vpgea.config.resolve import recorded_values
from vpgea.config.schema import RunConfig
from vpgea.errors import UsageError
from vpgea.runs.layout import CONFIG
from vpgea_cli.options import (
    ConfigOption,
    JsonOption,
    OfflineOption,
    QuietOption,
    SetOption,
    resolve_options,
)
from vpgea_cli.output import Output
from vpgea_cli.phase import running

if TYPE_CHECKING:
    from vpgea.cluster.launch import Launched
    from vpgea.cluster.status import RunStatus, StepStatus

command = typer.Typer(help="A loop as a chain of jobs on a SLURM cluster.")

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="The loop's run folder.")]
SiteOption = Annotated[
    Path | None, typer.Option("--site", help="Site file of the cluster; else ~/.config/vpgea/site.yaml.")
]


@command.command()
def render(
    run: RunArgument,
    *,
    config: ConfigOption = None,
    sets: SetOption = None,
    site: SiteOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show the job scripts of a run and the sbatch commands; write and queue nothing."""
    resolved = run_config(run, config, sets)
    output = Output(as_json=as_json)
    with running(output, offline=offline):
        from vpgea.cluster.launch import preview
        from vpgea.cluster.site import Site

        scripts, commands = preview(resolved, run, Site.read(site), offline=offline)
    if as_json:
        output.result({"path": str(run), "scripts": scripts, "commands": commands})
        return
    shown = [f"# ---- {run}/slurm/{name}\n{text}" for name, text in scripts.items()]
    output.result("\n".join([*shown, "# ---- queued so by `vpgea slurm submit`", *commands]))


@command.command()
def submit(
    run: RunArgument,
    *,
    config: ConfigOption = None,
    sets: SetOption = None,
    site: SiteOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write the scripts and let sbatch look at them; queue nothing.")
    ] = False,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Queue every step of a run that is neither done nor queued; run it again after any failure."""
    resolved = run_config(run, config, sets)
    output = Output(quiet=quiet, as_json=as_json)
    with running(output, offline=offline) as stop:
        from vpgea.cluster.launch import launch
        from vpgea.cluster.site import Site

        launched = launch(
            resolved, run, Site.read(site), offline=offline, test_only=dry_run, reporter=output, stop=stop
        )
    show_launched(launched, run, output)


@command.command()
def status(run: RunArgument, *, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Show rounds, parts, failures with the last lines of their logs, and what to do."""
    output = Output(quiet=quiet, as_json=as_json)
    resolved = run_config(run, trusted=True)
    from vpgea.cluster.status import run_status

    found = run_status(resolved, run)
    output.table(str(run), ("round", "step", "state", "parts done", "shards", "running", "waiting", ""), _rows(found))
    for failure in found.failures:
        part = "" if failure.part is None else f" part {failure.part}"
        code = "left no exit code (cancelled, killed, or its node failed)"
        code = code if failure.exit_code is None else f"exit code {failure.exit_code}"
        output.info(f"\n{failure.step}{part}: job {failure.job} {code}; its log {failure.log} ends:")
        for line in failure.lines:
            output.info(f"    {line}")
    if as_json:
        output.result(_as_json(found, run))
    else:
        output.result(found.advice)


@command.command()
def cancel(run: RunArgument, *, as_json: JsonOption = False) -> None:
    """Take all jobs of a run out of the queue; running ones save first, and are not queued again."""
    from vpgea.cluster import queue
    from vpgea.cluster.chain import job_prefix

    run_config(run, trusted=True)
    jobs = queue.queued(job_prefix(run))
    queue.cancel(sorted({job.id.partition("_")[0] for job in jobs}))
    output = Output(as_json=as_json)
    if as_json:
        output.result({"path": str(run), "cancelled": [job.id for job in jobs]})
    else:
        told = f"{len(jobs)} jobs cancelled; vpgea slurm submit {shlex.quote(str(run))} goes on" if jobs else ""
        output.result(told or "no job of this run is queued")


@command.command()
def preflight(run: RunArgument, *, offline: OfflineOption = False, as_json: JsonOption = False) -> None:
    """Look from this node at what a run needs: paths, contents, links, space, ports, GPU. Its first jobs do so."""
    resolved = run_config(run, trusted=_in_own_job(run))
    output = Output(as_json=as_json)
    with running(output, offline=offline):
        from vpgea.cluster.preflight import preflight as look

        rows = look(resolved, run, offline=offline)
    output.table("preflight", ("what", "found"), rows)
    output.result({"path": str(run), **dict(rows)} if as_json else "this node can do the work")


def run_config(
    run: Path, config: Path | None = None, sets: list[str] | None = None, *, trusted: bool = False
) -> RunConfig:
    """Of a run that was opened before, or from a file for a new one.

    Args:
        run: The run folder.
        config: A file that the user gives.
        sets: Texts `key.path=value`.
        trusted: Nothing of it is run, or a user had it run; else what runs code has to be given again.
    """
    recorded = run / CONFIG
    if config is None and not recorded.is_file():
        raise UsageError(
            f"not the folder of a loop: {run}",
            why=f"{recorded} is not there",
            mend="give the run folder; for a new run give --config FILE, or use `vpgea loop --launcher slurm`",
        )
    if config is not None or trusted:
        return resolve_options({}, config=config or recorded, sets=sets).config
    return resolve_options({}, sets=sets, inherited=[(str(recorded), recorded_values(recorded))]).config


def _in_own_job(run: Path) -> bool:
    """Whether this is a job of the run's own chain, which was submitted by a user."""
    from vpgea.cluster.chain import job_prefix

    return "SLURM_JOB_ID" in os.environ and os.environ.get("SLURM_JOB_NAME", "").startswith(job_prefix(run))


def show_launched(launched: Launched, run: Path, output: Output) -> None:
    """The jobs that were queued, and how to look at them."""
    rows = [(job, submission.name, submission.array or "-") for submission, job in launched.submitted]
    if rows:
        output.table(f"queued for {run}", ("job", "name", "elements"), rows)
        output.info(f"vpgea slurm status {shlex.quote(str(run))}")
    else:
        output.info(f"nothing was queued: {launched.remark}")
    output.result(
        {
            "path": str(run),
            "submitted": [{"job": job, "name": one.name, "elements": one.array} for one, job in launched.submitted],
            "queued_before": launched.queued_before,
            "remark": launched.remark,
        }
    )


def _rows(found: RunStatus) -> list[list[str]]:
    """Finished rounds are one row each; so is everything that waits after the step under way."""
    by_round: dict[int | None, list[StepStatus]] = {}
    for step in found.steps:
        by_round.setdefault(step.state.step.round, []).append(step)
    lines = {line.round: line for line in found.rounds}
    rows = []
    for index, steps in by_round.items():
        name = "base" if index is None else str(index)
        if index in lines:
            line = lines[index]
            figures = f"accuracy {line.accuracy:.3f}, {line.tokens:,.1f} tokens" if line.is_measured else "not measured"
            rows.append([name, "all", "done", "", "", "", "", figures])
        elif index and _is_untouched(steps):
            waiting = sum(len(step.jobs) for step in steps)
            rows.append([name, "all", steps[0].word, "", "", "", str(waiting or ""), ""])
        else:
            rows += [_row(name, step) for step in steps]
    return rows


def _is_untouched(steps: Sequence[StepStatus]) -> bool:
    """Whether all of a round waits in the same way, and nothing of it is done."""
    begun = any(step.state.done_parts or step.state.shards for step in steps)
    return not begun and len({step.word for step in steps}) == 1 and steps[0].word in ("queued", "not queued")


def _row(name: str, step: StepStatus) -> list[str]:
    running_now = [job for job in step.jobs if job.state != "PENDING"]
    pending = [job for job in step.jobs if job.state == "PENDING"]
    reasons = ", ".join(sorted({job.reason for job in pending}))
    parts = {failure.part for failure in step.failures}
    failed = f"{len(parts)} failed" if parts else ""
    done = "" if step.state.is_done or not step.state.parts else f"{len(step.state.done_parts)}/{step.state.parts}"
    return [
        *(name, step.state.step.phase, step.word, done, str(step.state.shards or "")),
        *(str(len(running_now) or ""), str(len(pending) or "")),
        "; ".join(text for text in (failed, reasons) if text),
    ]


def _as_json(found: RunStatus, run: Path) -> dict[str, object]:
    steps = [
        {
            "step": str(step.state.step),
            "state": step.word,
            "parts": step.state.parts,
            "parts_done": sorted(step.state.done_parts),
            "shards": step.state.shards,
            "jobs": [asdict(job) for job in step.jobs],
        }
        for step in found.steps
    ]
    failures = [{**asdict(failure), "log": str(failure.log)} for failure in found.failures]
    return {
        "path": str(run),
        "steps": steps,
        "failures": failures,
        "rounds": [line.as_json() for line in found.rounds],
        "advice": found.advice,
    }
