"""Queue a run: open its folder, write its scripts, let the scheduler look at them, and submit what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vpgea.cluster import queue, scripts
from vpgea.cluster.chain import (
    StepState,
    Submission,
    job_prefix,
    planned,
    planned_parts,
    require_array_size,
    require_loggable,
    step_states,
)
from vpgea.cluster.queue import Job
from vpgea.cluster.site import Site
from vpgea.config.schema import RunConfig
from vpgea.errors import UsageError
from vpgea.modeling.local_model import LocalModel
from vpgea.phases.loop import Loop
from vpgea.phases.schedule import ended_early
from vpgea.runs.history import finished_lines
from vpgea.runs.progress import NullReporter, Reporter
from vpgea.runs.stopping import StopRequest


@dataclass(frozen=True)
class Launched:
    """What a launch found and did: (submission, job id) in order of the chain."""

    submitted: list[tuple[Submission, str]]
    queued_before: int
    remark: str  # why nothing was submitted, where nothing was


def preview(config: RunConfig, run_dir: Path, site: Site, *, offline: bool = False) -> tuple[dict[str, str], list[str]]:
    """The scripts, and the sbatch commands that `launch` would use were nothing done or queued; touches nothing."""
    require_loggable(run_dir)
    loop = Loop.read(config, run_dir, offline=offline)
    commands: list[str] = []

    def show(submission: Submission) -> str:
        commands.append(submission.command(run_dir.absolute(), site))
        return f"JOB{len(commands)}"

    planned(_states(loop, run_dir, site), [], run_dir.absolute(), site, show)
    return scripts.render(config, site, run_dir), commands


def launch(
    config: RunConfig,
    run_dir: Path,
    site: Site,
    *,
    offline: bool = False,
    resume: bool = True,
    overwrite: bool = False,
    test_only: bool = False,
    reporter: Reporter | None = None,
    stop: StopRequest | None = None,
) -> Launched:
    """Queue every step of a run that is neither done nor queued. Safe to repeat.

    Models with a hub id are looked up here, where there may be a network; jobs run offline. `test_only`: the scheduler
    looks at the scripts, and nothing is queued.

    Raises:
        UsageError: Among others with what sbatch refuses: what was queued before that stays, and is found by the next
            launch.
    """
    reporter = reporter or NullReporter()
    require_loggable(run_dir)
    config = _with_local_models(config)
    jobs = queue.queued(job_prefix(run_dir))
    if overwrite and jobs:
        raise UsageError(
            f"--overwrite cannot be used while jobs of {run_dir} are queued",
            why=f"{len(jobs)} of them would write to what it deletes",
            mend=f"vpgea slurm cancel {run_dir}",
        )
    loop = Loop.open(config, run_dir, resume=resume, overwrite=overwrite, offline=offline, reporter=reporter, stop=stop)
    run_dir = run_dir.absolute()
    states = _states(loop, run_dir, site)
    if reason := ended_early(config, finished_lines(run_dir)):
        return Launched([], len(jobs), f"the loop has ended early: {reason}")
    if all(state.is_done for state in states):
        return Launched([], len(jobs), f"all {config.loop.rounds} rounds are finished")
    require_array_size(states)
    for name in scripts.write(scripts.render(loop.config, site, run_dir), run_dir):
        reporter.warn(f"{run_dir / scripts.FOLDER / name} was edited and is used as it is; delete it to render it anew")
    (run_dir / scripts.LOGS).mkdir(parents=True, exist_ok=True)  # without it jobs fail before their first line
    _test(states, jobs, run_dir, site)
    if test_only:
        return Launched([], len(jobs), "sbatch would take every script")
    submitted: list[tuple[Submission, str]] = []

    def queue_up(submission: Submission) -> str:
        job = queue.submit(submission.script, submission.arguments, submission.options(run_dir, site))
        submitted.append((submission, job))
        return job

    planned(states, jobs, run_dir, site, queue_up)
    return Launched(submitted, len(jobs), "" if submitted else "everything that is missing is queued already")


def _states(loop: Loop, run_dir: Path, site: Site) -> list[StepState]:
    return step_states(loop.config, run_dir, planned_parts(loop.config, site, len(loop.questions), len(loop.held_out)))


def _test(states: list[StepState], jobs: list[Job], run_dir: Path, site: Site) -> None:
    """Each script once, before any is queued: a chain that breaks half-way would hold nodes for nothing."""
    seen: dict[Path, Submission] = {}

    def remember(submission: Submission) -> str:
        seen.setdefault(submission.script, submission)
        return "0"

    planned(states, jobs, run_dir, site, remember)
    for script, submission in seen.items():
        queue.test_only(script, [f"--array={submission.array}"] if submission.array else [])


def _with_local_models(config: RunConfig) -> RunConfig:
    """Hub ids become the folders of their snapshots on this machine, fetched if need be."""
    model = config.model.model_copy(
        update={
            "path": str(LocalModel.resolve(config.model).folder),
            "revision": None,
        }
    )
    distill = config.distill
    if distill.reference is not None:
        reference = config.model.model_copy(update={"path": distill.reference, "adapter": None, "revision": None})
        distill = distill.model_copy(update={"reference": str(LocalModel.resolve(reference).folder)})
    return config.model_copy(update={"model": model, "distill": distill})
