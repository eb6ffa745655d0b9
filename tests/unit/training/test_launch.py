"""Ranks that one process starts: what they say, how they fail, stop and end, in real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vpgea.errors import EngineError, Stopped, UsageError, VpgeaError
from vpgea.runs.stopping import INTERRUPTED, StopRequest
from vpgea.training import launch
from vpgea.training.launch import run_together

PROGRAM = "tests.support.rank_program"
CPUS = [torch.device("cpu")] * 2


class Heard:
    """A progress that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []

    def advance(self, steps: int, tokens: int = 0) -> None:
        self.events.append(("advance", steps, tokens))

    def note(self, text: str) -> None:
        self.events.append(("note", text))

    def warn(self, text: str) -> None:
        self.events.append(("warn", text))


def together(folder: Path, first: str, second: str, stop: StopRequest | None = None) -> Heard:
    heard = Heard()
    task = {"folder": str(folder), "0": first, "1": second}
    run_together(PROGRAM, task, CPUS, logs=folder / "logs", stop=stop or StopRequest(), progress=heard)
    return heard


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_there(folder: Path, rank: int) -> bool:
    """Whether a rank's process is still there, and no zombie."""
    status = Path("/proc") / (folder / f"pid-{rank}").read_text() / "stat"
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_rank_0_speaks_and_each_rank_knows_who_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    heard = together(tmp_path, "talk", "talk")
    assert heard.events == [("advance", 3, 7), ("note", "loss 1"), ("warn", "said by 0")]
    assert [(tmp_path / f"seen-{rank}").read_text() for rank in (0, 1)] == ["0 0 2 1 ", "1 1 2 1 "]
    assert [(tmp_path / "logs" / f"rank-{rank}.log").read_text() for rank in (0, 1)] == ["a library's words\n"] * 2


@pytest.mark.parametrize("order", [("refuse", "follow"), ("follow", "refuse"), ("refuse", "refuse")])
def test_what_one_rank_refuses_is_raised_and_not_what_the_others_say_of_it(
    order: tuple[str, str], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="not like this") as error:
        together(tmp_path, *order)
    assert (error.value.why, error.value.mend, error.value.exit_code) == ("a reason", "a way out", 2)


def test_a_full_disk_is_the_same_error_as_without_ranks(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as error:
        together(tmp_path, "follow", "fill_the_disk")
    assert (error.value.errno, error.value.filename) == (28, "shard.arrow")


def test_an_error_of_ours_stands_in_the_log_whole(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError: division by zero"):
        together(tmp_path, "divide", "talk")
    assert "in divide" in (tmp_path / "logs" / "rank-0.log").read_text()


def test_a_dead_rank_ends_all_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "GRACE_S", 0.3)
    stop = StopRequest()
    with pytest.raises(EngineError, match="rank 1 of the training was killed by signal 9") as error:
        together(tmp_path, "hang", "die", stop)
    assert error.value.exit_code == 4
    assert "terminate called after throwing" in error.value.why
    assert error.value.mend.endswith(f"; {tmp_path / 'logs' / 'rank-1.log'} has what it printed")
    assert not is_there(tmp_path, 0)
    assert not stop.process_groups


def test_no_log_is_named_where_nothing_was_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "GRACE_S", 0.3)
    with pytest.raises(EngineError, match="rank 1 of the training left with code 1") as error:
        together(tmp_path, "hang", "leave")
    assert error.value.mend == "run the same command again: it continues from the last checkpoint"
    assert not (tmp_path / "logs").exists()


def test_a_stop_is_told_to_every_rank_once_and_comes_back_as_one(tmp_path: Path) -> None:
    stop = StopRequest()

    def ask() -> None:
        until(lambda: len(list(tmp_path.glob("waiting-*"))) == 2)
        stop.request("Ctrl-C", INTERRUPTED)

    asker = threading.Thread(target=ask)
    asker.start()
    with pytest.raises(Stopped, match="stopped by Ctrl-C") as error:
        together(tmp_path, "wait", "wait", stop)
    asker.join()
    assert (error.value.exit_code, error.value.why) == (INTERRUPTED, "the checkpoint is written")


def test_signals_to_a_rank_itself_are_its_parents_to_decide(tmp_path: Path) -> None:
    stop = StopRequest()

    def send() -> None:
        until(lambda: len(list(tmp_path.glob("waiting-*"))) == 2)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
            os.kill(int((tmp_path / "pid-1").read_text()), number)
        time.sleep(0.3)
        stop.request("TERM")

    sender = threading.Thread(target=send)
    sender.start()
    with pytest.raises(VpgeaError, match="stopped by TERM"):
        together(tmp_path, "wait", "wait", stop)
    sender.join()


def test_nothing_is_left_of_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = "import sys; from pathlib import Path; from tests.unit.training.test_launch import together; "
    script += "together(Path(sys.argv[1]), 'hang', 'hang')"
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    until(lambda: len(list(tmp_path.glob("waiting-*"))) == 2)
    parent.kill()
    parent.wait()
    until(lambda: not is_there(tmp_path, 0) and not is_there(tmp_path, 1))
