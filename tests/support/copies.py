"""Python programs that begin as copies of the process that starts them: processes of their own, with their own pipes,
environment and signals, that need not start an interpreter and import everything anew."""

from __future__ import annotations

import gc
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest


class Copy(subprocess.Popen[bytes]):
    """`python ... -c CODE` or `python ... -m MODULE`, run by a fork of this process instead of a new interpreter."""

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], **options: Any) -> None:
        place = next(place for place, word in enumerate(command) if word in ("-c", "-m"))
        option, program, *arguments = command[place:]
        super().__init__(command, preexec_fn=partial(_become, option, program, arguments, env), **options)


SUBPROCESS = SimpleNamespace(**{**vars(subprocess), "Popen": Copy})  # instead of the module of this name


@contextmanager
def graders_are_copies() -> Iterator[None]:
    """Grading workers that this process starts are copies of it, which has imported what they need."""
    import math_verify  # noqa: F401

    import vpgea.grading.worker  # noqa: F401

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vpgea.grading.process.subprocess", SUBPROCESS)
        yield


def _become(option: str, program: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """What the command would do, in the child just before it would be executed; does not return."""
    code = 1
    try:
        gc.freeze()  # what is shared with the parent is not looked through, and so not copied
        gc.enable()  # subprocess has switched it off
        _as_if_executed(environment)
        sys.argv = [option, *arguments]
        if option == "-m":
            sys.modules.pop(program, None)  # it is run a second time, under another name
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            exec(program, {"__name__": "__main__"})
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(code)


def _as_if_executed(environment: Mapping[str, str]) -> None:
    """Files, environment, path and signals as an interpreter has them that was started with them."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # among them the pipe whose end tells the parent that it has begun
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
