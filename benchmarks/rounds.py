"""What many short rounds cost beside one long one: the same questions and optimiser steps on the testbed, in turns.

Both ways draw, filter and train on as many questions in as many steps: once in one round, once in a round for each
step. Both measure the base model and the last weights alone. Where the time went is printed by activity, in seconds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.places import TESTBED
from benchmarks.ratios import Rounds, Run, interleave, machine, median_ratio, timed
from vpgea.config.resolve import resolve
from vpgea.config.schema import RunConfig
from vpgea.phases.loop import Loop
from vpgea.runs.clock import ROUND_COLUMNS, columns_of
from vpgea.runs.history import all_lines

GOAL = 1.5  # of short rounds, in wall-clock times of one long one
LONG, SHORT = "one long round", "short rounds"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each way, besides an uncounted one")
    parser.add_argument("--steps", type=int, default=20, help="optimiser steps, and short rounds")
    parser.add_argument("--questions-per-step", type=int, default=16)
    parser.add_argument("--train", choices=("full", "lora"), default="full")
    parser.add_argument("--json", type=Path, help="write every run to this file")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        seconds: dict[str, list[dict[str, float]]] = {LONG: [], SHORT: []}
        ways: dict[str, Callable[[], dict[str, Run]]] = {
            way: partial(_run, way, _config(options, way), Path(name) / "run", seconds[way]) for way in seconds
        }
        rounds = interleave(ways, options.repeats)
    _report(rounds, {way: found[1:] for way, found in seconds.items()}, options)


def _config(options: argparse.Namespace, way: str) -> RunConfig:
    rounds = options.steps if way == SHORT else 1
    questions = options.questions_per_step * (1 if way == SHORT else options.steps)
    values: dict[str, Any] = {
        "distill.train": options.train,
        "distill.questions_per_step": options.questions_per_step,
        "distill.learning_rate": 1e-12,  # else short rounds soon draw short paths, and less is done in them
        "loop.rounds": rounds,
        "loop.questions_per_round": questions,
        "loop.eval_every": rounds,
        "loop.eval_limit": options.questions_per_step,  # else the two evaluations of either way are most of its time
        "filter.min_selected": 0,
    }
    return resolve(file=TESTBED / "overthinker.yaml", options=values).config


def _run(way: str, config: RunConfig, folder: Path, seconds: list[dict[str, float]]) -> dict[str, Run]:
    """One loop from an empty folder; its tokens are those that were trained on."""
    shutil.rmtree(folder, ignore_errors=True)

    def loop() -> int:
        lines = Loop.open(config, folder).run()
        return sum(line.trained_tokens or 0 for line in lines)

    run = timed(loop)
    found = dict.fromkeys((*ROUND_COLUMNS, "between phases"), 0.0)
    for line in all_lines(folder):
        for column, value in columns_of(line.times or {}).items():
            found[column] += value
    found["between phases"] = run.seconds - sum(found.values())
    seconds.append(found)
    return {way: run}


def _report(rounds: Rounds, seconds: dict[str, list[dict[str, float]]], options: argparse.Namespace) -> None:
    times = {way: [result[way].seconds for result in rounds] for way in seconds}
    ratio = median_ratio(times[SHORT], times[LONG])
    medians = {
        way: {name: float(np.median([one[name] for one in found])) for name in found[0]}
        for way, found in seconds.items()
    }
    print(f"\n{'seconds (medians)':<18}{LONG:>16}{SHORT:>14}{'ratio':>8}")
    for name in medians[LONG]:
        one, many = medians[LONG][name], medians[SHORT][name]
        print(f"{name:<18}{one:>16.2f}{many:>14.2f}" + (f"{many / one:>8.2f}" if one else ""))
    print(f"{'all':<18}{np.median(times[LONG]):>16.2f}{np.median(times[SHORT]):>14.2f}{ratio.value:>8.2f}")
    print(
        f"{options.steps} rounds of one step: {ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f}) times as long as "
        f"one round of {options.steps} steps; the goal is at most {GOAL}; {len(rounds)} repeats"
    )
    if options.json is not None:
        runs = [{name: asdict(run) for name, run in result.items()} for result in rounds]
        record = {
            **machine(),
            "options": vars(options) | {"json": None},
            "ratio": ratio.as_dict(),
            "seconds": seconds,
            "rounds": runs,
        }
        options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
