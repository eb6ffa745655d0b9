"""A loop that is killed with SIGKILL at random moments and resumed each time, compared with one left in peace.

    python -m tests.campaigns.kills --kills 20 --seed 1

prints where each kill struck and whether the outcome is, byte for byte, that of the undisturbed run.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import tiny
from tests.support.forks import Fork, Forks
from tests.support.loops import essence, sample_keys, write_config

_ORPHAN_SECONDS = 30.0
_POLL_SECONDS = 0.005
_MOST_FILES = 20  # that an attempt may write before it is killed
_LONGEST_DELAY_SECONDS = 0.3  # and how long it may live after that
Say = Callable[[str], None]


@dataclass
class Campaign:
    """What came of it: kills that struck, runs that they were spread over, what differed, processes left behind."""

    kills: int = 0
    runs: int = 0
    differences: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    orphans: int = 0


def campaign(config: Path, folder: Path, forks: Forks, *, kills: int, seed: int, say: Say = print) -> Campaign:
    """Strike `kills` times, over as many runs as that takes, and compare every finished run with an undisturbed one."""
    rng, result = random.Random(seed), Campaign()
    _finish(config, folder / "undisturbed", forks)
    expected = essence(folder / "undisturbed")
    say(f"undisturbed: {len(expected)} files; seed {seed}")
    while result.kills < kills:
        run_dir = folder / f"killed-{result.runs}"
        while result.kills < kills and _strike(config, run_dir, forks, rng):
            result.kills += 1
            result.orphans += _orphans(forks)
            say(f"kill {result.kills}: {_place(run_dir)}")
        _finish(config, run_dir, forks)
        result.runs += 1
        found = essence(run_dir)
        names = sorted(found.keys() | expected.keys())
        result.differences += [f"{run_dir.name}/{name}" for name in names if found.get(name) != expected.get(name)]
        result.repeated += [
            f"{run_dir.name}/{phase} {key}"
            for phase, keys in sample_keys(run_dir).items()
            for key, count in keys.items()
            if count != 1
        ]
    return result


def _start(config: Path, run_dir: Path, forks: Forks) -> Fork:
    return forks.start(["loop", "--config", config, "--output-dir", run_dir, "--quiet"], run_dir.parent, "loop")


def _finish(config: Path, run_dir: Path, forks: Forks) -> None:
    process = _start(config, run_dir, forks)
    if process.wait() != 0:
        raise RuntimeError(f"the loop ended with {process.returncode}: {process.err.read_text()}")


def _strike(config: Path, run_dir: Path, forks: Forks, rng: random.Random) -> bool:
    """Kill the loop some files and a moment after its start; False when it was done before.

    Files are the clock, since they pass at the pace of the work on any machine.
    """
    last_file = _files(run_dir) + rng.randint(0, _MOST_FILES)
    delay = rng.uniform(0, _LONGEST_DELAY_SECONDS)
    process = _start(config, run_dir, forks)
    while process.poll() is None and _files(run_dir) < last_file:
        time.sleep(_POLL_SECONDS)
    with suppress(subprocess.TimeoutExpired):
        process.wait(delay)
    process.kill()
    if process.wait() not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the resumed loop ended with {process.returncode}: {process.err.read_text()}")
    return process.returncode != 0


def _files(run_dir: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(run_dir))


def _orphans(forks: Forks) -> int:
    """Processes of the campaign that are still there some seconds after their parent was killed."""
    deadline = time.monotonic() + _ORPHAN_SECONDS
    while (left := len(forks.descendants())) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _place(run_dir: Path) -> str:
    """The file written last, which tells the phase that was under way."""
    files = [path for path in run_dir.rglob("*") if path.is_file()]
    if not files:
        return "before the first file"
    newest = max(files, key=lambda path: path.stat().st_mtime_ns)
    return f"after {newest.relative_to(run_dir)} ({len(files)} files)"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Forks() as forks:
        folder = Path(name)
        config = write_config(folder, tiny.make_model(folder / "model", train_steps=100))
        result = campaign(config, folder, forks, kills=options.kills, seed=options.seed)
    for line in (*result.differences, *result.repeated):
        print(f"differs or is there twice: {line}")
    print(
        f"{result.kills} kills over {result.runs} runs: {len(result.differences)} files differ, "
        f"{len(result.repeated)} rows twice, {result.orphans} processes left behind"
    )
    return 1 if result.differences or result.repeated or result.orphans else 0


if __name__ == "__main__":
    sys.exit(main())
