"""The manifest of a phase folder: what it was made from, and whether that is the same as something else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpgea import __version__
from vpgea.errors import UsageError
from vpgea.runs.parts import WHOLE, Part
from vpgea.storage.files import read_json
from vpgea.storage.schemas import SCHEMA_VERSION


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
    part: Part = WHOLE

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self.identity, self.inputs)

    def as_dict(self) -> dict[str, Any]:
        return {
            "phase": self.phase,
            "vpgea_version": __version__,
            "schema_version": SCHEMA_VERSION,
            "fingerprint": self.fingerprint,
            "shard": [self.part.index, self.part.count],
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
            manifest = cls(
                value["phase"], value["identity"], value["inputs"], dict(value["config"]), Part(index, count)
            )
        except (KeyError, TypeError, ValueError) as error:
            raise not_a_manifest(path, f"{error} is missing or odd") from error
        mappings = (manifest.identity, manifest.inputs, manifest.config)
        if not (isinstance(index, int) and isinstance(count, int) and all(isinstance(each, dict) for each in mappings)):
            raise not_a_manifest(path, "shard, identity, inputs or config is of another type")
        if manifest.fingerprint != value["fingerprint"]:
            raise UsageError(
                f"damaged manifest: {path}",
                why=f"its fingerprint is {value['fingerprint']}, and what it holds has {manifest.fingerprint}",
                mend="`vpgea doctor FOLDER --repair` on the folder it belongs to writes it again",
            )
        return manifest


def not_a_manifest(path: Path, why: str) -> UsageError:
    return UsageError(f"not a vpgea manifest: {path}", why=why, mend="restore or delete the folder")


def content_of(manifest: Manifest, checksums: Sequence[str]) -> str:
    """A phase's content fingerprint, from the checksums of all its shards."""
    return hashlib.sha256(("".join(sorted(checksums)) + manifest.fingerprint).encode()).hexdigest()[:16]


def require_same(root: Path, before: Manifest, now: Manifest) -> None:
    """Raises UsageError, naming what differs, when a folder was started from something else."""
    if before.phase != now.phase:
        raise occupied(root, f"it is a {before.phase} folder, and this is a {now.phase}")
    for kind, old, new in (("identity", before.identity, now.identity), ("inputs", before.inputs, now.inputs)):
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                what = key if kind == "identity" else f"the {key}"
                raise UsageError(
                    f"{root} was started with other inputs: {what} differs",
                    why=f"{what} was {old.get(key)!r} and is now {new.get(key)!r}",
                    mend="restore it to continue, choose another --output-dir, or start anew with --overwrite",
                )


def occupied(root: Path, why: str) -> UsageError:
    return UsageError(
        f"cannot write to {root}",
        why=why,
        mend="choose another --output-dir, continue with --resume, or start anew with --overwrite",
    )
