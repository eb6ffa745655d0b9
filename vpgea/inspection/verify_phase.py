"""One phase's folder looked through for damage, file by file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vpgea.errors import DamagedError, UsageError
from vpgea.inspection.tally import Tally
from vpgea.modeling.contents import folder_content
from vpgea.modeling.fingerprint import fingerprint_of
from vpgea.modeling.weight_files import CANARY, CHECKSUMS, verify_checksums
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.layout import (
    ADAPTER,
    CHECKPOINT_CHECKSUMS,
    CHECKPOINT_STATE,
    CHECKPOINTS,
    COMPLETE,
    MADE_FROM,
    MANIFEST,
    MASTERS,
    OLD_LOGPROBS,
    OPTIMIZER,
    PHASES,
    PUBLISHED,
    REFERENCE_LENGTHS,
    RESULTS,
    SETS,
    SUMMARY,
    WEIGHTS,
    Step,
    checkpoint_dir,
    checkpoint_steps,
    is_phase_finished,
)
from vpgea.runs.manifest import Manifest, content_of
from vpgea.runs.origins import require_measured, require_own_rows
from vpgea.runs.parts import part_folders
from vpgea.runs.progress import Progress
from vpgea.runs.published import not_published, optimizer_fingerprint
from vpgea.runs.records import Canary, DistillSummary, EvalResults, FilterSummary, PartMarker, PhaseMarker
from vpgea.storage.files import file_checksum, read_json
from vpgea.storage.records import from_json, read_by_name, read_entry, read_record
from vpgea.storage.shards import Sidecar, read_sidecar, read_table, sidecar_path

if TYPE_CHECKING:
    import pyarrow as pa

RECORD = "this record"
_CHUNK, _SELECTION, _TRAINING = "this chunk", "the selection", "the training"
_NOTHING = "nothing, since the next training has used it"
_Sidecars = dict[str, Sidecar]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Damage. Paths are relative to the folder that was verified.

    Attributes:
        redo: What must be made again.
        phase: In where.
        aside: What a repair moves away, in this order; the damage itself comes first, so that a repair that is cut off
            leaves damage that is found again.
        is_due: It must be there, and is made again also where nothing else says that its phase was ever complete.
    """

    path: Path
    problem: str
    redo: str
    phase: Path
    aside: tuple[Path, ...]
    is_due: bool = False


@dataclass(kw_only=True)
class Report:
    """What was looked at, and what is damaged."""

    findings: list[Finding] = field(default_factory=list)
    shards: int = 0
    checkpoints: int = 0
    weights: int = 0
    records: int = 0


def shards_in(folder: Path) -> Iterator[Path]:
    """Shards that are there, in no order, those without a sidecar too."""
    if folder.is_dir():
        yield from (folder / entry.name for entry in os.scandir(folder) if entry.name.endswith(".arrow"))


def selections(folder: Path) -> list[Path]:
    """Where a filter puts what it has selected, and the rest."""
    return [folder / name for name in SETS]


def redone_training(root: Path, folder: Path, path: Path, problem: str) -> Finding:
    """Damage to what only the steps of a training could make again: all that it left goes with it."""
    markers = (folder / SUMMARY, *(part / COMPLETE for part in part_folders(folder)), folder / COMPLETE)
    weights = (place for name in PUBLISHED if (place := folder / name).is_dir())
    aside = tuple(each.relative_to(root) for each in (path, *weights, *markers, folder / MANIFEST))
    return Finding(path=aside[0], problem=problem, redo=_TRAINING, phase=folder.relative_to(root), aside=aside)


