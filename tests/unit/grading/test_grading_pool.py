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


BEFORE: set[psutil.Process] = set()  # children of this process before the test: other tests may have some that stay


@pytest.fixture(autouse=True)
def own_graders_and_no_leftovers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("vpgea.grading.process.subprocess", subprocess)  # no copies here
    monkeypatch.setenv("PYTHONPATH", str(OWN))
    before = set(psutil.Process().children(recursive=True))
    monkeypatch.setattr(sys.modules[__name__], "BEFORE", before)
    yield
    assert set(psutil.Process().children(recursive=True)) <= before, "a worker was left, alive or as a zombie"


def workers_of_pools() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child not in BEFORE]


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


def test_what_runs_into_the_limit_against_a_plain_number_is_wrong_and_the_pool_goes_on() -> None:
    unevaluated = "\\sum_{k=1}^{10^9} \\frac{1}{k^3}"
    with make_pool("math", deadline_s=1.0) as pool:
        grades = pool.grade([GradeRequest(f"\\boxed{{{found}}}", "4") for found in (unevaluated, "4")])
    assert statuses(grades) == [Status.WRONG, Status.CORRECT]


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


def test_kill_9_of_a_worker_costs_nothing() -> None:
    requests = [GradeRequest("\\boxed{x+1+y}", f"y+1+x+{i}-{i}") for i in range(200)]
    with make_pool("math", workers=2) as pool:
        pool.grade(requests[:8])
        victim = workers_of_pools()[0]
        grades = pool.grade(requests, lambda done: victim.kill() if done == 50 else None)
        assert victim not in workers_of_pools()
    assert statuses(grades) == [Status.CORRECT] * 200


def test_an_answer_at_which_a_worker_was_killed_is_tried_once_more(tmp_path: Path) -> None:
    with make_pool(own("misbehave")) as pool:
        grades = pool.grade(responses("right", f"once {tmp_path / 'file'}", "wrong", "kill"))
    assert statuses(grades) == [Status.CORRECT, Status.CORRECT, Status.WRONG, Status.ERROR]


def test_a_freeze_longer_than_the_deadline_costs_no_verdict() -> None:
    script = (
        "from vpgea.grading.base import GradeRequest\nfrom vpgea.grading.pool import GraderPool\n"
        "with GraderPool('own_graders:misbehave', relative_tolerance=0.0,"
        " deadline_s=1.0, memory_mb=512, workers=2) as pool:\n"
        "    print('on', flush=True)\n"
        "    print({str(grade.status) for grade in pool.grade([GradeRequest('nap', '')] * 12)})\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=PACKAGE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "on\n"
        time.sleep(0.8)
        family = [psutil.Process(parent.pid), *psutil.Process(parent.pid).children(recursive=True)]
        for process in family:
            process.suspend()
        time.sleep(3.0)
        for process in family:
            process.resume()
        assert parent.stdout.read() == "{'correct'}\n"


def test_a_busy_machine_does_not_shorten_the_deadline() -> None:
    core = [min(os.sched_getaffinity(0))]
    with make_pool(own("misbehave"), deadline_s=0.6) as pool:
        workers_of_pools()[0].cpu_affinity(core)
        rivals = [psutil.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(2)]
        try:
            for rival in rivals:
                rival.cpu_affinity(core)
            began = time.monotonic()
            grades = pool.grade(responses("burn"))
            elapsed = time.monotonic() - began
        finally:
            for rival in rivals:
                rival.kill()
                rival.wait()
    assert statuses(grades) == [Status.CORRECT]
    assert elapsed > 0.6, "the rivals did not compete"


def test_programs_that_a_grader_started_die_with_its_deadline() -> None:
    seconds = f"300.{os.getpid()}"
    with make_pool(own("misbehave"), deadline_s=1.0) as pool:
        grades = pool.grade([GradeRequest("programs", "", seconds), GradeRequest("right", "right")])
        alive = [process for process in psutil.process_iter(["cmdline"]) if seconds in (process.info["cmdline"] or [])]
    assert statuses(grades) == [Status.TIMEOUT, Status.CORRECT]
    assert alive == []


def test_half_a_surrogate_pair_in_an_error_is_written_out() -> None:
    with make_pool(own("misbehave")) as pool:
        (grade,) = pool.grade(responses("surrogate"))
    assert grade.status is Status.ERROR
    assert grade.detail == r"ValueError: half a pair: \ud800"


def test_an_error_without_a_message_is_its_rows_alone(capfd: pytest.CaptureFixture[str]) -> None:
    with make_pool(own("misbehave")) as pool:
        found, good = pool.grade(responses("speechless", "right"))
    assert (found.status, found.detail) == (Status.ERROR, "Speechless, whose message cannot be read")
    assert good.status is Status.CORRECT
    assert "Traceback" not in capfd.readouterr().err


def test_files_of_the_working_directory_do_not_shadow_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("random", "json", "sympy", "math_verify", "vpgea", "psutil"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a script of the user')\n")
    (tmp_path / "mine.py").write_text("import random\ndef grade(**texts): return random.randint(1, 1) == 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH")
    with make_pool("math") as pool:
        assert statuses(pool.grade([GradeRequest("\\boxed{x + y}", "y + x")])) == [Status.CORRECT]
    with make_pool("mine:grade") as pool:
        assert statuses(pool.grade(responses("x"))) == [Status.CORRECT]


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
        end = time.monotonic() + 60
        while len(workers := psutil.Process(parent.pid).children()) < 2 and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(1.0)  # until both are inside the grader
    finally:
        parent.kill()
        parent.wait()
        assert parent.stdout is not None
        parent.stdout.close()
    assert len(workers) == 2
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []


def test_a_worker_killed_between_two_calls_costs_nothing() -> None:
    with make_pool(own("misbehave")) as pool:
        (worker,) = workers_of_pools()
        worker.kill()
        time.sleep(0.2)
        assert statuses(pool.grade(responses("right", "wrong"))) == [Status.CORRECT, Status.WRONG]


def test_a_stopped_worker_whose_pipe_is_full_is_given_up() -> None:
    long = "the same again " * 20_000  # more than a pipe takes
    with make_pool("math", deadline_s=1.0) as pool:
        pool.grade([GradeRequest("\\boxed{1}", "1")])
        (worker,) = workers_of_pools()
        worker.suspend()
        grades = pool.grade([GradeRequest(f"{long}\\boxed{{{i}}}", str(i)) for i in range(8)])
        assert not worker.is_running()
    assert statuses(grades) == [Status.CORRECT] * 8


def test_ctrl_c_does_not_reach_the_workers() -> None:
    with make_pool(own("misbehave")) as pool:
        (worker,) = workers_of_pools()
        assert os.getpgid(worker.pid) != os.getpgid(0)
        worker.send_signal(signal.SIGINT)
        assert statuses(pool.grade(responses("right"))) == [Status.CORRECT]
        assert workers_of_pools() == [worker]


def test_an_interrupted_call_leaves_nothing_for_the_next() -> None:
    def interrupt(done: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with make_pool(own("misbehave"), workers=2) as pool:
        with pytest.raises(KeyboardInterrupt):
            pool.grade(responses(*["right"] * 100), interrupt)
        assert workers_of_pools() == []
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
