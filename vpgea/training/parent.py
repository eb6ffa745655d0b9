"""The process that started this rank, as the rank sees it: its task, its wish to stop, and whom progress is told."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from vpgea.errors import VpgeaError, is_out_of_memory
from vpgea.runs.stopping import StopRequest


class Parent:
    """Progress and errors to the parent; see `launch.py` for the lines that travel."""

    def __init__(self) -> None:
        """Take the task; what others print goes to standard error from here on."""
        self._reports = os.dup(1)
        os.dup2(2, 1)
        self._orders = os.fdopen(
            0, "rb", buffering=0, closefd=False
        )  # no lock of sys.stdin, for which an end would wait
        self.task: dict[str, Any] = json.loads(self._orders.readline() or b"{}")
        if not self.task:
            _end()
        left = self.task.pop("seconds_left")
        self.stop = StopRequest(None if left is None else time.time() + left)
        threading.Thread(target=self._listen, name="parent", daemon=True).start()

    def advance(self, steps: int, tokens: int = 0) -> None:
        self._report(advance=[steps, tokens])

    def note(self, text: str) -> None:
        self._report(note=text)

    def warn(self, text: str) -> None:
        self._report(warn=text)

    def fail(self, error: Exception) -> int:
        """Say why the work is not done; returns the exit code. The log has the whole of what nobody expected."""
        told = words_of(error)
        if told["kind"] == "Exception":
            traceback.print_exception(error)
        self._report(error=told)
        return getattr(error, "exit_code", 1)

    def _report(self, **event: Any) -> None:
        with suppress(BrokenPipeError):  # it has gone, which `_listen` hears
            os.write(self._reports, json.dumps(event).encode() + b"\n")

    def _listen(self) -> None:
        while line := self._orders.readline():
            self.stop.request(*json.loads(line)["stop"])
        _end()


def report_to_parent(work: Callable[[Parent], None]) -> int:
    """Do a rank's work and tell the parent how it went; returns the exit code."""
    parent = Parent()
    try:
        work(parent)
    except Exception as error:
        return parent.fail(error)
    return 0


def words_of(error: Exception) -> dict[str, Any]:
    """An exception as JSON, for `vpgea.training.launch.error_of`."""
    if isinstance(error, VpgeaError):
        words = {name: getattr(error, name) for name in ("what", "why", "mend", "exit_code")}
        return {"kind": type(error).__name__, **words}
    if isinstance(error, OSError) and error.errno is not None:
        name = None if error.filename is None else str(error.filename)
        return {"kind": "OSError", "arguments": [error.errno, error.strerror or "", name]}
    kind = "MemoryError" if is_out_of_memory(error) else "Exception"
    return {"kind": kind, "what": f"{type(error).__name__}: {error}"}


def _end() -> None:
    """Nobody waits for this rank any more: it ends with all that it started, whose group it leads."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)  # started by hand, in somebody's group
