"""Is everything that a phase or a loop wrote still what was written?"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from functools import cache
from pathlib import Path

from vpgea.config.schema import LoopConfig
from vpgea.errors import DamagedError, UsageError
from vpgea.inspection.folders import run_config
from vpgea.inspection.verify_phase import RECORD, Finding, PhaseCheck, Report, is_manifest, selections, shards_in
from vpgea.inspection.verify_records import verify_card, verify_lines, verify_phase_records
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.history import phases_of, required_rounds
from vpgea.runs.layout import (
    ADAPTER,
    CONFIG,
    MANIFEST,
    PARTS,
    PHASES,
    REFERENCE_LENGTHS,
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
from vpgea.runs.overwriting import is_only_begun
from vpgea.runs.parts import WHOLE, part_folder, part_folders
from vpgea.runs.phase_folder import whole_manifest
from vpgea.runs.progress import NullProgress, Progress
from vpgea.runs.records import DistillSummary, FilterSummary, RoundLine
from vpgea.runs.repairs import Damage, Repair
from vpgea.storage.files import file_checksum
from vpgea.storage.records import read_record

_NAMED = 8  # folders that an error lists
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
            mend=_inner(root) or "give the --output-dir of a loop, rollout, filter, distill or eval",
        )
    report, progress = Report(), progress or NullProgress()
    weights_stay = True
    if is_run(root):
        config = _verify_run(root, report)
        weights_stay = config is not None and config.keep_rounds is None
        _verify_rounds(root, report, config or LoopConfig())
    _verify_repairs(root, report)
    checks = [PhaseCheck(root, folder, report, progress) for folder in phase_folders(root)]
    for check in checks:
        check.verify(weights_stay=weights_stay)
    for check in (check for check in checks if check.is_whole):
        base = checks[0] if check is not checks[0] and checks[0].kind == "eval" and checks[0].is_whole else None
        verify_phase_records(check, base)
    for check in (check for check in checks if check.kind == "eval"):
        verify_card(check)
    if is_run(root):
        _verify_sources(root, report)
        verify_lines(root, report)  # of what belongs here
    return report


def _inner(root: Path) -> str | None:
    """Which of the folders in a folder can be verified, each by itself."""
    known = sorted(folder.name for folder in root.iterdir() if (folder / PARTS).is_dir() or is_run(folder))
    named = ", ".join(known[:_NAMED]) + (f" and {len(known) - _NAMED} more" if len(known) > _NAMED else "")
    return f"give one of the folders in it: {named}" if known else None


# --- a loop's own records -------------------------------------------------------------------------------------------


def _verify_run(root: Path, report: Report) -> LoopConfig | None:
    """The records beside the phases; returns the configuration of the rounds, as far as it is readable."""

    def damage(path: Path, problem: str) -> None:
        own, home = path.relative_to(root), path.parent if path.name == ROUND_RECORD else root
        report.findings.append(
            Finding(path=own, problem=problem, redo=RECORD, phase=home.relative_to(root), aside=(own,))
        )

    config, manifest = None, part_folder(root, WHOLE) / MANIFEST
    report.records += 2
    try:
        recorded = Manifest.read(manifest)
        config = run_config(root, recorded).loop
        if _is_denied(root, recorded):
            damage(manifest, "its content of the model is that of none of its phases")
    except UsageError as error:
        damage(root / CONFIG if is_manifest(manifest) else manifest, error.why)
    for index in (None, *round_numbers(root)):
        record = round_record(root, index)
        if record.is_file():
            report.records += 1
            try:
                if RoundLine.read(record).round != index:
                    damage(record, "it is that of another round")
            except DamagedError as error:
                damage(record, error.why)
    return config


def _verify_rounds(root: Path, report: Report, config: LoopConfig) -> None:
    """Whole is not yet complete: what a finished round must have is held against what is there."""
    for index in required_rounds(root):
        home = round_dir(root, index).relative_to(root)
        for phase in phases_of(root, index, config):
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
    made = whole_manifest(home)
    kind = home.name if made is None else made.phase
    phase = next((phase for phase in PHASES if phase == kind), None)
    return (folder / damage.path).exists() if phase is None else is_phase_finished(home, phase)


def _verify_sources(root: Path, report: Report) -> None:
    broken = {finding.phase for finding in report.findings}
    report.findings += [finding for finding in foreign_phases(root, broken) if finding.phase not in broken]


def foreign_phases(root: Path, broken: Container[Path] = frozenset()) -> list[Finding]:
    """The phases of a run that were made from something else than what stands before them there.

    Reads the records alone. What stands before a phase can be compared where it is whole and complete; the phase itself
    may have been begun alone, if something came of it. A phase that was made from other things than a foreign one
    before it is taken for the run's own.

    Args:
        root: The run's folder.
        broken: Phases that are known not to be whole, relative to it.
    """
    found: dict[Path, Finding] = {}
    lengths, run_manifest = _Lengths(root, broken), part_folder(root, WHOLE) / MANIFEST
    run = Manifest.read(run_manifest) if Path() not in broken and is_manifest(run_manifest) else None
    for index in (None, *round_numbers(root)):
        for step in (Step(index, phase) for phase in round_phases(index)):
            own = Path(str(step))
            made = None if own in broken else _made_from(step, root)
            if made is None:
                continue
            for source, name, recorded, actual in _claims(root, step, made, run, broken, lengths):
                problem = f"it was made from the {name} {recorded}, and that of {source} is {actual}"
                is_wrong = recorded != actual
                if Path(source) in found:  # what was made from a foreign phase is foreign, and only that
                    problem = f"it was made from {source}, which does not belong there"
                    is_wrong = recorded is not None and not is_wrong
                if is_wrong and own not in found:
                    found[own] = Finding(path=own, problem=problem, redo=f"the {own.name}", phase=own, aside=(own,))
    return list(found.values())


def _made_from(step: Step, root: Path) -> Manifest | None:
    """What a phase says that it was made from; None where nothing came of it, so that it may be begun anew."""
    folder = step.folder(root)
    if not folder.is_dir() or (not is_phase_finished(folder, step.phase) and is_only_begun(folder)):
        return None
    return whole_manifest(folder)


_Claim = tuple[str, str, object, object]  # whose, what, as the phase recorded it, as it is


class _Lengths:
    """The reference lengths that the filters of a run left; each is read once."""

    def __init__(self, root: Path, broken: Container[Path]) -> None:
        self.root, self.broken = root, broken
        self._checksum: Callable[[int], str | None] = cache(self._read)
        self._own: Callable[[int], bool] = cache(self._is_own)

    def are_of_none(self, lengths: str, rounds: range) -> bool:
        """Whether no filter of these rounds left them; not known, and so False, where one lost or changed its own."""
        known = [self._checksum(index) for index in rounds]
        return lengths not in known and None not in known and all(map(self._own, rounds))

    def _read(self, index: int) -> str | None:
        step = Step(index, "filter")
        file = step.folder(self.root) / REFERENCE_LENGTHS
        return file_checksum(file)[:16] if _is_there(self.root, step, self.broken) and file.is_file() else None

    def _is_own(self, index: int) -> bool:
        folder = Step(index, "filter").folder(self.root)
        try:
            recorded = read_record(folder / SUMMARY, FilterSummary).selection
            CompletePhase.open(folder, "filter").require_selection(recorded)
        except DamagedError:
            return False
        return True


def _claims(
    root: Path, step: Step, made: Manifest, run: Manifest | None, broken: Container[Path], known: _Lengths
) -> Iterator[_Claim]:
    """What a phase says of its inputs beside what these say of themselves, as far as both were kept."""
    if step.phase == "rollout":
        yield str(Path(str(step)).parent), "round", made.identity.get("round"), step.round
    trained = _training_before(step)
    if run is not None:
        yield from _claims_of_base(made, run, is_base=trained is None)
        yield from _claims_of_settings(step, made, run)
    if trained is not None and _is_there(root, trained, broken):
        summary, name = read_record(trained.folder(root) / SUMMARY, DistillSummary), str(trained)
        if "model" in made.inputs:
            yield name, "model", made.inputs["model"], summary.model_fingerprint
        if step.phase == "distill":
            yield name, "masters", made.inputs.get("masters"), summary.masters_fingerprint
            if (optimizer := made.inputs.get("optimizer")) is not None:  # a later version may have begun to carry it
                yield name, "optimizer", optimizer, summary.optimizer_fingerprint
        if None not in (content := made.contents.get(summary.output), summary.content):
            yield name, "model's content", content, summary.content
    source = {"filter": Step(step.round, "rollout"), "distill": Step(step.round, "filter")}.get(step.phase)
    if source is not None and _is_there(root, source, broken):
        before = Manifest.read(source.folder(root) / MANIFEST).content_fingerprint
        yield str(source), source.phase, made.inputs.get(source.phase), before
        if step.phase == "distill" and (selected := made.contents.get("selection")) is not None:
            summary_of = read_record(source.folder(root) / SUMMARY, FilterSummary)
            yield str(source), "selection", selected, summary_of.selection
    lengths = made.inputs.get("reference_lengths") if step.phase == "filter" else None
    if lengths is not None and step.round and known.are_of_none(lengths, range(step.round)):
        yield "earlier filters", "reference_lengths", lengths, None


def _claims_of_base(made: Manifest, run: Manifest, *, is_base: bool) -> Iterator[_Claim]:
    """What a phase says of the run's own model: sampled and trained itself, below an adapter, or as the reference."""
    if is_base and "model" in made.inputs:
        yield "the run", "model", made.inputs["model"], run.inputs.get("model")
    if (whole := run.contents.get("model")) is not None:  # else begun by an earlier version
        for name, content in _base_contents(made, run, is_base=is_base).items():
            yield "the run", f"{name}'s content", content, whole


