"""What a report is made from: evaluations as `vpgea compare` names them, and loop folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vpgea.errors import UsageError
from vpgea.inspection.folders import read_manifest, run_config
from vpgea.phases.evaluations import find_evaluations
from vpgea.phases.schedule import best_round
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.history import all_lines
from vpgea.runs.layout import BASE, is_run
from vpgea.runs.records import RoundLine


@dataclass(frozen=True)
class LoopRun:
    """A loop's folder with the lines of its finished rounds, the base model's first."""

    folder: Path
    lines: list[RoundLine]


@dataclass(frozen=True, kw_only=True)
class Sources:
    """evaluations: what each is called, and its sets by their names; the base first. notes: what is said of them."""

    evaluations: dict[str, dict[str, CompletePhase]] = field(default_factory=dict)
    loops: list[LoopRun] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def sets(self) -> list[str]:
        """Names of the sets that all of them have."""
        every = list(self.evaluations.values())
        return [name for name in every[0] if all(name in one for one in every)] if every else []


def open_sources(names: Sequence[str]) -> Sources:
    """Open what a user named; a loop's folder stands for its base, its best round, and its training.

    Raises:
        UsageError: Something is neither, or nothing was measured yet.
    """
    found = Sources()
    for name in names:
        folder = Path(name)
        if folder.is_dir() and is_run(folder):
            _open_loop(name, folder, found)
        else:
            found.evaluations.setdefault(name, find_evaluations(name))
    if not found.evaluations and not any(loop.lines for loop in found.loops):
        raise UsageError(
            f"nothing was measured yet in {' and '.join(names)}",
            why="there is no finished evaluation and no finished round",
            mend="run the same `vpgea loop` command again: it continues where it stopped",
        )
    return found


def _open_loop(name: str, folder: Path, found: Sources) -> None:
    lines = all_lines(folder)
    found.loops.append(LoopRun(folder, lines))
    if not lines or lines[0].round is not None:
        found.notes.append(f"{name} has no finished evaluation of its base model: its rounds alone are shown")
        return
    found.evaluations.setdefault(f"{name}@{BASE}", find_evaluations(f"{name}@{BASE}"))
    measured = [line.round for line in lines[1:] if line.is_measured]
    if not measured:
        found.notes.append(f"no round of {name} is measured yet: its base model alone is shown")
        return
    best = best_round(folder, run_config(folder, read_manifest(folder)))
    if best is None:
        found.notes.append(
            f"no round of {name} is good enough to be the best (its accuracy fell behind): the last measured is shown"
        )
        best = measured[-1]
    found.evaluations.setdefault(f"{name}@{best}", find_evaluations(f"{name}@{best}"))
