"""The few exceptions that users meet. Each says what happened, why, and how to mend it.

The command line prints exactly these three lines and leaves with `exit_code`. Violated invariants of our own
code are plain assertions, never one of these classes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VpgeaError(Exception):
    """A failure while running (exit code 1)."""

    exit_code = 1

    def __init__(self, what: str, *, why: str, mend: str) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.what}\nwhy:  {self.why}\nmend: {self.mend}"


class UsageError(VpgeaError):
    """Usage, configuration, bad input or fingerprint: mend before retrying (exit code 2)."""

    exit_code = 2


class DamagedError(UsageError):
    """Something that a run wrote is gone, or is not what was written: `vpgea doctor` finds it too (exit code 2)."""


class QualityGateError(VpgeaError):
    """The run went through, but its result may not be used (exit code 3)."""

    exit_code = 3


class EngineError(VpgeaError):
    """The engine is unreachable or died: a retry may help (exit code 4)."""

    exit_code = 4


class Stopped(VpgeaError):
    """Stopped by a signal after everything finished so far was saved (exit code 75, or 130 after Ctrl-C)."""

    def __init__(self, what: str, *, why: str, mend: str, exit_code: int = 75) -> None:
        super().__init__(what, why=why, mend=mend)
        self.exit_code = exit_code


def is_out_of_memory(error: BaseException) -> bool:
    """By name, since torch is not to be imported for this; its CPU allocator raises a bare RuntimeError."""
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "can't allocate memory" in str(error)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Which of the known names was probably meant, whatever its case; None where nothing is near.

    One that alone has the same last part, behind `.` or `/`, is nearer than any that is only spelt alike.
    """
    names = {one.lower(): one for one in known}
    same_end = [one for one in names if _last_part(one) == _last_part(name.lower())]
    found = same_end if len(same_end) == 1 else difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    return names[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str], mend: str) -> str:
    """How to mend a name that there is not: the nearest that there is, where one is near, and in any case `mend`."""
    near = nearest(name, known)
    return mend if near is None else f"did you mean {near}? {mend}"


def _last_part(name: str) -> str:
    return name.replace("/", ".").rpartition(".")[2]
