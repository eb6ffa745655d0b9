"""A repair: what is damaged is set aside, with the markers that count it as there; then what lost it runs again.

The phases make only what they lack.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from vpgea.config.resolve import resolve_recorded
from vpgea.config.schema import RunConfig
from vpgea.errors import DamagedError, UsageError
from vpgea.inspection.verify import UNFINISHED, foreign_phases, phase_folders
from vpgea.inspection.verify_phase import RECORD, Finding
from vpgea.phases.distill import distill
from vpgea.phases.evaluate import evaluate
from vpgea.phases.filter import filter_rollout
from vpgea.phases.loop import Loop
from vpgea.phases.rollout import RolloutPlan, rollout
from vpgea.phases.schedule import held_out_data, round_questions
from vpgea.questions.load import Question, fingerprint_questions, load_questions
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.history import finished_lines, required_rounds
from vpgea.runs.layout import (
    COMPLETE,
    CONFIG,
    DAMAGED,
    MANIFEST,
    METRICS,
    PHASES,
    ROUND_RECORD,
    Phase,
    Step,
    all_steps,
    is_run,
    round_numbers,
    round_record,
)
from vpgea.runs.manifest import Manifest
from vpgea.runs.parts import WHOLE, Part, begun_parts, part_folder, part_folders, part_of_folder
from vpgea.runs.phase_folder import whole_manifest
from vpgea.runs.progress import Reporter
from vpgea.runs.records import RoundLine
from vpgea.runs.repairs import Damage, Repair, end_repair, set_rest_aside
from vpgea.runs.round_lines import other_figures
from vpgea.runs.stopping import StopRequest

_PART = re.compile(r"(\d+)-of-(\d+)")


def repair(root: Path, findings: Sequence[Finding], stop: StopRequest, reporter: Reporter) -> None:
    """Mend a phase's or a loop's folder; a repair that was stopped or has failed is finished first.

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
    due = {finding.phase for finding in findings if _is_due(root, finding)}
    again = [finding for finding in findings if finding.phase in due]
    before = _finish_setting_aside(root)
    damages = [*before, *(_damage(finding) for finding in again)]
    under_way = Repair(damages=list({(one.phase, one.path): one for one in damages}.values()), aside=_aside(findings))
    under_way.write(root)  # before anything moves, and until all is made again
    moved = under_way.set_aside(root)
    reporter.info(f"{len(moved)} files and folders were set aside in {root / DAMAGED}")
    if len(again) < len(findings):
        reporter.info("some of it was not finished: the command that was at it continues, with what is whole")
    if again and manifest is None:
        _repair_run(root, again, stop, reporter)
    elif again and manifest is not None:
        _repair_phase(root, manifest, again, stop, reporter)
    for folder in {root, *(root / finding.phase for finding in again)}:
        end_repair(folder)


def _finish_setting_aside(root: Path) -> list[Damage]:
    """Take a repair that was cut off up where it was, also of a phase by itself; return what the folder's own found.

    Else what it was about to move away, a selection say, would stay over what is made anew.
    """
    damages: list[Damage] = []
    for folder in dict.fromkeys([root, *phase_folders(root)]):
        try:
            begun = set_rest_aside(folder)
        except DamagedError:  # no record: it is a finding itself
            continue
        if begun is not None and folder == root:
            damages = begun.damages
    return damages


def _refuse_code(root: Path, manifest: Manifest | None, findings: Sequence[Finding]) -> None:
    """Raise before anything moves where what the folder recorded would run code that the user did not ask for."""
    if manifest is not None:
        resolve_recorded(f"folder {root}", manifest.config)
    elif not any(path.name == CONFIG for finding in findings for path in finding.aside):
        _run_config(root)


def _is_due(root: Path, finding: Finding) -> bool:
    """Whether what is damaged was finished: a phase that was not is continued by its own command."""
    if finding.is_due or (finding.phase.name not in PHASES and is_run(root)):
        return True
    return (root / finding.phase / COMPLETE).is_file()


