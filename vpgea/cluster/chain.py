"""The chain of jobs that makes a run: what is done, what is queued, and what is still to be queued.

Nothing is remembered but in the run folder (markers of parts and phases) and in the scheduler's queue (job names), so
that submitting again, after whatever happened, queues only what is missing.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from vpgea.cluster import queue, scripts
from vpgea.cluster.queue import Job
from vpgea.cluster.site import Site
from vpgea.config.schema import RunConfig
from vpgea.errors import UsageError
from vpgea.runs.history import possible_phases
from vpgea.runs.layout import COMPLETE, Phase, Step, all_steps, is_phase_finished, last_file, round_record
from vpgea.runs.parts import part_folders, part_of_folder
from vpgea.storage.shards import committed


@dataclass(frozen=True, kw_only=True)
class StepState:
    """How far a step is, by the run folder alone."""

    step: Step
    parts: int  # jobs that it is shared among
    done_parts: frozenset[int]
    is_done: bool
    shards: int = 0  # committed so far, of a step under way

    @property
    def missing(self) -> list[int]:
        """Parts to do. All parts may be done while the whole is not: then part 0 is run again, and finishes it."""
        if self.is_done:
            return []
        return [part for part in range(self.parts) if part not in self.done_parts] or [0]


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One call of sbatch."""

    name: str
    script: Path
    arguments: list[str]
    array: str | None  # --array, without the limit on how many run at a time
    after: list[str]  # ids that must end well before

    def options(self, run_dir: Path, site: Site) -> list[str]:
        """sbatch's options, dependencies included."""
        folder = str(run_dir / scripts.LOGS).replace("%", "%%")  # sbatch takes a single one for a pattern of its own
        output = f"{folder}/{'%x-%A_%a.out' if self.array else '%x-%j.out'}"
        # singleton: a second chain, queued by a `submit` at the same moment, waits and then finds everything done
        dependency = ",".join([*([f"afterok:{':'.join(self.after)}"] if self.after else []), "singleton"])
        words = [f"--job-name={self.name}", f"--output={output}"]
        words += [f"--dependency={dependency}", "--kill-on-invalid-dep=yes"]
        if self.array:
            at_once = f"%{site.parts_at_once}" if site.parts_at_once else ""
            words.append(f"--array={self.array}{at_once}")
        return words

    def command(self, run_dir: Path, site: Site) -> str:
        """The call as a user would type it."""
        return shlex.join(["sbatch", *self.options(run_dir, site), str(self.script), *self.arguments])


def job_prefix(run_dir: Path) -> str:
    """How the names of a run's jobs begin: by its folder, so that no list of job ids is needed to find them."""
    return f"vpgea-{hashlib.sha256(str(run_dir.resolve()).encode()).hexdigest()[:8]}-"


def job_name(run_dir: Path, step: Step | str) -> str:
    short = str(step).replace("round-", "r").replace("/", "-")
    return f"{job_prefix(run_dir)}{short}"


def step_states(config: RunConfig, run_dir: Path, parts_of: Callable[[Step], int]) -> list[StepState]:
    """Every step of the run. parts_of: how many jobs a step that has not begun is to be shared among."""
    phases = cache(partial(possible_phases, run_dir, config=config.loop))
    return [_state(run_dir, step, parts_of, phases(step.round)) for step in all_steps(config.loop.rounds, phases)]


def planned_parts(config: RunConfig, site: Site, questions: int, held_out: int) -> Callable[[Step], int]:
    """As many parts as the site wants, but none without a chunk. questions, held_out: how many there are."""
    drawn = min(config.loop.questions_per_round or questions, questions)
    per_chunk = config.rollout.questions_per_chunk

    def parts_of(step: Step) -> int:
        return min(site.parts, -(-(held_out if step.phase == "eval" else drawn) // per_chunk))

    return parts_of


def _state(run_dir: Path, step: Step, parts_of: Callable[[Step], int], phases: tuple[Phase, ...]) -> StepState:
    folder = step.folder(run_dir)
    if round_record(run_dir, step.round).is_file() and is_phase_finished(folder, step.phase):
        return StepState(step=step, parts=0, done_parts=frozenset(), is_done=True)
    existing = part_folders(folder)
    parts = 1 if step.phase == "distill" else parts_of(step)
    if existing:  # begun with another number: it goes on with that one
        parts = part_of_folder(existing[0]).count
    done = {part_of_folder(part).index for part in existing if (part / COMPLETE).is_file()}
    last = last_file(run_dir, step, phases)
    is_done = (folder / COMPLETE).is_file() and (last is None or last.is_file())
    shards = 0 if is_done else sum(len(committed(part)) for part in existing)
    return StepState(step=step, parts=parts, done_parts=frozenset(done), is_done=is_done, shards=shards)


def planned(
    states: Sequence[StepState],
    jobs: Sequence[Job],
    run_dir: Path,
    site: Site,
    queue_up: Callable[[Submission], str],
) -> None:
    """Go through the chain and call queue_up for each submission; what it returns is the id that later ones await."""
    named = queue.by_name(jobs)
    todo = [(state, _lacking(state, named.get(job_name(run_dir, state.step), []))) for state in states]
    before: list[str] = []
    if any(parts for _, parts in todo):
        before = [queue_up(submission) for submission in _preflights(run_dir, site)]
    for state, parts in todo:
        name = job_name(run_dir, state.step)
        own = [job.id for job in named.get(name, [])]
        if parts:
            script = run_dir / scripts.FOLDER / f"{state.step.phase}.sh"
            is_array = state.step.phase != "distill"
            arguments = [str(state.step), *([str(state.parts)] if is_array else [])]
            array = _ranges(parts) if is_array else None
            own.append(queue_up(Submission(name=name, script=script, arguments=arguments, array=array, after=before)))
        if own:
            before = own


def _lacking(state: StepState, jobs: Sequence[Job]) -> list[int]:
    in_queue = {job.part for job in jobs}
    return [part for part in state.missing if part not in in_queue]


def _preflights(run_dir: Path, site: Site) -> list[Submission]:
    """One look at each kind of node."""
    names = ["preflight"] + (["preflight-training"] if site.training != site.inference else [])
    folder = run_dir / scripts.FOLDER
    return [
        Submission(name=job_name(run_dir, name), script=folder / f"{name}.sh", arguments=[name], array=None, after=[])
        for name in names
    ]


def require_loggable(run_dir: Path) -> None:
    """UsageError for a run folder in which no job could write its log: sbatch takes a backslash for an escape."""
    if "\\" in str(run_dir.absolute()):
        raise UsageError(
            f"jobs cannot write their logs to {run_dir}",
            why="there is a backslash in its path, which sbatch's --output reads as an escape",
            mend="choose another --output-dir",
        )


def require_array_size(states: Sequence[StepState]) -> None:
    """UsageError when the cluster takes no array of so many parts."""
    most, needed = queue.most_array_elements(), max(state.parts for state in states)
    if most is not None and needed > most - 1:
        raise UsageError(
            f"an array of {needed:,} jobs is more than this cluster takes",
            why=f"its MaxArraySize is {most:,}, so indices end at {most - 1:,}",
            mend="lower `parts` in the site file: a part can have many chunks",
        )


def _ranges(parts: Sequence[int]) -> str:
    """0,1,2,5 → 0-2,5."""
    spans: list[list[int]] = []
    for part in parts:
        if spans and part == spans[-1][1] + 1:
            spans[-1][1] = part
        else:
            spans.append([part, part])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)
