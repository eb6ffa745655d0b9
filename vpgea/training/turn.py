"""One training at a time in a folder: a second process waits for its turn, and finds what the first has done."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vpgea.runs.layout import TRAINING_TURN
from vpgea.runs.progress import Progress
from vpgea.runs.stopping import StopRequest
from vpgea.training.ranks import Ranks

_PAUSE_S = 0.5
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class Turn:
    """A lock that is let go when the process ends, however it ends.

    Checkpoints and metrics have one writer: chunks may be drawn by twins, since the first one's counts, but the steps
    of a training follow each other. On a file system without locks nobody can be waited for.
    """

    def __init__(self, part: Path, ranks: Ranks, stop: StopRequest, progress: Progress) -> None:
        self._part, self._ranks, self._stop, self._progress = part, ranks, stop, progress
        self._descriptor: int | None = None

    @property
    def is_left_behind(self) -> bool:
        """Whether a process that was killed may have left its lock in a folder that can be written to."""
        return (self._part / TRAINING_TURN).is_file() and os.access(self._part, os.W_OK)

    def take(self) -> None:
        """Wait while another process trains in the folder. Nothing to do before the folder is made; collective.

        Raises:
            Stopped: A stop was requested meanwhile.
        """
        while self._ranks.any(not self._try_on_first()):
            self._progress.note("waiting: another process is training in this folder")
            if self._ranks.any(self._stop.requested):
                self._stop.request("what another rank was told")
                self._stop.check("nothing was begun: another process is training in this folder")
            time.sleep(_PAUSE_S)

    def _try_on_first(self) -> bool:
        """What rank 0 finds; true on the others. Where it fails all fail; collective."""
        is_ours = [True]
        self._ranks.on_first(lambda: is_ours.append(self._try()))
        return is_ours[-1]

    def _try(self) -> bool:
        """Whether nobody else is at it; then the lock is ours, where the folder is there."""
        if not self._part.is_dir() or self._is_held():
            return True
        self.leave()
        descriptor = os.open(self._part / TRAINING_TURN, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                self._descriptor = descriptor
                return True
            os.close(descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return False
            raise
        self._descriptor = descriptor
        return self._is_held()  # else the file was deleted before it was locked: another one is the lock now

    def _is_held(self) -> bool:
        """Whether the file that was locked is still the one in the folder: it may have been begun anew."""
        path = self._part / TRAINING_TURN
        if self._descriptor is None or not path.is_file():
            return False
        return os.path.samestat(os.fstat(self._descriptor), path.stat())

    def leave(self) -> None:
        """Let others in."""
        if self._descriptor is not None:
            if self._is_held():
                (self._part / TRAINING_TURN).unlink(missing_ok=True)  # whoever waits for it looks for a new one
            os.close(self._descriptor)
            self._descriptor = None


@contextmanager
def training_turn(part: Path, ranks: Ranks, stop: StopRequest, progress: Progress) -> Iterator[Turn]:
    """A turn that is over when the block ends."""
    turn = Turn(part, ranks, stop, progress)
    try:
        yield turn
    finally:
        turn.leave()
