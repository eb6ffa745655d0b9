"""Grading in isolated worker processes: a hard deadline per answer, a memory limit, restarts.

One thread, one `select` loop: each worker is a subprocess that speaks JSON lines. It gets a batch of answers and
returns them one by one, so that the deadline holds for each. A worker that misses it, or dies, costs only the answer
that it was at; the rest of its batch goes back to the queue.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import vpgea
from vpgea.errors import QualityGateError, UsageError, VpgeaError
from vpgea.grading.base import Grade, GradeRequest, Status
from vpgea.grading.registry import is_own_grader

_BATCH = 32  # answers per message
_START_DEADLINE_S = 120.0  # importing a grader of one's own may take a while


class GraderPool:
    """A context manager with `grade`. Workers are started when first needed, reused, and gone at its end."""

    def __init__(
        self, grader: str, *, relative_tolerance: float, deadline_s: float, memory_mb: int, workers: int
    ) -> None:
        """No process is started yet.

        Args:
            grader: `math`, `choice`, `exact` or `package.module:function`; the latter is imported in a worker on entry.
            relative_tolerance: See `grade_math`.
            deadline_s: Wall-clock seconds for one answer.
            memory_mb: MiB of address space of a worker above its start (Linux).
            workers: Processes.

        Raises:
            UsageError: There is no such grader; on entry, also when it cannot be imported.
        """
        self._own = is_own_grader(grader)
        self._deadline_s = deadline_s
        self._workers = [
            _Worker(
                {
                    "grader": grader,
                    "relative_tolerance": relative_tolerance,
                    "memory_mb": memory_mb,
                    "deadline_s": deadline_s,
                }
            )
            for _ in range(workers)
        ]

    def __enter__(self) -> GraderPool:
        if self._own:
            self._check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill and reap the workers. They hold no state; a later `grade` starts them anew."""
        for worker in self._workers:
            worker.stop()
            worker.batch.clear()

    def grade(self, requests: Sequence[GradeRequest], on_result: Callable[[int], None] | None = None) -> list[Grade]:
        """Grade all requests.

        Args:
            requests: What to grade.
            on_result: Called with the number of answers graded so far; what it raises ends the grading.

        Returns:
            One grade per request, in their order.

        Raises:
            UsageError: A worker refuses the grader.
            VpgeaError: Workers do not start.
        """
        job = _Job(requests, on_result)
        try:
            while job.open:
                for worker in sorted(self._workers, key=lambda worker: not worker.ready):
                    self._feed(worker, job)
                self._collect(job)
        except BaseException:
            self.close()  # answers of this call must not turn up in the next one
            raise
        return job.result()

    def _check(self) -> None:
        worker = self._workers[0]
        try:
            worker.start()
            while not worker.ready:
                if not _select([worker], worker.deadline):
                    raise _did_not_start("it was not ready in time")
                for message in worker.read():
                    worker.accept_start(message)
                if worker.ended:
                    raise _did_not_start("it ended at once")
        except BaseException:
            self.close()
            raise

    def _feed(self, worker: _Worker, job: _Job) -> None:
        if not job.queue or worker.batch:
            return
        if worker.died_idle:
            worker.stop()  # killed between two batches: no answer is to blame
        if not worker.running:
            if sum(other.running and not other.ready for other in self._workers) < len(job.queue):
                worker.start()
        elif worker.ready:
            size = max(1, min(_BATCH, len(job.queue) // (2 * len(self._workers))))
            worker.send([job.queue.popleft() for _ in range(size)], job.requests, self._deadline_s)

    def _collect(self, job: _Job) -> None:
        busy = [worker for worker in self._workers if worker.batch or (worker.running and not worker.ready)]
        for worker in _select(busy, min(worker.deadline for worker in busy)):
            for message in worker.read():
                if not worker.ready:
                    worker.accept_start(message)
                else:
                    worker.batch.popleft()
                    worker.deadline = time.monotonic() + self._deadline_s
                    job.put(message["index"], _read_grade(message))
        for worker in busy:
            if worker.ended:
                self._give_up(worker, job, Status.ERROR, f"the grading worker died ({worker.stop()})")
            elif (worker.batch or not worker.ready) and time.monotonic() > worker.deadline:
                worker.stop()
                late = f"no grade within {self._deadline_s:g} s" if worker.was_ready else "it was not ready in time"
                self._give_up(worker, job, Status.TIMEOUT, late)

    def _give_up(self, worker: _Worker, job: _Job, status: Status, detail: str) -> None:
        """The answer that the worker was at gets the status; those behind it go back to the front of the queue."""
        if not worker.was_ready:
            raise _did_not_start(detail)
        if worker.batch:
            job.put(worker.batch.popleft(), Grade(status, detail=detail))
        job.queue.extendleft(reversed(worker.batch))
        worker.batch.clear()


class _Job:
    """One call of `grade`: what is to be graded, and what came back."""

    def __init__(self, requests: Sequence[GradeRequest], on_result: Callable[[int], None] | None) -> None:
        self.requests = requests
        self.queue = deque(range(len(requests)))
        self._grades: list[Grade | None] = [None] * len(requests)
        self._done = 0
        self._on_result = on_result

    @property
    def open(self) -> bool:
        return self._done < len(self.requests)

    def put(self, index: int, grade: Grade) -> None:
        assert self._grades[index] is None, "an answer was graded twice"
        self._grades[index] = grade
        self._done += 1
        if self._on_result:
            self._on_result(self._done)

    def result(self) -> list[Grade]:
        return [grade for grade in self._grades if grade is not None]


class _Worker:
    """One subprocess. batch: indices sent and not yet answered, the first is the one it is at."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""
        self.batch: deque[int] = deque()
        self.ready = self.was_ready = self.ended = False
        self.deadline = 0.0

    @property
    def running(self) -> bool:
        return self._process is not None

    @property
    def died_idle(self) -> bool:
        return self.ready and not self.batch and self._process is not None and self._process.poll() is not None

    def start(self) -> None:
        """Start without waiting. In a process group of its own: a terminal's Ctrl-C is the parent's affair."""
        package = str(Path(vpgea.__file__).parent.parent)
        path = os.pathsep.join(part for part in (os.environ.get("PYTHONPATH"), package) if part)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vpgea.grading.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            process_group=0,
        )
        self._unread = b""
        self.ready = self.was_ready = self.ended = False
        self.deadline = time.monotonic() + _START_DEADLINE_S
        self._write(self._settings)

    def stop(self) -> str:
        """Kill and reap; says how the process ended."""
        process, self._process = self._process, None
        self.ready = False
        if process is None:
            return "not running"
        assert process.stdout is not None
        if self.ended:  # it is on its way out by itself: let it say how
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=1.0)
        process.kill()
        code = process.wait()
        process.stdout.close()
        _close_quietly(process)
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def accept_start(self, message: dict[str, Any]) -> None:
        if refused := message.get("refused"):
            raise UsageError(refused["what"], why=refused["why"], mend=refused["mend"])
        self.ready = self.was_ready = True

    def send(self, indices: list[int], requests: Sequence[GradeRequest], deadline_s: float) -> None:
        self.batch.extend(indices)
        self.deadline = time.monotonic() + deadline_s
        items = [(index, requests[index]) for index in indices]
        self._write(
            [{"index": i, "response": r.response, "reference": r.reference, "question": r.question} for i, r in items]
        )

    def _write(self, message: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died; its end of output says so to `read`
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def fileno(self) -> int:
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def read(self) -> list[dict[str, Any]]:
        """The messages that have arrived in full; sets `ended` at the end of output."""
        chunk = os.read(self.fileno(), 1 << 16)
        self.ended = not chunk
        *lines, self._unread = (self._unread + chunk).split(b"\n")
        return [json.loads(line) for line in lines]


def _close_quietly(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # what was buffered for a dead worker
        process.stdin.close()


def _select(workers: list[_Worker], deadline: float) -> list[_Worker]:
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            selector.register(worker, selectors.EVENT_READ, worker)
        return [key.data for key, _ in selector.select(max(0.0, deadline - time.monotonic()))]


def _did_not_start(why: str) -> VpgeaError:
    return VpgeaError(
        "a grading worker did not start", why=why, mend="see its output above; try grading.workers=1 on a small machine"
    )


def _read_grade(message: dict[str, Any]) -> Grade:
    return Grade(Status(message["status"]), message["extracted"], message["detail"], message["source"])


def error_share(grades: Sequence[Grade]) -> float:
    """Share of the grades that are `error` or `timeout`; 0 for none at all."""
    return sum(not grade.status.valid for grade in grades) / len(grades) if grades else 0.0


def check_error_share(grades: Sequence[Grade], max_share: float) -> None:
    """QualityGateError when a larger share than max_share ended in `error` or `timeout`."""
    share = error_share(grades)
    if share > max_share:
        failed = [grade for grade in grades if not grade.status.valid]
        raise QualityGateError(
            f"{len(failed)} of {len(grades)} answers ({share:.1%}) could not be graded; {max_share:.1%} may",
            why=f"the first: {failed[0].status}, {failed[0].detail or 'without a reason'}",
            mend="mend the grader, raise grading.deadline_s or grading.memory_mb, or allow more with "
            "grading.max_grade_errors",
        )
