"""A request to stop, which the phases look at between units of work."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from vpgea.errors import Stopped

REQUEUE = 75
INTERRUPTED = 130
_ROOM = 1.5  # a unit of work is begun only when so many times the longest one so far still fit


@dataclass(kw_only=True)
class Account:
    """What a phase has made in this call: what a stop says is counted here.

    Attributes:
        completions: Finished by this call, and on disk once a stop is heeded.
        tokens: Of those.
        drawn: Tokens that were sampled, of completions that were not finished too, where the engine draws them itself.
        underway: Requests at servers, which tell their tokens at the end alone.
        again: Of these, of finished completions that were there before, and had to be drawn beside others.
        scored: Tokens scored for a chunk that is not whole.
    """

    completions: int = 0
    tokens: int = 0
    drawn: int = 0
    again: int = 0
    scored: int = 0
    underway: int = 0

    def finished(self, tokens: int) -> None:
        """A completion of so many tokens."""
        self.completions, self.tokens = self.completions + 1, self.tokens + tokens

    def committed(self) -> None:
        """The chunk that was scored is on disk."""
        self.scored = 0

    @property
    def words(self) -> str:
        """What is saved, and what is not."""
        saved = "everything finished so far is saved"
        if self.completions:
            saved = f"all {self.completions:,} completions ({self.tokens:,} tokens) that this call finished are saved"
        lost = max(self.drawn - self.tokens - self.again, 0) + self.scored
        if lost:
            saved += f"; {lost:,} tokens drawn or scored for what is not finished are dropped, and made again"
        if self.underway:
            saved += f"; {self.underway:,} requests are withdrawn from servers, which do not say how far they had come"
        return saved


def nothing_to_save() -> None:
    """What is finished is on disk already."""


class StopRequest:
    """Whether the run should stop, and the exit code that it leaves with.

    A phase calls `check` between units of work; `account` counts what it made, and `save` puts on disk what of that is
    not there yet. `process_groups` holds the ids of process groups that the run started itself; they are killed when a
    second signal makes it leave at once.

    Args:
        time_limit: When the machine is taken away, in seconds since 1970.
        now: The clock for it, which is read once.
        steady: The clock that is read later: one that nobody sets.
    """

    def __init__(
        self,
        time_limit: float | None = None,
        now: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.requested = False
        self.exit_code = REQUEUE
        self.cause = ""
        self.process_groups: set[int] = set()
        self.account = Account()
        self.save: Callable[[], None] = nothing_to_save
        self._steady = steady
        self._limit = None if time_limit is None else steady() + time_limit - now()
        self._longest, self._since = 0.0, steady()

    def request(self, cause: str, exit_code: int = REQUEUE) -> None:
        """Ask for a stop; the first cause stays."""
        if not self.requested:
            self.cause, self.exit_code, self.requested = cause, exit_code, True

    @property
    def seconds_left(self) -> float | None:
        """Until the time limit; None where there is none."""
        return None if self._limit is None else self._limit - self._steady()

    def begin(self) -> None:
        """Units of work begin now; what was before, such as loading a model, does not count as one."""
        self._longest, self._since = 0.0, self._steady()
        self.account = Account()

    def unit_done(self, *, more: bool) -> None:
        """A unit of work is done; ask for a stop when there is more, and another may not fit before the time limit."""
        now = self._steady()
        self._longest, self._since = max(self._longest, now - self._since), now
        if more and self._limit is not None and now + _ROOM * self._longest > self._limit:
            self.request("itself: too little time is left before the job's limit")

    def check(self, saved: str = "") -> None:
        """Leave if that was asked for; saved: what is on disk, where `account` does not count it.

        Raises:
            Stopped: A stop was requested.
        """
        if self.requested:
            self.save()
            mend = "run the same command again: it continues where it stopped"
            raise Stopped(
                f"stopped by {self.cause}", why=saved or self.account.words, mend=mend, exit_code=self.exit_code
            )
