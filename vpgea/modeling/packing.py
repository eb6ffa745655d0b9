"""Sequences end to end in one row, without padding: attention stays inside each of them.

An attention function of our own for transformers' attention interface. Each sequence is attended to by itself, so no
mask of (tokens x tokens) exists; sequences of similar length go through one call.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

ATTENTION = "vpgea_packed"
_SIMILAR = 0.75  # sequences at least this share as long as the longest beside them are attended to in one call
WINDOW_QUERIES = 1024  # of a sequence longer than a sliding window, attended to at a time
_GROUP_TOKENS = 8192  # and no more than this together: beyond it a call is efficient by itself


@dataclass(frozen=True)
class Packed:
    """Sequences of L tokens in all end to end, T of them wanted.

    Attributes:
        ids: int64 (1, L).
        position_ids: int64 (1, L).
        groups: Lengths of those that share a call, in order.
        before: int64 (T,), in the order of the sequences as given, the place before each wanted token.
    """

    ids: Tensor
    position_ids: Tensor
    groups: tuple[tuple[int, ...], ...]
    before: Tensor


def pack(sequences: Sequence[Sequence[int]], starts: Sequence[int], device: torch.device) -> Packed:
    """Lay sequences end to end, the longest first; wanted are the tokens of `sequences[i][starts[i]:]`."""
    lengths = [len(sequence) for sequence in sequences]
    order = sorted(range(len(sequences)), key=lambda index: -lengths[index])
    first, place = {}, 0
    for index in order:
        first[index], place = place, place + lengths[index]
    before = [torch.arange(first[i] + starts[i] - 1, first[i] + lengths[i] - 1) for i in range(len(sequences))]
    return Packed(
        ids=torch.cat([torch.as_tensor(sequences[index], dtype=torch.long) for index in order])[None].to(device),
        position_ids=torch.cat([torch.arange(lengths[index]) for index in order])[None].to(device),
        groups=_groups([lengths[index] for index in order]),
        before=torch.cat(before).to(device),
    )


def _groups(lengths: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Cut lengths, which fall, into runs of similar ones."""
    groups: list[list[int]] = []
    for length in lengths:
        if groups and length >= _SIMILAR * groups[-1][0] and (len(groups[-1]) + 1) * groups[-1][0] <= _GROUP_TOKENS:
            groups[-1].append(length)
        else:
            groups.append([length])
    return tuple(map(tuple, groups))


@contextmanager
def packed_attention(model: Any) -> Iterator[None]:
    """The model attends inside packed sequences while the block runs; its decoder then needs `packed=` with them."""
    before = model.config._attn_implementation
    model.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@torch.compiler.disable  # every batch has other lengths: each would be compiled anew
def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    packed: tuple[tuple[int, ...], ...],
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each sequence.

    Args:
        module: The attention layer.
        query: (1, heads, L, head_dim).
        key: (1, heads, L, head_dim).
        value: (1, heads, L, head_dim).
        attention_mask: None: the sequences' lengths say it.
        packed: `Packed.groups`.
        sliding_window: The layer's, in tokens, where it has one.
        options: Handed on to transformers' attention.

    Returns:
        (1, L, heads, head_dim), as transformers' attention functions do.
    """
    flat = [tensor[0].transpose(0, 1) for tensor in (query, key, value)]  # (L, heads, head_dim)
    outputs, start = [], 0
    for lengths in packed:
        end = start + sum(lengths)
        rows = [_Pad.apply(tensor[start:end], lengths).transpose(1, 2) for tensor in flat]
        if sliding_window is not None and lengths[0] > sliding_window:
            attended = _in_window(module, rows, sliding_window, options)
        else:
            attended, _ = sdpa_attention_forward(module, *rows, None, **{**options, "is_causal": True})
        outputs.append(_Unpad.apply(attended, lengths))
        start = end
    return torch.cat(outputs)[None], None


def _in_window(module: Any, rows: Sequence[Tensor], window: int, options: dict[str, Any]) -> Tensor:
    """Causal attention to the last `window` tokens, the present one included, in sequences that are longer than that.

    Some queries at a time, with the keys that they can see: a mask of the whole, bool (length, length), would be 1 GiB
    at 32k tokens. Shapes are those of transformers' attention functions.
    """
    query, key, value = rows
    outputs, length = [], query.shape[2]
    for start in range(0, length, WINDOW_QUERIES):
        end, first = min(start + WINDOW_QUERIES, length), max(0, start - window + 1)
        places = torch.arange(first, end, device=query.device)
        distance = places[start - first :, None] - places[None, :]
        mask = ((distance >= 0) & (distance < window))[None, None]
        part, _ = sdpa_attention_forward(
            module, query[:, :, start:end], key[:, :, first:end], value[:, :, first:end], mask, **options
        )
        outputs.append(part)
    return torch.cat(outputs, dim=1)


class _Pad(torch.autograd.Function):
    """(sum of lengths, ...) to (rows, longest, ...). Padding stands behind, where causal attention cannot see it."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, lengths: tuple[int, ...]) -> Tensor:
        ctx.lengths = lengths
        return _padded(flat, lengths)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _flattened(gradients[0], ctx.lengths), None


class _Unpad(torch.autograd.Function):
    """The way back."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, lengths: tuple[int, ...]) -> Tensor:
        ctx.lengths = lengths
        return _flattened(padded, lengths)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _padded(gradients[0], ctx.lengths), None


def _padded(flat: Tensor, lengths: tuple[int, ...]) -> Tensor:
    if lengths[-1] == lengths[0]:
        return flat.view(len(lengths), lengths[0], *flat.shape[1:])
    return pad_sequence(list(flat.split(lengths)), batch_first=True)


def _flattened(padded: Tensor, lengths: tuple[int, ...]) -> Tensor:
    if lengths[-1] == lengths[0]:
        return padded.reshape(sum(lengths), *padded.shape[2:])
    return torch.cat([row[:length] for row, length in zip(padded, lengths, strict=True)])


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, lambda *_, **__: None)
