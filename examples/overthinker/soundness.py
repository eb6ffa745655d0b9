"""How well the filter's checks tell sound paths from unsound ones, against the ground truth that no real task has.

    python -m examples.overthinker.soundness runs/overthinker

Reads the folder of a loop, or of one round, and prints one line of JSON per round. Needs no model.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.overthinker.chat import END_OF_THINKING
from examples.overthinker.language import is_sound
from vpgea.storage.shards import iterate_rows, shard_files


@dataclass(frozen=True)
class Judged:
    """A posterior path whose own answer is right. reasons: why the filter rejected it, empty where it did not."""

    sound: bool
    reasons: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options, read, print."""
    parser = argparse.ArgumentParser(description="Compare the filter's verdicts with the ground truth.")
    parser.add_argument("folder", type=Path, help="folder of a loop, or one of its rounds")
    for path in round_folders(parser.parse_args(arguments).folder):
        print(json.dumps({"round": path.name, **figures(judged(path))}))


@dataclass(frozen=True)
class RightPath:
    """A posterior path whose own answer is right, and why the filter rejected it."""

    question: str
    options: tuple[str, ...]
    thinking: str
    reasons: tuple[str, ...]


def round_folders(folder: Path) -> list[Path]:
    """The rounds of a loop; a round's own folder is one."""
    return [folder] if (folder / "filter").is_dir() else sorted(folder.glob("round-*"))


def right_paths(round_folder: Path) -> list[RightPath]:
    """The posterior paths of a round whose own answer is right."""
    questions = {
        row["question_id"]: (row["question"], tuple(row["options"]))
        for row in iterate_rows(shard_files(round_folder / "rollout" / "parts" / "0-of-1"))
    }
    return [
        RightPath(*questions[row["question_id"]], row["completion"].split(END_OF_THINKING)[0], tuple(row["reasons"]))
        for name in ("selected", "rejected")
        for row in iterate_rows(shard_files(round_folder / "filter" / name))
        if row["view"] == "posterior" and row["status"] == "correct"
    ]


def judged(round_folder: Path) -> list[Judged]:
    """Is each of them sound?"""
    return [Judged(is_sound(path.question, path.thinking), path.reasons) for path in right_paths(round_folder)]


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
    main()
