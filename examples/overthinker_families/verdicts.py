"""What the filter says of each kind of path, against the ground truth that no real task has.

    python -m examples.overthinker_families.verdicts runs/families-loop

Reads the folder of a loop, or of one round, and prints one line of JSON per round. Needs no model.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from examples.inputs import filtered_rounds
from examples.overthinker.soundness import RightPath, right_paths, share
from examples.overthinker_families.problems import Problem
from examples.overthinker_families.truth import Label, judge
from vpgea_cli.main import told


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options, read, print."""
    parser = argparse.ArgumentParser(description="Compare the filter's verdicts with the kinds of paths.")
    parser.add_argument("folder", type=Path, help="folder of a loop, or one of its rounds")
    for path in filtered_rounds(parser.parse_args(arguments).folder):
        print(json.dumps({"round": path.name, **figures(right_paths(path, Problem.read))}))


def figures(paths: Sequence[RightPath]) -> dict[str, object]:
    """Of the posterior paths whose own answer is right, by label: how many there are and were accepted."""
    labels = [judge(Problem.read(path.question, path.options), path.thinking) for path in paths]
    accepted = [label for label, path in zip(labels, paths, strict=True) if not path.reasons]
    return {
        "right": len(paths),
        "accepted": len(accepted),
        "sound_share_of_accepted": share([label == Label.SOUND for label in accepted]),
        "by_label": {label: {"count": labels.count(label), "accepted": accepted.count(label)} for label in Label},
    }


if __name__ == "__main__":
    sys.exit(told(main))