def _damage(finding: Finding) -> Damage:
    return Damage(
        path=str(finding.path),
        problem=finding.problem.removesuffix(UNFINISHED),
        redo=finding.redo,
        phase=str(finding.phase),
        aside=[str(path) for path in finding.aside],
    )


def _aside(findings: Sequence[Finding]) -> list[str]:
    return list(dict.fromkeys(str(path) for finding in findings for path in finding.aside))


def _phase_manifest(root: Path) -> Manifest:
    """What a folder came from, by the first of its manifests that is whole.

    Raises:
        UsageError: None is.
    """
    if (made := whole_manifest(root)) is not None:
        return made
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
        UsageError: Its source is not the folder beside it, or was another tool's log, a benchmark's rows or an
            evaluation anywhere.
    """
    if manifest.is_imported:
        raise UsageError(
            f"{root} was imported, and the log is not in it",
            why="what was damaged is set aside; only the log can give it again",
            mend="run the same `vpgea import` again: it makes what is missing",
        )
    if manifest.is_regraded:
        raise UsageError(
            f"{root} has the samples of another evaluation, graded again",
            why="what was damaged is set aside; samples that were drawn again might be others",
            mend="run the same `vpgea regrade` again: it makes what is missing",
        )
    if manifest.is_by_protocol:
        raise UsageError(
            f"{root} was asked by a benchmark's protocol, whose rows are not in it",
            why="what was damaged is set aside; only the rows and the protocol can give it again",
            mend="run the same `vpgea eval --benchmark` again: it makes what is missing",
        )
    run_dir = _run_around(root) if manifest.phase in ("rollout", "eval") else None
    if run_dir is not None:  # which questions, and what is compared with what, is known there
        _repair_run(run_dir, [_in_run(run_dir, root, finding) for finding in findings], stop, reporter)
        return
    config = resolve_recorded(f"folder {root}", manifest.config)
    source = _source(root, manifest)
    for part in _lost_parts(root, manifest.part.count, findings):
        reporter.info(f"{manifest.phase}: part {part} runs again, for what it lacks")
        if manifest.phase == "rollout":
            questions, index = _questions(config, root, manifest), manifest.identity["round"]
            assert isinstance(index, int)
            plan = RolloutPlan.make(config, questions, part=part, round_index=index, begun=manifest.inputs)
            rollout(plan, root, stop=stop)
        elif manifest.phase == "eval":
            evaluate(config, _questions(config, root, manifest), root, part=part, stop=stop, continued=manifest.inputs)
        elif manifest.phase == "filter":
            filter_rollout(config, source, root, part=part, stop=stop)
        else:
            distill(config, source, root, stop=stop, continued=True)


def _run_around(root: Path) -> Path | None:
    """The run whose round a phase's folder is of: what the round was made with is known there alone."""
    place = root.absolute()
    run_dir = place.parents[1] if len(place.parents) > 1 else place
    manifest = part_folder(run_dir, WHOLE) / MANIFEST
    steps = {str(Step(index, phase)) for index in (None, *round_numbers(run_dir)) for phase in PHASES}
    if not manifest.is_file() or f"{place.parent.name}/{place.name}" not in steps:
        return None
    return run_dir if Manifest.read(manifest).phase == "loop" else None


def _in_run(run_dir: Path, root: Path, finding: Finding) -> Finding:
    own = root.absolute().relative_to(run_dir)
    aside = tuple(own / path for path in finding.aside)
    return replace(finding, path=own / finding.path, phase=own / finding.phase, aside=aside)


