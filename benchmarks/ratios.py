"""Ways of doing the same work, timed in turns: ratios within each round, their median and its interval.

A round runs every way once, one right after the other, so that what else the machine does meanwhile falls on all of
them; rounds begin with another way in turn.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from vpgea.metrics.estimates import Estimate
from vpgea.metrics.resampling import LEVEL

_DRAWS = 10_000


@dataclass(frozen=True)
class Run:
    """What one way did in one round. cpu_seconds: of what did it; None where that was not measured alone."""

    tokens: int
    seconds: float
    cpu_seconds: float | None = None

    @property
    def speed(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds

    @property
    def cpu_per_thousand(self) -> float | None:
        """CPU seconds per 1,000 tokens."""
        return None if self.cpu_seconds is None else 1000 * self.cpu_seconds / self.tokens


Rounds = list[dict[str, Run]]


@dataclass(frozen=True)
class Comparison:
    """`way` against `other`, both names of ways in the rounds."""

    label: str
    way: str
    other: str


def interleave(ways: Mapping[str, Callable[[], Mapping[str, Run]]], rounds: int) -> Rounds:
    """Run every way once per round and once before, uncounted. A way returns its run, or several, by name."""
    results: Rounds = []
    order = list(ways)
    for number in range(-1, rounds):
        result: dict[str, Run] = {}
        for position in range(len(order)):
            result |= ways[order[(position + number) % len(order)]]()
        speeds = "  ".join(f"{name} {run.speed:,.0f}" for name, run in sorted(result.items()))
        print(f"{'uncounted' if number < 0 else f'round {number + 1}':<10} tokens/s: {speeds}", flush=True)
        if number >= 0:
            results.append(result)
    return results


def median_ratio(values: Sequence[float], others: Sequence[float], *, seed: int = 0) -> Estimate:
    """Median of the ratios of each round, with the percentile interval of a bootstrap over rounds."""
    ratios = np.asarray(values, np.float64) / np.asarray(others, np.float64)
    picks = np.random.default_rng(seed).integers(ratios.size, size=(_DRAWS, ratios.size))
    low, high = np.quantile(np.median(ratios[picks], axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value=float(np.median(ratios)), low=float(low), high=float(high), n=ratios.size)


def report(
    rounds: Rounds,
    comparisons: Sequence[Comparison],
    *,
    about: dict[str, Any],
    file: Path | None,
    measured: str = "the client",
) -> None:
    """Print a table; write it with every single run to a JSON file where one is given. measured: whose CPU it was."""
    entries = [_compare(rounds, comparison) for comparison in comparisons]
    with_cpu = any(run.cpu_seconds is not None for result in rounds for run in result.values())
    heads = f"{'CPU s':>8}{'other':>8}" if with_cpu else ""
    print(f"\n{'':<40}{'ratio':>7}{'95 % interval':>17}{'tokens/s':>10}{'other':>8}{heads}")
    for entry in entries:
        ratio = entry["ratio"]
        interval = f"{ratio['low']:.2f} to {ratio['high']:.2f}"
        cells = "".join(f"{value:>8.3f}" for value in (entry["cpu"], entry["other_cpu"]) if value is not None)
        speeds = f"{entry['speed']:>10,.0f}{entry['other_speed']:>8,.0f}"
        print(f"{entry['label']:<40}{ratio['value']:>7.2f}{interval:>17}{speeds}{cells}")
    print(f"medians of {len(rounds)} rounds" + (f"; CPU s: of {measured}, per 1,000 tokens" if with_cpu else ""))
    if file is not None:
        runs = [{name: asdict(run) for name, run in result.items()} for result in rounds]
        file.write_text(
            json.dumps({**about, "comparisons": entries, "rounds": runs}, indent=2) + "\n", encoding="utf-8"
        )


def machine() -> dict[str, Any]:
    """Where and when, and with which versions of what runs in this process."""
    names = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": next(iter(names), platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("vpgea", "torch", "transformers")},
    }


def timed(work: Callable[[], int]) -> Run:
    """A run of work that returns its number of tokens."""
    began = time.perf_counter()
    tokens = work()
    return Run(tokens, time.perf_counter() - began)


def _compare(rounds: Rounds, comparison: Comparison) -> dict[str, Any]:
    ours, others = ([result[name] for result in rounds] for name in (comparison.way, comparison.other))
    return {
        "label": comparison.label,
        "ratio": median_ratio([run.speed for run in ours], [run.speed for run in others]).as_dict(),
        "speed": float(np.median([run.speed for run in ours])),
        "other_speed": float(np.median([run.speed for run in others])),
        "cpu": _median_cpu(ours),
        "other_cpu": _median_cpu(others),
    }


def _median_cpu(runs: Sequence[Run]) -> float | None:
    values = [run.cpu_per_thousand for run in runs if run.cpu_per_thousand is not None]
    return float(np.median(values)) if values else None


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).is_file() else []
