"""The journals of a part: what is finished of its chunks that are not whole, kept for the next attempt."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType

from vpgea.runs.layout import journal_chunk, new_journal
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.runs.progress import Progress
from vpgea.runs.stopping import StopRequest, nothing_to_save
from vpgea.storage.journal import JournalHead, JournalWriter, KeptRow, read_journal

EVERY_S = 2.0  # so much work a `kill -9` may lose; each time costs a flush to the disk per open chunk


@dataclass
class _Open:
    """A chunk's own journal, from its first rows on, and the rows that are to go there next."""

    head: JournalHead
    writer: JournalWriter | None = None
    waiting: list[KeptRow] = field(default_factory=list)


class Journals:
    """The journals of a part, while the `with` block runs; a stop, and the end of the block, leave nothing unwritten.

    Args:
        folder: The part.
        missing: Chunks that are not committed; journals of others are leftovers of a kill, and go.
        stop: Of the run.
        progress: Told of journals that cannot be read to their end.
        steady: The clock.
    """

    def __init__(
        self,
        folder: PhaseFolder,
        missing: Sequence[int],
        stop: StopRequest,
        progress: Progress,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._stop, self._progress, self._steady = folder, stop, progress, steady
        self._open: dict[int, _Open] = {}
        self._flushed = steady()
        self._left = self._names()  # of earlier attempts; listed once, since a part may have very many shards
        self._committed: set[int] = set()
        for chunk in self._left.keys() - set(missing):
            self.committed(chunk)

    def __enter__(self) -> Journals:
        self._stop.save = self.flush
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.save = nothing_to_save
        try:
            self.flush()
        finally:
            for chunk in list(self._open):
                self._close(chunk)
        if error is None:  # a twin may have begun a journal of a chunk that was committed here
            for name in (name for chunk, names in self._names().items() if chunk in self._committed for name in names):
                (self._folder.part / name).unlink(missing_ok=True)

    @property
    def chunks(self) -> set[int]:
        """Those of which something may be kept."""
        return set(self._left)

    def read(self, chunk: int) -> list[tuple[JournalHead, KeptRow]]:
        """What earlier attempts, and twins of this process, have finished of a chunk."""
        found = []
        for name in self._left.get(chunk, ()):
            with suppress(FileNotFoundError):  # a twin has committed the chunk meanwhile
                journal = read_journal(self._folder.part / name)
                if journal.damage:
                    self._progress.warn(
                        f"{name} is damaged behind {len(journal.rows)} completions ({journal.damage}): what stands "
                        "there is drawn again"
                    )
                if (head := journal.head) is None:
                    continue
                if (head.fingerprint, head.chunk) != (self._folder.manifest.fingerprint, chunk):
                    self._progress.warn(f"{name} is of other inputs, and is not used")
                    continue
                found += [(head, row) for row in journal.rows]
        return found

    def add(self, chunk: int, row: KeptRow, *, engine: str, logprobs_of: str) -> None:
        """Keep a completion: it is on disk after some seconds, or when a stop is heeded."""
        if chunk not in self._open:
            fingerprint = self._folder.manifest.fingerprint
            head = JournalHead(fingerprint=fingerprint, chunk=chunk, engine=engine, logprobs_of=logprobs_of)
            self._open[chunk] = _Open(head)
        self._open[chunk].waiting.append(row)
        self.tick()

    def tick(self) -> None:
        """Called again and again while there is work: writes what waits when it has waited long enough."""
        if self._steady() - self._flushed >= EVERY_S:
            self.flush()

    def check(self) -> None:
        """Between two pieces of work: what is finished is kept, and a stop is heard.

        Raises:
            Stopped: A stop was requested.
        """
        self.tick()
        self._stop.check()

    def flush(self) -> None:
        """Write what waits.

        Raises:
            UsageError: The folder is another run's by now.
        """
        for chunk, journal in self._open.items():
            if not journal.waiting:
                continue
            if journal.writer is None:
                self._folder.require_ours()
                journal.writer = JournalWriter(self._folder.part / new_journal(chunk), journal.head)
            journal.writer.append(journal.waiting)
            journal.waiting = []
        self._flushed = self._steady()

    def committed(self, chunk: int) -> None:
        """A chunk is on disk: its journals, of whatever writer, have done their work."""
        own = self._close(chunk)
        for name in (*own, *self._left.pop(chunk, ())):
            (self._folder.part / name).unlink(missing_ok=True)
        self._committed.add(chunk)

    def _close(self, chunk: int) -> list[str]:
        """The name of the chunk's own journal, where one was begun."""
        journal = self._open.pop(chunk, None)
        if journal is None or journal.writer is None:
            return []
        journal.writer.close()
        return [journal.writer.path.name]

    def _names(self) -> dict[int, list[str]]:
        """Journals in the part's folder by their chunk, in one order for every process."""
        found: dict[int, list[str]] = {}
        for name in sorted(os.listdir(self._folder.part)):  # noqa: PTH208 - names, not paths
            if (chunk := journal_chunk(name)) is not None:
                found.setdefault(chunk, []).append(name)
        return found
