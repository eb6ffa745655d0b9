"""What a run's finished rounds say of themselves: the one reader of their records."""

from __future__ import annotations

import itertools
from pathlib import Path

from vpgea.runs.layout import round_numbers, round_record
from vpgea.runs.records import RoundLine


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


def all_lines(run_dir: Path) -> list[RoundLine]:
    """The lines of the base model and of every finished round, also beyond a gap."""
    indices = [None, *round_numbers(run_dir)]
    return [read_line(run_dir, index) for index in indices if round_record(run_dir, index).is_file()]
