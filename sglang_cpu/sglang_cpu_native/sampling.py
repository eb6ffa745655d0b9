"""Per-request seeds, which SGLang honours only under --enable-deterministic-inference, and that refuses a CPU.

Every request draws from a stream of uniforms of its own, the splitmix64 finaliser of (seed, step), by inversion of the
cumulative distribution: the same construction as vpgea's transformers engine, so that both engines draw the same tokens
from the same probabilities. A request without a seed gets a fresh one.

A batch in which any request is greedy or truncated is sampled by another function of SGLang's for as long as it runs,
which sorts first. Here tokens keep their places, so that the company of a request changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

BATCH = "sglang.srt.sampling.sampling_batch_info.SamplingBatchInfo.from_schedule_batch"
DRAW = "sglang.srt.layers.sampler.multinomial_with_seed"
TRUNCATED = "sglang.srt.layers.sampler.top_k_top_p_min_p_sampling_from_probs_torch"

_GOLDEN = 0x9E3779B97F4A7C15
_FACTORS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_SIGN, _SPAN = 1 << 63, 1 << 64


def add_streams(info: Any, cls: Any, batch: Any, vocab_size: int) -> Any:
    """Give each request of a new batch its stream, moved by the prompt's length: SGLang counts positions from there."""
    fresh = torch.randint(0, _SIGN - 1, (len(batch.reqs),)).tolist()
    streams = []
    for request, other in zip(batch.reqs, fresh, strict=True):
        seed = request.sampling_params.sampling_seed
        start = (other if seed is None else seed) - (len(request.origin_input_ids) - 1) * _GOLDEN
        streams.append(_signed(start))
    info.sampling_seed = torch.tensor(streams, dtype=torch.int64)
    return info


def draw(logprobs: torch.Tensor, seed: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """One index per row, int64 (B, 1). logprobs: (B, V), -inf outside the support; seed, positions: (B,)."""
    uniforms = uniform_stream(seed.to(torch.int64), positions.to(torch.int64))
    cumulative = logprobs.double().exp().cumsum(-1)
    return torch.searchsorted(cumulative, uniforms[:, None] * cumulative[:, -1:], right=True)


def uniform_stream(streams: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """float64 (B,) in [0, 1). int64 arithmetic wraps as 64 unsigned bits do; shifts are made logical by a mask."""
    z = streams + (positions + 1) * _signed(_GOLDEN)
    for shift, factor in _FACTORS:
        z = (z ^ _shifted(z, shift)) * _signed(factor)
    return _shifted(z ^ _shifted(z, 31), 11).double() * 2.0**-53


def draw_truncated(
    original: Callable[..., Any],
    probs: torch.Tensor,
    top_ks: torch.Tensor,
    top_ps: torch.Tensor,
    min_ps: torch.Tensor,
    uses_min_p: bool,
    seed: torch.Tensor,
    positions: torch.Tensor,
    **more: Any,
) -> Any:
    """Ids int32 (B,) from probs (B, V), by the same rules as the original's; top_ks, top_ps: (B,).

    SGLang's seeded path refuses min_p: a batch that uses it samples unseeded.
    """
    if uses_min_p or more.get("return_filtered_probs"):
        return original(probs, top_ks, top_ps, min_ps, uses_min_p, None if uses_min_p else seed, positions, **more)
    ordered, ids = probs.sort(dim=-1, descending=True, stable=True)
    ranks = torch.arange(probs.shape[-1], device=probs.device)
    k, p = top_ks[:, None], top_ps[:, None]
    outside = ((ranks >= k) | (ordered.cumsum(-1) - ordered > p)) & ((k < probs.shape[-1]) | (p < 1))
    kept = probs.masked_fill(torch.zeros_like(outside).scatter(-1, ids, outside), 0.0)
    return draw(kept.log(), seed, positions).view(-1).to(torch.int32)


def _shifted(z: torch.Tensor, bits: int) -> torch.Tensor:
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    """The 64-bit signed integer of the same bits."""
    number %= _SPAN
    return number - _SPAN if number >= _SIGN else number
