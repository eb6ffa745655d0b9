"""Dividing the inputs over the targets; one child process per target, started again when an input kills it."""

from __future__ import annotations

import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.forks import Forks

ROOT = Path(__file__).parents[3]
LAST_INPUT = "input"  # in a child's folder: the repr of the input it is at
TALLY = "tally.json"  # and what it has counted so far
_MOST_DEATHS = 20  # of one target's children, before the target is given up
_SHOWN = 2000  # characters of an input, and of the error behind it
_MARK = "File "  # of a frame, in what faulthandler prints

# Inputs of 100 that each target gets; the modules are tests.campaigns.fuzz.targets.NAME.
TARGETS = {
    "question_lines": 25,
    "question_tables": 14,
    "configuration": 16,
    "settings": 12,
    "shards": 13,
    "manifests": 10,
    "answers": 4,
    "views": 5,
    "command_lines": 1,
}
_IMPORTS = ("hypothesis", "vpgea.grading.worker", *(f"tests.campaigns.fuzz.targets.{name}" for name in TARGETS))
_CHILD = "import sys; from tests.campaigns.fuzz.child import main; main(*sys.argv[1:])"
Say = Callable[[str], None]


@dataclass
class Tally:
    """How the inputs of one target ended; a finding is told once for each place that it comes from."""

    outcomes: Counter[str] = field(default_factory=Counter)
    findings: dict[str, str] = field(default_factory=dict)

    @property
    def inputs(self) -> int:
        return self.outcomes.total()


def campaign(
    forks: Forks, *, inputs: int, seed: int, only: str | None = None, jobs: int = 1, say: Say = print
) -> dict[str, Tally]:
    """Give the targets their shares of the inputs and tell what came of it."""
    shares = {only: inputs} if only else {name: -(-inputs * share // 100) for name, share in TARGETS.items()}
    say(f"seed {seed}")
    forks.load(_IMPORTS)
    with ThreadPoolExecutor(jobs) as executor:
        running = {name: executor.submit(_fuzz, name, count, seed, forks) for name, count in shares.items()}
        results = {}
        for name, future in running.items():
            tally = results[name] = future.result()
            counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(tally.outcomes.items()))
            say(f"{name}: {tally.inputs} inputs: {counts}; {len(tally.findings)} findings")
            for place, text in tally.findings.items():
                shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ... {text[-_SHOWN:]}"
                say(f"FINDING in {name}, seed {seed}: {place}\n  input: {shown}")
    total = sum(tally.inputs for tally in results.values())
    say(f"all: {total} inputs, {sum(len(tally.findings) for tally in results.values())} findings")
    return results


def _fuzz(name: str, inputs: int, seed: int, forks: Forks) -> Tally:
    total, deaths = Tally(), 0
    rng = random.Random(f"{seed} {name}")
    while total.inputs < inputs and deaths < _MOST_DEATHS:
        with tempfile.TemporaryDirectory() as folder:
            died = _child(name, inputs - total.inputs, rng.randrange(2**32), Path(folder), total, forks)
        if died:
            deaths += 1
            total.outcomes["fatal"] += 1
            total.findings.setdefault(*died)
    return total


def _child(name: str, inputs: int, seed: int, folder: Path, total: Tally, forks: Forks) -> tuple[str, str] | None:
    """Let a process try the inputs and add its counts; when it died, return how and at which input."""
    process = forks.start([name, str(inputs), str(seed), folder], folder, "child", script=_CHILD)
    process.wait()
    counted = folder / TALLY
    if counted.exists():
        tally = json.loads(counted.read_text())
        total.outcomes.update(tally["outcomes"])
        for place, text in tally["findings"].items():
            total.findings.setdefault(place, text)
    if process.returncode == 0:
        return None
    told = process.err.read_text(errors="replace")
    last = folder / LAST_INPUT
    if not last.exists():
        raise RuntimeError(f"the target {name} did not start: {told}")
    frames = [line.strip() for line in told.splitlines() if _MARK in line]
    return f"the process ended with {process.returncode}, at {frames[0] if frames else told}", last.read_text()
