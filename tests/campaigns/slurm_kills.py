"""Runs on the real SLURM whose processes are killed with SIGKILL at random moments, and submitted again each time.

    tests/slurm/run.sh python -m tests.campaigns.slurm_kills --kills 40 --seed 1

prints where each kill struck, and whether the outcome is, byte for byte, that of a loop in one undisturbed process.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.cluster import ClusterRun, vpgea, without_parts, write_config, write_site
from tests.support.loops import sample_keys
from vpgea.cluster import queue
from vpgea.cluster.chain import job_prefix

_MOST_FILES = 25  # that come into being before a kill
_LONGEST_DELAY_SECONDS = 0.5
_POLL_SECONDS = 0.02
_DEADLINE_S = 600.0
Say = Callable[[str], None]


@dataclass
class Outcome:
    """Kills that struck, runs that they were spread over, what differed, rows that are there twice."""

    kills: int = 0
    runs: int = 0
    differences: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)


def campaign(folder: Path, *, kills: int, seed: int, say: Say = print) -> Outcome:
    """Strike `kills` times, over as many runs as that takes."""
    rng, outcome = random.Random(seed), Outcome()
    config, site = write_config(folder, data__limit=8), write_site(folder)
    done = vpgea("loop", "-c", config, "-o", folder / "alone", "-q")
    assert done.returncode == 0, done.stderr
    expected = without_parts(ClusterRun(folder / "alone", site).results())
    say(f"undisturbed: {len(expected)} shards and weights; seed {seed}")
    while outcome.kills < kills:
        run = ClusterRun.prepare(folder / f"killed-{outcome.runs}", config, site)
        while outcome.kills < kills and _strike(run, rng, outcome, say):
            pass
        _submit_to_the_end(run)
        outcome.runs += 1
        found = without_parts(run.results())
        names = sorted(found.keys() | expected.keys())
        outcome.differences += [f"{run.folder.name}/{name}" for name in names if found.get(name) != expected.get(name)]
        keys: dict[str, int] = {}
        for place, counts in sample_keys(run.folder).items():
            for key, count in counts.items():
                phase = place.partition("/parts")[0]
                keys[f"{phase} {key}"] = keys.get(f"{phase} {key}", 0) + count
        outcome.repeated += [f"{run.folder.name}/{key}" for key, count in keys.items() if count != 1]
    return outcome


def _strike(run: ClusterRun, rng: random.Random, outcome: Outcome, say: Say) -> bool:
    """Submit, wait for some files and a moment, kill; False when the run was done before that."""
    run.submit()
    last_file, delay = _files(run) + rng.randint(0, _MOST_FILES), rng.uniform(0, _LONGEST_DELAY_SECONDS)
    prefix = job_prefix(run.folder)
    deadline = time.monotonic() + _DEADLINE_S
    while _files(run) < last_file and queue.queued(prefix):
        assert time.monotonic() < deadline, "the run stands still"
        time.sleep(_POLL_SECONDS)
    time.sleep(delay)
    struck = kill(prefix)
    _wait_until_empty(prefix)
    outcome.kills += bool(struck)
    if struck:
        say(f"kill {outcome.kills}: {struck} processes of {', '.join(sorted(struck_names(run)))}")
    return not _is_done(run)


def struck_names(run: ClusterRun) -> set[str]:
    """Phases that have a failure now."""
    told = vpgea("slurm", "status", run.folder).stderr
    return {line.split(":")[0] for line in told.splitlines() if ": job " in line} or {"a job that left no word"}


def kill(prefix: str, part: int | None = None) -> int:
    """SIGKILL to every vpgea process of the run's jobs, or of one element of its arrays; how many there were."""
    wanted, count = f"SLURM_JOB_NAME={prefix}".encode(), 0
    element = None if part is None else f"SLURM_ARRAY_TASK_ID={part}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            words = (folder / "cmdline").read_bytes()
            variables = (folder / "environ").read_bytes().split(b"\0")
            is_ours = any(entry.startswith(wanted) for entry in variables) and (not element or element in variables)
            if is_ours and b"python" in words and b"vpgea" in words:
                os.kill(int(folder.name), signal.SIGKILL)
                count += 1
    return count


def _submit_to_the_end(run: ClusterRun) -> None:
    for _ in range(3):
        if _is_done(run):
            return
        run.submit()
        _wait_until_empty(job_prefix(run.folder))
    raise RuntimeError(vpgea("slurm", "status", run.folder).stderr)


def _is_done(run: ClusterRun) -> bool:
    return "rounds are finished" in vpgea("slurm", "status", run.folder).stdout


def _wait_until_empty(prefix: str) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while queue.queued(prefix):
        assert time.monotonic() < deadline, "the queue does not become empty"
        time.sleep(0.2)


def _files(run: ClusterRun) -> int:
    return sum(len(names) for place, _, names in os.walk(run.folder) if "/slurm" not in place)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        outcome = campaign(Path(name), kills=options.kills, seed=options.seed)
    for line in (*outcome.differences, *outcome.repeated):
        print(f"differs or is there twice: {line}")
    print(
        f"{outcome.kills} kills over {outcome.runs} runs: {len(outcome.differences)} files differ, "
        f"{len(outcome.repeated)} rows twice"
    )
    return 1 if outcome.differences or outcome.repeated else 0


if __name__ == "__main__":
    sys.exit(main())
