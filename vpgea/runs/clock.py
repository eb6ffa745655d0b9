"""Where the wall-clock time of a phase goes: seconds by activity, each attempt a line in the logs of the phase."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, TypeVar

from vpgea.runs.layout import LOGS, TIMES
from vpgea.runs.phase_folder import PhaseFolder

T = TypeVar("T")

# servers: started, or given other weights; loading: of weights in this process; checks: scores, continuations and the
# selection; publishing: written, reloaded and compared
Activity = Literal["servers", "loading", "sampling", "checks", "grading", "training", "publishing", "other"]
ACTIVITIES: tuple[Activity, ...] = (
    *("servers", "loading", "sampling", "checks", "grading", "training", "publishing"),
    "other",
)

# An evaluation's own work is one column, beside what it shares with other phases.
_SHARED = ("servers", "loading")
ROUND_COLUMNS = (*ACTIVITIES[:-1], "evaluation", "other")


class Clock:
    """Every second from its making on belongs to one activity: to the innermost that is under way, else to `other`."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        """now: seconds of a clock that never goes back."""
        self._now, self._since = now, now()
        self._activity: Activity = "other"
        self._seconds: dict[Activity, float] = dict.fromkeys(ACTIVITIES, 0.0)

    @contextmanager
    def on(self, activity: Activity) -> Iterator[None]:
        """While the block runs, time is spent on this, as far as no block within it has another activity."""
        before = self._turn_to(activity)
        try:
            yield
        finally:
            self._turn_to(before)

    def each(self, activity: Activity, items: Iterable[T]) -> Iterator[T]:
        """The items, the making of each spent on this; what is done with them is not."""
        making = iter(items)
        while True:
            with self.on(activity):
                try:
                    item = next(making)
                except StopIteration:
                    return
            yield item

    @property
    def seconds(self) -> dict[str, float]:
        """So far, to the millisecond; what took no time is left out."""
        self._turn_to(self._activity)
        rounded = {activity: round(seconds, 3) for activity, seconds in self._seconds.items()}
        return {activity: seconds for activity, seconds in rounded.items() if seconds > 0}

    @contextmanager
    def kept(self, folder: PhaseFolder, *, writes: bool = True) -> Iterator[None]:
        """Append the seconds to the phase's logs, however the block ends; nothing where the part was complete before.

        A log that cannot be written costs no more than what it would have said. writes: false for a process that leaves
        it to another one, which works with it.
        """
        is_new = writes and not folder.is_complete
        try:
            yield
        finally:
            if is_new:
                line = json.dumps({"part": str(folder.manifest.part), "seconds": self.seconds}) + "\n"
                with suppress(OSError):
                    _append(folder.root / LOGS / TIMES, line.encode())

    def _turn_to(self, activity: Activity) -> Activity:
        """Begin another activity; return the one that was under way."""
        before, now = self._activity, self._now()
        self._seconds[before] += now - self._since
        self._activity, self._since = activity, now
        return before


def _append(log: Path, line: bytes) -> None:
    """Add a line, in one piece; never through a link, which might lead out of the folder."""
    log.parent.mkdir(exist_ok=True)
    if log.parent.is_symlink():
        return
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        os.write(file, line)
    finally:
        os.close(file)


def seconds_of(folder: Path) -> dict[str, float]:
    """Seconds by activity of a phase's folder, over all attempts of all parts; empty where none was kept.

    A line that a crash has cut short says nothing; an attempt that was killed at once has none.
    """
    log, found = folder / LOGS / TIMES, dict.fromkeys(ACTIVITIES, 0.0)
    for text in log.read_bytes().splitlines() if log.is_file() else ():
        with suppress(ValueError, RecursionError):
            line = json.loads(text)
            seconds = line.get("seconds") if isinstance(line, dict) else None
            for activity, value in seconds.items() if isinstance(seconds, dict) else ():
                if activity in found and isinstance(value, int | float) and math.isfinite(value):
                    found[activity] += max(value, 0.0)
    return {activity: round(seconds, 3) for activity, seconds in found.items() if seconds > 0}


def columns_of(times: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Seconds of a round by ROUND_COLUMNS. times: phase → activity → seconds."""
    found = dict.fromkeys(ROUND_COLUMNS, 0.0)
    for phase, seconds in times.items():
        for activity, value in seconds.items():
            found["evaluation" if phase == "eval" and activity not in _SHARED else activity] += value
    return found
