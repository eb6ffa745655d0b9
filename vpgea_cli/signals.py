"""HUP, USR1, TERM and Ctrl-C: the first asks the run to save and stop, a second one ends it at once."""

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
    """Turn signals into `stop` while the block runs. A second one kills the run's own children and the run.

    HUP, when a terminal or an ssh connection is lost, is heeded unless it was ignored from the start, and is never that
    second one.

    Args:
        stop: What is asked to stop.
        tell: Says a line to people, and can be called at any point of the program.
    """

    urged = False

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal urged
        interrupt = number == signal.SIGINT
        name = "Ctrl-C" if interrupt else signal.Signals(number).name
        if urged and number != signal.SIGHUP:
            _leave_at_once(stop, INTERRUPTED if interrupt else TERMINATED)
        # A terminal that closes sends HUP more than once, and a session that ends sends it along with TERM: one event.
        urged = urged or number != signal.SIGHUP
        stop.request(name, INTERRUPTED if interrupt else REQUEUE)
        tell(f"{name}: stopping after saving; once more to leave at once")

    numbers = [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup starts it
        numbers.append(signal.SIGHUP)
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
