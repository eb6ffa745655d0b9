"""The output layer a few tokens at a time: no tensor of (all tokens x vocabulary) ever exists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from vpgea.modeling.logprobs import upcast

Head = Callable[[Tensor], Tensor]  # hidden (T, H) to logits (T, V)
Terms = Callable[[Sequence[Tensor], slice], Tensor]

# Logits that exist at a time in the model's dtype, as one product with the head makes them: enough rows for it to be
# efficient.
CHUNK_LOGITS = 1 << 25
# Of these, how many go through float32 at a time. On a CPU they then stay within its cache, and their memory is used
# again; on a GPU the whole chunk is better.
SLICE_LOGITS = 1 << 20


def chunks(tokens: int, vocabulary: int, logits: int | None = None) -> Iterator[slice]:
    """Cut `tokens` rows so that at most `logits` logits (CHUNK_LOGITS), and one row at least, belong to each part."""
    size = max(1, (CHUNK_LOGITS if logits is None else logits) // vocabulary)
    return (slice(start, min(start + size, tokens)) for start in range(0, max(tokens, 1), size))


def logit_pieces(head: Head, hidden: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """(rows, their logits) over all rows of hidden (T, H), in order; without gradient."""
    for part in chunks(len(hidden), head(hidden[:1]).shape[-1]):
        logits = head(hidden[part])
        for piece in _pieces(logits):
            yield slice(part.start + piece.start, part.start + piece.stop), logits[piece]


def chunked_sum(
    terms: Terms, head: Head, hidden: Tensor, weights: Sequence[Tensor], frozen: Sequence[tuple[Head, Tensor]] = ()
) -> Tensor:
    """The sum of `terms` over all rows, with its gradient, as if it were computed at once.

    Gradients are computed chunk by chunk and their graphs freed, so that memory grows with a chunk; sums over chunks
    are float32 at least.

    Args:
        terms: terms(logits, rows) is a scalar, a sum over some rows, from their logits: the student's first, with
            gradient, then those of `frozen`.
        head: The student's.
        hidden: (T, H).
        weights: The head's parameters that want a gradient.
        frozen: Other heads with their hidden states (T, H).
    """
    total: Tensor = _ChunkedSum.apply(terms, head, frozen, hidden, *weights)
    return total


class _ChunkedSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, terms: Terms, head: Head, frozen: Sequence[tuple[Head, Tensor]], hidden: Tensor, *weights: Tensor
    ) -> Tensor:
        total = upcast(hidden.new_zeros(()))
        hidden_gradient = torch.zeros_like(hidden)
        sums = [upcast(torch.zeros_like(weight)) for weight in weights]
        vocabulary = head(hidden[:1]).shape[-1]
        for part in chunks(len(hidden), vocabulary):
            value, found = _one_chunk(terms, head, frozen, hidden, weights, part)
            total += value
            for target_sum, one in zip((hidden_gradient[part], *sums), found, strict=True):
                target_sum.add_(one)
            del found
        ctx.gradients = (hidden_gradient, *sums)
        ctx.dtypes = [tensor.dtype for tensor in (hidden, *weights)]
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        scale = gradients[0]
        scaled = [value.mul_(scale).to(dtype) for value, dtype in zip(ctx.gradients, ctx.dtypes, strict=True)]
        del ctx.gradients  # large, and of no further use
        return None, None, None, *scaled


def _one_chunk(
    terms: Terms,
    head: Head,
    frozen: Sequence[tuple[Head, Tensor]],
    hidden: Tensor,
    weights: Sequence[Tensor],
    part: slice,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The terms' sum over one chunk, and its gradient by the chunk's hidden states and the weights.

    A function of its own, so that nothing of a chunk is left when the next one begins.
    """
    rows = hidden[part].detach().requires_grad_()
    with torch.enable_grad():
        logits = head(rows)
    others = [other(states[part]) for other, states in frozen]
    gradient, total = torch.zeros_like(logits), upcast(hidden.new_zeros(()))
    for piece in _pieces(logits):
        leaf = upcast(logits[piece].detach()).requires_grad_()
        place = slice(part.start + piece.start, part.start + piece.stop)
        with torch.enable_grad():
            value = terms([leaf, *(one[piece] for one in others)], place)
        if value.requires_grad:  # else every weight is zero there
            gradient[piece] = torch.autograd.grad(value, leaf)[0]
            total += value.detach()
    del others
    return total, torch.autograd.grad(logits, (rows, *weights), gradient)


def _pieces(logits: Tensor) -> Iterator[slice]:
    """Parts of a chunk whose terms are computed together."""
    return chunks(len(logits), logits.shape[-1], None if logits.is_cuda else SLICE_LOGITS)
