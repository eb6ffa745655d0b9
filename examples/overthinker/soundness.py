"""How well the filter's checks tell sound paths from unsound ones, against the ground truth that no real task has.

    python -m examples.overthinker.soundness runs/overthinker

Reads the folder of a loop, or of one round, and prints one line of JSON per round. Needs no model.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.inputs import filtered_rounds, judged_rows, require_readable
from examples.overthinker.chat import END_OF_THINKING
from examples.overthinker.language import Question, is_sound
from vpgea.runs.complete_phase import CompletePhase
from vpgea.storage.shards import iterate_rows
from vpgea_cli.main import told


@dataclass(frozen=True)
class Judged:
    """A posterior path whose own answer is right. reasons: why the filter rejected it, empty where it did not."""

    sound: bool
    reasons: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options, read, print."""
    parser = argparse.ArgumentParser(description="Compare the filter's verdicts with the ground truth.")
    parser.add_argument("folder", type=Path, help="folder of a loop, or one of its rounds")
    for path in filtered_rounds(parser.parse_args(arguments).folder):
        print(json.dumps({"round": path.name, **figures(judged(path))}))


@dataclass(frozen=True)
class RightPath:
    """A posterior path whose own answer is right, and why the filter rejected it."""

    question: str
    options: tuple[str, ...]
    thinking: str
    reasons: tuple[str, ...]


def right_paths(round_folder: Path, read: Callable[[str, Sequence[str]], object]) -> list[RightPath]:
    """The posterior paths of a round whose own answer is right.

    Args:
        round_folder: Of the round.
        read: Takes a question and its options apart; ValueError where they are not the testbed's.

    Raises:
        UsageError: The run is of another testbed, or its rollout is not there.
    """
    rollout = CompletePhase.open(round_folder / "rollout", "rollout")
    questions = {row["question_id"]: (row["question"], tuple(row["options"])) for row in iterate_rows(rollout.chunks())}
    require_readable(rollout.root, questions.values(), read)
    return [
        RightPath(*questions[row["question_id"]], row["completion"].split(END_OF_THINKING)[0], tuple(row["reasons"]))
        for row in judged_rows(round_folder)
        if row["view"] == "posterior" and row["status"] == "correct"
    ]


def judged(round_folder: Path) -> list[Judged]:
    """Is each of them sound?"""
    paths = right_paths(round_folder, lambda question, options: Question.parse(question))
    return [Judged(is_sound(path.question, path.thinking), path.reasons) for path in paths]


def figures(paths: Sequence[Judged]) -> dict[str, object]:
    """Shares of sound paths, and for each reason how many of the unsound it takes (recall) and of the sound (loss)."""
    sound, unsound = ([path for path in paths if path.sound is kind] for kind in (True, False))
    reasons = sorted({reason for path in paths for reason in path.reasons})
    return {
        "right": len(paths),
        "sound_share_of_right": share([path.sound for path in paths]),
        "accepted": sum(not path.reasons for path in paths),
        "sound_share_of_accepted": share([path.sound for path in paths if not path.reasons]),
        "recall": share([bool(path.reasons) for path in unsound]),
        "loss": share([bool(path.reasons) for path in sound]),
        "by_reason": {
            reason: {
                "recall": share([reason in path.reasons for path in unsound]),
                "loss": share([reason in path.reasons for path in sound]),
            }
            for reason in reasons
        },
    }


def share(flags: Sequence[bool]) -> float | None:
    """Share of true flags; None of none."""
    return round(sum(flags) / len(flags), 4) if flags else None


if __name__ == "__main__":
    sys.exit(told(main))
