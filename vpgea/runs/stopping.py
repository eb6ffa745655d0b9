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
    """What a phase has made in this call, and how much of it is on disk: what a stop says is counted here.

    Attributes:
        samples: Finished by this call.
        tokens: Of those samples; of a phase that finishes no samples one by one, those that it drew and scored.
        kept_samples: Those of them that are on disk.
        kept_tokens: The same of the tokens.
    """

    samples: int = 0
    tokens: int = 0
    kept_samples: int = 0
    kept_tokens: int = 0
    _whole: tuple[int, int] | None = None

    def made(self, *, samples: int = 0, tokens: int = 0) -> None:
        self.samples, self.tokens = self.samples + samples, self.tokens + tokens

    def whole(self, samples: int, tokens: int) -> None:
        """So much of what was made is one whole chunk, which is committed next; else everything made so far is."""
        self._whole = samples, tokens

    def committed(self) -> None:
        """The chunk that was whole is on disk."""
        samples, tokens = self._whole or (self.samples - self.kept_samples, self.tokens - self.kept_tokens)
        self.kept_samples, self.kept_tokens = self.kept_samples + samples, self.kept_tokens + tokens
        self._whole = None

    @property
    def words(self) -> str:
        """What is saved, and what is not."""
        samples, tokens = self.samples - self.kept_samples, self.tokens - self.kept_tokens
        if samples:
            return (
                f"of {self.samples:,} samples ({self.tokens:,} tokens) that this call finished, {self.kept_samples:,} "
                f"({self.kept_tokens:,} tokens) are saved; {samples:,} ({tokens:,} tokens) stood in chunks that were "
                "not whole: they are dropped, and drawn again"
            )
        if tokens:
            return (
                "every chunk that was finished is saved; the one under way begins again, and "
                f"{tokens:,} tokens that were drawn or scored for it are dropped"
            )
        return "everything finished so far is saved"


class StopRequest:
    """Whether the run should stop, and the exit code that it leaves with.

    A phase calls `check` between units of work; `account` counts what it made and saved. `process_groups` holds the ids
    of process groups that the run started itself; they are killed when a second signal makes it leave at once.

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
        self._steady = steady
        self._limit = None if time_limit is None else steady() + time_limit - now()
        self._longest, self._since = 0.0, steady()

    def request(self, cause: str, exit_code: int = REQUEUE) -> None:
        """Ask for a stop; the first cause stays."""
        if not self.requested:
            self.cause, self.exit_code, self.requested = cause, exit_code, True

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
            mend = "run the same command again: it continues where it stopped"
            raise Stopped(
                f"stopped by {self.cause}", why=saved or self.account.words, mend=mend, exit_code=self.exit_code
            )
