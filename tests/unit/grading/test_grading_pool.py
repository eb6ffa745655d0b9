"""Isolated workers: deadlines, memory, deaths, noise, and nothing left behind. Real processes throughout."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from vpgea.errors import QualityGateError, UsageError
from vpgea.grading.base import Grade, GradeRequest, Status
from vpgea.grading.pool import GraderPool, check_error_share, error_share
from vpgea.grading.registry import load_grader

OWN = Path(__file__).parents[2] / "data" / "grading"
PACKAGE = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def own_graders_and_no_leftovers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PYTHONPATH", str(OWN))
    before = set(psutil.Process().children(recursive=True))
    yield
    assert set(psutil.Process().children(recursive=True)) <= before, "a worker was left, alive or as a zombie"


def make_pool(grader: str, *, deadline_s: float = 5.0, memory_mb: int = 512, workers: int = 1) -> GraderPool:
    return GraderPool(grader, relative_tolerance=1e-6, deadline_s=deadline_s, memory_mb=memory_mb, workers=workers)


def own(name: str) -> str:
    return f"own_graders:{name}"


def responses(*texts: str) -> list[GradeRequest]:
    return [GradeRequest(text, "right") for text in texts]


def statuses(grades: list[Grade]) -> list[Status]:
    return [grade.status for grade in grades]


def test_grades_come_in_order_and_are_counted() -> None:
    requests = [GradeRequest(f"\\boxed{{{i}}}", str(i - i % 2)) for i in range(500)]
    counts: list[int] = []
    with make_pool("math", workers=2) as pool:
        grades = pool.grade(requests, counts.append)
        again = pool.grade(requests[:3])
        assert pool.grade([]) == []
    assert statuses(grades) == [Status.WRONG if i % 2 else Status.CORRECT for i in range(500)]
    assert [grade.extracted for grade in grades] == [str(i) for i in range(500)]
    assert again == grades[:3]
    assert counts == list(range(1, 501))


def test_thousands_of_rows_are_graded_each() -> None:
    requests = [GradeRequest(f"So we get {i} * 7.\n\\boxed{{{7 * i:,}}}", str(7 * i)) for i in range(3000)]
    with make_pool("math") as pool:
        grades = pool.grade(requests)
    assert statuses(grades) == [Status.CORRECT] * 3000


def test_what_runs_into_the_limit_ends_as_timeout_and_the_pool_goes_on() -> None:
    nested = "(" * 2000 + "x+1" + ")" * 2000
    hard = [("9^{9^9}", "3"), ("(10^7)!", "3"), ("(1+" * 2000 + "1" + ")" * 2000, "7"), (nested, "x+1"), ("4", "4")]
    with make_pool("math", deadline_s=2.0) as pool:
        pool.grade([GradeRequest("1", "1")])
        grades = pool.grade([GradeRequest(f"\\boxed{{{found}}}", gold) for found, gold in hard])
    assert statuses(grades)[3:] == [Status.CORRECT, Status.CORRECT]
    assert all(grade.status in (Status.TIMEOUT, Status.WRONG) for grade in grades[:3])
    assert grades[0].status is Status.TIMEOUT
    assert "2 s" in str(grades[0].detail)


def test_a_bad_row_costs_only_itself() -> None:
    with make_pool(own("misbehave"), deadline_s=1.0, memory_mb=128) as pool:
        texts = ["right", "raise", "right", "kill", "wrong", "exit", "right", "sleep", "spin", "none", "right"]
        grades = pool.grade(responses(*texts))
    right, wrong, error, timeout = Status.CORRECT, Status.WRONG, Status.ERROR, Status.TIMEOUT
    assert statuses(grades) == [right, error, right, error, wrong, error, right, timeout, timeout, error, right]
    assert grades[1].detail == "ZeroDivisionError: of the user's own"
    assert "signal 9" in str(grades[3].detail)
    assert "exit code 3" in str(grades[5].detail)
    assert "must return a bool" in str(grades[9].detail)


def test_memory_bomb_is_stopped_and_the_pool_goes_on() -> None:
    with make_pool(own("misbehave"), memory_mb=128) as pool:
        grades = pool.grade(responses("memory", "right", "memory", "right"))
    assert statuses(grades)[1::2] == [Status.CORRECT, Status.CORRECT]
    assert all(grade.status in (Status.ERROR, Status.TIMEOUT) for grade in grades[::2])


def test_what_a_grader_prints_is_harmless(capfd: pytest.CaptureFixture[str]) -> None:
    with make_pool(own("noisy")) as pool:
        grades = pool.grade(responses("wrong", "right", "wrong"))
    assert statuses(grades) == [Status.WRONG, Status.CORRECT, Status.WRONG]
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.count("straight to the descriptor") == 3


def test_kill_9_of_a_worker_costs_at_most_one_row() -> None:
    requests = [GradeRequest("\\boxed{x+1+y}", f"y+1+x+{i}-{i}") for i in range(200)]
    with make_pool("math", workers=2) as pool:
        pool.grade(requests[:8])
        victim = psutil.Process().children()[0]
        grades = pool.grade(requests, lambda done: victim.kill() if done == 50 else None)
        assert victim not in psutil.Process().children()
    lost = [grade for grade in grades if not grade.status.valid]
    assert len(grades) == 200
    assert len(lost) <= 1
    assert all(grade.status is Status.ERROR for grade in lost)
    assert statuses(grades).count(Status.CORRECT) == 200 - len(lost)


@pytest.mark.parametrize("what", ["sleep", "spin"])
def test_workers_die_with_their_parent(what: str) -> None:
    script = (
        "from vpgea.grading.base import GradeRequest\nfrom vpgea.grading.pool import GraderPool\n"
        "with GraderPool('own_graders:misbehave', relative_tolerance=0.0,"
        " deadline_s=600.0, memory_mb=512, workers=2) as p:\n"
        f"    print('on', flush=True); p.grade([GradeRequest('{what}', '')] * 4)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=PACKAGE)
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"on\n"
        end = time.monotonic() + 20
        while len(workers := psutil.Process(parent.pid).children()) < 2 and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(1.0)  # until both are inside the grader
    finally:
        parent.kill()
        parent.wait()
        assert parent.stdout is not None
        parent.stdout.close()
    assert len(workers) == 2
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert alive == []


def test_a_worker_killed_between_two_calls_costs_nothing() -> None:
    with make_pool(own("misbehave")) as pool:
        (worker,) = psutil.Process().children()
        worker.kill()
        time.sleep(0.2)
        assert statuses(pool.grade(responses("right", "wrong"))) == [Status.CORRECT, Status.WRONG]


def test_ctrl_c_does_not_reach_the_workers() -> None:
    with make_pool(own("misbehave")) as pool:
        (worker,) = psutil.Process().children()
        assert os.getpgid(worker.pid) != os.getpgid(0)
        worker.send_signal(signal.SIGINT)
        assert statuses(pool.grade(responses("right"))) == [Status.CORRECT]
        assert psutil.Process().children() == [worker]


def test_an_interrupted_call_leaves_nothing_for_the_next() -> None:
    def interrupt(done: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with make_pool(own("misbehave"), workers=2) as pool:
        with pytest.raises(KeyboardInterrupt):
            pool.grade(responses(*["right"] * 100), interrupt)
        assert psutil.Process().children() == []
        assert statuses(pool.grade(responses("wrong", "right"))) == [Status.WRONG, Status.CORRECT]


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("nowhere:grade", "No module named 'nowhere'"),
        (own("absent"), "absent"),
        (own("NOT_CALLABLE"), "int"),
        ("nonsense", "package.module:function"),
        ("own_graders:", "package.module:function"),
    ],
)
def test_a_grader_that_does_not_exist_is_refused_before_any_grading(spec: str, why: str) -> None:
    with pytest.raises(UsageError) as caught, make_pool(spec):
        pass
    assert why in caught.value.why


def test_a_grader_may_return_the_name_of_a_status() -> None:
    with make_pool(own("by_name")) as pool:
        grades = pool.grade(
            [GradeRequest("a", "a", ""), GradeRequest("a", "b", "timeout"), GradeRequest("a", "b", "?")]
        )
    assert statuses(grades) == [Status.CORRECT, Status.TIMEOUT, Status.ERROR]


@pytest.mark.parametrize("spec", ["math", "choice", "exact"])
def test_built_in_graders_load_by_name(spec: str) -> None:
    grader = load_grader(spec, 1e-6)
    assert grader(GradeRequest("\\boxed{A}", "A")).status is Status.CORRECT
    assert grader(GradeRequest("\\boxed{B}", "A")).status is Status.WRONG


def test_error_share_is_a_quality_gate() -> None:
    grades = [Grade(Status.CORRECT)] * 98 + [Grade(Status.ERROR, detail="boom"), Grade(Status.TIMEOUT)]
    assert error_share(grades) == 0.02
    assert error_share([]) == 0.0
    check_error_share(grades, 0.02)
    with pytest.raises(QualityGateError, match=r"2 of 100") as caught:
        check_error_share(grades, 0.01)
    assert "boom" in caught.value.why
    assert caught.value.exit_code == 3
