"""Is everything that a phase or a loop wrote still what was written?"""

from __future__ import annotations

from pathlib import Path

from vpgea.errors import DamagedError, UsageError
from vpgea.inspection.folders import run_config
from vpgea.inspection.verify_phase import RECORD, Finding, PhaseCheck, Report, selections, shards_in
from vpgea.runs.history import read_line, required_rounds
from vpgea.runs.layout import (
    COMPLETE,
    CONFIG,
    MANIFEST,
    PARTS,
    PHASES,
    REPAIR,
    ROUND_RECORD,
    SUMMARY,
    Step,
    is_phase_finished,
    is_run,
    round_dir,
    round_numbers,
    round_phases,
    round_record,
)
from vpgea.runs.links import refuse_links
from vpgea.runs.manifest import Manifest
from vpgea.runs.parts import WHOLE, part_folder, part_folders
from vpgea.runs.progress import NullProgress, Progress
from vpgea.runs.records import DistillSummary
from vpgea.runs.repairs import Damage, Repair
from vpgea.storage.records import read_record

UNFINISHED = "; a repair was begun and is not finished"


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
    weights_stay = True
    if is_run(root):
        weights_stay = _verify_run(root, report)
        _verify_rounds(root, report)
    _verify_repairs(root, report)
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


def _verify_rounds(root: Path, report: Report) -> None:
    """Whole is not yet complete: what a finished round must have is held against what is there."""
    for index in required_rounds(root):
        home = round_dir(root, index).relative_to(root)
        for phase in round_phases(index):
            if not is_phase_finished(root / home / phase, phase):
                gone = "it is gone" if not (root / home / phase).is_dir() else "it is not complete"
                report.findings.append(_due(home / phase, f"{gone}, and its round was finished", f"the {phase}"))
        if not round_record(root, index).is_file():
            report.findings.append(_due(home / ROUND_RECORD, "it is gone, and its round was finished", RECORD))


def _due(path: Path, problem: str, redo: str) -> Finding:
    phase = path if path.name in PHASES else path.parent
    return Finding(path=path, problem=problem, redo=redo, phase=phase, aside=(), is_due=True)


def _verify_repairs(root: Path, report: Report) -> None:
    """What a repair has set aside and not made again; of a run also where a phase by itself was to be mended."""
    found = {finding.phase for finding in report.findings}
    for folder in dict.fromkeys([root, *phase_folders(root)]):
        try:
            repair = Repair.read(folder)
        except DamagedError as error:
            path, home = (folder / REPAIR).relative_to(root), folder.relative_to(root)
            report.findings.append(Finding(path=path, problem=error.why, redo=RECORD, phase=home, aside=(path,)))
            continue
        if repair is None:
            continue
        for damage in repair.damages:
            phase = folder.relative_to(root) / damage.phase
            if phase not in found and (repair.aside or not _is_made(folder, damage)):
                problem = damage.problem + UNFINISHED
                path = folder.relative_to(root) / damage.path
                aside = tuple(folder.relative_to(root) / path for path in repair.aside)
                report.findings.append(
                    Finding(path=path, problem=problem, redo=damage.redo, phase=phase, aside=aside, is_due=True)
                )


def _is_made(folder: Path, damage: Damage) -> bool:
    """Whether what was set aside is there again; the record itself goes once all of it is."""
    home = folder / damage.phase
    manifests = (place / MANIFEST for place in (*part_folders(home), home))
    kind = next((Manifest.read(path).phase for path in manifests if _is_manifest(path)), home.name)
    phase = next((phase for phase in PHASES if phase == kind), None)
    return (folder / damage.path).exists() if phase is None else is_phase_finished(home, phase)


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
