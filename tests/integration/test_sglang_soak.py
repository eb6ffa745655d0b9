"""A small slice of the soak; `make soak` makes the whole of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaigns.soak import Held, grown_in, growth, soak

pytestmark = pytest.mark.sglang


def test_a_few_rounds_hold_no_more_at_the_end(tmp_path: Path) -> None:
    assert grown_in(soak(tmp_path, 5, own_server=False)) == []


@pytest.mark.parametrize("name", ["memory_mib", "files", "threads", "processes"])
def test_growth_is_seen(name: str) -> None:
    flat = {"memory_mib": 500.0, "files": 70, "threads": 9, "processes": 1}
    growing = [Held(**{**flat, name: flat[name] * (1 + 0.1 * index)}) for index in range(12)]  # type: ignore[arg-type]
    assert [line.split()[0] for line in growth(growing)] == [name]
    assert growth([Held(**flat)] * 12) == []  # type: ignore[arg-type]


def test_a_thread_at_work_in_one_round_is_no_growth() -> None:
    flat = Held(memory_mib=500.0, files=70, threads=6, processes=1)
    busy = Held(memory_mib=500.0, files=70, threads=7, processes=1)
    assert growth([flat, flat, flat, flat, busy]) == []
    assert growth([flat, flat, flat, busy, busy]) == [], "begun once, for the rest of the process"
    busier = Held(memory_mib=500.0, files=70, threads=8, processes=1)
    assert growth([flat, flat, flat, busy, busier]) == ["threads grew from 6.0 to 7.0"]
