"""Seconds by activity: nested, resumed, cut short."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from vpgea.runs.clock import ROUND_COLUMNS, Clock, columns_of, seconds_of
from vpgea.runs.layout import COMPLETE, LOGS, TIMES
from vpgea.runs.manifest import Manifest
from vpgea.runs.phase_folder import PhaseFolder


class Ticking:
    """A clock that is put forward by hand."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def folder(tmp_path: Path) -> PhaseFolder:
    return PhaseFolder.open(tmp_path / "rollout", Manifest(phase="rollout", identity={}, inputs={}, config={}))


def test_every_second_belongs_to_the_innermost_activity() -> None:
    now = Ticking()
    clock = Clock(now)
    now.time += 1
    with clock.on("checks"):
        now.time += 2
        with suppress(KeyError), clock.on("grading"):
            now.time += 4
            raise KeyError
        now.time += 8
    now.time += 16
    assert clock.seconds == {"checks": 10, "grading": 4, "other": 17}


def test_making_an_item_is_timed_and_using_it_is_not() -> None:
    now = Ticking()
    clock = Clock(now)

    def items() -> Iterator[int]:
        for number in (1, 2):
            now.time += number
            yield number

    for item in clock.each("sampling", items()):
        now.time += 10 * item
    assert clock.seconds == {"sampling": 3, "other": 30}


def test_attempts_add_up_stopped_ones_too(folder: PhaseFolder) -> None:
    for attempt in (1, 2):
        now = Ticking()
        clock = Clock(now)
        with suppress(InterruptedError), clock.kept(folder), clock.on("training"):
            now.time += attempt
            raise InterruptedError
    assert seconds_of(folder.root) == {"training": 3}


def test_a_complete_part_is_not_written_to(folder: PhaseFolder) -> None:
    (folder.part / COMPLETE).touch()
    with Clock().kept(folder):
        pass
    assert not (folder.root / LOGS).exists()


def test_no_link_is_followed(folder: PhaseFolder, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (folder.root / LOGS).mkdir()
    (folder.root / LOGS / TIMES).symlink_to(outside)
    with Clock().kept(folder):
        pass
    assert outside.read_text() == "mine"


def test_what_is_no_line_of_seconds_says_nothing(folder: PhaseFolder) -> None:
    odd = ["[1]", "{", '{"seconds": 3}', '{"seconds": {"sampling": NaN, "checks": "x", "unknown": 1}}', "\xff"]
    lines = [*odd, json.dumps({"part": "0/1", "seconds": {"sampling": 1.5}}), '{"part": "0/1", "seco']
    (folder.root / LOGS).mkdir()
    (folder.root / LOGS / TIMES).write_bytes("\n".join(lines).encode("latin-1"))
    assert seconds_of(folder.root) == {"sampling": 1.5}


def test_an_evaluation_is_a_column_beside_what_it_shares() -> None:
    times = {"eval": {"loading": 1.0, "sampling": 2.0, "grading": 4.0, "other": 8.0}, "rollout": {"sampling": 16.0}}
    expected = {"loading": 1.0, "evaluation": 14.0, "sampling": 16.0}
    assert columns_of(times) == dict.fromkeys(ROUND_COLUMNS, 0.0) | expected
