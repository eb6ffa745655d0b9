"""Many rounds of the testbed's loop with the real server, and what its processes hold after each of them.

    python -m tests.campaigns.soak --rounds 12                # one server for the whole loop, takes new weights
    python -m tests.campaigns.soak --rounds 12 --own-server   # a server of the loop's own, started anew for every round

prints memory, open files, threads and processes at the end of each round, and fails when they grow.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support import overthinker, servers
from tests.support.servers import Command, until

SMALL = {
    "data.dataset": str(overthinker.ROOT / "questions" / "train.jsonl"),
    "data.limit": 512,
    "loop.eval_dataset": str(overthinker.ROOT / "questions" / "dev.jsonl"),
    "loop.eval_limit": 64,
    "loop.questions_per_round": 32,
    "rollout.prior_samples": 4,
    "rollout.posterior_samples": 4,
    "rollout.questions_per_chunk": 16,
    "model.dtype": "float32",
    "distill.learning_rate": 2e-4,
    "distill.questions_per_step": 8,
}
WARM_UP = 1  # rounds in which allocators and caches find their size
LARGEST_GROWTH = 1.05  # of memory, late rounds against early ones; counts may not exceed the early ones'
_HOUR = 3600.0


@dataclass(frozen=True)
class Held:
    """What a group of processes holds."""

    memory_mib: float
    files: int
    threads: int
    processes: int


def held(pids: Sequence[int]) -> Held:
    """Sums over processes; one that ends meanwhile is left out."""
    memory = files = threads = processes = 0
    for pid in pids:
        try:
            fields = dict(
                line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
            )
            open_files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
            memory += int(fields["VmRSS"].split()[0])
            threads += int(fields["Threads"])
        except (OSError, KeyError):
            continue
        files += open_files
        processes += 1
    return Held(memory / 1024, files, threads, processes)


def least(samples: Sequence[Held]) -> Held:
    """The last memory and the smallest counts."""
    counts = {name: min(getattr(one, name) for one in samples) for name in ("files", "threads", "processes")}
    return Held(samples[-1].memory_mib, **counts)


def soak(folder: Path, rounds: int, *, own_server: bool) -> dict[str, list[Held]]:
    """What the loop and the server hold in each round: memory at its end, and the fewest files, threads and processes.

    Those come and go with the work, at any moment another number; what leaks is there at every moment.
    """
    options = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    server = None
    if own_server:
        reach: list[str | Path] = ["--sglang-python", servers.python()]
    else:
        model = overthinker.OPTIONS["model.path"]
        words = ["--model", model, "--sglang-python", servers.python(), "--set", "model.dtype=float32"]
        server = Command("serve", *words, "--set", "model.device=cpu", "-o", folder / "server", "-q")
        until((folder / "server" / "server.json").is_file, 300, "the server is ready", 0.5)
        reach = ["--server-url", folder / "server" / "server.json"]
    loop = Command(
        "loop", *servers.testbed_options(), *options, "--rounds", str(rounds), "-o", folder / "run", "-q", *reach
    )
    found: dict[str, list[Held]] = {"loop": [], "server": []}
    for index in range(rounds):
        record = folder / "run" / f"round-{index:03d}" / "round.json"
        deadline = time.monotonic() + _HOUR
        seen: dict[str, list[Held]] = {"loop": [], "server": []}
        while not seen["loop"] or not record.is_file():
            assert time.monotonic() < deadline, f"round {index} does not end"
            assert loop.process.poll() is None, loop.end()[2]
            seen["loop"].append(held([loop.process.pid] if own_server else loop.descendants()))
            if server:
                seen["server"].append(held(server.descendants()))
            time.sleep(0.2)
        for who, samples in seen.items():
            found[who] += [least(samples)] if samples else []
        print(f"round {index:2}: {'; '.join(f'{who} {values[-1]}' for who, values in found.items() if values)}")
    code, _, told = loop.end()
    assert code == 0, told
    if server:
        server.process.send_signal(signal.SIGINT)
        server.end()
    return {name: values for name, values in found.items() if values}


def growth(values: Sequence[Held]) -> list[str]:
    """What the later half of the rounds after the warm-up holds more than the earlier half.

    Memory is compared by its medians. Of a count even the fewest of the late rounds must be more than the most of the
    early ones, and it must still grow among the late ones: a thread that happened to be at work at every look of one
    round, or that a library began once for the rest of the process, is no leak; a leak goes on.
    """
    settled = values[WARM_UP:]
    middle = len(settled) // 2
    early, late = settled[:middle], settled[middle:]
    grown = []
    for name in ("memory_mib", "files", "threads", "processes"):
        of_early, of_late = (statistics.median, statistics.median) if name == "memory_mib" else (max, min)
        before = of_early(getattr(one, name) for one in early)
        after = of_late(getattr(one, name) for one in late)
        print(f"  {name}: {before:,.1f} -> {after:,.1f}")
        goes_on = name == "memory_mib" or getattr(late[-1], name) > getattr(late[0], name)
        if goes_on and after > before * (LARGEST_GROWTH if name == "memory_mib" else 1):
            grown.append(f"{name} grew from {before:,.1f} to {after:,.1f}")
    return grown


def grown_in(found: dict[str, list[Held]]) -> list[str]:
    """What grew, of the loop and the server."""
    grown = []
    for who, values in found.items():
        print(f"{who}, early and late rounds (memory: medians, others: most of the early, fewest of the late):")
        grown += [f"{who}: {what}" for what in growth(values)]
    return grown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--own-server", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        grown = grown_in(soak(Path(name), options.rounds, own_server=options.own_server))
    for line in grown:
        print(line)
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
