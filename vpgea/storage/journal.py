"""Journals: finished completions of a chunk that is not whole yet, appended every few seconds and read after a stop.

    frame:   length of the body (8 bytes) · BLAKE2b of the body (16) · BLAKE2b of these two (8) · body
    journal: a frame with the head as JSON, then frames with rows as an Arrow IPC stream

Every writer has a file of its own, and nobody writes to another's: no locks, and what a killed writer left half written
stays at the end of its file. Two checksums tell that end from damage, where the length itself could be what is damaged.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from vpgea.errors import DamagedError
from vpgea.storage.files import fsync
from vpgea.storage.records import from_json, json_of
from vpgea.storage.rows import FinishReason, Ids, Logprobs, Text, from_table, to_table

_FORMAT = 1
_LENGTH, _BODY_SUM, _FRAME_SUM = 8, 16, 8
_FRAME = _LENGTH + _BODY_SUM + _FRAME_SUM


@dataclass(frozen=True, kw_only=True)
class JournalHead:
    """What a journal belongs to: the fingerprint of its part, the chunk, and the engine that draws."""

    fingerprint: str
    chunk: int
    engine: str
    logprobs_of: str
    format: int = _FORMAT

    def __post_init__(self) -> None:
        if self.format != _FORMAT:
            raise ValueError(f"it has format {self.format}, this version reads {_FORMAT}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeptRow:
    """A finished completion of T tokens. request: a digest of all that it was asked for with."""

    request: Text
    completion_ids: Ids
    logprobs: Logprobs
    finish_reason: FinishReason


@dataclass(kw_only=True)
class Journal:
    """What stands in a journal.

    Attributes:
        head: None where not even that was written, or it is damaged.
        rows: Those before the first damage.
        torn: Bytes at its end of a frame that was never written to its end.
        damage: What is wrong with it, in words; nothing behind that is read.
    """

    head: JournalHead | None = None
    rows: list[KeptRow] = field(default_factory=list)
    torn: int = 0
    damage: str = ""


class JournalWriter:
    """A new journal; head and rows are on disk when `append` returns."""

    def __init__(self, path: Path, head: JournalHead) -> None:
        self.path = path
        self._file = path.open("xb", buffering=0)
        self._end = 0
        self._write(_framed(json.dumps(json_of(head)).encode()))
        fsync(path.parent)

    def append(self, rows: Sequence[KeptRow]) -> None:
        table = to_table(rows, KeptRow)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        self._write(_framed(sink.getvalue().to_pybytes()))
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _write(self, content: bytes) -> None:
        """All of it or, where the disk is full, nothing: what is appended later must not stand behind a torn frame."""
        left = memoryview(content)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            self._file.truncate(self._end)
            self._file.seek(self._end)
            raise
        self._end += len(content)


def read_journal(path: Path) -> Journal:
    """What is whole of a journal, which another process may be writing just now."""
    found = Journal()
    try:
        for number, body in enumerate(_bodies(path.read_bytes(), found)):
            if number:
                found.rows += _rows(body)
            else:
                found.head = from_json(JournalHead, json.loads(body), path)
    except DamagedError as error:
        found.damage = error.why
    except ValueError as error:  # pa.ArrowInvalid is one
        found.damage = str(error).splitlines()[0]
    return found


def _rows(body: bytes) -> list[KeptRow]:
    table = pa.ipc.open_stream(body).read_all()
    table.validate(full=True)
    return from_table(table, KeptRow)


def _framed(body: bytes) -> bytes:
    start = len(body).to_bytes(_LENGTH, "little") + _sum(body, _BODY_SUM)
    return start + _sum(start, _FRAME_SUM) + body


def _bodies(content: bytes, found: Journal) -> Iterator[bytes]:
    """Bodies of whole frames; what ends them is noted in `found`."""
    place = 0
    while place < len(content):
        frame, start = content[place : place + _FRAME], place + _FRAME
        length = int.from_bytes(frame[:_LENGTH], "little")
        if len(frame) == _FRAME and _sum(frame[:-_FRAME_SUM], _FRAME_SUM) != frame[-_FRAME_SUM:]:
            found.damage = f"the frame at byte {place} has not its checksum"
            return
        body = content[start : start + length]
        if len(frame) < _FRAME or len(body) < length:
            found.torn = len(content) - place
            return
        if _sum(body, _BODY_SUM) != frame[_LENGTH:-_FRAME_SUM]:
            found.damage = f"what stands at byte {start} has not its checksum"
            return
        yield body
        place = start + length


def _sum(content: bytes, size: int) -> bytes:
    return hashlib.blake2b(content, digest_size=size).digest()
