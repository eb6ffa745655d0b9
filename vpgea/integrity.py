"""Is everything that a phase or a loop wrote still what was written? And the first half of a repair: what is not is
moved away, with the markers that count it as there, so that the same command makes it again and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vpgea.errors import UsageError
from vpgea.inspection import run_config
from vpgea.links import refuse_links
from vpgea.modeling.checkpoint_files import CHECKSUMS, verify_checksums
from vpgea.progress import NullProgress, Progress
from vpgea.runs import Manifest, completed_shards, content_of, part_folders
from vpgea.shards import file_checksum, read_json, read_table, sidecar_path, verify_sidecar

PHASES = ("rollout", "filter", "distill", "eval")
_DAMAGED = "damaged"
_CHUNK, _SELECTION, _RECORD, _TRAINING = "this chunk", "the selection", "this record", "the training"
_Sidecars = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Finding:
    """Damage. Paths are relative to the folder that was verified. again: what must be made again. phase: in where.

    aside: what a repair moves away, in this order; the damage itself comes first, so that a repair that is cut off
    leaves damage that is found again.
    """

    path: Path
    wrong: str
    again: str
    phase: Path
    aside: tuple[Path, ...]


@dataclass
class Report:
    """What was looked at, and what is damaged."""

    findings: list[Finding] = field(default_factory=list)
    shards: int = 0
    checkpoints: int = 0
    weights: int = 0
    records: int = 0


def is_run(root: Path) -> bool:
    """Whether a folder is a loop's, by what stands in it: its own records may be what is damaged."""
    return (root / "config.yaml").is_file() or (root / "base").is_dir() or (root / "round-000").is_dir()


def phase_folders(root: Path) -> list[Path]:
    """The phase folders of a loop's folder that were begun, in the order in which they are made; else itself."""
    if not is_run(root):
        return [root]
    homes = [root / "base", *sorted(root.glob("round-*"))]
    return [home / phase for home in homes for phase in PHASES if (home / phase).is_dir()]


def shard_count(root: Path) -> int:
    """Shards in a folder: the steps of a verification's progress."""
    places = [place for folder in phase_folders(root) for place in (*part_folders(folder), *_selections(folder))]
    return sum(1 for place in places for _ in _shards_in(place))


def verify(root: Path, progress: Progress | None = None) -> Report:
    """Read every file of a phase's or a loop's folder, one at a time. What is not finished is not damage.

    Raises UsageError for a folder of something else, and for one with links that lead out of it.
    """
    if not root.is_dir():
        raise UsageError(f"folder not found: {root}", why="there is nothing there", mend="give a run or phase folder")
    refuse_links(root)
    if not (root / "parts").is_dir() and not is_run(root):
        raise UsageError(
            f"{root} is not a folder of vpgea",
            why="it holds neither parts nor rounds",
            mend="give the --output-dir of a loop, rollout, filter, distill or eval",
        )
    report, progress = Report(), progress or NullProgress()
    weights_stay = _verify_run(root, report) if is_run(root) else True
    for folder in phase_folders(root):
        _Phase(root, folder, report, progress).verify(weights_stay=weights_stay)
    if is_run(root):
        for home in sorted(root.glob("round-*")):
            _require_made_from(root, home / "rollout", home / "filter", report)
            _require_made_from(root, home / "filter", home / "distill", report)
    return report


def set_aside(root: Path, findings: Sequence[Finding]) -> list[Path]:
    """Move what is damaged to root/damaged/, where it keeps its relative path; return where it went.

    Nothing is deleted, and nothing that was set aside earlier is replaced: the later one gets a number.
    """
    moved = []
    for path in dict.fromkeys(path for finding in findings for path in finding.aside):
        if (root / path).exists():
            target = _free_place(root / _DAMAGED / path)
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


