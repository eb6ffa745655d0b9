"""A request to stop, which the phases look at between units of work."""

from __future__ import annotations

from vpgea.errors import Stopped

REQUEUE = 75
INTERRUPTED = 130


class StopRequest:
    """Whether the run should stop, and the exit code that it leaves with.

    A phase calls `check` after each unit of work that is safely on disk. `process_groups` holds the ids of process
    groups that the run started itself; they are killed when a second signal makes it leave at once.
    """

    def __init__(self) -> None:
        self.requested = False
        self.exit_code = REQUEUE
        self.cause = ""
        self.process_groups: set[int] = set()

    def request(self, cause: str, exit_code: int = REQUEUE) -> None:
        """Ask for a stop; the first cause stays."""
        if not self.requested:
            self.cause, self.exit_code, self.requested = cause, exit_code, True

    def check(self, saved: str = "everything finished so far is saved") -> None:
        """Raise Stopped when a stop was requested; call it where `saved` is true."""
        if self.requested:
            mend = "run the same command again: it continues where it stopped"
            raise Stopped(f"stopped by {self.cause}", why=saved, mend=mend, exit_code=self.exit_code)
