"""A repair: what is damaged is set aside, with the markers that count it as there; then what lost it runs again.

The phases make only what they lack.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from vpgea.config.resolve import resolve_recorded
from vpgea.config.schema import RunConfig
from vpgea.errors import DamagedError, UsageError
from vpgea.inspection.verify_phase import Finding
from vpgea.phases.distill import distill
from vpgea.phases.evaluate import evaluate
from vpgea.phases.filter import filter_rollout
from vpgea.phases.loop import Loop
from vpgea.phases.rollout import RolloutPlan, rollout
from vpgea.questions.load import load_questions
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.layout import COMPLETE, CONFIG, DAMAGED, MANIFEST, PHASES, Phase, all_steps, is_run
from vpgea.runs.manifest import Manifest
from vpgea.runs.parts import Part, begun_parts, part_folders, part_of_folder
from vpgea.runs.progress import Reporter
from vpgea.runs.stopping import StopRequest

_PART = re.compile(r"(\d+)-of-(\d+)")


def repair(root: Path, findings: Sequence[Finding], stop: StopRequest, reporter: Reporter) -> None:
    """Mend a phase's or a loop's folder.

    Args:
        root: The folder that was verified.
        findings: What is damaged in it.
        stop: Looked at by the phases that run again.
        reporter: Told what is done.

    Raises:
        UsageError: Nothing whole says what a phase was made from, or its source is not the folder beside it.
    """
    manifest = None if is_run(root) else _phase_manifest(root)  # before a manifest is set aside
    _refuse_code(root, manifest, findings)
    finished = [finding for finding in findings if _is_finished(root, finding)]
    moved = _set_aside(root, findings)
    reporter.info(f"{len(moved)} files and folders were set aside in {root / DAMAGED}")
    if len(finished) < len(findings):
        reporter.info("some of it was not finished: the command that was at it continues, with what is whole")
    if finished and manifest is None:
        _repair_run(root, finished, stop, reporter)
    elif finished and manifest is not None:
        _repair_phase(root, manifest, finished, stop, reporter)


def _refuse_code(root: Path, manifest: Manifest | None, findings: Sequence[Finding]) -> None:
    """Raise before anything moves where what the folder recorded would run code that the user did not ask for."""
    if manifest is not None:
        resolve_recorded(f"folder {root}", manifest.config)
    elif not any(path.name == CONFIG for finding in findings for path in finding.aside):
        _run_config(root)


def _is_finished(root: Path, finding: Finding) -> bool:
    """Whether what is damaged was finished: a phase that was not is continued by its own command."""
    return (finding.phase.name not in PHASES and is_run(root)) or (root / finding.phase / COMPLETE).is_file()


def _set_aside(root: Path, findings: Sequence[Finding]) -> list[Path]:
    """Move what is damaged to root/damaged/, where it keeps its relative path; return where it went.

    Nothing is deleted, and nothing that was set aside earlier is replaced: the later one gets a number.
    """
    moved = []
    for path in dict.fromkeys(path for finding in findings for path in finding.aside):
        if (root / path).exists():
            target = _free_place(root / DAMAGED / path)
            target.parent.mkdir(parents=True, exist_ok=True)
            (root / path).rename(target)
            moved.append(target)
    return moved


def _free_place(wanted: Path) -> Path:
    place, number = wanted, 0
    while place.exists():
        number += 1
        place = wanted.with_name(f"{wanted.name}.{number}")
    return place


def _phase_manifest(root: Path) -> Manifest:
    """What a folder came from, by the first of its manifests that is whole.

    Raises:
        UsageError: None is.
    """
    for place in (root, *part_folders(root)):
        try:
            return Manifest.read(place / MANIFEST)
        except DamagedError:
            continue
    raise UsageError(
        f"nothing says what {root} was made from",
        why="none of its manifests is whole",
        mend="run the command that wrote it again, with the same options: it makes only what is missing",
    )


def _repair_phase(
    root: Path, manifest: Manifest, findings: Sequence[Finding], stop: StopRequest, reporter: Reporter
) -> None:
    """Run the parts of a phase that have lost something, as recorded. Raises what the phase raises.

    Raises:
        UsageError: Its source is not the folder beside it.
    """
    config = resolve_recorded(f"folder {root}", manifest.config)
    source = _source(root, manifest)
    for part in _lost_parts(root, manifest.part.count, findings):
        reporter.info(f"{manifest.phase}: part {part} runs again, for what it lacks")
        questions = partial(load_questions, config.data, grader=config.grading.grader)
        if manifest.phase == "rollout":
            index = manifest.identity["round"]
            assert isinstance(index, int)
            plan = RolloutPlan.make(config, questions().questions, part=part, round_index=index, begun=manifest.inputs)
            rollout(plan, root, stop=stop)
        elif manifest.phase == "eval":
            evaluate(config, questions().questions, root, part=part, stop=stop, continued=manifest.inputs)
        elif manifest.phase == "filter":
            filter_rollout(config, source, root, part=part, stop=stop)
        else:
            distill(config, source, root, stop=stop)


def _source(root: Path, manifest: Manifest) -> Path:
    """The folder that a filter or a distillation reads: the one beside it, if it is the one that was read."""
    sources: dict[str, Phase] = {"filter": "rollout", "distill": "filter"}
    name = sources.get(manifest.phase)
    folder = root.absolute().parent / (name or "")
    if name and not _is_source(folder, name, manifest):
        raise UsageError(
            f"the {name} that {root} was made from is not at {folder}",
            why=f"a {manifest.phase} does not record where its {name} was, and what was damaged is set aside",
            mend=f"run `vpgea {manifest.phase} {name.upper()}_FOLDER --output-dir {root}` with the same options",
        )
    return folder


def _is_source(folder: Path, name: Phase, manifest: Manifest) -> bool:
    if not (folder / COMPLETE).is_file():
        return False
    return CompletePhase.open(folder, name).content_fingerprint == manifest.inputs[name]


def _lost_parts(root: Path, count: int, findings: Sequence[Finding]) -> list[Part]:
    """The parts that lost something, or are gone; the first when only what is derived from all of them is lost."""
    hit = {int(found[1]) for finding in findings for path in finding.aside if (found := _PART.search(str(path)))}
    there = {part_of_folder(part).index for part in part_folders(root)}
    return [Part(index, count) for index in sorted(hit | (set(range(count)) - there) or {0})]


def _repair_run(run_dir: Path, findings: Sequence[Finding], stop: StopRequest, reporter: Reporter) -> None:
    """Take the steps of a loop that have lost something once more, in their order; each makes what it lacks."""
    config = _run_config(run_dir)
    loop = Loop.open(config, run_dir, reporter=reporter, stop=stop)  # writes records of the run that are missing
    for step in all_steps(config.loop.rounds):
        folder = Path(str(step))
        record = {folder.parent} if step.phase == "eval" else set()  # a round's record follows its evaluation
        own = [finding for finding in findings if finding.phase in {folder, *record}]
        if own:
            for part in _lost_parts(run_dir / folder, len(begun_parts(run_dir / folder)) or 1, own):
                loop.run_part(step, part=part)


def _run_config(run_dir: Path) -> RunConfig:
    """The configuration of the run's last call; when its record is lost, of its first."""
    if (run_dir / CONFIG).is_file():
        return resolve_recorded(str(run_dir / CONFIG), run_dir / CONFIG)
    return resolve_recorded(f"folder {run_dir}", _phase_manifest(run_dir).config)
