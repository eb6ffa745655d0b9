"""Sums over the vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor


def expectation(probs: Tensor, values: Tensor) -> Tensor:
    """Sum over the last axis of probs * values with 0 * inf = 0, as for vocabulary entries masked by -inf logits.

    The values are masked before the product, so that no NaN reaches the gradient of probs either.
    """
    return (probs * torch.where(probs > 0, values, 0.0)).sum(-1)
