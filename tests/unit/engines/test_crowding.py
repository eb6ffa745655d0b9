"""Threads that wait for cores are seen and told."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.models import causal_model
from vpgea.config.schema import ModelConfig
from vpgea.engines.base import GenerateRequest, Sampling
from vpgea.engines.crowding import CoreTime
from vpgea.engines.transformers import TransformersEngine

START = CoreTime(ran=100.0, waited=50.0)


@pytest.mark.parametrize(
    ("ran", "waited", "threads", "told"),
    [
        (6.0, 4.0, 2, "wait 40% of the time"),
        (6.0, 4.0, 1, ""),  # one thread that waits holds up no other
        (9.0, 1.0, 2, ""),
        (1.0, 0.9, 2, ""),  # too short to say
        (0.0, 0.0, 2, ""),  # a kernel that counts nothing
        (-90.0, -45.0, 2, ""),  # threads that have ended take their time with them
    ],
)
def test_only_threads_that_work_together_and_wait_are_told_of(
    ran: float, waited: float, threads: int, told: str
) -> None:
    trouble = CoreTime(START.ran + ran, START.waited + waited).trouble_since(START, threads)
    assert told in trouble
    assert bool(trouble) == bool(told)


@pytest.mark.skipif(not Path("/proc/self/schedstat").is_file(), reason="this kernel does not count")
def test_the_kernel_counts_what_threads_ran() -> None:
    before, began = CoreTime.now(), time.process_time()
    while time.process_time() - began < 0.05:
        pass
    after = CoreTime.now()
    assert 0.04 < after.ran - before.ran < 5
    assert after.waited >= before.waited


def test_an_engine_whose_threads_wait_says_so_beside_the_bar(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TransformersEngine(causal_model(ModelConfig(path=str(tiny_model), device="cpu", threads=1)), batch_size=1)
    times = iter([START, CoreTime(103.0, 57.0), START, CoreTime(110.0, 50.0)])
    monkeypatch.setattr(CoreTime, "now", lambda: next(times))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    def draw() -> Any:
        return list(engine.generate([[GenerateRequest([5, 6], 1)]], Sampling(max_new_tokens=2, stop_ids=())))

    draw()
    assert engine.usage.remark == "threads wait 70% of the time for cores: model.threads=1 may be faster than 2"
    draw()
    assert engine.usage.remark == ""
