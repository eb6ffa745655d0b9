"""Time and memory of everything that looks at a run's files, over its number of shards; no model is run.

Runs of more and more rounds and single phases of more and more chunks are written with the real file layer; then each
step is taken at each size, in a process of its own. The very first round is written as a real run is; after it shards
are not flushed to disk one by one, since reading is what is measured. Exit code 1 when a step grows faster than the
shards do, or when resuming takes more than a minute or a gigabyte.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from benchmarks import simulated_run as simulated
from benchmarks.ratios import machine
from vpgea.cluster.chain import step_states
from vpgea.config.resolve import load
from vpgea.config.schema import RunConfig
from vpgea.engines.base import Engine
from vpgea.engines.lease import EngineLease
from vpgea.errors import Stopped
from vpgea.filtering.selection import select
from vpgea.inspection.folders import open_source, overview
from vpgea.modeling.local_model import LocalModel
from vpgea.phases.loop import Loop
from vpgea.phases.rollout import rollout
from vpgea.phases.schedule import best_round
from vpgea.questions.load import chunk_questions, fingerprint_questions
from vpgea.runs.complete_phase import CompletePhase, chunk_paths
from vpgea.runs.history import all_lines
from vpgea.runs.layout import round_dir
from vpgea.runs.parts import Part
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.runs.stopping import StopRequest
from vpgea.storage.schemas import PRIOR, SampleKey

PLACES = 4  # of a round's shards: rollout, measurements, selected, rejected
STEEPEST = 1.15
RESUME_S, RESUME_MB = 60.0, 1000.0
_REPEATS = 3
_NOISE_S = 0.05  # faster steps have no slope to speak of
_PROCESSES = multiprocessing.get_context("forkserver")  # each a fork of one that has imported everything and no more
_PROCESSES.set_forkserver_preload(["benchmarks.simulated_run", "vpgea.inspection.folders", "vpgea.phases.loop"])
_RUN, _PHASE, _FILTER = "run", "phase", "filter"


class _NoEngine(EngineLease):
    """Where a real command would begin to sample."""

    def get(self, config: RunConfig, model: LocalModel) -> Engine:
        raise Stopped("there is no model here", why="files alone are measured", mend="run a real rollout")


@dataclass(frozen=True, kw_only=True)
class Task:
    """Something that a command does with a folder. work: takes the folder and the number of chunks in it."""

    name: str
    place: str
    work: Callable[[Path, int], object]
    prepare: Callable[[Path], object] = lambda folder: None
    largest: int | None = None  # shards beyond which it is left out


def _finished(run_dir: Path) -> int:
    others: dict[str, Any] = dict.fromkeys(one.name for one in fields(Loop) if one.name != "run_dir")
    return Loop(run_dir=run_dir, **others).finished


def read_rounds(run_dir: Path) -> None:
    """What a resumed loop knows of its rounds."""
    assert _finished(run_dir) == len(all_lines(run_dir)) - 1
    assert best_round(run_dir, load(run_dir / "config.yaml")) == _finished(run_dir) - 1


def resume_run(run_dir: Path, chunks: int) -> None:
    """As `vpgea loop` does when it is run again: the run, its rounds, then the phases of the newest one."""
    PhaseFolder.open(run_dir, simulated.manifest_of("loop"))
    read_rounds(run_dir)
    newest = round_dir(run_dir, _finished(run_dir) - 1)
    per_round = len(chunk_paths(newest / "rollout"))
    resume_phase(newest / "rollout", per_round)
    for phase in ("filter", "eval"):
        for part in range(simulated.PARTS):
            folder = PhaseFolder.open(newest / phase, simulated.manifest_of(phase, part, simulated.PARTS))
            folder.missing(Part(part, simulated.PARTS).of(range(per_round)))
    PhaseFolder.open(newest / "distill", simulated.manifest_of("distill"))


def resume_phase(root: Path, chunks: int) -> None:
    """Every part of a rollout again, up to where it would sample what is missing."""
    plan, lease = simulated.plan_of(chunks), _NoEngine(root / "logs", StopRequest())
    for part in range(simulated.PARTS):
        with suppress(Stopped):
            rollout(replace(plan, manifest=simulated.manifest_of("rollout", part, simulated.PARTS)), root, lease=lease)


def plan_rollout(root: Path, chunks: int) -> None:
    """Questions into chunks, their fingerprint, and a seed for each sample of one part."""
    questions = simulated.questions_of(range(chunks))
    fingerprint_questions(questions)
    for chunk in Part(0, simulated.PARTS).of(chunk_questions(questions, simulated.QUESTIONS_PER_CHUNK)):
        for question in chunk:
            SampleKey(0, question.id, PRIOR, 0).seed(0)


def complete(root: Path, chunks: int) -> None:
    """Mark every part complete, and so the phase."""
    for part in range(simulated.PARTS):
        PhaseFolder(root, simulated.manifest_of("rollout", part, simulated.PARTS)).complete({})


def unmark(root: Path) -> None:
    for marker in [*root.glob("parts/*/COMPLETE"), root / "COMPLETE"]:
        marker.unlink()


def read(root: Path, chunks: int) -> None:
    """What the next phase does with a complete one."""
    assert len(CompletePhase.open(root, "rollout").chunks()) == chunks


def _pair(root: Path) -> tuple[CompletePhase, CompletePhase]:
    """A filter's rollout and its own measurements."""
    rollout_dir = root.parents[1] / _PHASE / root.name
    return CompletePhase.open(rollout_dir, "rollout"), CompletePhase.open(root, "filter")


