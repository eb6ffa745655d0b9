"""A finished phase folder, opened once and passed on: what it was made from, its shards, and what they add up to."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

from vpgea.errors import DamagedError, UsageError
from vpgea.runs.layout import (
    CHUNK,
    COMPLETE,
    MANIFEST,
    PARTS,
    REFERENCE_LENGTHS,
    SETS,
    Phase,
    chunk_number,
    is_run,
    samples_dir,
    samples_numbers,
)
from vpgea.runs.links import refuse_links_in
from vpgea.runs.manifest import Manifest, content_of
from vpgea.runs.parts import WHOLE, Part, part_folders
from vpgea.runs.phase_folder import require_phase_folder
from vpgea.runs.records import PartMarker, PhaseMarker
from vpgea.storage.files import file_checksum
from vpgea.storage.records import read_record
from vpgea.storage.shards import Sidecar, committed, damaged, read_sidecar, shard_files, shard_order


@dataclass(frozen=True)
class CompletePhase:
    """A complete phase folder.

    content_fingerprint: of its identity, its inputs and the rows that came out.
    """

    root: Path
    manifest: Manifest
    content_fingerprint: str

    @classmethod
    def open(cls, root: Path, phase: Phase) -> CompletePhase:
        """Open a phase's folder whose parts are all complete.

        Raises:
            UsageError: The folder is missing, of another phase or unfinished.
            DamagedError: Its manifest is not that of a complete phase.
        """
        if not root.is_dir():
            why = "it is a file" if root.exists() else "there is nothing there"
            raise UsageError(f"folder not found: {root}", why=why, mend=f"give the folder that `vpgea {phase}` wrote")
        _require_phase(root, phase)
        manifest = Manifest.read(root / MANIFEST)
        read_record(root / COMPLETE, PhaseMarker)  # an empty one says nothing
        if manifest.phase != phase:
            raise _another_phase(root, manifest.phase, phase)
        if manifest.content_fingerprint is None:
            raise DamagedError(
                f"not the manifest of a complete phase: {root / MANIFEST}",
                why="it has no content_fingerprint",
                mend="`vpgea doctor FOLDER --repair` on the folder writes it again",
            )
        return cls(root, manifest, manifest.content_fingerprint)

    def chunks(self, kind: str = CHUNK, *, share: Part = WHOLE) -> list[Path]:
        """The shards of all parts, in the order of their chunk numbers; only those of one share, as `Part.of` has it.

        Raises:
            DamagedError: One is no longer there or no longer the one with which its part was completed.
        """
        if share == WHOLE:
            self._require_own_parts()
        return chunk_paths(self.root, kind, share=share)

    def _require_own_parts(self) -> None:
        """The parts must be those that the phase's own fingerprint is of: whole ones of another run are not."""
        parts = part_folders(self.root)
        shards = [sidecar.sha256 for part in parts for sidecar in PartMarker.read(part).shards.values()]
        if content_of(self.manifest, shards) != self.content_fingerprint:
            raise DamagedError(
                f"{self.root} holds shards of something else",
                why="the content fingerprint of the phase is not that of its parts",
                mend=f"`vpgea doctor {self.root}` says what differs, and with --repair makes it again",
            )

    def selection(self) -> str:
        """Fingerprint of what a filter selected and rejected of its chunks, and of its reference lengths.

        Raises:
            DamagedError: A shard has no sidecar, or the lengths are gone.
        """
        files = [file for name in SETS for file in shard_files(self.root / name)]
        lines = [f"{file.parent.name}/{file.name} {read_sidecar(file).sha256}" for file in files]
        lengths = self.root / REFERENCE_LENGTHS
        lines += [f"{lengths.name} {file_checksum(lengths) if lengths.is_file() else None}", self.content_fingerprint]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    def require_selection(self, recorded: str | None) -> None:
        """See that it is the one of which the filter's summary speaks.

        Raises:
            DamagedError: It is another's.
        """
        if recorded is not None and (found := self.selection()) != recorded:
            raise DamagedError(
                f"what {self.root} selected is not what stands there",
                why=f"its summary records the selection {recorded}, and its shards have {found}",
                mend=f"`vpgea doctor {self.root} --repair` selects again, from what was measured",
            )


def _require_phase(root: Path, phase: Phase) -> None:
    """What can be told from the names that stand in a folder."""
    if is_run(root):
        raise _another_phase(root, "loop", phase)
    if not (root / PARTS).is_dir() and any(root.iterdir()):
        numbers = samples_numbers(root)
        raise UsageError(
            f"{root} is no folder of a phase",
            why=f"it has evaluations of {' and '.join(map(str, numbers))} samples" if numbers else f"it has no {PARTS}",
            mend=f"give {samples_dir(root, numbers[-1])}" if numbers else f"give the folder that `vpgea {phase}` wrote",
        )
    require_phase_folder(root)
    if not (root / COMPLETE).is_file():
        missing = [part.name for part in part_folders(root) if not (part / COMPLETE).is_file()]
        raise UsageError(
            f"the {phase} in {root} is not complete",
            why=f"unfinished parts: {', '.join(missing) or 'not all parts are there'}",
            mend=f"run the same `vpgea {phase}` command again: it continues where it stopped",
        )


def _another_phase(root: Path, found: str, phase: Phase) -> UsageError:
    return UsageError(
        f"{root} is a {found} folder",
        why=f"{'an' if phase == 'eval' else 'a'} {phase} folder is needed here",
        mend=f"give the folder that `vpgea {phase}` wrote",
    )


def chunk_paths(root: Path, kind: str = CHUNK, *, share: Part = WHOLE) -> list[Path]:
    """The same of a folder whose parts need not all be complete: of those that are not, the shards that are there.

    Of a share only the parts are read that can hold it: jobs with a share each would else read the whole phase once
    per job.
    """
    parts = part_folders(root)
    apart = math.gcd(share.count, len(parts))  # chunk c is in part c mod len(parts)
    shards: dict[Path, Sidecar | None] = {}
    for part in parts[share.index % apart :: apart] if parts else []:
        refuse_links_in(root, part)
        shards |= _shards(part)
    own = [
        path for path in shards if path.name.startswith(f"{kind}-") and chunk_number(path) % share.count == share.index
    ]
    for path in own:
        recorded = shards[path]
        if recorded is not None and read_sidecar(path) != recorded:
            raise damaged(path, "its sidecar is not the one with which its part was completed")
    return sorted(own, key=shard_order)


def _shards(part: Path) -> dict[Path, Sidecar | None]:
    """The part's shards, each with the sidecar that it had when the part was completed, None before that."""
    if (part / COMPLETE).is_file():
        recorded = PartMarker.read(part).shards
        if lost := recorded.keys() - committed(part):
            raise damaged(part / min(lost), "it, or its sidecar, is gone")
        return {part / name: sidecar for name, sidecar in recorded.items()}
    return dict.fromkeys(shard_files(part))
