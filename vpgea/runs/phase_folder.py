"""Phase folders: what a phase wrote, from which inputs, and whether it may continue there.

    FOLDER/ manifest.json · COMPLETE            the whole phase, derived from its parts
            parts/I-of-N/ manifest.json · chunk-00000.arrow · chunk-00000.json · ... · COMPLETE

A part continues where it stopped when its fingerprint (identity fields and the fingerprints of its inputs) is the
same; else it refuses, naming the field.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vpgea.errors import UsageError
from vpgea.runs.layout import (
    CHECKPOINTS,
    CHUNK,
    COMPLETE,
    MANIFEST,
    PARTS,
    SETS,
    chunk_name,
    chunk_number,
    is_written_by_us,
)
from vpgea.runs.links import refuse_links_in
from vpgea.runs.manifest import Manifest, content_of, not_a_manifest, occupied, require_same
from vpgea.runs.parts import WHOLE, Part, foreign_names, part_folder, part_folders, part_of_folder
from vpgea.storage.files import json_bytes, read_json, sweep_temporaries, write_if_new, write_json
from vpgea.storage.shards import committed, damaged, is_sidecar, read_sidecar, shard_files, shard_order, sidecar_path


class PhaseFolder:
    """One part of a phase's folder, opened for writing."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.root = root
        self.manifest = manifest
        self.part = part_folder(root, manifest.part)

    @classmethod
    def open(cls, root: Path, manifest: Manifest, *, resume: bool = True, overwrite: bool = False) -> PhaseFolder:
        """Create the folder or continue in it. Raises UsageError when it holds something else."""
        folder = cls(root, manifest)
        if root.is_dir():
            _require_phase_folder(root)
        if overwrite and root.is_dir():
            _clear(root, manifest.part.count)
        _require_same_parts(root, manifest.part.count)
        refuse_links_in(root, folder.part, folder.part / CHECKPOINTS)
        existing = folder.part / MANIFEST
        # its own or any other will do, since all are the same: many parts would else read many manifests each
        begun = (path for path in (existing, *_manifests(root)) if path.is_file())
        if (before := next(begun, None)) is not None:
            require_same(root, Manifest.read(before), manifest)
        if existing.is_file() and not resume:
            raise occupied(root, "it already holds data and --no-resume was given")
        _make_folder(folder.part)
        sweep_temporaries(folder.part)
        sweep_temporaries(root, depth=1)  # selections, summaries and rounds' figures; other parts sweep for themselves
        folder._reopen()
        if not existing.is_file():
            write_json(existing, manifest.as_dict())
        return folder

    def chunk(self, index: int, kind: str = CHUNK) -> Path:
        """Path of a chunk's shard."""
        return self.part / chunk_name(index, kind)

    def missing(self, chunks: Iterable[int], *names: str) -> list[int]:
        """Those of these chunks that are not committed yet; names: the kinds of shards that each has."""
        there, kinds = committed(self.part), names or (CHUNK,)
        return [index for index in chunks if not all(self.chunk(index, kind).name in there for kind in kinds)]

    @property
    def is_complete(self) -> bool:
        return (self.part / COMPLETE).is_file()

    def _reopen(self) -> None:
        """A part that has lost a shard is complete no more."""
        if self.is_complete and completed_shards(self.part).keys() - committed(self.part):
            for marker in (self.root / COMPLETE, self.part / COMPLETE):
                marker.unlink(missing_ok=True)

    def complete(self, summary: dict[str, Any]) -> bool:
        """Mark this part complete; when all parts are, the phase too. Returns whether the phase is."""
        shards = {path.name: read_sidecar(path) for path in shard_files(self.part)}
        write_if_new(self.part / COMPLETE, json_bytes({"summary": summary, "shards": shards}))
        return complete_phase(self.root)


def complete_phase(root: Path) -> bool:
    """Derive the phase's manifest and marker once all of its parts are complete."""
    parts = part_folders(root)
    if not parts or any(not (part / COMPLETE).is_file() for part in parts):
        return False
    manifest, *others = map(Manifest.read, _manifests(root))
    if len(parts) != manifest.part.count:
        return False
    for other in others:  # two that began at the same moment saw nothing of each other
        require_same(root, manifest, other)
    shards = [shard for part in parts for shard in completed_shards(part).values()]
    content = content_of(manifest, [shard["sha256"] for shard in shards])
    write_if_new(root / MANIFEST, json_bytes({**manifest.as_dict(), "content_fingerprint": content}))
    write_if_new(root / COMPLETE, json_bytes({"parts": len(parts), "rows": sum(shard["rows"] for shard in shards)}))
    return True


