"""Grading in isolated worker processes: a hard deadline per answer, a memory limit, restarts.

One thread, one `select` loop: each worker is a subprocess that speaks JSON lines. It gets a batch of answers and
returns them one by one, so that the deadline holds for each. A worker that misses it, or dies, costs only the answer
that it was at; the rest of its batch goes back to the queue. What the load of the machine, a freeze or a kill from
outside does to a worker says nothing about its answer: the deadline counts the worker's own CPU time (and the time in
which it waits for something), and an answer that was lost to such an event is tried once more.
"""

from __future__ import annotations

import select
import signal
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from vpgea.errors import QualityGateError, VpgeaError
from vpgea.grading.base import Grade, GradeRequest, Status
from vpgea.grading.process import Clock, WorkerProcess
from vpgea.grading.registry import is_own_grader, not_worked_out
from vpgea.storage.files import without_surrogates

_BATCH = 32  # answers per message
_START_DEADLINE_S = 120.0  # importing a grader of one's own may take a while
_TICK_S = 0.25  # at most, between two looks at the workers


class GraderPool:
    """A context manager with `grade`. Workers are started when first needed, reused, and gone at its end."""

    def __init__(
        self, grader: str, *, relative_tolerance: float, deadline_s: float, memory_mb: int, workers: int
    ) -> None:
        """No process is started yet.

        Args:
            grader: `math`, `choice`, `exact` or `package.module:function`; the latter is imported in a worker on entry.
            relative_tolerance: See `grade_math`.
            deadline_s: Seconds of a worker's CPU time for one answer, and of waiting for something else.
            memory_mb: MiB of address space of a worker above its start (Linux).
            workers: Processes.

        Raises:
            UsageError: There is no such grader; on entry, also when it cannot be imported.
        """
        self._grader = grader
        self._own = is_own_grader(grader)
        self._deadline_s = deadline_s
        self._clock = Clock(min(_TICK_S, deadline_s / 8))
        settings = {
            "grader": grader,
            "relative_tolerance": relative_tolerance,
            "memory_mb": memory_mb,
            "deadline_s": deadline_s,
        }
        self._workers = [WorkerProcess(settings, own=self._own) for _ in range(workers)]

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
        self._clock.restart()
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
        self._clock.restart()
        try:
            worker.start()
            while not worker.ready:
                for _ in self._select([worker]):
                    for message in worker.read():
                        worker.accept_start(message)
                if worker.ended:
                    raise _did_not_start("it ended at once")
                if worker.over(_START_DEADLINE_S):
                    raise _did_not_start("it was not ready in time")
        except BaseException:
            self.close()
            raise

    def _feed(self, worker: WorkerProcess, job: _Job) -> None:
        size = max(1, min(_BATCH, len(job.queue) // (2 * len(self._workers))))
        if not job.queue or len(worker.batch) > size // 4 or worker.unsent:  # the next batch arrives before it is idle
            return
        if worker.died_idle:
            worker.stop()  # killed between two batches: no answer is to blame
        if not worker.running:
            if sum(other.running and not other.ready for other in self._workers) < len(job.queue):
                worker.start()
        elif worker.ready:
            worker.send([job.queue.popleft() for _ in range(size)], job.requests)

    def _collect(self, job: _Job) -> None:
        busy = [worker for worker in self._workers if worker.batch or (worker.running and not worker.ready)]
        for worker in self._select(busy):
            for message in worker.read():
                if not worker.ready:
                    worker.accept_start(message)
                else:
                    index, disturbed = worker.take_answer()
                    assert index == message["index"], "answers come in the order in which they were asked for"
                    grade = _read_grade(message)
                    if grade.status.valid or not (disturbed and job.again(index)):
                        job.put(index, grade)
        for worker in busy:
            if worker.ended:
                self._bury(worker, job)
            elif worker.batch and worker.over(self._deadline_s):
                worker.stop()
                self._give_up(worker, job, f"no grade within {self._deadline_s:g} s", disturbed=worker.disturbed)
            elif not worker.ready and worker.over(_START_DEADLINE_S):
                raise _did_not_start("it was not ready in time")

    def _select(self, workers: list[WorkerProcess]) -> list[WorkerProcess]:
        """Those that have something to read, at the latest after a tick, when all are looked at."""
        poll, writers, readers = select.poll(), dict[int, WorkerProcess](), dict[int, WorkerProcess]()
        for worker in workers:
            readers[worker.outbox] = worker
            poll.register(worker.outbox, select.POLLIN)
            if worker.unsent:
                writers[worker.inbox] = worker
                poll.register(worker.inbox, select.POLLOUT)
        events = poll.poll(1000 * self._clock.tick_s)
        for number, _ in events:
            if number in writers:
                writers[number].flush()
        readable = [readers[number] for number, _ in events if number in readers]
        if tick := self._clock.tick():
            past_s, frozen = tick
            for worker in workers:
                worker.watch(past_s, frozen=frozen)
        return readable

    def _bury(self, worker: WorkerProcess, job: _Job) -> None:
        """A worker has ended by itself: by its CPU timer, or it died, which may have come from outside."""
        code = worker.stop()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if not worker.was_ready:
            raise _did_not_start(f"the grading worker died ({how})")
        if code == -signal.SIGPROF:
            self._give_up(worker, job, f"no grade within {self._deadline_s:g} s of computing", disturbed=False)
        else:
            self._give_up(worker, job, f"the grading worker died ({how})", disturbed=True, status=Status.ERROR)

    def _give_up(
        self, worker: WorkerProcess, job: _Job, detail: str, *, disturbed: bool, status: Status = Status.TIMEOUT
    ) -> None:
        """The answer that the worker was at has no grade, or is tried once more where it was disturbed.

        Those behind it go back to the front of the queue.
        """
        job.queue.extendleft(reversed(list(worker.batch)[1:]))
        if worker.batch and not (disturbed and job.again(worker.batch[0])):
            index = worker.batch[0]
            job.put(index, not_worked_out(self._grader, job.requests[index], status, detail))
        worker.batch.clear()


class _Job:
    """One call of `grade`: what is to be graded, and what came back."""

    def __init__(self, requests: Sequence[GradeRequest], on_result: Callable[[int], None] | None) -> None:
        self.requests = requests
        self.queue = deque(range(len(requests)))
        self._grades: list[Grade | None] = [None] * len(requests)
        self._done = 0
        self._on_result = on_result
        self._tried_again: set[int] = set()

    @property
    def open(self) -> bool:
        return self._done < len(self.requests)

    def again(self, index: int) -> bool:
        """Put an answer that something outside has touched back into the queue; False where it was so before."""
        if index in self._tried_again:
            return False
        self._tried_again.add(index)
        self.queue.appendleft(index)
        return True

    def put(self, index: int, grade: Grade) -> None:
        assert self._grades[index] is None, "an answer was graded twice"
        self._grades[index] = grade
        self._done += 1
        if self._on_result:
            self._on_result(self._done)

    def result(self) -> list[Grade]:
        return [grade for grade in self._grades if grade is not None]


def _did_not_start(why: str) -> VpgeaError:
    return VpgeaError(
        "a grading worker did not start", why=why, mend="see its output above; try grading.workers=1 on a small machine"
    )


def _read_grade(message: dict[str, Any]) -> Grade:
    """A grade as the worker wrote it. Texts of a model or of a grader's error may hold half of a surrogate pair."""
    extracted, detail = (
        None if text is None else without_surrogates(text) for text in (message["extracted"], message["detail"])
    )
    return Grade(Status(message["status"]), extracted, detail, message["source"])


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
