"""Phase folders: what a phase wrote, from which inputs, and whether it may continue there.

    FOLDER/ manifest.json · COMPLETE            the whole phase, derived from its parts
            parts/I-of-N/ manifest.json · chunk-00000.arrow · chunk-00000.json · ... · COMPLETE

A part continues where it stopped when its fingerprint (identity fields and the fingerprints of its inputs) is the
same; else it refuses, naming the field.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpgea import __version__
from vpgea.config.resolve import PATH_KEYS
from vpgea.config.schema import RunConfig, leaves, value_of
from vpgea.errors import UsageError
from vpgea.storage.links import refuse_links_in
from vpgea.storage.schemas import SCHEMA_VERSION, SETS
from vpgea.storage.shards import (
    committed,
    damaged,
    is_sidecar,
    read_json,
    read_sidecar,
    shard_files,
    shard_order,
    sidecar_path,
    sweep_temporaries,
    write_json,
)

Shard = tuple[int, int]

_PART_NAME = re.compile(r"\d+-of-\d+")
_WRITTEN = re.compile(  # the names that phases and loops give to what they put into their folder
    r"parts|manifest\.json|COMPLETE|config\.yaml|summary\.json|reference_lengths\.json|results\.json|metrics\.jsonl"
    r"|report\.html|selected|rejected|adapter|model|wandb|logs|base|damaged|round-\d+|\..*\.tmp"
)


def fingerprint_of(identity: dict[str, Any], inputs: dict[str, str]) -> str:
    """16 hexadecimal digits over the identity fields and the inputs' own fingerprints."""
    text = json.dumps({"identity": identity, "inputs": inputs}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Manifest:
    """What a phase folder came from."""

    phase: str
    identity: dict[str, Any]
    inputs: dict[str, str]
    config: dict[str, Any]
    shard: Shard = (0, 1)

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self.identity, self.inputs)

    def as_dict(self) -> dict[str, Any]:
        return {
            "phase": self.phase,
            "vpgea_version": __version__,
            "schema_version": SCHEMA_VERSION,
            "fingerprint": self.fingerprint,
            "shard": list(self.shard),
            "identity": self.identity,
            "inputs": self.inputs,
            "config": self.config,
        }

    @classmethod
    def read(cls, path: Path) -> Manifest:
        value = read_json(path)
        try:
            if value["schema_version"] != SCHEMA_VERSION:
                raise UsageError(
                    f"{path} was written by another version of vpgea ({value.get('vpgea_version')})",
                    why=f"its data has schema version {value['schema_version']}, this one reads {SCHEMA_VERSION}",
                    mend="use the version that wrote it, or write to a new folder",
                )
            index, count = value["shard"]
            manifest = cls(value["phase"], value["identity"], value["inputs"], dict(value["config"]), (index, count))
        except (KeyError, TypeError, ValueError) as error:
            raise _not_a_manifest(path, f"{error} is missing or odd") from error
        mappings = (manifest.identity, manifest.inputs, manifest.config)
        if not (isinstance(index, int) and isinstance(count, int) and all(isinstance(each, dict) for each in mappings)):
            raise _not_a_manifest(path, "shard, identity, inputs or config is of another type")
        if manifest.fingerprint != value["fingerprint"]:
            raise UsageError(
                f"damaged manifest: {path}",
                why=f"its fingerprint is {value['fingerprint']}, and what it holds has {manifest.fingerprint}",
                mend="`vpgea doctor FOLDER --repair` on the folder it belongs to writes it again",
            )
        return manifest


def _not_a_manifest(path: Path, why: str) -> UsageError:
    return UsageError(f"not a vpgea manifest: {path}", why=why, mend="restore or delete the folder")


class PhaseFolder:
    """One part of a phase's folder, opened for writing."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.root = root
        self.manifest = manifest
        self.part = part_folder(root, manifest.shard)

    @classmethod
    def open(cls, root: Path, manifest: Manifest, *, resume: bool = True, overwrite: bool = False) -> PhaseFolder:
        """Create the folder or continue in it. Raises UsageError when it holds something else."""
        folder = cls(root, manifest)
        if root.is_dir():
            _require_phase_folder(root)
        if overwrite and root.is_dir():
            _clear(root, manifest.shard[1])
        _require_same_parts(root, manifest.shard[1])
        refuse_links_in(root, folder.part, folder.part / "checkpoints")
        existing = folder.part / "manifest.json"
        # its own or any other will do, since all are the same: many parts would else read many manifests each
        begun = (path for path in (existing, *_manifests(root)) if path.is_file())
        if (before := next(begun, None)) is not None:
            require_same(root, Manifest.read(before), manifest)
        if existing.is_file() and not resume:
            raise _occupied(root, "it already holds data and --no-resume was given")
        _make_folder(folder.part)
        sweep_temporaries(folder.part)
        sweep_temporaries(root, depth=1)  # selections, summaries and rounds' figures; other parts sweep for themselves
        folder._reopen()
        if not existing.is_file():
            write_json(existing, manifest.as_dict())
        return folder

    def chunk(self, index: int, name: str = "chunk") -> Path:
        """Path of a chunk's shard."""
        return self.part / f"{name}-{index:05d}.arrow"

    def missing(self, chunks: Iterable[int], *names: str) -> list[int]:
        """Those of these chunks that are not committed yet; names: the kinds of shards that each has."""
        there, kinds = committed(self.part), names or ("chunk",)
        return [index for index in chunks if not all(self.chunk(index, kind).name in there for kind in kinds)]

    @property
    def is_complete(self) -> bool:
        return (self.part / "COMPLETE").is_file()

    def _reopen(self) -> None:
        """A part that has lost a shard is complete no more."""
        if self.is_complete and completed_shards(self.part).keys() - committed(self.part):
            for marker in (self.root / "COMPLETE", self.part / "COMPLETE"):
                marker.unlink(missing_ok=True)

    def complete(self, summary: dict[str, Any]) -> bool:
        """Mark this part complete; when all parts are, the phase too. Returns whether the phase is."""
        shards = {path.name: read_sidecar(path) for path in shard_files(self.part)}
        _write_if_new(self.part / "COMPLETE", {"summary": summary, "shards": shards})
        return complete_phase(self.root)


