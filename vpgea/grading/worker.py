"""The isolated grading process: JSON lines in, JSON lines out. Started by `process.py`.

Nothing is unpickled. Standard output is taken away from the grader before it is loaded, so that what it prints goes
to standard error and cannot break the protocol.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

from vpgea.errors import UsageError
from vpgea.grading.base import Grade, Grader, GradeRequest, Status
from vpgea.grading.process import MARK, kill_marked
from vpgea.grading.registry import is_own_grader, load_grader, not_worked_out

_MIB = 1 << 20


def main() -> int:
    """Read the settings from the first line, say ready (or why not), then grade batch after batch until the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    settings = json.loads(sys.stdin.readline())
    own = is_own_grader(settings["grader"])
    threading.Thread(target=_leave_with_parent, args=(os.getppid(), own), daemon=True).start()
    if own:
        sys.path.append(str(Path.cwd()))  # last: a file there named like a library is not that library
    try:
        grader = load_grader(settings["grader"], settings["relative_tolerance"])
    except UsageError as error:
        _send(protocol, {"refused": {"what": error.what, "why": error.why, "mend": error.mend}})
        return error.exit_code
    _limit_memory(settings["memory_mb"])
    _send(protocol, {"ready": True})
    for line in sys.stdin:
        for item in json.loads(line):
            _arm_cpu_limit(settings["deadline_s"])
            _send(protocol, _grade(settings["grader"], grader, item))
        _arm_cpu_limit(0)
    return 0


def _grade(spec: str, grader: Grader, item: dict[str, Any]) -> dict[str, Any]:
    request = GradeRequest(item["response"], item["reference"], item["question"])
    try:
        grade = grader(request)
    except (MemoryError, RecursionError) as error:
        grade = not_worked_out(spec, request, Status.ERROR, f"{type(error).__name__}: {error}")
    except Exception as error:  # whatever a grader raises on untrusted text is this row's error, not the run's
        grade = Grade(Status.ERROR, detail=_words_of(error))
    return {
        "index": item["index"],
        "status": grade.status,
        "extracted": grade.extracted,
        "detail": grade.detail,
        "source": grade.source,
    }


def _words_of(error: Exception) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # its own text is the grader's code, too
        return f"{type(error).__name__}, whose message cannot be read"


def _send(protocol: TextIO, message: dict[str, Any]) -> None:
    protocol.write(json.dumps(message) + "\n")
    protocol.flush()


def _limit_memory(memory_mb: int) -> None:
    """Address space as it is now plus memory_mb MiB. Only where /proc tells how large it is now (Linux)."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        now = int(statm.read_text().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = now + memory_mb * _MIB
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _arm_cpu_limit(deadline_s: float) -> None:
    """End this process by SIGPROF's default action after so many seconds of its own CPU time; 0 switches it off.

    The load of the machine does not shorten them, and a computation inside one C call is ended as well.
    """
    signal.setitimer(signal.ITIMER_PROF, deadline_s)


def _leave_with_parent(parent: int, own: bool) -> None:
    """Nothing that was started here outlives the pool's process."""
    while os.getppid() == parent:
        time.sleep(0.5)
    if own:
        kill_marked(os.environ.get(MARK, ""))
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
