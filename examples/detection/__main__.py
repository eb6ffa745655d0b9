"""Which check finds which pseudo-efficient path, against the ground truth that no real task has.

    python -m examples.detection runs/overthinker
    python -m examples.detection runs/smollm2 --questions build/smollm2-questions/train.jsonl

Reads the folder of a loop, or of one round, of any testbed. Needs no model. Nothing is written.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from examples.detection.figures import LEAST_RECALL, MOST_LOSS, figures, pooled
from examples.detection.rounds import read_round
from examples.detection.tables import markdown
from examples.inputs import filtered_rounds
from vpgea_cli.main import told


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options, read, print."""
    parser = argparse.ArgumentParser(description="Hold the filter's checks against the ground truth.")
    parser.add_argument("folder", type=Path, help="folder of a loop, or one of its rounds")
    parser.add_argument("--questions", type=Path, help="of SmolLM2's: the question file that it trains on")
    parser.add_argument("--format", choices=("json", "markdown"), default="markdown", help="default: %(default)s")
    options = parser.parse_args(arguments)
    rounds = [read_round(folder, options.questions) for folder in filtered_rounds(options.folder)]
    found = [figures(one) for one in rounds]
    whole = figures(pooled(rounds)) if len(rounds) > 1 else found[0]
    if options.format == "markdown":
        print(markdown(found, whole))
        return
    goal = {"least_recall": LEAST_RECALL, "most_loss": MOST_LOSS}
    print(json.dumps({"goal": goal, "rounds": [one.as_dict() for one in found], "all": whole.as_dict()}, indent=2))


if __name__ == "__main__":
    sys.exit(told(main))