def complete_phase(root: Path) -> bool:
    """Derive the phase's manifest and marker once all of its parts are complete."""
    parts = part_folders(root)
    if not parts or any(not (part / "COMPLETE").is_file() for part in parts):
        return False
    manifest, *others = map(Manifest.read, _manifests(root))
    if len(parts) != manifest.shard[1]:
        return False
    for other in others:  # two that began at the same moment saw nothing of each other
        require_same(root, manifest, other)
    shards = [shard for part in parts for shard in completed_shards(part).values()]
    content = content_of(manifest, [shard["sha256"] for shard in shards])
    _write_if_new(root / "manifest.json", {**manifest.as_dict(), "content_fingerprint": content})
    _write_if_new(root / "COMPLETE", {"parts": len(parts), "rows": sum(shard["rows"] for shard in shards)})
    return True


def content_of(manifest: Manifest, checksums: Sequence[str]) -> str:
    """A phase's content fingerprint, from the checksums of all its shards."""
    return hashlib.sha256(("".join(sorted(checksums)) + manifest.fingerprint).encode()).hexdigest()[:16]


def part_folder(root: Path, shard: Shard) -> Path:
    """Where a part of a phase is."""
    return root / "parts" / f"{shard[0]}-of-{shard[1]}"


def shard_of(part: Path) -> Shard:
    """The inverse of `part_folder`."""
    index, count = part.name.split("-of-")
    return int(index), int(count)


def part_folders(root: Path) -> list[Path]:
    """Part folders of a phase that are there, in order of their index."""
    return sorted((path for path in (root / "parts").glob("*") if _PART_NAME.fullmatch(path.name)), key=shard_of)


def begun_shards(root: Path) -> list[Shard]:
    """All parts with which a phase was begun, those that have no folder yet too; none before it was begun."""
    count = next((shard_of(part)[1] for part in part_folders(root)), 0)
    return [(index, count) for index in range(count)]


def _manifests(root: Path) -> list[Path]:
    return [part / "manifest.json" for part in part_folders(root)]


def open_complete(root: Path, phase: str) -> Manifest:
    """The manifest of a complete phase folder. Raises UsageError when it is missing, of another phase or unfinished."""
    if not root.is_dir():
        raise UsageError(f"folder not found: {root}", why="there is nothing there", mend=f"give a {phase} folder")
    _require_phase_folder(root)
    if not (root / "COMPLETE").is_file():
        missing = [part.name for part in part_folders(root) if not (part / "COMPLETE").is_file()]
        raise UsageError(
            f"the {phase} in {root} is not complete",
            why=f"unfinished parts: {', '.join(missing) or 'not all parts are there'}",
            mend=f"run the same `vpgea {phase}` command again: it continues where it stopped",
        )
    manifest = Manifest.read(root / "manifest.json")
    if manifest.phase != phase:
        raise UsageError(
            f"{root} is a {manifest.phase} folder",
            why=f"a {phase} folder is needed here",
            mend=f"give the folder that `vpgea {phase}` wrote",
        )
    return manifest


def content_fingerprint(root: Path) -> str:
    """Fingerprint of a complete phase folder: its identity, its inputs and the rows that came out."""
    path = root / "manifest.json"
    fingerprint = read_json(path).get("content_fingerprint")
    if not isinstance(fingerprint, str):
        raise _not_a_manifest(path, "content_fingerprint is missing or odd")
    return fingerprint


