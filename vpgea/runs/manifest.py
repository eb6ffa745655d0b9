"""The manifest of a phase folder: what it was made from, and whether that is the same as something else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vpgea import __version__
from vpgea.config.schema import later_fields
from vpgea.errors import DamagedError, UsageError
from vpgea.runs.parts import WHOLE, Part
from vpgea.storage.files import read_json
from vpgea.storage.records import from_json, json_of
from vpgea.storage.rows import SCHEMA_VERSION

FOREIGN_TOOL = "foreign.tool"  # identity of an imported evaluation: which tool made it
REGRADED = "regraded"
BY_PROTOCOL = "protocol"


def fingerprint_of(identity: Mapping[str, object], inputs: dict[str, str]) -> str:
    """16 hexadecimal digits over the identity fields and the inputs' own fingerprints."""
    text = json.dumps({"identity": identity, "inputs": inputs}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class _Record:
    """manifest.json."""

    phase: str
    vpgea_version: str
    schema_version: int
    fingerprint: str
    shard: list[int]
    identity: dict[str, object]
    inputs: dict[str, str]
    config: dict[str, object]
    contents: dict[str, str] = field(default_factory=dict)
    content_fingerprint: str | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a phase folder came from.

    Attributes:
        contents: Every byte of some inputs, of which the fingerprint has samples; versions before had none. Those of
            what is to be made are read once a folder is opened for it.
        content_fingerprint: Of a complete phase, its identity, its inputs and the rows that came out.
    """

    phase: str
    identity: dict[str, object]
    inputs: dict[str, str]
    config: dict[str, object]
    part: Part = WHOLE
    contents: Mapping[str, str] = field(default_factory=dict)
    content_fingerprint: str | None = None

    @property
    def fingerprint(self) -> str:
        """Of what it was made from."""
        return fingerprint_of(self.identity, self.inputs)

    @property
    def is_imported(self) -> bool:
        """Whether another tool made the samples: its prompts and sampling are not those of our protocols."""
        return FOREIGN_TOOL in self.identity

    @property
    def is_regraded(self) -> bool:
        """Whether its samples are another evaluation's, of which its inputs have the content."""
        return REGRADED in self.inputs

    @property
    def is_by_protocol(self) -> bool:
        """Whether a benchmark's protocol said how its questions are asked, of which its inputs have the fingerprint."""
        return BY_PROTOCOL in self.inputs

    def as_json(self) -> dict[str, object]:
        """What manifest.json says."""
        value = json_of(
            _Record(
                phase=self.phase,
                vpgea_version=__version__,
                schema_version=SCHEMA_VERSION,
                fingerprint=self.fingerprint,
                shard=[self.part.index, self.part.count],
                identity=self.identity,
                inputs=self.inputs,
                config=self.config,
                contents=dict(self.contents),
                content_fingerprint=self.content_fingerprint,
            )
        )
        if not self.contents:
            del value["contents"]
        if self.content_fingerprint is None:
            del value["content_fingerprint"]
        return value

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """The manifest in a file.

        Raises:
            DamagedError: The file is none, or of another version.
        """
        value = read_json(path)
        if value.get("schema_version", SCHEMA_VERSION) != SCHEMA_VERSION:
            raise DamagedError(
                f"{path} was written by another version of vpgea ({value.get('vpgea_version')})",
                why=f"its data has schema version {value['schema_version']}, this one reads {SCHEMA_VERSION}",
                mend="use the version that wrote it, or write to a new folder",
            )
        try:
            record = from_json(_Record, value, path)
        except DamagedError as error:
            raise _not_a_manifest(path, error.why) from error
        if len(record.shard) != 2:
            raise _not_a_manifest(path, "shard is of another type")
        manifest = cls(
            phase=record.phase,
            identity=record.identity,
            inputs=record.inputs,
            config=record.config,
            part=Part(*record.shard),
            contents=record.contents,
            content_fingerprint=record.content_fingerprint,
        )
        if manifest.fingerprint != record.fingerprint:
            raise DamagedError(
                f"damaged manifest: {path}",
                why=f"its fingerprint is {record.fingerprint}, and what it holds has {manifest.fingerprint}",
                mend="`vpgea doctor FOLDER --repair` on the folder it belongs to writes it again",
            )
        for key in manifest.config.keys() & manifest.identity.keys():
            if manifest.config[key] != manifest.identity[key]:
                raise DamagedError(
                    f"damaged manifest: {path}",
                    why=f"{key} is {manifest.config[key]!r} in its configuration, {manifest.identity[key]!r} elsewhere",
                    mend="`vpgea doctor FOLDER --repair` on the folder it belongs to writes it again",
                )
        return manifest


def _not_a_manifest(path: Path, why: str) -> DamagedError:
    return DamagedError(f"not a vpgea manifest: {path}", why=why, mend="restore or delete the folder")


def content_of(manifest: Manifest, checksums: Sequence[str]) -> str:
    """A phase's content fingerprint, from the checksums of all its shards."""
    return hashlib.sha256(("".join(sorted(checksums)) + manifest.fingerprint).encode()).hexdigest()[:16]


def require_same(root: Path, before: Manifest, now: Manifest) -> None:
    """See that a folder was started from the same things as now.

    A folder that was begun before a field existed says nothing of it: it was made with what stands for that. A run's
    later phases may have any value there.

    Raises:
        UsageError: It was started from something else; what differs is named.
    """
    if before.phase != now.phase:
        raise UsageError(
            f"cannot write to {root}",
            why=f"it is a {before.phase} folder, and this is {'an' if now.phase == 'eval' else 'a'} {now.phase}",
            mend="choose another --output-dir",
        )
    later = later_fields()
    free = later.keys() - before.identity.keys() if now.phase == "loop" else set[str]()
    for kind, old, new in (("identity", before.identity, now.identity), ("inputs", before.inputs, now.inputs)):
        for key in sorted(old.keys() | new.keys()):
            if old.get(key, later.get(key)) != new.get(key, later.get(key)) and key not in free:
                what = key if kind == "identity" else f"the {key}"
                raise UsageError(
                    f"{root} was started with other inputs: {what} differs",
                    why=f"{what} was {old.get(key)!r} and is now {new.get(key)!r}",
                    mend="restore it to continue, choose another --output-dir, or start anew with --overwrite",
                )
    require_contents(f"{root} was started with", before.contents, now.contents)


def require_contents(what: str, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """See that what has one fingerprint is also the same where that does not look.

    Raises:
        UsageError: It is not; `what` begins the sentence.
    """
    for name in sorted(before.keys() & now.keys()):
        if before[name] != now[name]:
            raise UsageError(
                f"{what} another content of the {name}",
                why=f"it was {before[name]} and is now {now[name]}: its files were changed in place",
                mend=f"restore the {name} as it was, or begin anew in another folder",
            )


def occupied(root: Path, why: str) -> UsageError:
    return UsageError(
        f"cannot write to {root}",
        why=why,
        mend="choose another --output-dir, continue with --resume, or start anew with --overwrite",
    )
