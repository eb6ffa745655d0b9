"""Standard output and error that outlive their reader: words to people never end work."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import TextIO

_GONE = (errno.EPIPE, errno.EBADF, errno.ECONNRESET)  # whoever read it has left, or had closed it
_WAIT_S = 5.0  # for a reader of a stream that does not block


class Lasting(io.FileIO):
    """A descriptor to write to, at which nothing raises: what cannot be written is dropped, and why is remembered.

    Attributes:
        lost: The first failure; None while everything was written.
        is_terminal: Whether a terminal stands behind it, which may hang up.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.lost: OSError | None = None
        self.is_terminal = os.isatty(descriptor)

    def write(self, data: object) -> int:
        """Write all of it, or nothing more at all; what a reader that has gone would have had counts as written."""
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        done = 0
        try:
            while self.lost is None and done < len(view):
                if (count := super().write(view[done:])) is None:  # set not to block, by whoever shares it
                    select.select([], [self], [], _WAIT_S)
                    count = super().write(view[done:]) or 0
                    if not count:
                        break
                done += count
        except OSError as error:
            self.lost = error
        return len(view)

    @property
    def lost_to_nobody(self) -> bool:
        """Whether what was lost is missed by nobody: the reader has gone, or the terminal."""
        assert self.lost is not None
        return self.lost.errno in _GONE or (self.is_terminal and self.lost.errno == errno.EIO)


def hold_open() -> Lasting:
    """Let `sys.stdout` and `sys.stderr` last, and return what stands behind stdout.

    A descriptor that was closed when the process began is opened to nowhere: else the next file that is opened, a shard
    perhaps, would get its number, and what is said would be written into it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    out, err = Lasting(1), Lasting(2)
    sys.stdout, sys.stderr = _text(out, sys.stdout), _text(err, sys.stderr)
    return out


def _text(raw: Lasting, before: TextIO | None) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(before, "encoding", None) or "utf-8",
        errors="backslashreplace",  # a result may hold letters that the encoding does not have
        line_buffering=raw.fileno() == 2 or raw.is_terminal,
    )
