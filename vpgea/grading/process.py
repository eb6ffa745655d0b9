"""One grading worker as the pool sees it: started, fed, watched, and killed with all that it has started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

import vpgea
from vpgea.errors import UsageError
from vpgea.grading.base import GradeRequest
from vpgea.storage.files import without_surrogates

MARK = "GRADING_WORKER_OF_VPGEA"  # in the environment of a worker, and so of all that it starts
_SWEEPS = 3  # a program may start another one while it is looked for
_GRACE = 1.5  # the worker's own CPU timer comes first: this is for graders that have taken it away


class Clock:
    """Seconds for deadlines. They do not pass while this process is frozen.

    A stopped process group, a suspended job or a paused machine shows as a gap between two ticks.
    """

    def __init__(self, tick_s: float) -> None:
        self.tick_s = tick_s
        self._last = time.monotonic()

    def restart(self) -> None:
        """Forget the time since the last tick: nothing was waited for."""
        self._last = time.monotonic()

    def tick(self) -> tuple[float, bool] | None:
        """(seconds since the last tick, whether there was a freeze); None where a tick is not over yet."""
        now = time.monotonic()
        past = now - self._last
        if past < self.tick_s:
            return None
        self._last = now
        return min(past, 2 * self.tick_s), past > self.tick_s + 1.0


class WorkerProcess:
    """One subprocess. batch: indices sent and not yet answered, the first is the one it is at.

    Attributes:
        batch: See above.
        ready: It runs, and has said that it is ready.
        was_ready: As `ready`, but stays when the process has ended.
        ended: Its end of the pipe is closed.
        waited_s: Seconds (of the pool's clock) for which it has waited rather than computed at the present answer;
            before it is ready, for which it has been starting.
        computed_s: CPU seconds at the present answer, as of the last look.
        disturbed: An event outside has touched the present answer: a freeze of everything, or of this process.
    """

    def __init__(self, settings: dict[str, Any], *, own: bool) -> None:
        self._settings = settings
        self._own = own  # a grader of the user's own may start programs, and import from the working directory
        self._process: subprocess.Popen[bytes] | None = None
        self._watched: psutil.Process | None = None
        self._mark = ""
        self._unread = self._unsent = b""
        self._cpu_s = 0.0
        self._next_answer = True
        self._frozen = False
        self.batch: deque[int] = deque()
        self.ready = self.was_ready = self.ended = self.disturbed = False
        self.waited_s = self.computed_s = 0.0

    @property
    def running(self) -> bool:
        return self._process is not None

    @property
    def died_idle(self) -> bool:
        return self.ready and not self.batch and self._process is not None and self._process.poll() is not None

    def start(self) -> None:
        """Start without waiting. In a process group of its own: a terminal's Ctrl-C is the parent's affair.

        The working directory is not on its path: a file random.py there is none of its modules (worker.py adds it,
        last, for a grader of the user's own). It loads this very vpgea. Sets are iterated in the same order each time.
        """
        package = str(Path(vpgea.__file__).parent.parent)
        code = (
            f"import sys; sys.path.insert(0, {package!r}); import vpgea; del sys.path[0]; "
            "from vpgea.grading.worker import main; sys.exit(main())"
        )
        self._mark = f"{os.getpid()}-{id(self):x}-{time.monotonic_ns()}"
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-P", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "PYTHONHASHSEED": "0", MARK: self._mark},
            process_group=0,
        )
        os.set_blocking(self.inbox, False)
        with contextlib.suppress(psutil.NoSuchProcess):
            self._watched = psutil.Process(self._process.pid)
        self.ready = self.was_ready = self.ended = False
        self._begin_answer()
        self._write(self._settings)

    def stop(self) -> int:
        """Kill and reap it and what it has started; returns its code as `Popen.returncode`, 0 where none ran."""
        process, self._process = self._process, None
        self._watched = None
        self._unread = self._unsent = b""
        self.ready = False
        if process is None:
            return 0
        assert process.stdin is not None
        assert process.stdout is not None
        if self.ended:  # it is on its way out by itself: let it say how
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=1.0)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        code = process.wait()
        if self._own:
            kill_marked(self._mark)
        process.stdout.close()
        process.stdin.close()
        return code

    def accept_start(self, message: dict[str, Any]) -> None:
        """Take the first message: it is ready, or refuses its grader (UsageError)."""
        if refused := message.get("refused"):
            what, why, mend = (without_surrogates(refused[part]) for part in ("what", "why", "mend"))
            raise UsageError(what, why=why, mend=mend)
        self.ready = self.was_ready = True
        self._begin_answer()

    def send(self, indices: list[int], requests: Sequence[GradeRequest]) -> None:
        """Give it the requests of these indices, behind those that it has."""
        if not self.batch:
            self._begin_answer()
        self.batch.extend(indices)
        items = [(index, requests[index]) for index in indices]
        self._write(
            [{"index": i, "response": r.response, "reference": r.reference, "question": r.question} for i, r in items]
        )

    def take_answer(self) -> tuple[int, bool]:
        """The index that an arrived answer belongs to, and whether something outside has disturbed it."""
        disturbed = self.disturbed
        self._begin_answer()
        return self.batch.popleft(), disturbed

    def watch(self, past_s: float, *, frozen: bool) -> None:
        """Account for the time since the last look: did it compute, want to compute, wait, or was it stopped?"""
        self._frozen = frozen
        self.disturbed |= frozen
        if self._watched is None:
            return
        try:
            with self._watched.oneshot():
                times, status = self._watched.cpu_times(), self._watched.status()
        except psutil.Error:
            return  # it is ending; the pipe will say so
        cpu_s, before = times.user + times.system, self._cpu_s
        self._cpu_s = cpu_s
        if self._next_answer:  # it was at another answer when it was looked at last
            self._next_answer = False
            return
        self.computed_s += cpu_s - before
        self.disturbed |= status == psutil.STATUS_STOPPED
        if status != psutil.STATUS_RUNNING:  # one that is runnable waits for nothing but a free core
            self.waited_s += max(0.0, past_s - (cpu_s - before))

    def over(self, deadline_s: float) -> bool:
        """Whether it has waited, or computed, for longer than an answer may."""
        return self.waited_s > deadline_s or self.computed_s > _GRACE * deadline_s + 0.5

    def _begin_answer(self) -> None:
        self.waited_s = self.computed_s = 0.0
        self.disturbed, self._next_answer = self._frozen, True  # answers arrive late after a freeze: it may be this one

    def _write(self, message: object) -> None:
        self._unsent += json.dumps(message).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        """Write what its pipe takes, without waiting: it may be busy, or stopped, while a deadline counts."""
        while self._unsent:
            try:
                self._unsent = self._unsent[os.write(self.inbox, self._unsent) :]
            except BlockingIOError:
                return
            except BrokenPipeError:  # it died; its end of output says so to `read`
                self._unsent = b""

    @property
    def unsent(self) -> bool:
        """Whether something waits for room in its pipe."""
        return bool(self._unsent)

    @property
    def inbox(self) -> int:
        """The file that it reads from."""
        assert self._process is not None
        assert self._process.stdin is not None
        return self._process.stdin.fileno()

    @property
    def outbox(self) -> int:
        """The file that it writes to."""
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def read(self) -> list[dict[str, Any]]:
        """The messages that have arrived in full; sets `ended` at the end of output."""
        chunk = os.read(self.outbox, 1 << 16)
        self.ended = not chunk
        *lines, self._unread = (self._unread + chunk).split(b"\n")
        return [json.loads(line) for line in lines]


def kill_marked(mark: str) -> None:
    """Kill every other process that carries a worker's mark: in groups and sessions of their own, too."""
    for _ in range(_SWEEPS):
        found = [process for process in psutil.process_iter() if process.pid != os.getpid() and _has(process, mark)]
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        if not found:
            return


def _has(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):
        return False
