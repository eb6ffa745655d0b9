"""A training folder has one writer at a time; who comes second waits, and finds what was done."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from tests.support import tiny
from tests.support.selection_rows import distill_config, sample_rows, write_selection
from vpgea.errors import Stopped
from vpgea.phases.distill import distill
from vpgea.runs.progress import NullProgress
from vpgea.runs.records import DistillSummary
from vpgea.runs.stopping import StopRequest
from vpgea.training import ranks
from vpgea.training.ranks import LostRank, OtherRankFailed, Ranks, joined_ranks
from vpgea.training.turn import Turn


class _Noted(NullProgress):
    """Keeps what it is told beside the bar, and sets an event."""

    def __init__(self) -> None:
        self.waiting = threading.Event()

    def note(self, text: str) -> None:
        if text.startswith("waiting"):
            self.waiting.set()


def test_a_second_training_of_the_same_folder_waits_and_returns_what_the_first_one_made(tmp_path: Path) -> None:
    config = distill_config(
        tiny.make_model(tmp_path / "model"), distill__questions_per_step=1, distill__checkpoint_every=1
    )
    source = write_selection(tmp_path / "filter", config, sample_rows(config))
    noted, second, found = _Noted(), list[threading.Thread](), list[DistillSummary]()

    def twin() -> None:
        found.append(distill(config, source, tmp_path / "out", progress=noted))

    def begin_twin(line: dict[str, Any]) -> None:
        if line["step"] == 1:
            second.append(threading.Thread(target=twin))
            second[0].start()
            assert noted.waiting.wait(100), "it should wait"

    summary = distill(config, source, tmp_path / "out", log=begin_twin)
    second[0].join(100)
    assert found == [summary]
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert [path.name for path in tmp_path.rglob("*.tmp")] == []


def test_who_waits_can_be_stopped_and_a_lock_ends_with_its_owner(tmp_path: Path) -> None:
    stop = StopRequest()
    first, second = (Turn(tmp_path, Ranks(), request, NullProgress()) for request in (StopRequest(), stop))
    first.take()
    first.take()  # ours already
    stop.request("test")
    with pytest.raises(Stopped, match="stopped by test") as error:
        second.take()
    assert "another process is training" in error.value.why
    first.leave()
    second.take()
    second.leave()


def test_a_folder_that_was_begun_anew_has_another_lock(tmp_path: Path) -> None:
    part = tmp_path / "part"
    first = Turn(part, Ranks(), StopRequest(), NullProgress())
    first.take()  # nothing to hold yet
    part.mkdir()
    first.take()
    (lock,) = part.iterdir()
    lock.unlink()
    first.take()
    assert list(part.iterdir()) == [lock]
    first.leave()
    assert list(part.iterdir()) == []


class _Second(Ranks):
    """Rank 1 of two, that hears of rank 0 what a test says."""

    def __init__(self, heard: int) -> None:
        super().__init__(rank=1, world=2)
        object.__setattr__(self, "heard", heard)

    def largest(self, value: int) -> int:
        return max(value, getattr(self, "heard"))  # noqa: B009


def test_a_turn_that_cannot_be_taken_ends_every_rank_with_the_same_code(tmp_path: Path) -> None:
    with pytest.raises(OtherRankFailed) as error:
        Turn(tmp_path, _Second(1), StopRequest(), NullProgress()).take()
    assert error.value.exit_code == 1


def test_a_finished_training_is_read_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = distill_config(tiny.make_model(tmp_path / "model"), distill__questions_per_step=1)
    source = write_selection(tmp_path / "filter", config, sample_rows(config))
    summary = distill(config, source, tmp_path / "out")

    def refused(turn: Turn) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Turn, "take", refused)
    assert distill(config, source, tmp_path / "out") == summary


@pytest.mark.parametrize(
    ("raised", "is_lost"),
    [
        (RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:538] Connection closed by peer [::1]:9"), True),
        (dist.DistBackendError("NCCL error: remote process exited or there was a network error"), True),
        (RuntimeError("size mismatch"), False),
    ],
)
def test_a_dead_rank_is_called_that_on_the_others(
    raised: RuntimeError, is_lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "h", "MASTER_PORT": "1"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ranks.dist, "init_process_group", lambda *_, **__: None)
    with pytest.raises(RuntimeError if not is_lost else LostRank) as error, joined_ranks():
        raise raised
    if is_lost:
        assert isinstance(error.value, LostRank)
        assert error.value.exit_code == 4
        assert str(raised)[:20] in error.value.why
    else:
        assert error.value is raised