def _claims_of_settings(step: Step, made: Manifest, run: Manifest) -> Iterator[_Claim]:
    """The settings that a phase shares with its run, but for those that a run sets for each round."""
    of_round = {"filter.utility.length_price"}
    if run.identity.get("loop.cap_decay", 1) != 1:
        of_round.add("rollout.max_new_tokens")
    for key in sorted(made.identity.keys() & run.identity.keys() - of_round):
        if step.phase != "eval" or not key.startswith(("data.", "rollout.")):  # which samples as `eval` says
            yield "the run", key, made.identity[key], run.identity[key]


def _base_contents(made: Manifest, run: Manifest, *, is_base: bool) -> dict[str, str]:
    """The content of the run's own model, under the names by which a phase recorded it."""
    is_own = {"model": is_base or ADAPTER in made.contents}
    is_own["reference"] = made.inputs.get("reference") == run.inputs.get("model")
    return {name: content for name, content in made.contents.items() if is_own.get(name)}


def _is_denied(root: Path, run: Manifest) -> bool:
    """Whether all phases agree on a content of the run's model, which its own record does not have."""
    said: set[str] = set()
    for index in (None, *round_numbers(root)):
        for step in (Step(index, phase) for phase in round_phases(index)):
            if is_manifest(path := step.folder(root) / MANIFEST):
                is_base = _training_before(step) is None
                said |= set(_base_contents(Manifest.read(path), run, is_base=is_base).values())
    return len(said) == 1 and run.contents.get("model") not in {None, *said}


def _training_before(step: Step) -> Step | None:
    """Whose weights a phase samples or goes on with; None: the run's own model."""
    if step.round is None or (step.phase != "eval" and step.round == 0):
        return None
    return Step(step.round if step.phase == "eval" else step.round - 1, "distill")


def _is_there(root: Path, step: Step, broken: Container[Path]) -> bool:
    return Path(str(step)) not in broken and is_phase_finished(step.folder(root), step.phase)