class PhaseCheck:
    """One pass over a phase's folder. tally: what the rows of its whole shards add up to."""

    def __init__(self, root: Path, folder: Path, report: Report, progress: Progress) -> None:
        self.root, self.folder, self.report, self.progress = root, folder, report, progress
        self.parts = part_folders(folder)
        self.markers = (folder / COMPLETE, folder / MANIFEST)
        self.kind: str = folder.name if folder.name in PHASES else ""
        self.config: dict[str, object] = {}
        self.is_imported = False
        self.first = len(report.findings)
        self.tally = Tally()

    @property
    def is_whole(self) -> bool:
        """Whether the phase is complete, and nothing in it was found damaged, before or in this pass."""
        phase = next((phase for phase in PHASES if phase == self.kind), None)
        own = self.folder.relative_to(self.root)
        is_found = any(finding.phase == own for finding in self.report.findings)
        return not is_found and phase is not None and is_phase_finished(self.folder, phase)

    def verify(self, *, weights_stay: bool) -> None:
        """weights_stay: no loop prunes what was published."""
        manifest = self._manifest(self.markers[1]) if self.markers[1].is_file() else None
        for part in self.parts:
            if any(path.is_file() for path in (part / MANIFEST, part / COMPLETE, self.markers[0])):
                self._manifest(part / MANIFEST)  # else it was just about to be written
        recorded = {part: self._completed(part) for part in self.parts}
        is_trusted = self._root_markers(manifest, recorded)
        for part in self.parts:
            self._shards(part, recorded[part], is_trusted=is_trusted)
            self._checkpoints(part)
        if self.kind == "filter":
            chunks = [part / name for part, shards in recorded.items() for name in shards or () if name[:5] == "chunk"]
            self._selection(chunks, manifest)
        elif self.kind == "distill":
            self._weights(weights_stay=weights_stay)
        elif (self.folder / RESULTS).is_file():
            self._record(self.folder / RESULTS, EvalResults, *self.markers[:1])

    def _damage(self, path: Path, problem: str, redo: str, *markers: Path) -> None:
        aside = (path, *([sidecar_path(path)] if path.suffix == ".arrow" else []), *markers)
        relative = [each.relative_to(self.root) for each in dict.fromkeys(aside)]
        phase = self.folder.relative_to(self.root)
        self.report.findings.append(
            Finding(path=relative[0], problem=problem, redo=redo, phase=phase, aside=tuple(relative))
        )

    def _whole(self, read: Callable[[], T], path: Path, redo: str, *markers: Path) -> T | None:
        """What is read of a path; when it is damaged a finding, and None."""
        try:
            return read()
        except DamagedError as error:
            self._damage(path, error.why, redo, *markers)
            return None

    def _record(self, path: Path, kind: type[T], *markers: Path) -> T | None:
        """A JSON record."""
        self.report.records += 1
        return self._whole(lambda: read_record(path, kind), path, RECORD, *markers)

    def _manifest(self, path: Path) -> Manifest | None:
        self.report.records += 1
        markers = self.markers if path in self.markers else ()
        manifest = self._whole(lambda: Manifest.read(path), path, RECORD, *markers)
        if manifest is not None:
            self.kind, self.config = manifest.phase, manifest.config
            self.is_imported = manifest.is_imported
        return manifest

    def _completed(self, part: Path) -> _Sidecars | None:
        """The shards with which a part was completed; None when it was not, or its record is damaged."""
        marker = part / COMPLETE
        if not marker.is_file():
            if self.markers[0].is_file():
                self._damage(marker, "it is gone, and the phase was complete", RECORD, *self.markers)
            return None
        self.report.records += 1
        recorded = self._whole(lambda: PartMarker.read(part), marker, RECORD, *self.markers)
        return None if recorded is None else recorded.shards

    def _root_markers(self, manifest: Manifest | None, recorded: dict[Path, _Sidecars | None]) -> bool:
        """What is derived from the parts. Returns whether the parts' records are known to be the ones it came from."""
        complete, own = self.markers
        if complete.is_file() and not own.is_file():
            self._damage(own, "it is gone, and the phase was complete", RECORD, *self.markers)
        count = self._record(complete, PhaseMarker, *self.markers) if complete.is_file() else None
        if count is not None and count.parts != len(self.parts):
            wrong = f"{len(self.parts)} of {count.parts} parts are there"
            self._damage(complete, wrong, "the parts that are gone", *self.markers)
        sidecars = [sidecar for shards in recorded.values() for sidecar in (shards or {}).values()]
        if manifest is None or count is None or None in recorded.values() or count.parts != len(self.parts):
            return False
        if self._is_told_by_next(manifest) and (
            foreign := [part for part in self.parts if _is_foreign(part, manifest)]
        ):
            for part in foreign:
                self._damage(part, "it is of another run or round", "this part", *self.markers, *self._selected())
            return False
        if self.parts and (other := _other_than_its_part(manifest, self.parts[0] / MANIFEST)):
            self._damage(own, other, RECORD, *self.markers)
        if content_of(manifest, [sidecar.sha256 for sidecar in sidecars]) == manifest.content_fingerprint:
            if count.rows != sum(sidecar.rows for sidecar in sidecars):
                self._damage(complete, "it counts other rows than its parts", RECORD, *self.markers)
            return True
        self._damage(own, "its content fingerprint is not that of its parts", RECORD, *self.markers)
        return False

    def _is_told_by_next(self, manifest: Manifest) -> bool:
        """Whether the phase that was made from this one knows it as its own manifest does, whatever its parts say."""
        after = self.folder.parent / {"rollout": "filter", "filter": "distill"}.get(self.kind, "") / MANIFEST
        return is_manifest(after) and Manifest.read(after).inputs.get(self.kind) == manifest.content_fingerprint

    def _shards(self, part: Path, recorded: _Sidecars | None, *, is_trusted: bool) -> None:
        """Every shard against its sidecar, and its sidecar against what the part was completed with.

        Where these two differ, the shard is whole, and the phase's content fingerprint does not vouch for the record,
        the record is what is damaged.
        """
        marker, gone = part / COMPLETE, dict(recorded or {})
        manifest = Manifest.read(part / MANIFEST) if is_manifest(part / MANIFEST) else None
        markers = (marker, *self.markers, *self._selected())
        for path in shards_in(part):
            wanted = gone.pop(path.name, None)
            if sidecar_path(path).is_file() or wanted is not None:  # else it was about to be committed
                found = self._shard(path, _CHUNK, *markers, manifest=manifest)
                if found is not None and recorded is not None and found != wanted:
                    wrong = f"it and the sidecar of {path.name} differ"
                    if is_trusted:
                        self._damage(path, "it is not the one with which its part was completed", _CHUNK, *markers)
                    else:
                        self._damage(marker, wrong, RECORD, *self.markers)
        for name in gone:
            self._damage(part / name, "it is gone", _CHUNK, *markers)

    def _selected(self) -> list[Path]:
        """What a filter derives from its chunks: on some engines they do not come out the same a second time."""
        summary = self.folder / SUMMARY
        return [summary, *selections(self.folder)] if self.kind == "filter" else []

    def _shard(self, path: Path, redo: str, *markers: Path, manifest: Manifest | None = None) -> Sidecar | None:
        """The sidecar of a shard that is whole, and of the run that a manifest is of; else it is a finding."""
        self.report.shards += 1
        self.progress.advance(path.is_file())  # one that is gone is none of those that were counted

        def read() -> pa.Table:
            table = read_table(path)
            if manifest is not None and manifest.phase in ("rollout", "eval"):
                require_own_rows(path, table, manifest)
            return table

        table = self._whole(read, path, redo, *markers)
        if table is None:
            return None
        self.tally.add(path, table)
        return read_sidecar(path)

    def _selection(self, chunks: Sequence[Path], manifest: Manifest | None) -> None:
        """A filter's second half; without its summary, which is written last, it is unfinished."""
        summary = self.folder / SUMMARY
        if not summary.is_file():
            return
        record = self._record(summary, FilterSummary)
        lengths = self.folder / REFERENCE_LENGTHS
        self.report.records += 1
        self._whole(lambda: read_entry(lengths, "default", float), lengths, RECORD, summary)
        for place in selections(self.folder):
            for name in sorted({*(path.name for path in chunks), *(path.name for path in shards_in(place))}):
                self._shard(place / name, _SELECTION, summary)
        if len(self.report.findings) > self.first or record is None or manifest is None:
            return  # what is damaged is told already, and cannot be compared

        def compare() -> None:
            for chunk in chunks:
                require_measured(self.folder, chunk)
            if manifest.content_fingerprint is not None:
                whole = CompletePhase(self.folder, manifest, manifest.content_fingerprint)
                whole.require_selection(record.selection)

        self._whole(compare, summary, _SELECTION, *selections(self.folder), lengths)

    def _weights(self, *, weights_stay: bool) -> None:
        """What a distillation published, by the checksums that it recorded."""
        summary = self.folder / SUMMARY
        markers = (summary, *(part / COMPLETE for part in self.parts), *self.markers)
        if self.markers[0].is_file() and not summary.is_file():
            self._damage(summary, "it is gone, and the phase was complete", RECORD)
        trained = self._record(summary, DistillSummary) if summary.is_file() else None
        places = [self.folder / name for name in WEIGHTS if (self.folder / name).is_dir()]
        if trained is not None and not places and weights_stay:
            self._damage(self.folder / trained.output, "it is gone", _TRAINING, *markers)
        self._masters(trained, *markers, is_kept=bool(places))
        self._optimizer(trained, *markers, is_kept=bool(places))
        if trained is not None and any(is_other(part / COMPLETE, trained) for part in self.parts):
            self._damage(summary, "it is not what the training's part says", RECORD)
        for place in places:
            self.report.weights += 1
            if not (place / CHECKSUMS).is_file():
                self._damage(place, f"{CHECKSUMS} is gone", _TRAINING, *markers)
                continue
            try:
                verify_checksums(place)
                read_record(place / CANARY, Canary)
                if trained is not None and place.name == trained.output:
                    self._require_published(place, trained)
            except DamagedError as error:
                self._damage(place, f"{error.what}: {error.why}", _TRAINING, *markers)

    def _require_published(self, place: Path, trained: DistillSummary) -> None:
        """The weights must be those that the training recorded: whole ones of another training are not."""
        if trained.content is not None:
            found, wanted = folder_content(place, checksum=file_checksum), trained.content
        else:  # as earlier versions recorded it: of an adapter with its base, where that is at hand
            base = Path(str(self.config.get("model.path")))
            if place.name == ADAPTER and not base.is_dir():
                return
            folders = [base, place] if place.name == ADAPTER else [place]
            found, wanted = fingerprint_of(folders), trained.model_fingerprint
        if found != wanted:
            raise not_published(place, found, wanted)

    def _masters(self, trained: DistillSummary | None, *markers: Path, is_kept: bool) -> None:
        """The float32 weights behind a rounded model. is_kept: that model is there, so that both were not pruned."""
        folder, wanted = self.folder / MASTERS, None if trained is None else trained.masters_fingerprint
        if not folder.is_dir():
            if wanted is not None and is_kept:
                self._damage(folder, "it is gone", _TRAINING, *markers)
            return
        self.report.weights += 1
        if not (folder / CHECKSUMS).is_file():
            self._damage(folder, f"{CHECKSUMS} is gone", _TRAINING, *markers)
            return
        try:
            verify_checksums(folder)
            found = fingerprint_of([folder])
            if wanted is not None and found != wanted:
                raise DamagedError("other weights", why=f"{found}, and {wanted} was published", mend="")
        except DamagedError as error:
            self._damage(folder, f"{error.what}: {error.why}", _TRAINING, *markers)

    def _optimizer(self, trained: DistillSummary | None, *markers: Path, is_kept: bool) -> None:
        """What the next training carries over, by the checksums that it recorded. is_kept: the weights are there.

        Once that one is trained, a damaged state is set aside, and nothing is trained again for it.
        """
        folder, wanted = self.folder / OPTIMIZER, None if trained is None else trained.optimizer_fingerprint
        is_used = _next_is_trained(self.folder)
        if not folder.is_dir():
            if wanted is not None and is_kept and not is_used:
                self._damage(folder, "it is gone", _TRAINING, *markers)
            return
        self.report.checkpoints += 1
        redo, markers = (_NOTHING, ()) if is_used else (_TRAINING, markers)
        if not self._is_checkpoint_whole(folder, redo, *markers):
            return
        if wanted is not None and (found := optimizer_fingerprint(folder)) != wanted:
            self._damage(folder, f"it is {found}, and {wanted} was written with the weights", redo, *markers)

    def _is_checkpoint_whole(self, folder: Path, redo: str, *markers: Path) -> bool:
        """A folder with the checksums of its files, against those."""
        recorded = self._whole(partial(read_by_name, folder / CHECKPOINT_CHECKSUMS, str), folder, redo, *markers)
        if recorded is None:
            return False
        wrong = [name for name, checksum in recorded.items() if not _is_whole(folder / name, checksum)]
        if wrong:
            self._damage(folder, f"the checksum of {wrong[0]} is not the recorded one", redo, *markers)
        return not wrong

    def _checkpoints(self, part: Path) -> None:
        folder = part / CHECKPOINTS
        for checkpoint in (checkpoint_dir(folder, step) for step in checkpoint_steps(folder)):
            self.report.checkpoints += 1
            redo = "the steps since the checkpoint before"
            if not self._is_checkpoint_whole(checkpoint, redo):
                continue
            state = read_json(checkpoint / CHECKPOINT_STATE)
            manifest = Manifest.read(part / MANIFEST) if is_manifest(part / MANIFEST) else None
            if manifest is not None and state.get(MADE_FROM) not in (None, manifest.fingerprint):
                self._damage(checkpoint, f"it is of another training, made from {state[MADE_FROM]}", redo)
                continue
            old, wanted = part / OLD_LOGPROBS, state.get("old_logprobs")
            if wanted is not None and not _is_whole(old, wanted):
                why = f"it is not the one with which {checkpoint.name} was written"
                self._damage(old, why, _TRAINING, checkpoint.parent)


