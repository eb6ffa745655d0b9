"""USR1, TERM and Ctrl-C: the first asks the run to save and stop, the second ends it at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from vpgea.runs.stopping import INTERRUPTED, REQUEUE, StopRequest

TERMINATED = 143
_SHOW_CURSOR = b"\x1b[?25h\n"


@contextmanager
def install_signal_handlers(stop: StopRequest, tell: Callable[[str], None]) -> Iterator[StopRequest]:
    """Turn signals into `stop` while the block runs. A second signal kills the run's own children and the run.

    Args:
        stop: What is asked to stop.
        tell: Says a line to people, and can be called at any point of the program.
    """

    def handle(number: int, _: FrameType | None) -> None:
        interrupt = number == signal.SIGINT
        name = "Ctrl-C" if interrupt else signal.Signals(number).name
        if stop.requested:
            _leave_at_once(stop, INTERRUPTED if interrupt else TERMINATED)
        stop.request(name, INTERRUPTED if interrupt else REQUEUE)
        tell(f"{name}: stopping after saving; once more to leave at once")

    numbers = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave_at_once(stop: StopRequest, exit_code: int) -> None:
    for group in stop.process_groups:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    if os.isatty(2):
        os.write(2, _SHOW_CURSOR)  # a display that could not say goodbye had hidden it
    os._exit(exit_code)