def _shards_in(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (folder / entry.name for entry in os.scandir(folder) if entry.name.endswith(".arrow"))


def _selections(folder: Path) -> list[Path]:
    return [folder / name for name in ("selected", "rejected")]


# --- a loop's own records -------------------------------------------------------------------------------------------


def _verify_run(root: Path, report: Report) -> bool:
    """The records beside the phases; returns whether the weights of all rounds are kept."""

    def damage(path: Path, wrong: str) -> None:
        own, home = path.relative_to(root), path.parent if path.name == "round.json" else root
        report.findings.append(Finding(own, wrong, _RECORD, home.relative_to(root), (own,)))

    weights_stay, manifest = False, root / "parts" / "0-of-1" / "manifest.json"
    report.records += 2
    try:
        weights_stay = run_config(root, Manifest.read(manifest)).loop.keep_rounds is None
    except UsageError as error:
        damage(root / "config.yaml" if _is_manifest(manifest) else manifest, error.why)
    for marker in (root / "base" / "round.json", *sorted(root.glob("round-*/round.json"))):
        if marker.is_file():
            report.records += 1
            number = None if marker.parent.name == "base" else int(marker.parent.name.removeprefix("round-"))
            try:
                if read_json(marker)["round"] != number:
                    damage(marker, "it is that of another round")
            except UsageError as error:
                damage(marker, error.why)
    return weights_stay


def _is_manifest(path: Path) -> bool:
    try:
        Manifest.read(path)
    except UsageError:
        return False
    return True


def _require_made_from(root: Path, source: Path, made: Path, report: Report) -> None:
    """What a phase says it was made from must be what stands there; only complete phases can be compared."""
    markers = [folder / name for folder in (source, made) for name in ("COMPLETE", "manifest.json")]
    broken = {finding.phase for finding in report.findings}
    if not all(path.is_file() for path in markers) or broken & {source.relative_to(root), made.relative_to(root)}:
        return
    recorded, found = Manifest.read(made / "manifest.json").inputs[source.name], _content(source)
    if recorded != found:
        wrong = f"it was made from the {source.name} {recorded}, and that is now {found}"
        own = made.relative_to(root)
        report.findings.append(Finding(own, wrong, f"the {made.name}", own, (own,)))


def _content(folder: Path) -> str:
    return str(read_json(folder / "manifest.json")["content_fingerprint"])


# --- a phase --------------------------------------------------------------------------------------------------------


class _Phase:
    """One pass over a phase's folder."""

    def __init__(self, root: Path, folder: Path, report: Report, progress: Progress) -> None:
        self.root, self.folder, self.report, self.progress = root, folder, report, progress
        self.parts = part_folders(folder)
        self.markers = (folder / "COMPLETE", folder / "manifest.json")
        self.kind = folder.name if folder.name in PHASES else ""

    def verify(self, *, weights_stay: bool) -> None:
        """weights_stay: no loop prunes what was published."""
        manifest = self._manifest(self.markers[1]) if self.markers[1].is_file() else None
        for part in self.parts:
            self._manifest(part / "manifest.json")
        recorded = {part: self._completed(part) for part in self.parts}
        is_trusted = self._root_markers(manifest, recorded)
        for part in self.parts:
            self._shards(part, recorded[part], is_trusted=is_trusted)
            self._checkpoints(part)
        if self.kind == "filter":
            self._selection([name for shards in recorded.values() for name in shards or () if name[:5] == "chunk"])
        elif self.kind == "distill":
            self._weights(weights_stay=weights_stay)
        elif (self.folder / "results.json").is_file():
            self._record(self.folder / "results.json", "metrics", *self.markers[:1])

    def _damage(self, path: Path, wrong: str, again: str, *markers: Path) -> None:
        aside = (path, *([sidecar_path(path)] if path.suffix == ".arrow" else []), *markers)
        relative = [one.relative_to(self.root) for one in dict.fromkeys(aside)]
        phase = self.folder.relative_to(self.root)
        self.report.findings.append(Finding(relative[0], wrong, again, phase, tuple(relative)))

    def _record(self, path: Path, entry: str, *markers: Path) -> dict[str, Any] | None:
        """A JSON file that has an entry."""
        self.report.records += 1
        try:
            value = read_json(path)
            value[entry]
        except UsageError as error:
            self._damage(path, error.why, _RECORD, *markers)
            return None
        return value

    def _manifest(self, path: Path) -> Manifest | None:
        self.report.records += 1
        try:
            manifest = Manifest.read(path)
        except UsageError as error:
            self._damage(path, error.why, _RECORD, *(self.markers if path in self.markers else ()))
            return None
        self.kind = manifest.phase
        return manifest

    def _completed(self, part: Path) -> _Sidecars | None:
        """The shards with which a part was completed; None when it was not, or its record is damaged."""
        marker = part / "COMPLETE"
        if not marker.is_file():
            if self.markers[0].is_file():
                self._damage(marker, "it is gone, and the phase was complete", _RECORD, *self.markers)
            return None
        if self._record(marker, "summary", *self.markers) is None:
            return None
        try:
            shards = completed_shards(part)
            for name, sidecar in shards.items():
                verify_sidecar(part / name, sidecar)
        except UsageError as error:
            self._damage(marker, error.why, _RECORD, *self.markers)
            return None
        return shards

    def _root_markers(self, manifest: Manifest | None, recorded: dict[Path, _Sidecars | None]) -> bool:
        """What is derived from the parts. Returns whether the parts' records are known to be the ones it came from."""
        complete, own = self.markers
        if complete.is_file() and not own.is_file():
            self._damage(own, "it is gone, and the phase was complete", _RECORD, *self.markers)
        count = self._record(complete, "parts", *self.markers) if complete.is_file() else None
        if count is not None and count["parts"] != len(self.parts):
            wrong = f"{len(self.parts)} of {count['parts']} parts are there"
            self._damage(complete, wrong, "the parts that are gone", *self.markers)
        sidecars = [one for shards in recorded.values() for one in (shards or {}).values()]
        if manifest is None or count is None or None in recorded.values() or count["parts"] != len(self.parts):
            return False
        if content_of(manifest, [one["sha256"] for one in sidecars]) == read_json(own).get("content_fingerprint"):
            if count["rows"] != sum(one["rows"] for one in sidecars):
                self._damage(complete, "it counts other rows than its parts", _RECORD, *self.markers)
            return True
        wrong = "its content fingerprint is not that of its parts"
        self._damage(own, wrong, _RECORD, *self.markers)
        return False

    def _shards(self, part: Path, recorded: _Sidecars | None, *, is_trusted: bool) -> None:
        """Every shard against its sidecar, and its sidecar against what the part was completed with.

        Where these two differ, the shard is whole, and the phase's content fingerprint does not vouch for the record,
        the record is what is damaged.
        """
        marker, gone = part / "COMPLETE", dict(recorded or {})
        markers = (marker, *self.markers, *self._selected())
        for path in _shards_in(part):
            wanted = gone.pop(path.name, None)
            if sidecar_path(path).is_file() or wanted is not None:  # else it was about to be committed
                found = self._shard(path, _CHUNK, *markers)
                if found is not None and recorded is not None and found != wanted:
                    wrong = f"it and the sidecar of {path.name} differ"
                    if is_trusted:
                        self._damage(path, "it is not the one with which its part was completed", _CHUNK, *markers)
                    else:
                        self._damage(marker, wrong, _RECORD, *self.markers)
        for name in gone:
            self._damage(part / name, "it is gone", _CHUNK, *markers)

    def _selected(self) -> list[Path]:
        """What a filter derives from its chunks: on some engines they do not come out the same a second time."""
        summary = self.folder / "summary.json"
        return [summary, *_selections(self.folder)] if self.kind == "filter" else []

    def _shard(self, path: Path, again: str, *markers: Path) -> dict[str, Any] | None:
        """The sidecar of a shard that is whole; else it is a finding."""
        self.report.shards += 1
        self.progress.advance(1)
        try:
            read_table(path)
            return read_json(sidecar_path(path))
        except UsageError as error:
            self._damage(path, error.why, again, *markers)
            return None

    def _selection(self, chunks: Sequence[str]) -> None:
        """A filter's second half; without its summary, which is written last, it is unfinished."""
        summary = self.folder / "summary.json"
        if not summary.is_file():
            return
        self._record(summary, "counts")
        lengths = self.folder / "reference_lengths.json"
        self._record(lengths, "default", summary)
        for place in _selections(self.folder):
            for name in sorted({*chunks, *(path.name for path in _shards_in(place))}):
                self._shard(place / name, _SELECTION, summary)

    def _weights(self, *, weights_stay: bool) -> None:
        """What a distillation published, by the checksums that it recorded."""
        summary = self.folder / "summary.json"
        markers = (summary, *(part / "COMPLETE" for part in self.parts), *self.markers)
        if self.markers[0].is_file() and not summary.is_file():
            self._damage(summary, "it is gone, and the phase was complete", _RECORD)
        told = self._record(summary, "output") if summary.is_file() else None
        places = [self.folder / name for name in ("adapter", "model") if (self.folder / name).is_dir()]
        if told is not None and not places and weights_stay:
            self._damage(self.folder / str(told["output"]), "it is gone", _TRAINING, *markers)
        for place in places:
            self.report.weights += 1
            try:
                if not (place / CHECKSUMS).is_file():
                    raise UsageError("", why=f"{CHECKSUMS} is gone", mend="")
                verify_checksums(place)
                read_json(place / "vpgea_canary.json")
            except UsageError as error:
                self._damage(place, f"{error.what}: {error.why}".removeprefix(": "), _TRAINING, *markers)

    def _checkpoints(self, part: Path) -> None:
        for checkpoint in sorted((part / "checkpoints").glob("step-*")):
            self.report.checkpoints += 1
            try:
                recorded = read_json(checkpoint / "checksums.json")
                wrong = [name for name, checksum in recorded.items() if not _is_whole(checkpoint / name, checksum)]
                why = f"the checksum of {wrong[0]} is not the recorded one" if wrong else ""
            except UsageError as error:
                why = error.why
            if why:
                self._damage(checkpoint, why, "the steps since the checkpoint before")


def _is_whole(path: Path, checksum: Any) -> bool:
    return path.is_file() and file_checksum(path) == checksum