def _next_is_trained(distill_dir: Path) -> bool:
    """Whether the round after that of a training is trained; False outside a run."""
    try:
        step = Step.parse(f"{distill_dir.absolute().parent.name}/{distill_dir.name}")
    except UsageError:
        return False
    assert step.round is not None
    return is_phase_finished(Step(step.round + 1, "distill").folder(distill_dir.absolute().parent.parent), "distill")


def is_manifest(path: Path) -> bool:
    """Whether a manifest can be read."""
    try:
        Manifest.read(path)
    except DamagedError:
        return False
    return True


def _is_foreign(part: Path, manifest: Manifest) -> bool:
    """Whether a part was made from other things than its phase."""
    return is_manifest(part / MANIFEST) and Manifest.read(part / MANIFEST).fingerprint != manifest.fingerprint


def _other_than_its_part(manifest: Manifest, path: Path) -> str | None:
    """What a phase's manifest says otherwise than the part's of which it is a copy; the fingerprint covers the rest.

    What only one of them says does not count: a part may have been made again by a later version, which records more.
    """
    if not is_manifest(path):
        return None
    part = Manifest.read(path)
    for name, own, of_part in (
        ("contents", manifest.contents, part.contents),
        ("config", manifest.config, part.config),
    ):
        if any(own[key] != of_part[key] for key in own.keys() & of_part.keys()):
            return f"its {name} is not that of {path.parent.name}"
    return None


def is_other(marker: Path, trained: DistillSummary) -> bool:
    """Whether a training's part says something else of it than its summary; a damaged one is found elsewhere."""
    try:
        return from_json(DistillSummary, PartMarker.read(marker.parent).summary, marker) != trained
    except DamagedError:
        return False


def _is_whole(path: Path, checksum: object) -> bool:
    return path.is_file() and file_checksum(path) == checksum
