"""Is everything that a phase or a loop wrote still what was written?"""

from __future__ import annotations

from pathlib import Path

from vpgea.errors import DamagedError, UsageError
from vpgea.inspection.folders import run_config
from vpgea.inspection.verify_phase import RECORD, Finding, PhaseCheck, Report, selections, shards_in
from vpgea.runs.history import read_line
from vpgea.runs.layout import (
    COMPLETE,
    CONFIG,
    MANIFEST,
    PARTS,
    PHASES,
    ROUND_RECORD,
    SUMMARY,
    Step,
    is_run,
    round_dir,
    round_numbers,
    round_record,
)
from vpgea.runs.links import refuse_links
from vpgea.runs.manifest import Manifest
from vpgea.runs.parts import WHOLE, part_folder, part_folders
from vpgea.runs.progress import NullProgress, Progress
from vpgea.runs.records import DistillSummary
from vpgea.storage.records import read_record


def phase_folders(root: Path) -> list[Path]:
    """The phase folders of a loop's folder that were begun, in the order in which they are made; else itself."""
    if not is_run(root):
        return [root]
    homes = [round_dir(root, index) for index in (None, *round_numbers(root))]
    return [home / phase for home in homes for phase in PHASES if (home / phase).is_dir()]


def shard_count(root: Path) -> int:
    """Shards in a folder: the steps of a verification's progress."""
    places = [place for folder in phase_folders(root) for place in (*part_folders(folder), *selections(folder))]
    return sum(1 for place in places for _ in shards_in(place))


def verify(root: Path, progress: Progress | None = None) -> Report:
    """Read every file of a phase's or a loop's folder, one at a time. What is not finished is not damage.

    Raises:
        UsageError: The folder is of something else, or has links that lead out of it.
    """
    if not root.is_dir():
        raise UsageError(f"folder not found: {root}", why="there is nothing there", mend="give a run or phase folder")
    refuse_links(root)
    if not (root / PARTS).is_dir() and not is_run(root):
        raise UsageError(
            f"{root} is not a folder of vpgea",
            why="it holds neither parts nor rounds",
            mend="give the --output-dir of a loop, rollout, filter, distill or eval",
        )
    report, progress = Report(), progress or NullProgress()
    weights_stay = _verify_run(root, report) if is_run(root) else True
    for folder in phase_folders(root):
        PhaseCheck(root, folder, report, progress).verify(weights_stay=weights_stay)
    if is_run(root):
        _verify_sources(root, report)
    return report


# --- a loop's own records -------------------------------------------------------------------------------------------


def _verify_run(root: Path, report: Report) -> bool:
    """The records beside the phases; returns whether the weights of all rounds are kept."""

    def damage(path: Path, problem: str) -> None:
        own, home = path.relative_to(root), path.parent if path.name == ROUND_RECORD else root
        report.findings.append(
            Finding(path=own, problem=problem, redo=RECORD, phase=home.relative_to(root), aside=(own,))
        )

    weights_stay, manifest = False, part_folder(root, WHOLE) / MANIFEST
    report.records += 2
    try:
        weights_stay = run_config(root, Manifest.read(manifest)).loop.keep_rounds is None
    except UsageError as error:
        damage(root / CONFIG if _is_manifest(manifest) else manifest, error.why)
    for index in (None, *round_numbers(root)):
        record = round_record(root, index)
        if record.is_file():
            report.records += 1
            try:
                if read_line(root, index).round != index:
                    damage(record, "it is that of another round")
            except DamagedError as error:
                damage(record, error.why)
    return weights_stay


def _is_manifest(path: Path) -> bool:
    try:
        Manifest.read(path)
    except DamagedError:
        return False
    return True


def _verify_sources(root: Path, report: Report) -> None:
    """What a phase says it was made from must be what stands there; only whole and complete phases can be compared."""
    broken = {root / finding.phase for finding in report.findings}
    before: Path | None = None
    for index in round_numbers(root):
        rollout, filtered, trained, measured = (Step(index, phase).folder(root) for phase in PHASES)
        pairs = [(rollout, filtered, "rollout"), (filtered, trained, "filter"), (trained, measured, "model")]
        follows = [(before, rollout, "model"), (before, trained, "masters")] if before else []
        for source, made, name in [*pairs, *follows]:
            if broken & {source, made} or not all((folder / COMPLETE).is_file() for folder in (source, made)):
                continue
            recorded, actual = Manifest.read(made / MANIFEST).inputs.get(name), _made(source, name)
            if recorded != actual:
                own = made.relative_to(root)
                problem = f"it was made from the {name} {recorded}, and that of {source.relative_to(root)} is {actual}"
                report.findings.append(
                    Finding(path=own, problem=problem, redo=f"the {made.name}", phase=own, aside=(own,))
                )
        before = trained


def _made(folder: Path, name: str) -> str | None:
    """The fingerprint of a phase's rows, or of the model that it trained."""
    if name in ("model", "masters"):
        summary = read_record(folder / SUMMARY, DistillSummary)
        return summary.model_fingerprint if name == "model" else summary.masters_fingerprint
    return Manifest.read(folder / MANIFEST).content_fingerprint
