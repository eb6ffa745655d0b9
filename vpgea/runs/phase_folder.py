"""Phase folders: what a phase wrote, from which inputs, and whether it may continue there.

    FOLDER/ manifest.json · COMPLETE            the whole phase, derived from its parts
            parts/I-of-N/ manifest.json · chunk-00000.arrow · chunk-00000.json · ... · COMPLETE

A part continues where it stopped when its fingerprint (identity fields and the fingerprints of its inputs) is the
same; else it refuses, naming the field.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path

from vpgea.errors import DamagedError, UsageError
from vpgea.runs.layout import CHECKPOINTS, CHUNK, COMPLETE, MANIFEST, PARTS, SETS, chunk_name
from vpgea.runs.links import refuse_links_in
from vpgea.runs.manifest import Manifest, content_of, occupied, require_same
from vpgea.runs.overwriting import clear, is_only_begun, require_clearable, writing
from vpgea.runs.parts import foreign_names, part_folder, part_folders, part_of_folder
from vpgea.runs.records import PartMarker, PhaseMarker
from vpgea.runs.repairs import end_repair, set_rest_aside
from vpgea.storage.files import json_bytes, require_commits, sweep_temporaries, write_if_new, write_json
from vpgea.storage.records import json_of
from vpgea.storage.shards import committed, read_sidecar, shard_files


def begun(folder: Path | None) -> Manifest | None:
    """What a phase folder was begun with, by its first part or, where a repair set that aside, by itself."""
    folders = () if folder is None else (*part_folders(folder), folder)
    found = next((path for one in folders if (path := one / MANIFEST).is_file()), None)
    return None if found is None else Manifest.read(found)


def whole_manifest(folder: Path) -> Manifest | None:
    """What a phase folder was made from, by the first of its own and its parts' manifests that can be read."""
    for place in (folder, *part_folders(folder)):
        with suppress(DamagedError):
            return Manifest.read(place / MANIFEST)
    return None


def begun_inputs(folder: Path | None) -> dict[str, str] | None:
    """The inputs of `begun`."""
    return None if (before := begun(folder)) is None else before.inputs


