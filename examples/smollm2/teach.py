"""Teach a model to over-think: `python -m examples.smollm2.teach --model build/smollm2 -o build/overthinking-smollm2`.

Writes the lessons, then runs phase 3 on them as `vpgea distill` would, with teach.yaml. Whatever stops it, the same
command goes on from the last checkpoint. The folder holds `lessons/` and `distill/`, whose adapter is what was taught.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from examples.inputs import count
from examples.smollm2.lessons import write_lessons
from vpgea.config.resolve import resolve
from vpgea.config.schema import RunConfig
from vpgea.phases.distill import distill
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.progress import NullReporter, Reporter
from vpgea.runs.records import DistillSummary
from vpgea.runs.stopping import StopRequest
from vpgea.training.data import TrainingSet
from vpgea_cli.main import told
from vpgea_cli.output import Output
from vpgea_cli.phase import running

CONFIG = Path(__file__).with_name("teach.yaml")
LESSONS, DISTILL = "lessons", "distill"


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options, teach, print the adapter's folder."""
    parser = argparse.ArgumentParser(description="Teach a model to over-think, with an adapter.")
    parser.add_argument("--model", required=True, help="folder of the model, as examples.smollm2.convert writes it")
    parser.add_argument("-o", "--output-dir", type=Path, required=True, help="folder of the lessons and the training")
    parser.add_argument("--tokens", type=count, default=2_500_000, help="tokens of completions to teach")
    parser.add_argument("--equations", action="store_true", help="teach bare equations, which the stories come after")
    parser.add_argument("--seed", type=int, default=0, help="seed of the lessons and of their order")
    parser.add_argument("--threads", type=count, help="CPU threads for torch; torch's own choice where none are given")
    options = parser.parse_args(arguments)
    output = Output()
    given = {"model.path": options.model, "model.threads": options.threads, "distill.seed": options.seed}
    config = resolve(file=CONFIG, options={key: value for key, value in given.items() if value is not None}).config
    with running(output, offline=False) as stop:
        wanted = options.output_dir, options.tokens, options.seed
        summary = teach(config, *wanted, equations=options.equations, stop=stop, reporter=output)
    output.result(options.output_dir / DISTILL / summary.output)


def teach(
    config: RunConfig,
    folder: Path,
    tokens: int,
    seed: int,
    *,
    equations: bool = False,
    stop: StopRequest | None = None,
    reporter: Reporter | None = None,
) -> DistillSummary:
    """Write the lessons and train on them, or go on where that stopped.

    Args:
        config: As teach.yaml says, with a model.
        folder: Gets `lessons/` and `distill/`.
        tokens: Of completions.
        seed: Of the lessons.
        equations: Bare ones instead of stories.
        stop: Heeded between questions and between steps, after a checkpoint.
        reporter: Hears how far it is.

    Raises:
        UsageError: Something else was taught there, or the model cannot be trained.
        Stopped: A stop was requested.
    """
    stop, reporter, lessons = stop or StopRequest(), reporter or NullReporter(), folder / LESSONS
    reporter.info(f"writing lessons of {tokens:,} tokens to {lessons}")
    write_lessons(lessons, config, tokens, seed, stop, equations=equations)
    steps = TrainingSet(CompletePhase.open(lessons, "filter"), config.distill).total_steps
    with reporter.progress(steps, "teach: steps") as progress:
        return distill(config, lessons, folder / DISTILL, stop=stop, progress=progress)


if __name__ == "__main__":
    sys.exit(told(main))
