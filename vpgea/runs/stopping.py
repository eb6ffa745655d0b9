"""A request to stop, which the phases look at between units of work."""

from __future__ import annotations

import time
from collections.abc import Callable

from vpgea.errors import Stopped

REQUEUE = 75
INTERRUPTED = 130
_ROOM = 1.5  # a unit of work is begun only when so many times the longest one so far still fit


class StopRequest:
    """Whether the run should stop, and the exit code that it leaves with.

    A phase calls `check` after each unit of work that is safely on disk. `process_groups` holds the ids of process
    groups that the run started itself; they are killed when a second signal makes it leave at once.

    Args:
        time_limit: When the machine is taken away, in seconds since 1970.
        now: The clock for it.
    """

    def __init__(self, time_limit: float | None = None, now: Callable[[], float] = time.time) -> None:
        self.requested = False
        self.exit_code = REQUEUE
        self.cause = ""
        self.process_groups: set[int] = set()
        self._time_limit, self._now = time_limit, now
        self._longest, self._since = 0.0, now()

    def request(self, cause: str, exit_code: int = REQUEUE) -> None:
        """Ask for a stop; the first cause stays."""
        if not self.requested:
            self.cause, self.exit_code, self.requested = cause, exit_code, True

    def begin(self) -> None:
        """Units of work begin now; what was before, such as loading a model, does not count as one."""
        self._longest, self._since = 0.0, self._now()

    def unit_done(self, *, more: bool) -> None:
        """A unit of work is done; ask for a stop when there is more, and another may not fit before the time limit."""
        now = self._now()
        self._longest, self._since = max(self._longest, now - self._since), now
        if more and self._time_limit is not None and now + _ROOM * self._longest > self._time_limit:
            self.request("itself: too little time is left before the job's limit")

    def check(self, saved: str = "everything finished so far is saved") -> None:
        """Call it where `saved` is true.

        Raises:
            Stopped: A stop was requested.
        """
        if self.requested:
            mend = "run the same command again: it continues where it stopped"
            raise Stopped(f"stopped by {self.cause}", why=saved, mend=mend, exit_code=self.exit_code)
