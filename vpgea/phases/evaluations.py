"""Finding evaluations by what users call them: a folder, a folder of several, or a round of a loop's folder."""

from __future__ import annotations

from pathlib import Path

from vpgea.errors import QualityGateError, UsageError, did_you_mean
from vpgea.inspection.folders import read_manifest, run_config
from vpgea.phases.schedule import best_round
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.layout import BASE, PARTS, Step, is_run, round_numbers, samples_dir, samples_numbers

_ROUNDS = f"give RUN@{BASE}, RUN@best, or RUN@ and the number of a round"


def find_evaluations(reference: str) -> dict[str, CompletePhase]:
    """The evaluations that a reference names, by the names of their sets; one alone has the name "".

    Args:
        reference: An evaluation's folder, a folder with several of them (one per set of questions, by their names), one
            with a growing number of samples (of which the last counts), or RUN@base, RUN@best or RUN@K of a loop.

    Raises:
        UsageError: It names none.
        QualityGateError: No round of the run is good enough to be the best.
    """
    folder = Path(reference)
    if not folder.exists() and "@" in reference:
        run, _, name = reference.rpartition("@")
        folder = _of_round(Path(run), name)
    elif folder.is_dir() and is_run(folder):
        raise UsageError(f"{folder} is a loop folder", why="each of its rounds has an evaluation", mend=_ROUNDS)
    if (folder / PARTS).is_dir() or samples_numbers(folder):
        return {"": _of_folder(folder)}
    inner = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    sets = [path for path in inner if (path / PARTS).is_dir() or samples_numbers(path)]
    return {path.name: _of_folder(path) for path in sets} or {"": _of_folder(folder)}


def _of_folder(folder: Path) -> CompletePhase:
    """The evaluation in a folder, or the last one of a growing number of samples."""
    numbers = samples_numbers(folder)
    return CompletePhase.open(samples_dir(folder, numbers[-1]) if numbers else folder, "eval")


def _of_round(run_dir: Path, name: str) -> Path:
    if not run_dir.is_dir() or not is_run(run_dir):
        raise UsageError(
            f"no loop folder: {run_dir}", why=f"@{name} names a round of one, and there is none", mend=_ROUNDS
        )
    if name == BASE:
        return Step(None, "eval").folder(run_dir)
    rounds = round_numbers(run_dir)
    if name == "best":
        index = best_round(run_dir, run_config(run_dir, read_manifest(run_dir)))
        if index is None:
            raise QualityGateError(
                f"no round of {run_dir} is good enough to be the best",
                why="in every round the held-out accuracy is below the base model's by more than chance and the margin",
                mend="name a round by its number",
            )
    elif name.isdecimal() and int(name) in rounds:
        index = int(name)
    else:
        raise UsageError(
            f"no such round: {run_dir}@{name}",
            why=f"the run has the rounds {', '.join(map(str, rounds)) or 'none'}",
            mend=did_you_mean(name, (BASE, "best"), _ROUNDS),
        )
    folder = Step(index, "eval").folder(run_dir)
    if not folder.is_dir():
        measured = [str(number) for number in rounds if Step(number, "eval").folder(run_dir).is_dir()]
        raise UsageError(
            f"round {index} of {run_dir} was not measured",
            why="loop.eval_every passes it over, or it is not finished",
            mend=f"name one that was ({', '.join(measured) or 'none yet'}), or RUN@{BASE}",
        )
    return folder
