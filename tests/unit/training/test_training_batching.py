"""Micro-batches: every path once, within the budget, the same number and about the same work on every rank."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpgea.training.batching import cost, micro_batches
from vpgea.training.data import TrainingPath

HIDDEN = 64


def path_of(index: int, length: int) -> TrainingPath:
    prompt = min(3, length - 1)
    return TrainingPath(
        index=index,
        question=0,
        is_prior=True,
        prompt_ids=np.zeros(prompt, np.int32),
        completion_ids=np.zeros(length - prompt, np.int32),
        sampler_logprobs=np.zeros(length - prompt, np.float32),
        thinking_tokens=0,
    )


def paths_of(lengths: list[int]) -> list[TrainingPath]:
    return [path_of(index, length) for index, length in enumerate(lengths)]


@given(
    lengths=st.lists(st.integers(2, 300), max_size=40),
    max_tokens=st.integers(1, 600),
    packing=st.booleans(),
    ranks=st.integers(1, 5),
)
def test_every_path_is_in_one_batch_within_the_budget(
    lengths: list[int], max_tokens: int, packing: bool, ranks: int
) -> None:
    batches = micro_batches(paths_of(lengths), max_tokens, packing=packing, hidden=HIDDEN, ranks=ranks)
    assert all(len(row) == ranks for row in batches)
    flat = [batch for row in batches for batch in row]
    assert sorted(path.index for batch in flat for path in batch) == list(range(len(lengths)))
    for batch in flat:
        sizes = [path.length for path in batch]
        tokens = sum(sizes) if packing else len(sizes) * max(sizes, default=0)
        assert tokens <= max_tokens or len(batch) == 1


def test_the_same_paths_give_the_same_batches_in_any_order() -> None:
    paths = paths_of([5, 90, 17, 17, 60, 33, 8, 41])
    expected = micro_batches(paths, 100, packing=True, hidden=HIDDEN, ranks=2)
    assert micro_batches(paths[::-1], 100, packing=True, hidden=HIDDEN, ranks=2) == expected


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_get_about_the_same_work(ranks: int) -> None:
    lengths = np.random.default_rng(0).lognormal(6, 0.8, 200).clip(16, 4000).astype(int).tolist()
    batches = micro_batches(paths_of(lengths), 8192, packing=True, hidden=896, ranks=ranks)
    work = np.array([[sum(cost(path.length, 896) for path in batch) for batch in row] for row in batches])
    assert work.sum(0).max() < 1.02 * work.sum(0).mean()
    assert (work.max(1) < 1.25 * work.mean(1)).all()  # sharded ranks wait for each other in every batch


def test_few_long_paths_leave_ranks_without_work() -> None:
    (row,) = micro_batches(paths_of([50, 40]), 64, packing=True, hidden=HIDDEN, ranks=4)
    assert sorted(len(batch) for batch in row) == [0, 0, 1, 1]


def test_packing_wastes_nothing_where_padding_would() -> None:
    lengths = [10, 1000, 12, 990, 300, 310]
    packed = micro_batches(paths_of(lengths), 2048, packing=True, hidden=HIDDEN)
    padded = micro_batches(paths_of(lengths), 2048, packing=False, hidden=HIDDEN)
    rectangles = [len(batch) * max(path.length for path in batch) for (batch,) in padded]
    assert sum(path.length for (batch,) in packed for path in batch) == sum(lengths)
    assert sum(rectangles) > sum(lengths)
    assert len(packed) == 2
    assert sorted(path.length for path in next(itertools.chain.from_iterable(padded))) == [990, 1000]