def _manifests(root: Path) -> list[Path]:
    return [part / MANIFEST for part in part_folders(root)]


def open_complete(root: Path, phase: str) -> Manifest:
    """The manifest of a complete phase folder. Raises UsageError when it is missing, of another phase or unfinished."""
    if not root.is_dir():
        raise UsageError(f"folder not found: {root}", why="there is nothing there", mend=f"give a {phase} folder")
    _require_phase_folder(root)
    if not (root / COMPLETE).is_file():
        missing = [part.name for part in part_folders(root) if not (part / COMPLETE).is_file()]
        raise UsageError(
            f"the {phase} in {root} is not complete",
            why=f"unfinished parts: {', '.join(missing) or 'not all parts are there'}",
            mend=f"run the same `vpgea {phase}` command again: it continues where it stopped",
        )
    manifest = Manifest.read(root / MANIFEST)
    if manifest.phase != phase:
        raise UsageError(
            f"{root} is a {manifest.phase} folder",
            why=f"a {phase} folder is needed here",
            mend=f"give the folder that `vpgea {phase}` wrote",
        )
    return manifest


def content_fingerprint(root: Path) -> str:
    """Fingerprint of a complete phase folder: its identity, its inputs and the rows that came out."""
    path = root / MANIFEST
    fingerprint = read_json(path).get("content_fingerprint")
    if not isinstance(fingerprint, str):
        raise not_a_manifest(path, "content_fingerprint is missing or odd")
    return fingerprint


def chunk_paths(root: Path, kind: str = CHUNK, *, share: Part = WHOLE) -> list[Path]:
    """Shards of all parts of a phase, in the order of their chunk number; only those of one share, as `Part.of` has it.

    Raises UsageError when one is no longer there or no longer the one with which its part was completed. Of a share
    only the parts are read that can hold it: jobs with a share each would else read the whole phase once per job.
    """
    index, count = share.index, share.count
    parts = part_folders(root)
    apart = math.gcd(count, len(parts))  # chunk c is in part c mod len(parts)
    found: dict[Path, dict[str, Any] | None] = {}
    for part in parts[index % apart :: apart] if parts else []:
        refuse_links_in(root, part)
        found |= _shards(part)
    own = [path for path in found if path.name.startswith(f"{kind}-") and chunk_number(path) % count == index]
    for path in own:
        if found[path] is not None and read_json(sidecar_path(path)) != found[path]:
            raise damaged(path, "its sidecar is not the one with which its part was completed")
    return sorted(own, key=shard_order)


def _shards(part: Path) -> dict[Path, dict[str, Any] | None]:
    """The part's shards, each with the sidecar that it had when the part was completed, None before that."""
    if not (part / COMPLETE).is_file():
        return dict.fromkeys(shard_files(part))
    recorded = completed_shards(part)
    if lost := recorded.keys() - committed(part):
        raise damaged(part / min(lost), "it, or its sidecar, is gone")
    return {part / name: sidecar for name, sidecar in recorded.items()}


def completed_shards(part: Path) -> dict[str, dict[str, Any]]:
    """Name → sidecar of the shards with which a part was completed."""
    marker = part / COMPLETE
    recorded = read_json(marker).get("shards")
    if not isinstance(recorded, dict) or not all(is_sidecar(sidecar) for sidecar in recorded.values()):
        raise UsageError(
            f"not the marker of a finished part: {marker}",
            why="it does not list the part's shards with their rows and checksums",
            mend="delete it and run the command that wrote it again: what is there is kept",
        )
    return recorded


def _require_same_parts(root: Path, count: int) -> None:
    for part in part_folders(root):
        before = part_of_folder(part).count
        if before != count:
            raise UsageError(
                f"{root} was started with {before} parts",
                why=f"--shard now says {count}, which would cut the work in other places",
                mend=f"use --shard i/{before}, another --output-dir, or --overwrite",
            )


def _require_phase_folder(root: Path) -> None:
    """An empty folder will do; one with files must have parts, and nothing else where they stand; none leads out."""
    refuse_links_in(root, root, root / PARTS, *(root / name for name in SETS))
    names = [path.name for path in root.iterdir()]
    odd = foreign_names(root)
    if odd or (names and PARTS not in names):
        raise occupied(root, f"it holds files that are not of a vpgea phase ({(odd or sorted(names))[0]})")


def _clear(root: Path, count: int) -> None:
    """Delete what phases and loops have written; refuse when anything else stands among it, or other parts may run."""
    foreign = sorted(path.name for path in root.iterdir() if not is_written_by_us(path.name))
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


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UsageError(
            f"cannot create the folder {path}", why=str(error), mend="choose another --output-dir"
        ) from error
