"""Whether this process's threads get the cores that they ask for; what the kernel counts of them (Linux)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_TASKS = Path("/proc/self/task")
_WAITING_SHARE = 0.25  # of the time in which threads want to run; threads with cores of their own hardly wait
_LEAST_SECONDS = 2.0  # that threads ran and waited together: less says little


@dataclass(frozen=True)
class CoreTime:
    """Seconds that all threads of this process ran, and that they could have run but waited for a core."""

    ran: float
    waited: float

    @classmethod
    def now(cls) -> CoreTime:
        """Since they started; zeros where the kernel does not count it."""
        ran = waited = 0
        for task in _TASKS.glob("*/schedstat"):
            try:
                on_core, in_queue, _ = map(int, task.read_text(encoding="ascii").split())
            except (OSError, ValueError):  # a thread that has just ended, a kernel without these figures
                continue
            ran, waited = ran + on_core, waited + in_queue
        return cls(ran / 1e9, waited / 1e9)

    def trouble_since(self, earlier: CoreTime, threads: int) -> str:
        """A word for people where several threads that work together had to wait for cores, else nothing.

        threads: that compute together. Each piece of work is done when the last of them is, so that one that waits for
        its core stops all, and those that are done burn theirs meanwhile.
        """
        ran, waited = max(0.0, self.ran - earlier.ran), max(0.0, self.waited - earlier.waited)
        if threads == 1 or ran + waited < _LEAST_SECONDS or waited < _WAITING_SHARE * (ran + waited):
            return ""
        share = waited / (ran + waited)
        return f"threads wait {share:.0%} of the time for cores: model.threads=1 may be faster than {threads}"
