"""Drawing a token from logits: its streams of uniforms, truncation, and the edges of the vocabulary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vpgea.engines.base import Sampling
from vpgea.engines.transformers import sample, truncate, uniform_stream
from vpgea.errors import EngineError


def test_the_streams_of_uniforms_are_even_and_unrelated() -> None:
    seeds = np.random.default_rng(0).integers(0, 2**64, 4000, dtype=np.uint64)
    streams = np.stack([uniform_stream(seeds, step) for step in range(20)])
    assert streams.min() >= 0
    assert streams.max() < 1
    counts = np.histogram(streams, bins=100, range=(0, 1))[0]
    expected = streams.size / 100
    assert ((counts - expected) ** 2 / expected).sum() < 149  # chi-square, 99 degrees of freedom, p = 0.001
    correlations = np.corrcoef(streams)
    assert np.abs(correlations - np.eye(20)).max() < 5 / np.sqrt(4000)
    neighbours = np.stack([uniform_stream(np.arange(4000, dtype=np.uint64), step) for step in range(2)])
    assert abs(np.corrcoef(neighbours[0][:-1], neighbours[0][1:])[0, 1]) < 5 / np.sqrt(4000)
    assert np.unique(streams).size == streams.size
    assert (uniform_stream(np.array([2**64 - 1, 0], np.uint64), 0) < 1).all()


def test_truncation_keeps_the_likeliest_even_when_it_alone_is_over_the_share() -> None:
    logits = torch.tensor([[4.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    kept = torch.isfinite(truncate(logits, Sampling(max_new_tokens=1, stop_ids=(), top_p=0.01)))
    assert kept[0].tolist() == [True, False, False]
    assert kept[1].sum() == 1
    assert torch.isfinite(truncate(logits, Sampling(max_new_tokens=1, stop_ids=(), top_k=2)))[0].tolist() == [
        True,
        False,
        True,
    ]
    assert torch.isfinite(truncate(logits, Sampling(max_new_tokens=1, stop_ids=(), top_k=99, top_p=1.0))).all()


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
@pytest.mark.parametrize("place", [0, 4, 6])
def test_all_mass_on_one_token_draws_it(uniform: float, place: int) -> None:
    logits = torch.full((1, 7), -torch.inf)
    logits[0, place] = 3.0
    tokens, logprobs = sample(logits, np.array([uniform]), Sampling(max_new_tokens=1, stop_ids=()))
    assert tokens.tolist() == [place]
    assert logprobs.tolist() == [0.0]


def test_the_edges_of_the_vocabulary() -> None:
    logits = torch.zeros(3, 5)
    logits[:, [0, 4]] = torch.tensor([-torch.inf, 2.0])
    uniforms = np.array([0.0, 1 - 2**-53, 0.5])
    tokens, logprobs = sample(logits, uniforms, Sampling(max_new_tokens=1, stop_ids=()))
    assert tokens.tolist() == [1, 4, 4]
    assert tokens.dtype == np.int32
    assert logprobs.dtype == np.float32
    rare = torch.zeros(1, 5)
    rare[0, 4] = -40.0
    tokens, logprobs = sample(rare, np.array([1 - 2**-53]), Sampling(max_new_tokens=1, stop_ids=()))
    assert tokens.tolist() == [3]
    assert np.isfinite(logprobs).all()


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.0}, {"top_p": 0.6, "top_k": 20}])
def test_a_few_rows_at_a_time_give_what_all_rows_do(sampling: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU the logits of a large vocabulary are cut into pieces that stay in its cache; no bit changes."""
    torch.manual_seed(0)
    logits, uniforms = torch.randn(7, 300), np.random.default_rng(0).random(7)
    options = Sampling(max_new_tokens=1, stop_ids=(), **sampling)
    whole = sample(logits, uniforms, options)
    for size in (1, 900):
        monkeypatch.setattr("vpgea.engines.transformers.CPU_LOGITS", size)
        for one, other in zip(sample(logits, uniforms, options), whole, strict=True):
            assert one.tolist() == other.tolist()
            assert one.dtype == other.dtype


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_an_error(value: float, temperature: float) -> None:
    logits = torch.zeros(2, 5)
    logits[1, 2] = value
    with pytest.raises(EngineError, match="not finite"):
        sample(logits, np.array([0.1, 0.2]), Sampling(max_new_tokens=1, stop_ids=(), temperature=temperature))
