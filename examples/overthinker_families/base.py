"""Make a testbed of the families: a base model that over-thinks, its questions and its configuration.

    python -m examples.overthinker_families.base --size small --bottleneck 0.01 --seed 0 -o runs/families

The same options and thread count give the same files on the same machine.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch

from examples.inputs import count
from examples.overthinker.build import Size, check_ids, new_model, train
from examples.overthinker.chat import build_tokenizer
from examples.overthinker.write_questions import write
from examples.overthinker_families.corpus import TEMPLATE, WORDS, questions, stages
from examples.overthinker_families.paths import BOTTLENECKS
from vpgea.storage.files import write_json
from vpgea_cli.main import told
from vpgea_cli.output import writing_to

SIZES = {  # parameters
    "tiny": Size(width=64, inner=160, layers=4, heads=4, head=16),  # 0.2 million
    "small": Size(width=128, inner=352, layers=5, heads=4, head=32),  # 1 million
    "medium": Size(width=256, inner=768, layers=6, heads=8, head=32),  # 5 million
}
STEPS = 3000
CONFIGURATION, GRID = (Path(__file__).with_name(name) for name in ("loop.yaml", "experiment.yaml"))
MADE = "made.json"  # how a testbed was made


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options, write everything."""
    parser = argparse.ArgumentParser(description="Make a base model of the question families, with its questions.")
    parser.add_argument("--size", choices=SIZES, default="small", help="parameters: 0.2, 1 or 5 million")
    parser.add_argument(
        "--bottleneck",
        type=bottleneck_share,
        default=0.01,
        help="share of prior samples that are right and within 1.3x of the shortest sound path: 0.001 to 0.5",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and paths")
    parser.add_argument("--steps", type=count, default=STEPS, help="optimiser steps")
    parser.add_argument("--threads", type=count, default=1, help="CPU threads")
    parser.add_argument("--output", "-o", type=Path, required=True, help="folder of the testbed")
    options = parser.parse_args(arguments)
    with writing_to(options.output):  # before minutes of training
        options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    make(options.output, options.size, options.bottleneck, options.seed, options.steps)
    print(options.output)


def make(folder: Path, size: str, bottleneck: float, seed: int, steps: int) -> None:
    """Train the base model and write the testbed: `base`, `questions`, the YAML files, made.json."""
    rows = questions()
    (folder / "questions").mkdir(parents=True, exist_ok=True)
    write(folder / "questions", rows)
    held_out = {row["question"] for name in ("dev", "test") for row in rows[name]}
    tokenizer = build_tokenizer(WORDS)
    model = new_model(tokenizer, seed, SIZES[size])
    train(model, check_ids(tokenizer), stages(tokenizer, bottleneck, steps, held_out, Random(seed)), steps)
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    for file in (CONFIGURATION, GRID, TEMPLATE):
        shutil.copy(file, folder / file.name)
    made = {"size": size, "parameters": model.num_parameters(), "bottleneck": bottleneck, "seed": seed, "steps": steps}
    write_json(folder / MADE, made)


def bottleneck_share(text: str) -> float:
    """The option as a share; the range is that of the dial."""
    low, high = BOTTLENECKS
    value = float(text)
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{text} is outside of {low} to {high}; give a share, 0.01 for 1 %")
    return value


if __name__ == "__main__":
    sys.exit(told(main))