class PhaseFolder:
    """One part of a phase's folder, opened for writing."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.root = root
        self.manifest = manifest
        self.part = part_folder(root, manifest.part)

    @classmethod
    def open(cls, root: Path, manifest: Manifest, *, resume: bool = True, overwrite: bool = False) -> PhaseFolder:
        """Create the folder or continue in it.

        Where another start made nothing but its records, it may be begun from other inputs: what stopped that start, a
        model say, may have been mended.

        Raises:
            UsageError: It holds something else, or data that is neither to be resumed nor overwritten.
        """
        folder = cls(root, manifest)
        if root.is_dir():
            require_phase_folder(root)
        if overwrite and root.is_dir():
            clear(root, manifest.phase, manifest.part.count)
        folder._require_begun_alike(clear, resume=resume)
        _make_folder(folder.part)
        sweep_temporaries(folder.part)
        sweep_temporaries(root, depth=1)  # selections, summaries and rounds' figures; other parts sweep for themselves
        set_rest_aside(root)
        folder._reopen()
        if not (existing := folder.part / MANIFEST).is_file():
            require_commits(folder.part)
            write_json(existing, manifest.as_json())
        return folder

    @classmethod
    def require_open(cls, root: Path, manifest: Manifest, *, resume: bool = True, overwrite: bool = False) -> None:
        """Raise what `open` would raise of what stands there, and write nothing."""
        folder = cls(root, manifest)
        if not root.is_dir():
            if root.exists():
                _make_folder(folder.part)  # says why it cannot
            return
        require_phase_folder(root)
        if overwrite:
            require_clearable(root, manifest.phase, manifest.part.count)
        else:
            folder._require_begun_alike(require_clearable, resume=resume)

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

    def writing(self) -> AbstractContextManager[None]:
        """While the block runs, nobody may overwrite this part."""
        return writing(self.part)

    def require_ours(self) -> None:
        """See that the folder is still what was opened: somebody may have begun another run in it meanwhile.

        Raises:
            UsageError: It is another run's now.
            FileNotFoundError: It is gone.
        """
        path = self.part / MANIFEST
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        try:
            require_same(self.root, Manifest.read(path), self.manifest)
        except UsageError as error:
            raise UsageError(
                f"{self.root} is another run's now",
                why=f"something was started anew in it while this process wrote there: {error.what}",
                mend="choose another --output-dir for one of the two; nothing more was written by this one",
            ) from error

    def _require_begun_alike(self, make_way: Callable[..., None], *, resume: bool) -> None:
        """See that the folder was started from the same things.

        make_way: Called where nothing else came of another start: `clear`, or what sees that it could.
        """
        _require_same_parts(self.root, self.manifest.part.count)
        refuse_links_in(self.root, self.part, self.part / CHECKPOINTS)
        # its own or any other will do, since all are the same: many parts would else read many manifests each
        manifests = (part / MANIFEST for part in (self.part, *part_folders(self.root)))
        if (begun := next((path for path in manifests if path.is_file()), None)) is None:
            return
        before, now = Manifest.read(begun), self.manifest
        try:
            require_same(self.root, before, now)
        except UsageError as differs:
            if before.phase != now.phase or now.part.count > 1 or not is_only_begun(self.root):
                raise
            try:
                make_way(self.root, now.phase, now.part.count, in_turn=True)
            except UsageError:  # somebody is writing there
                raise differs from None
        else:
            if begun.parent == self.part and not resume:
                raise occupied(self.root, "it already holds data and --no-resume was given")

    def _reopen(self) -> None:
        """A part that has lost a shard is complete no more."""
        if self.is_complete and PartMarker.read(self.part).shards.keys() - committed(self.part):
            for marker in (self.root / COMPLETE, self.part / COMPLETE):
                marker.unlink(missing_ok=True)

    def complete(self, summary: dict[str, object]) -> bool:
        """Mark this part complete; when all parts are, the phase too. Returns whether the phase is.

        Raises:
            UsageError: The folder is another run's by now.
        """
        self.require_ours()
        shards = {path.name: read_sidecar(path) for path in shard_files(self.part)}
        write_if_new(self.part / COMPLETE, json_bytes(json_of(PartMarker(summary, shards))))
        return complete_phase(self.root)


def complete_phase(root: Path) -> bool:
    """Derive the phase's manifest and marker once all of its parts are complete."""
    parts = part_folders(root)
    if not parts or any(not (part / COMPLETE).is_file() for part in parts):
        return False
    manifest, *others = (Manifest.read(part / MANIFEST) for part in parts)
    if len(parts) != manifest.part.count:
        return False
    for other in others:  # two that began at the same moment saw nothing of each other
        require_same(root, manifest, other)
    shards = [shard for part in parts for shard in PartMarker.read(part).shards.values()]
    whole = replace(manifest, content_fingerprint=content_of(manifest, [shard.sha256 for shard in shards]))
    write_if_new(root / MANIFEST, json_bytes(whole.as_json()))
    marker = PhaseMarker(parts=len(parts), rows=sum(shard.rows for shard in shards))
    write_if_new(root / COMPLETE, json_bytes(json_of(marker)))
    end_repair(root)
    return True


def _require_same_parts(root: Path, count: int) -> None:
    for part in part_folders(root):
        before = part_of_folder(part).count
        if before != count:
            raise UsageError(
                f"{root} was started with {before} parts",
                why=f"--shard now says {count}, which would cut the work in other places",
                mend=f"use --shard i/{before}, another --output-dir, or --overwrite",
            )


def require_phase_folder(root: Path) -> None:
    """An empty folder will do; one with files must have parts, and nothing else where they stand; none leads out."""
    refuse_links_in(root, root, root / PARTS, *(root / name for name in SETS))
    names = [path.name for path in root.iterdir()]
    odd = foreign_names(root)
    if odd or (names and PARTS not in names):
        raise UsageError(
            f"cannot write to {root}",
            why=f"it holds files that are not of a vpgea phase ({(odd or sorted(names))[0]})",
            mend="choose another --output-dir, or move them away; nothing of them was touched",
        )


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UsageError(
            f"cannot create the folder {path}", why=str(error), mend="choose another --output-dir"
        ) from error
