"""Time and memory of everything that looks at a run's files, over its number of shards; no model is run.

A run folder grows round by round, and beside it one phase, chunk by chunk, both with the real file layer. At sizes on
the way each step runs in a process of its own, so that its largest resident set is its own too. The first round is
written as a real run is; after it shards are not flushed to disk one by one, since reading is what is measured. Exit
code 1 when a step grows faster than the shards do, or when resuming takes more than a minute or a gigabyte.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import simulated_run as simulated
from benchmarks.ratios import machine
from vpgea.config import RunConfig
from vpgea.engines.base import Engine
from vpgea.engines.select import EngineLease
from vpgea.errors import Stopped
from vpgea.inspection import open_source, overview, rounds
from vpgea.loop import Loop, best_round
from vpgea.questions import chunk_questions, fingerprint_questions, part_of
from vpgea.records import PRIOR, sample_seed
from vpgea.resolve import load
from vpgea.rollout import rollout
from vpgea.runs import PhaseFolder, chunk_paths, content_fingerprint, open_complete
from vpgea.selection import select
from vpgea.stopping import StopRequest

PLACES = 4  # of a round's shards: rollout, measurements, selected, rejected
STEEPEST = 1.15
RESUME_S, RESUME_MB = 60.0, 1000.0
_REPEATS = 3
_NOISE_S = 0.05  # faster steps have no slope to speak of
_PROCESSES = multiprocessing.get_context("forkserver")  # each a fork of one that has imported everything and no more
_PROCESSES.set_forkserver_preload(["benchmarks.simulated_run", "vpgea.inspection", "vpgea.loop"])
_RUN, _PHASE, _FILTER = "run", "phase", "filter"


class _NoEngine(EngineLease):
    """Where a real command would begin to sample."""

    def get(self, config: RunConfig) -> Engine:
        raise Stopped("there is no model here", why="files alone are measured", mend="run a real rollout")


@dataclass(frozen=True)
class Step:
    """Something that a command does with a folder. work: takes the folder and the number of chunks in it."""

    name: str
    place: str
    work: Callable[[Path, int], object]
    prepare: Callable[[Path], object] = lambda folder: None
    largest: int | None = None  # shards beyond which it is left out


def _finished(run_dir: Path) -> int:
    others: dict[str, Any] = dict.fromkeys(field.name for field in fields(Loop) if field.name != "run_dir")
    return Loop(run_dir=run_dir, **others).finished


def read_rounds(run_dir: Path) -> None:
    """What a resumed loop knows of its rounds."""
    assert _finished(run_dir) == len(rounds(run_dir)) - 1
    assert best_round(run_dir, load(run_dir / "config.yaml")) == _finished(run_dir) - 1


def resume_run(run_dir: Path, chunks: int) -> None:
    """As `vpgea loop` does when it is run again: the run, its rounds, then the phases of the newest one."""
    PhaseFolder.open(run_dir, simulated.manifest_of("loop"))
    read_rounds(run_dir)
    newest = run_dir / f"round-{_finished(run_dir) - 1:03d}"
    per_round = len(chunk_paths(newest / "rollout"))
    resume_phase(newest / "rollout", per_round)
    for phase in ("filter", "eval"):
        for part in range(simulated.PARTS):
            folder = PhaseFolder.open(newest / phase, simulated.manifest_of(phase, part, simulated.PARTS))
            folder.missing(part_of(range(per_round), part, simulated.PARTS))
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
    for chunk in part_of(chunk_questions(questions, simulated.QUESTIONS_PER_CHUNK), 0, simulated.PARTS):
        for question in chunk:
            sample_seed(0, 0, question.id, PRIOR, 0)


def complete(root: Path, chunks: int) -> None:
    """Mark every part complete, and so the phase."""
    for part in range(simulated.PARTS):
        PhaseFolder(root, simulated.manifest_of("rollout", part, simulated.PARTS)).complete({})


def unmark(root: Path) -> None:
    for marker in [*root.glob("parts/*/COMPLETE"), root / "COMPLETE"]:
        marker.unlink()


def read(root: Path, chunks: int) -> None:
    """What the next phase does with a complete one."""
    open_complete(root, "rollout")
    content_fingerprint(root)
    assert len(chunk_paths(root)) == chunks


STEPS = [
    Step("open the run", _RUN, lambda run, _: PhaseFolder.open(run, simulated.manifest_of("loop"))),
    Step("its rounds, the best one", _RUN, lambda run, _: read_rounds(run)),
    Step("its status (inspect)", _RUN, lambda run, _: overview(open_source(run))),
    # the place for the status of its cluster jobs: Step("...", _RUN, lambda run, _: ...)
    Step("resume the run", _RUN, resume_run),
    Step("plan a rollout", _PHASE, plan_rollout),
    Step("resume it, all drawn", _PHASE, resume_phase),
    Step("resume it, half drawn", _PHASE, lambda root, chunks: resume_phase(root, 2 * chunks)),
    Step("mark it complete", _PHASE, complete, unmark),
    Step("read it as input", _PHASE, read),
    Step("read one part's share", _PHASE, lambda root, _: chunk_paths(root, share=(0, simulated.PARTS))),
    Step("its status (inspect)", _PHASE, lambda root, _: overview(open_source(root))),
    Step(
        "select from it",
        _FILTER,
        lambda root, _: select(simulated.run_config(), simulated.VIEWS, root.with_name(_PHASE), root),
        prepare=lambda root: simulated.flush_no_more(),  # two shards per chunk are written, and reading is what counts
        largest=3000,
    ),
]


@dataclass(frozen=True)
class Cost:
    """Of one step at one size. megabytes: largest resident set; before: that of the program before the step."""

    shards: int
    seconds: float
    slowest: float
    cpu_seconds: float
    megabytes: float
    before: float


def measure(step: Step, place: Path, chunks: int, shards: int) -> Cost:
    """Of several fresh processes: the fastest, which others on the machine disturbed least, and the most memory."""
    arguments = (STEPS.index(step), place, chunks)
    with _PROCESSES.Pool(1, maxtasksperchild=1) as pool:
        found = [pool.apply(once, arguments) for _ in range(_REPEATS)]
    times = [one[0] for one in found]
    *_, megabytes, before = max(found, key=lambda one: one[2])
    return Cost(shards, min(times), max(times), min(one[1] for one in found), megabytes, before)


def once(number: int, place: Path, chunks: int) -> tuple[float, float, float, float]:
    """Seconds, of which computing, and the largest resident set after and before."""
    step = STEPS[number]
    folder = place / step.place
    step.prepare(folder)
    before = _largest_resident_mb()
    began, computing = time.perf_counter(), time.process_time()
    step.work(folder, chunks)
    return time.perf_counter() - began, time.process_time() - computing, _largest_resident_mb(), before


def _largest_resident_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def slope(costs: Sequence[Cost]) -> float | None:
    """Exponent of time against shards over the three largest sizes; None for what is too fast to have one.

    Of CPU time, the kernel's with it: what others do on the machine changes that least.
    """
    last = [cost for cost in costs if cost.cpu_seconds >= _NOISE_S][-3:]
    if len(last) < 2:
        return None
    sizes, times = np.log([cost.shards for cost in last]), np.log([cost.cpu_seconds for cost in last])
    return float(np.polyfit(sizes, times, 1)[0])


def sizes_up_to(largest: int) -> list[int]:
    """1, 3, 10, 30, ... and the largest."""
    usual = [digit * 10**power for power in range(9) for digit in (1, 3)]
    return [*(size for size in usual if size < largest), largest]


def grow_run(place: Path, per_round: int, up_to: int) -> list[tuple[Step, Cost]]:
    """Rounds one after the other, measuring on the way."""
    run_dir, chunks = place / _RUN, per_round // PLACES
    simulated.begin_run(run_dir, up_to)
    found, done = [], 0
    for size in sizes_up_to(up_to):
        began = time.perf_counter()
        for index in range(done, size):
            simulated.write_round(run_dir, index, chunks)
        _say_written((size - done) * chunks * PLACES, time.perf_counter() - began, f"{size} rounds")
        simulated.flush_no_more()
        done, shards = size, size * chunks * PLACES
        found += _measured(place, (_RUN,), chunks, shards)
    return found


def grow_phase(place: Path, up_to: int) -> list[tuple[Step, Cost]]:
    """One rollout with more and more chunks, and a filter as far as the selection is measured."""
    found: list[tuple[Step, Cost]] = []
    limits = {_PHASE: up_to, _FILTER: max(step.largest or 0 for step in STEPS)}
    done = dict.fromkeys(limits, 0)
    for size in [size for size in sizes_up_to(up_to) if size >= min(1000, up_to)]:
        began, before = time.perf_counter(), sum(done.values())
        for name, phase in ((_PHASE, "rollout"), (_FILTER, "filter")):
            if done[name] < size <= limits[name]:
                simulated.write_phase(place / name, phase, done[name], size)
                done[name] = size
        _say_written(sum(done.values()) - before, time.perf_counter() - began, f"one phase of {size:,}")
        found += _measured(place, (_PHASE, _FILTER), size, size)
    return found


def _measured(place: Path, places: Sequence[str], chunks: int, shards: int) -> list[tuple[Step, Cost]]:
    found = []
    for step in STEPS:
        if step.place in places and (step.largest is None or shards <= step.largest):
            found.append((step, measure(step, place, chunks, shards)))
            print(f"  {step.place:<7}{step.name:<26}{_cells(found[-1][1])}", flush=True)
    return found


def _say_written(shards: int, seconds: float, what: str) -> None:
    print(f"{shards:,} shards written, {seconds / shards * 1000:.2f} ms each ({what})", flush=True)


def _cells(cost: Cost) -> str:
    return f"{cost.shards:>9,} shards {cost.seconds:>9.3f} s (up to {cost.slowest:.3f}) {cost.megabytes:>7.0f} MB"


def report(found: Sequence[tuple[Step, Cost]]) -> list[str]:
    """Print a table; what misses its goal."""
    missed = []
    print(f"\n{'':<33}{'shards':>9}{'seconds':>10}{'slowest':>10}{'CPU s':>10}{'MB':>7}{'before':>8}{'exponent':>10}")
    for step in STEPS:
        costs = [cost for other, cost in found if other is step]
        exponent = slope(costs)
        for cost in costs:
            times = f"{cost.seconds:>10.3f}{cost.slowest:>10.3f}{cost.cpu_seconds:>10.3f}"
            cells = f"{cost.shards:>9,}{times}{cost.megabytes:>7.0f}{cost.before:>8.0f}"
            last = "" if cost is not costs[-1] else f"{'flat' if exponent is None else f'{exponent:.2f}':>10}"
            print(f"{step.place:<7}{step.name:<26}{cells}{last}")
        if exponent is not None and exponent > STEEPEST:
            missed.append(f"{step.place}, {step.name}: time grows with shards to the power of {exponent:.2f}")
        if step.name.startswith("resume") and (costs[-1].seconds > RESUME_S or costs[-1].megabytes > RESUME_MB):
            missed.append(f"{step.place}, {step.name}: {costs[-1].seconds:.1f} s, {costs[-1].megabytes:.0f} MB")
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=1000, help="shards of a round, a quarter in each of four folders")
    parser.add_argument("--rounds", type=int, default=100, help="rounds of the run")
    parser.add_argument("--place", type=Path, help="folder for the simulated run, which is kept; default: a temporary")
    parser.add_argument("--json", type=Path, help="write every figure there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vpgea-scale-") as temporary:
        place = options.place or Path(temporary)
        found = [
            *grow_run(place, options.shards, options.rounds),
            *grow_phase(place, options.shards * options.rounds),
        ]
    missed = report(found)
    if options.json:
        about = {**machine(), "costs": [{"place": s.place, "step": s.name, **asdict(cost)} for s, cost in found]}
        options.json.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    for line in missed:
        print(f"missed: {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
