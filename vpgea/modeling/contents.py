"""All that a model's files say, every byte of its weights: beside the fingerprint, which samples them.

A fingerprint is a model's identity and quick to make. Weights that were changed in place between its samples keep it;
their content is another. Checksums of large files are kept in a cache of this user's, by all that a file system says of
a file, the time of its last change of any kind included, which no program can set.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from vpgea.errors import DamagedError
from vpgea.modeling.fingerprint import small_files
from vpgea.modeling.weight_files import stored_files
from vpgea.storage.files import file_checksum, write_json
from vpgea.storage.records import json_of, read_record

CACHED_FROM = 1 << 26  # bytes; smaller files are read again each time
SETTLED_S = 10  # a file that has just been written may be written once more within one tick of its clock


@dataclass(frozen=True, kw_only=True)
class _Cached:
    """What was known of a file when its checksum was taken."""

    path: str
    inode: int
    size: int
    modified_ns: int
    changed_ns: int
    sha256: str


READ_HERE: dict[_Cached, str] = {}  # checksums that this process has taken


class Contents(Mapping[str, str]):
    """The contents of folders by name, each read when it is first asked for: of a large model that takes minutes."""

    def __init__(self, folders: Mapping[str, Path], known: Mapping[str, str] | None = None) -> None:
        """known: contents of other things."""
        self._folders, self._known = folders, dict(known or {})

    def with_known(self, **known: str) -> Contents:
        """These and others that are known."""
        return Contents(self._folders, self._known | known)

    def with_folders(self, **folders: Path) -> Contents:
        """These and those of further folders."""
        return Contents({**self._folders, **folders}, self._known)

    def __getitem__(self, name: str) -> str:
        """Raises UsageError: a file is damaged."""
        if name not in self._known:
            self._known[name] = folder_content(self._folders[name])
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._folders, *self._known)))

    def __len__(self) -> int:
        return len(self._folders.keys() | self._known.keys())


def folder_content(folder: Path, *, checksum: Callable[[Path], str] | None = None) -> str:
    """16 hexadecimal digits over configuration, tokenizer, canary and all weights of a model's or adapter's folder.

    Args:
        folder: Of the model or the adapter.
        checksum: How a weight file's checksum is had; from the cache where nothing else is given.

    Raises:
        UsageError: A file is damaged.
    """
    digest = hashlib.sha256()
    for part in small_files(folder):
        digest.update(part)
    for file in stored_files(folder):
        digest.update(f"{file.name} {(checksum or cached_checksum)(file)}\n".encode())
    return digest.hexdigest()[:16]


def cached_checksum(file: Path) -> str:
    """The sha256 of a file, read once as long as nothing touches it."""
    known = _known_of(file)
    if known in READ_HERE:
        return READ_HERE[known]
    record = _record_of(known.path) if known.size >= CACHED_FROM else None
    with suppress(DamagedError, OSError):  # no record yet, one that a crash has cut short, or none that may be read
        before = None if record is None else read_record(record, _Cached)
        if before is not None and replace(before, sha256="") == known:
            return before.sha256
    checksum = file_checksum(file)
    if _known_of(file) == known and time.time() - known.changed_ns / 1e9 > SETTLED_S:
        READ_HERE[known] = checksum
        if record is not None:
            with suppress(OSError):  # a home that cannot be written to costs time alone
                record.parent.mkdir(parents=True, exist_ok=True)
                write_json(record, json_of(replace(known, sha256=checksum)))
    return checksum


def _known_of(file: Path) -> _Cached:
    stat = file.stat()
    return _Cached(
        path=str(file.resolve()),
        inode=stat.st_ino,
        size=stat.st_size,
        modified_ns=stat.st_mtime_ns,
        changed_ns=stat.st_ctime_ns,
        sha256="",
    )


def _record_of(place: str) -> Path | None:
    """Where a file's checksum is kept; None for a user without a home."""
    home = os.environ.get("XDG_CACHE_HOME")
    try:
        cache = Path(home) if home else Path.home() / ".cache"
    except RuntimeError:
        return None
    return cache / "vpgea" / "checksums" / f"{hashlib.sha256(os.fsencode(place)).hexdigest()[:32]}.json"
