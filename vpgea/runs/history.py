"""What a run's finished rounds say of themselves: the one reader of their records."""

from __future__ import annotations

import itertools
from pathlib import Path

from vpgea.runs.layout import METRICS, Step, round_name, round_numbers, round_record
from vpgea.runs.records import RoundLine
from vpgea.storage.files import read_json_lines


def read_line(run_dir: Path, index: int | None) -> RoundLine:
    """The line of a finished round; None: of the base model.

    Raises:
        DamagedError: It is gone, or is no round's line.
    """
    return RoundLine.read(round_record(run_dir, index))


def finished_lines(run_dir: Path) -> list[RoundLine]:
    """The lines of the base model and of every finished round, as far as there is no gap."""
    indices = itertools.chain([None], itertools.count())
    finished = itertools.takewhile(lambda index: round_record(run_dir, index).is_file(), indices)
    return [read_line(run_dir, index) for index in finished]


def entropy_at_start(distill_dir: Path) -> float | None:
    """Of the first training step of the run before a round's distill folder, in nats per token; None without one."""
    run_dir, own = distill_dir.absolute().parent.parent, distill_dir.absolute().parent.name
    rounds = round_numbers(run_dir)
    before = rounds[: [round_name(index) for index in rounds].index(own)] if own in map(round_name, rounds) else []
    for index in before:
        metrics = Step(index, "distill").folder(run_dir) / METRICS
        for line in read_json_lines(metrics) if metrics.is_file() else []:
            if line["entropy"] is not None:
                return float(line["entropy"])
    return None


def all_lines(run_dir: Path) -> list[RoundLine]:
    """The lines of the base model and of every finished round, also beyond a gap."""
    indices = [None, *round_numbers(run_dir)]
    return [read_line(run_dir, index) for index in indices if round_record(run_dir, index).is_file()]
