"""The isolated grading process: JSON lines in, JSON lines out. Started by `pool.py` as `python -m`.

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
from vpgea.grading.registry import load_grader

_MIB = 1 << 20


def main() -> int:
    """Read the settings from the first line, say ready (or why not), then grade batch after batch until the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    settings = json.loads(sys.stdin.readline())
    threading.Thread(target=_leave_with_parent, args=(os.getppid(),), daemon=True).start()
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
            _send(protocol, _grade(grader, item))
        _arm_cpu_limit(0)
    return 0


def _grade(grader: Grader, item: dict[str, Any]) -> dict[str, Any]:
    request = GradeRequest(item["response"], item["reference"], item["question"])
    try:
        grade = grader(request)
    except Exception as error:  # whatever a grader raises on untrusted text is this row's error, not the run's
        grade = Grade(Status.ERROR, detail=f"{type(error).__name__}: {error}")
    return {
        "index": item["index"],
        "status": grade.status,
        "extracted": grade.extracted,
        "detail": grade.detail,
        "source": grade.source,
    }


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
    """Backstop for an orphan that computes inside one C call: SIGPROF's default action ends the process.

    The parent's wall-clock deadline comes first. 0 switches it off.
    """
    signal.setitimer(signal.ITIMER_PROF, 2 * deadline_s)


def _leave_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