def _questions(config: RunConfig, root: Path, manifest: Manifest) -> list[Question]:
    """Those that a phase was made from: all of its data set, a round's share of them, or the held-out ones."""
    wanted = manifest.inputs["questions"]
    read = partial(load_questions, grader=config.grading.grader)
    every = read(config.data).questions
    index, per_round = manifest.identity.get("round", 0), config.loop.questions_per_round
    assert isinstance(index, int)
    shares: list[Callable[[], list[Question]]] = [
        lambda: every,
        lambda: round_questions(every, index, per_round, config.rollout.seed),
    ]
    if config.loop.eval_dataset:
        shares.append(lambda: read(held_out_data(config)).questions)
    for share in shares:
        if fingerprint_questions(found := share()) == wanted:
            return found
    raise UsageError(
        f"the questions that {root} was made from are not at hand",
        why=f"their fingerprint is {wanted}, and what data.dataset names has another; what was damaged is set aside",
        mend=f"run the `vpgea {manifest.phase}` command that wrote it again, with the same options",
    )


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
    paths = [path for finding in findings for path in (finding.path, *finding.aside)]
    hit = {int(found[1]) for path in paths if (found := _PART.search(str(path)))}
    whole = {part_of_folder(part).index for part in part_folders(root) if (part / COMPLETE).is_file()}
    return [Part(index, count) for index in sorted(hit | (set(range(count)) - whole) or {0})]


def _repair_run(run_dir: Path, findings: Sequence[Finding], stop: StopRequest, reporter: Reporter) -> None:
    """Take the steps of a loop that have lost something once more, in their order; each makes what it lacks."""
    config = _run_config(run_dir)
    loop = Loop.open(config, run_dir, reporter=reporter, stop=stop)  # writes records of the run that are missing
    own_record = Repair.read(run_dir)  # none where a phase by itself is mended
    due = [*findings, *_set_denied_aside(run_dir, reporter)]
    for step in all_steps(max(config.loop.rounds, len(required_rounds(run_dir)) - 1), loop.phases):
        folder = Path(str(step))
        is_last = step.phase == loop.phases(step.round)[-1]
        home = {folder.parent} if is_last else set()  # the round's line follows its last phase
        if own := [finding for finding in due if finding.phase in {folder, *home}]:
            for part in _lost_parts(run_dir / folder, len(begun_parts(run_dir / folder)) or 1, own):
                loop.run_part(step, part=part)
            denied = _set_denied_aside(run_dir, reporter)
            if any(finding.phase in home for finding in denied):
                loop.run_part(step, part=(begun_parts(run_dir / folder) or [WHOLE])[0])  # for the line alone
            due += denied
    if any(finding.path.name in (METRICS, ROUND_RECORD) for finding in due):
        loop.keep_up(finished_lines(run_dir))
    if own_record is None:
        end_repair(run_dir)


def _set_denied_aside(run_dir: Path, reporter: Reporter) -> list[Finding]:
    """Set aside what does not come from what stands there now; return what of it is to be made again at once.

    A phase that was made again on another machine, or with other threads or ranks, can have other bits than before.
    What was made from those belongs to no run any more, and neither do the lines that tell of them.
    """
    found = [*foreign_phases(run_dir), *_denied_lines(run_dir)]
    if not found:
        return []
    again = [finding for finding in found if _is_due(run_dir, finding)]
    before = Repair.read(run_dir) or Repair()
    under_way = Repair(damages=[*before.damages, *map(_damage, again)], aside=_aside(found))
    under_way.write(run_dir)
    moved = under_way.set_aside(run_dir)
    reporter.info(f"{len(moved)} more set aside, which came from what stood there before: {found[0].problem}")
    return again


def _denied_lines(run_dir: Path) -> list[Finding]:
    """The lines of rounds whose phases say something else."""
    found = []
    for index in (None, *round_numbers(run_dir)):
        record = round_record(run_dir, index)
        if record.is_file() and (other := other_figures(run_dir, RoundLine.read(record))):
            own = record.relative_to(run_dir)
            found.append(Finding(path=own, problem=other[0].words, redo=RECORD, phase=own.parent, aside=(own,)))
    return found


def _run_config(run_dir: Path) -> RunConfig:
    """The configuration of the run's last call; when its record is lost, of its first."""
    if (run_dir / CONFIG).is_file():
        return resolve_recorded(str(run_dir / CONFIG), run_dir / CONFIG)
    return resolve_recorded(f"folder {run_dir}", _phase_manifest(run_dir).config)
