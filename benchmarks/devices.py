"""Two devices against one: a rollout and a filter by two SGLang servers, a distillation by two ranks.

    python -m benchmarks.devices --json devices.json

The devices are the CPU, once and twice with one thread each, so this needs two free cores; with `--gpus` the first GPU
against the first two. Servers are started once, and a training's figure is that of its optimiser steps, without the
start of its ranks. CPU seconds are those of servers and client together: one device that keeps more than one of two
cores busy cannot be twice as fast as two. `--model` measures rollout and filter with another model, all of whose
answers count as right, so that every path is checked.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from benchmarks.places import GSM8K, TESTBED
from benchmarks.ratios import Comparison, Run, interleave, machine, report, timed
from vpgea.config.resolve import resolve
from vpgea.config.schema import RunConfig
from vpgea.engines.lease import EngineLease
from vpgea.modeling.local_model import LocalModel
from vpgea.phases.distill_ranks import distill_on_devices
from vpgea.phases.filter import filter_rollout
from vpgea.phases.rollout import RolloutPlan, rollout
from vpgea.questions.load import load_questions
from vpgea.runs.layout import LOGS, METRICS
from vpgea.runs.stopping import StopRequest

PHASES = ("rollout", "filter", "distill")
COUNTS = (1, 2)


class Way:
    """The phases on so many devices."""

    def __init__(self, config: RunConfig, folder: Path, lease: EngineLease) -> None:
        self.config, self.folder, self._lease = config, folder, lease
        self.engine = lease.get(config, LocalModel.resolve(config.model))
        self.plan = RolloutPlan.make(config, load_questions(config.data).questions)

    def run(self, name: str, phases: Sequence[str]) -> dict[str, Run]:
        """Each phase on what the one before it made."""
        work = {
            "rollout": lambda: _timed(self._sample),
            "filter": lambda: _timed(self._filter),
            "distill": self._train,
        }
        for phase in phases:
            shutil.rmtree(self.folder / phase, ignore_errors=True)
        return {f"{phase} {name}": work[phase]() for phase in phases}

    def _sample(self) -> int:
        before = self.engine.usage.sampled_tokens
        rollout(self.plan, self.folder / "rollout", lease=self._lease)
        return self.engine.usage.sampled_tokens - before

    def _filter(self) -> int:
        """Tokens sampled and scored."""
        before = self.engine.usage.sampled_tokens + self.engine.usage.scored_tokens
        filter_rollout(self.config, self.folder / "rollout", self.folder / "filter", lease=self._lease)
        return self.engine.usage.sampled_tokens + self.engine.usage.scored_tokens - before

    def _train(self) -> Run:
        target = self.folder / "distill"
        distill_on_devices(self.config, self.folder / "filter", target, target / LOGS)
        lines = [json.loads(line) for line in (target / METRICS).read_text(encoding="utf-8").splitlines()]
        _, *steps = lines  # the first step also computes what all others need
        return Run(sum(line["tokens"] for line in steps), sum(line["seconds"] for line in steps))


def _timed(work: Callable[[], int]) -> Run:
    """With the CPU seconds of this process and of all that it has started."""
    before = _cpu_seconds()
    run = timed(work)
    return replace(run, cpu_seconds=_cpu_seconds() - before)


def _cpu_seconds() -> float:
    here = psutil.Process()
    times = [process.cpu_times() for process in (here, *here.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def right(*, response: str, reference: str, question: str) -> bool:
    """A grader that takes every answer."""
    return True


def configured(arguments: argparse.Namespace, count: int) -> RunConfig:
    options: dict[str, Any] = {
        "model.devices": str(count) if arguments.gpus else f"cpu:{count}",
        "model.threads": 1,
        "rollout.engine": "sglang",
        "data.limit": arguments.questions,
    }
    if arguments.model:
        samples = {"prior_samples": arguments.samples, "posterior_samples": arguments.samples}
        rows = {"max_new_tokens": 128, "questions_per_chunk": arguments.questions}
        options |= {f"rollout.{name}": value for name, value in (samples | rows).items()}
        options |= {"model.path": str(arguments.model), "data.dataset": str(GSM8K), "views.end_of_thinking": "."}
        options |= {"grading.grader": "benchmarks.devices:right", "filter.min_selected": 0}
        options["filter.answerability.max_new_tokens"] = 32  # this model rarely ends an answer by itself
        return resolve(options=options).config
    options["distill.questions_per_step"] = max(arguments.questions // 8, 1)
    return resolve(file=TESTBED / "overthinker.yaml", options=options).config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, help="from which samples are drawn (default: 256, with --model 16)")
    parser.add_argument("--samples", type=int, default=8, help="of each view for each question, with --model")
    parser.add_argument("--rounds", type=int, default=7, help="times that each way is measured")
    parser.add_argument("--model", type=Path, help="folder of another model than the testbed's (examples/smollm2)")
    parser.add_argument(
        "--phases", nargs="+", choices=PHASES, help="only these (default: all, with --model no distill)"
    )
    parser.add_argument("--gpus", action="store_true", help="GPUs instead of the CPU")
    parser.add_argument("--json", type=Path, help="file for every single run")
    arguments = parser.parse_args()
    arguments.questions = arguments.questions or (16 if arguments.model else 256)
    phases = arguments.phases or (PHASES[:2] if arguments.model else PHASES)
    with tempfile.TemporaryDirectory(prefix="vpgea-devices-") as name, ExitStack() as stack:
        folders = {count: Path(name) / str(count) for count in COUNTS}
        leases = {count: stack.enter_context(EngineLease(folders[count] / LOGS, StopRequest())) for count in COUNTS}
        ways = {count: Way(configured(arguments, count), folders[count], leases[count]) for count in COUNTS}
        runs = {str(count): partial(way.run, str(count), phases) for count, way in ways.items()}
        rounds = interleave(runs, arguments.rounds)
    comparisons = [Comparison(f"{phase}: two devices / one", f"{phase} 2", f"{phase} 1") for phase in phases]
    settings = {
        "questions": arguments.questions,
        "samples": arguments.samples,
        "gpus": arguments.gpus,
        "model": str(arguments.model or "testbed"),
    }
    about = {"settings": settings, "machine": machine()}
    report(rounds, comparisons, about=about, file=arguments.json, measured="servers and client")


if __name__ == "__main__":
    main()
