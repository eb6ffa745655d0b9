"""How a run on a cluster stands, from its folder, the queue and the jobs' logs; no accounting is needed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vpgea.cluster import queue, scripts
from vpgea.cluster.chain import StepState, job_name, job_prefix, step_states
from vpgea.cluster.queue import Job
from vpgea.config.schema import RunConfig
from vpgea.errors import VpgeaError
from vpgea.phases.schedule import ended_early
from vpgea.runs.history import all_lines, finished_lines
from vpgea.runs.records import RoundLine

_LOG_NAME = re.compile(r"(?P<name>vpgea-.+)-(?P<job>\d+)(?:_(?P<part>\d+))?\.out")
_EXIT = re.compile(rb"^vpgea: (\S+) exit (\d+)$", re.MULTILINE)
_TAIL_BYTES = 16384
_LAST_LINES = 4
_NEVER = (  # reasons for which a job that waits will wait for ever
    *("DependencyNeverSatisfied", "PartitionConfig", "PartitionNodeLimit", "PartitionTimeLimit", "BadConstraints"),
    *("PartitionDown", "PartitionInactive", "AssocGrpJobsLimit", "InvalidAccount", "InvalidQOS", "JobHeldUser"),
)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A job that ended without having done its part."""

    step: str
    part: int | None  # None: not one of an array
    job: str
    exit_code: int | None  # None: it left no word, so it was cancelled or killed, or its node failed
    log: Path
    lines: list[str]  # its last ones


@dataclass(frozen=True)
class StepStatus:
    """One step with its jobs."""

    state: StepState
    jobs: list[Job]
    failures: list[Failure]

    @property
    def word(self) -> str:
        if self.state.is_done:
            return "done"
        if any(job.state in ("RUNNING", "COMPLETING") for job in self.jobs):
            return "running"
        if self.failures:
            return "failed"
        return "queued" if self.jobs else "not queued"


@dataclass(frozen=True)
class RunStatus:
    """A run: its steps in order, what failed, and what to do."""

    steps: list[StepStatus]
    failures: list[Failure]
    rounds: list[RoundLine]  # the lines of finished rounds, the base model's first
    advice: str


def run_status(config: RunConfig, run_dir: Path) -> RunStatus:
    """Read the folder and ask the queue; a queue that does not answer is said in the advice."""
    try:
        jobs, unknown = queue.queued(job_prefix(run_dir)), ""
    except VpgeaError as error:
        jobs, unknown = [], f"{error.what} ({error.why})"
    by_name = queue.by_name(jobs)
    states = step_states(config, run_dir, lambda step: len(by_name.get(job_name(run_dir, step), [])))
    logs = _logs(run_dir / scripts.LOGS)
    steps = []
    for state in states:
        name = job_name(run_dir, state.step)
        own = by_name.get(name, [])
        steps.append(StepStatus(state, own, _failures(state, own, logs.get(name, {}))))
    failures = [failure for step in steps for failure in step.failures]
    failures = [*_failed_preflights(run_dir, by_name, logs), *failures]
    lines = all_lines(run_dir)
    return RunStatus(steps, failures, lines, _advice(config, run_dir, steps, failures, jobs, unknown))


def _logs(folder: Path) -> dict[str, dict[int | None, list[tuple[int, Path]]]]:
    """Job name → part → (job id, log), the newest job first; a requeued job goes on with its log."""
    logs: dict[str, dict[int | None, list[tuple[int, Path]]]] = {}
    for file in folder.glob("vpgea-*.out") if folder.is_dir() else ():
        if match := _LOG_NAME.fullmatch(file.name):
            part = None if match["part"] is None else int(match["part"])
            logs.setdefault(match["name"], {}).setdefault(part, []).append((int(match["job"]), file))
    for parts in logs.values():
        for of_part in parts.values():
            of_part.sort(reverse=True)
    return logs


def _failures(state: StepState, jobs: Sequence[Job], logs: dict[int | None, list[tuple[int, Path]]]) -> list[Failure]:
    """Parts that are missing and not queued, but have a log."""
    queued = {job.part for job in jobs}
    wanted = set(state.missing) - queued
    return [
        failure
        for part, of_part in sorted(logs.items(), key=lambda item: item[0] or 0)
        if (part or 0) in wanted
        for failure in _last_failures(_failure(str(state.step), part, *log) for log in of_part)
    ]


def _last_failures(newest_first: Iterable[Failure]) -> list[Failure]:
    """The newest and, where that left no word, the newest that did: a cancelled job does not hide why one failed."""
    found = list[Failure]()
    for failure in newest_first:
        if not found or failure.exit_code is not None:
            found.append(failure)
        if failure.exit_code is not None:
            break
    return found


def _failed_preflights(
    run_dir: Path, queued: dict[str, list[Job]], logs: dict[str, dict[int | None, list[tuple[int, Path]]]]
) -> list[Failure]:
    """Those that failed after every other job that has a log: what was submitted after them waits no more."""
    last = max((job for name in logs for (job, _), *_ in logs[name].values() if "preflight" not in name), default=0)
    failures = list[Failure]()
    for name in ("preflight", "preflight-training"):
        full = job_name(run_dir, name)
        if None in logs.get(full, {}) and full not in queued:
            found = _last_failures(_failure(name, None, *log) for log in logs[full][None])
            failures += [one for one in found if int(one.job) > last and one.exit_code != 0]
    return failures


def _failure(step: str, part: int | None, job: int, log: Path) -> Failure:
    with log.open("rb") as stream:
        stream.seek(max(log.stat().st_size - _TAIL_BYTES, 0))
        tail = stream.read()
    exits = _EXIT.findall(tail)
    text = _EXIT.sub(b"", tail).decode(errors="replace")
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return Failure(
        step=step,
        part=part,
        job=f"{job}" if part is None else f"{job}_{part}",
        exit_code=int(exits[-1][1]) if exits else None,
        log=log,
        lines=lines[-_LAST_LINES:],
    )


def _advice(
    config: RunConfig,
    run_dir: Path,
    steps: Sequence[StepStatus],
    failures: Sequence[Failure],
    jobs: Sequence[Job],
    unknown: str,
) -> str:
    run = shlex.quote(str(run_dir))
    early = ended_early(config, finished_lines(run_dir))
    if early or all(step.state.is_done for step in steps):
        ending = f"the loop has ended early: {early}" if early else f"all {config.loop.rounds} rounds are finished"
        return f"{ending}: vpgea export {run} --round best -o FOLDER"
    if unknown:
        return f"what is queued is not known: {unknown}; the table is from the run folder alone"
    never = sorted({job.reason for job in jobs if job.state == "PENDING" and job.reason in _NEVER})
    if never:
        return (
            f"jobs wait for what will not come ({', '.join(never)}): vpgea slurm cancel {run}, mend the site file, "
            f"then vpgea slurm submit {run}"
        )
    if failures:
        rest = "the jobs that are queued go on; " if jobs else ""
        return f"{rest}mend what the logs say, then vpgea slurm submit {run}: it queues only what is missing"
    return "nothing to do: it goes on by itself" if jobs else f"nothing is queued: vpgea slurm submit {run}"