TASKS = [
    Task(name="open the run", place=_RUN, work=lambda run, _: PhaseFolder.open(run, simulated.manifest_of("loop"))),
    Task(name="its rounds, the best one", place=_RUN, work=lambda run, _: read_rounds(run)),
    Task(name="its status (inspect)", place=_RUN, work=lambda run, _: overview(open_source(run))),
    Task(
        name="its status on a cluster",
        place=_RUN,
        work=lambda run, _: step_states(load(run / "config.yaml"), run, lambda step: 8),
    ),
    Task(name="resume the run", place=_RUN, work=resume_run),
    Task(name="plan a rollout", place=_PHASE, work=plan_rollout),
    Task(name="resume it, all drawn", place=_PHASE, work=resume_phase),
    Task(name="resume it, half drawn", place=_PHASE, work=lambda root, chunks: resume_phase(root, 2 * chunks)),
    Task(name="mark it complete", place=_PHASE, work=complete, prepare=unmark),
    Task(name="read it as input", place=_PHASE, work=read),
    Task(
        name="read one part's share",
        place=_PHASE,
        work=lambda root, _: chunk_paths(root, share=Part(0, simulated.PARTS)),
    ),
    Task(name="its status (inspect)", place=_PHASE, work=lambda root, _: overview(open_source(root))),
    Task(
        name="select from it",
        place=_FILTER,
        work=lambda root, _: select(simulated.run_config(), simulated.VIEWS, *_pair(root)),
        prepare=lambda root: simulated.flush_no_more(),  # two shards per chunk are written, and reading is what counts
        largest=3000,
    ),
]


@dataclass(frozen=True)
class Cost:
    """Of one step at one size, in one process or the best of several.

    cpu_seconds: the kernel's with it. megabytes: largest resident set; before: that of the program before the step.
    """

    seconds: float
    cpu_seconds: float
    megabytes: float
    before: float


@dataclass
class Place:
    """A folder of one size, and what was measured there, by step."""

    folder: Path
    chunks: int
    shards: int
    costs: dict[str, list[Cost]] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return self.folder.parent.name


def measure_all(places: Sequence[Place]) -> None:
    """Every step at every size, all sizes in turns: what else the machine does meanwhile falls on all of them."""
    for turn in range(_REPEATS):
        print(f"turn {turn + 1} of {_REPEATS}", flush=True)
        for number, step in enumerate(TASKS):
            for place in places:
                if place.kind == step.place and (step.largest is None or place.shards <= step.largest):
                    with _PROCESSES.Pool(1, maxtasksperchild=1) as pool:
                        cost = pool.apply(once, (number, place.folder, place.chunks))
                    place.costs.setdefault(step.name, []).append(cost)


def once(number: int, folder: Path, chunks: int) -> Cost:
    """In a fresh process, so that the largest resident set is the step's own."""
    step = TASKS[number]
    step.prepare(folder)
    before = _largest_resident_mb()
    began, computing = time.perf_counter(), time.process_time()
    step.work(folder, chunks)
    seconds, computed = time.perf_counter() - began, time.process_time() - computing
    return Cost(seconds, computed, _largest_resident_mb(), before)


