"""Graders of a user's own, well and badly behaved, for the tests of the pool."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

NOT_CALLABLE = 7


def contains(*, response: str, reference: str, question: str) -> bool:
    return reference in response


def by_name(*, response: str, reference: str, question: str) -> str:
    return "correct" if response == reference else question


def noisy(*, response: str, reference: str, question: str) -> bool:
    print('{"index": 0, "status": "correct"}')
    os.write(1, b"straight to the descriptor\n")
    sys.stdout.flush()
    return response == reference


class Speechless(Exception):
    """One that cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no")


def misbehave(*, response: str, reference: str, question: str) -> bool:
    """Does what the response says; everything else is compared with the reference."""
    if response == "raise":
        raise ZeroDivisionError("of the user's own")
    if response == "sleep":
        time.sleep(600)
    if response == "spin":
        while True:
            pass
    if response == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if response == "exit":
        sys.exit(3)
    if response == "surrogate":
        raise ValueError("half a pair: \ud800")
    if response == "speechless":
        raise Speechless
    if response == "nap":
        time.sleep(0.3)
        return True
    if response == "burn":
        began = time.process_time()
        while time.process_time() - began < 0.4:
            pass
        return True
    if response == "programs":
        for new_session in (False, True):
            subprocess.Popen(["sleep", question], start_new_session=new_session)
        time.sleep(600)
    if response.startswith("once "):  # dies where the file that it names is not there yet
        file = Path(response.removeprefix("once "))
        if not file.exists():
            file.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return True
    if response == "memory":
        hoard = [bytearray(1 << 20) for _ in range(1 << 20)]
        return len(hoard) == 0
    if response == "none":
        return None  # type: ignore[return-value]
    return response == reference
