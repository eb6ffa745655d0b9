"""Log-probabilities of tokens, reduced in float32 (in float64 where that is what comes in)."""

from __future__ import annotations

import torch
from torch import Tensor


def upcast(values: Tensor) -> Tensor:
    """float64 stays, everything else becomes float32: sums over a vocabulary need it."""
    return values if values.dtype == torch.float64 else values.float()


def token_logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    """log pi(target) in nats, (T,). logits: (T, V), targets: (T,) int64."""
    logits = upcast(logits)
    return logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)


def expectation(probs: Tensor, values: Tensor) -> Tensor:
    """Sum over the last axis of probs * values with 0 * inf = 0, as for vocabulary entries masked by -inf logits.

    The values are masked before the product, so that no NaN reaches the gradient of probs either.
    """
    return (probs * torch.where(probs > 0, values, 0.0)).sum(-1)