def _largest_resident_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def slope(found: Sequence[tuple[int, float]]) -> float | None:
    """Exponent of CPU seconds against shards between the two largest sizes; None for what is too fast to have one.

    Not further down: there Python's garbage collector sets in, which is a step and no slope.
    """
    last = [(shards, seconds) for shards, seconds in found if seconds >= _NOISE_S][-2:]
    if len(last) < 2:
        return None
    (fewer, less), (more, longer) = last
    return math.log(longer / less) / math.log(more / fewer)


def sizes_up_to(largest: int) -> list[int]:
    """1, 3, 10, 30, ... and the largest."""
    usual = [digit * 10**power for power in range(9) for digit in (1, 3)]
    return [*(size for size in usual if size < largest), largest]


def write_runs(root: Path, per_round: int, largest: int) -> list[Place]:
    """Runs of more and more rounds. The very first round is flushed as a real run's is."""
    places, chunks = [], per_round // PLACES
    for rounds_there in sizes_up_to(largest):
        place = Place(root / _RUN / f"{rounds_there}", chunks, rounds_there * chunks * PLACES)
        began = time.perf_counter()
        simulated.begin_run(place.folder, rounds_there)
        for index in range(rounds_there):
            simulated.write_round(place.folder, index, chunks)
        _say_written(place.shards, time.perf_counter() - began, f"a run of {rounds_there}")
        simulated.flush_no_more()
        places.append(place)
    return places


def write_phases(root: Path, largest: int) -> list[Place]:
    """Rollouts of more and more chunks, and filters of them as far as the selection is measured."""
    places = []
    limits = {"rollout": (_PHASE, largest), "filter": (_FILTER, max(step.largest or 0 for step in TASKS))}
    for chunks in [size for size in sizes_up_to(largest) if size >= min(1000, largest)]:
        for phase, (kind, most) in limits.items():
            if chunks <= most:
                place = Place(root / kind / f"{chunks}", chunks, chunks)
                began = time.perf_counter()
                simulated.write_phase(place.folder, phase, 0, chunks)
                _say_written(chunks, time.perf_counter() - began, f"one {phase}")
                places.append(place)
    return places


def _say_written(shards: int, seconds: float, what: str) -> None:
    print(f"{shards:,} shards written, {seconds / shards * 1000:.2f} ms each ({what})", flush=True)


def report(places: Sequence[Place]) -> list[str]:
    """Print a table of the fastest processes and the largest memory; return what misses its goal."""
    missed = []
    print(f"\n{'':<33}{'shards':>9}{'seconds':>10}{'slowest':>10}{'CPU s':>10}{'MB':>7}{'before':>8}")
    for step in TASKS:
        computed = []
        for place in [place for place in places if place.kind == step.place and step.name in place.costs]:
            costs = place.costs[step.name]
            seconds, slowest = min(cost.seconds for cost in costs), max(cost.seconds for cost in costs)
            megabytes, before = max(cost.megabytes for cost in costs), min(cost.before for cost in costs)
            computed.append((place.shards, min(cost.cpu_seconds for cost in costs)))
            times = f"{seconds:>10.3f}{slowest:>10.3f}{computed[-1][1]:>10.3f}"
            print(f"{step.place:<7}{step.name:<26}{place.shards:>9,}{times}{megabytes:>7.0f}{before:>8.0f}")
        exponent = slope(computed)
        print(f"{'':<7}exponent: {'flat' if exponent is None else f'{exponent:.2f}'}")
        if exponent is not None and exponent > STEEPEST:
            missed.append(f"{step.place}, {step.name}: time grows with shards to the power of {exponent:.2f}")
        if step.name.startswith("resume") and (seconds > RESUME_S or megabytes > RESUME_MB):
            missed.append(f"{step.place}, {step.name}: {seconds:.1f} s, {megabytes:.0f} MB")
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=1000, help="shards of a round, a quarter in each of four folders")
    parser.add_argument("--rounds", type=int, default=100, help="rounds of the run")
    parser.add_argument("--place", type=Path, help="folder for the simulated run, which is kept; default: a temporary")
    parser.add_argument("--json", type=Path, help="write every figure there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vpgea-scale-") as temporary:
        root = options.place or Path(temporary)
        places = [
            *write_runs(root, options.shards, options.rounds),
            *write_phases(root, options.shards * options.rounds),
        ]
        measure_all(places)
    missed = report(places)
    if options.json:
        about = {**machine(), "places": [{**asdict(place), "folder": str(place.folder)} for place in places]}
        options.json.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    for line in missed:
        print(f"missed: {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