def chunk_paths(root: Path, name: str = "chunk", *, share: Shard = (0, 1)) -> list[Path]:
    """Shards of all parts of a phase, in the order of their chunk number; only those of one share, as `part_of` has it.

    Raises UsageError when one is no longer there or no longer the one with which its part was completed. Of a share
    only the parts are read that can hold it: jobs with a share each would else read the whole phase once per job.
    """
    index, count = share
    parts = part_folders(root)
    apart = math.gcd(count, len(parts))  # chunk c is in part c mod len(parts)
    found: dict[Path, dict[str, Any] | None] = {}
    for part in parts[index % apart :: apart] if parts else []:
        refuse_links_in(root, part)
        found |= _shards(part)
    own = [path for path in found if path.name.startswith(f"{name}-") and chunk_number(path) % count == index]
    for path in own:
        if found[path] is not None and read_json(sidecar_path(path)) != found[path]:
            raise damaged(path, "its sidecar is not the one with which its part was completed")
    return sorted(own, key=shard_order)


def chunk_number(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def _shards(part: Path) -> dict[Path, dict[str, Any] | None]:
    """The part's shards, each with the sidecar that it had when the part was completed, None before that."""
    if not (part / "COMPLETE").is_file():
        return dict.fromkeys(shard_files(part))
    recorded = completed_shards(part)
    if lost := recorded.keys() - committed(part):
        raise damaged(part / min(lost), "it, or its sidecar, is gone")
    return {part / name: sidecar for name, sidecar in recorded.items()}


def completed_shards(part: Path) -> dict[str, dict[str, Any]]:
    """Name → sidecar of the shards with which a part was completed."""
    marker = part / "COMPLETE"
    recorded = read_json(marker).get("shards")
    if not isinstance(recorded, dict) or not all(is_sidecar(sidecar) for sidecar in recorded.values()):
        raise UsageError(
            f"not the marker of a finished part: {marker}",
            why="it does not list the part's shards with their rows and checksums",
            mend="delete it and run the command that wrote it again: what is there is kept",
        )
    return recorded


def flat_config(config: RunConfig) -> dict[str, Any]:
    """The resolved configuration as dotted key → value, for manifests; paths that exist here are made absolute."""
    values = {key: value_of(config, key) for key, _ in leaves()}
    for key in PATH_KEYS:
        is_name = key == "views.template" and not Path(str(values[key])).suffix  # a built-in one, whatever lies here
        if values[key] and not is_name and Path(values[key]).exists():
            values[key] = str(Path(values[key]).absolute())  # links stay: a venv's python is one, and is known by it
    return values


def require_same(root: Path, before: Manifest, now: Manifest) -> None:
    """Raises UsageError, naming what differs, when a folder was started from something else."""
    if before.phase != now.phase:
        raise _occupied(root, f"it is a {before.phase} folder, and this is a {now.phase}")
    for kind, old, new in (("identity", before.identity, now.identity), ("inputs", before.inputs, now.inputs)):
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                what = key if kind == "identity" else f"the {key}"
                raise UsageError(
                    f"{root} was started with other inputs: {what} differs",
                    why=f"{what} was {old.get(key)!r} and is now {new.get(key)!r}",
                    mend="restore it to continue, choose another --output-dir, or start anew with --overwrite",
                )


def _require_same_parts(root: Path, count: int) -> None:
    for part in part_folders(root):
        before = shard_of(part)[1]
        if before != count:
            raise UsageError(
                f"{root} was started with {before} parts",
                why=f"--shard now says {count}, which would cut the work in other places",
                mend=f"use --shard i/{before}, another --output-dir, or --overwrite",
            )


def _require_phase_folder(root: Path) -> None:
    """An empty folder will do; one with files must have parts, and nothing else where they stand; none leads out."""
    refuse_links_in(root, root, root / "parts", *(root / name for name in SETS))
    names = [path.name for path in root.iterdir()]
    odd = [path.name for path in root.glob("parts/*") if not _PART_NAME.fullmatch(path.name)]
    if odd or (names and "parts" not in names):
        raise _occupied(root, f"it holds files that are not of a vpgea phase ({(odd or sorted(names))[0]})")


def _clear(root: Path, count: int) -> None:
    """Delete what phases and loops have written; refuse when anything else stands among it, or other parts may run."""
    foreign = sorted(path.name for path in root.iterdir() if not _WRITTEN.fullmatch(path.name))
    if foreign:
        raise UsageError(
            f"--overwrite will not delete {root}",
            why=f"it holds files that vpgea did not write: {', '.join(foreign[:5])}",
            mend="move them away, delete the folder yourself, or choose another --output-dir",
        )
    if count > 1 and part_folders(root):
        raise UsageError(
            f"--overwrite cannot be used with one of {count} parts",
            why=f"it would delete what the other parts write to {root}",
            mend="delete the folder once, before any part starts, or choose another --output-dir",
        )
    shutil.rmtree(root)


def _write_if_new(path: Path, value: dict[str, Any]) -> None:
    if not path.is_file() or read_json(path) != value:
        write_json(path, value)


def _occupied(root: Path, why: str) -> UsageError:
    return UsageError(
        f"cannot write to {root}",
        why=why,
        mend="choose another --output-dir, continue with --resume, or start anew with --overwrite",
    )


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UsageError(
            f"cannot create the folder {path}", why=str(error), mend="choose another --output-dir"
        ) from error
