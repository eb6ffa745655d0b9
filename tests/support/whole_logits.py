"""Logits of whole sequences from a model's own forward pass, padded and at once: what our ways are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vpgea.modeling.logprobs import pad_right


def next_token_logits(
    model: Any, sequences: Sequence[Sequence[int]], starts: Sequence[int], device: torch.device
) -> Tensor:
    """Logits (T, V), in the model's dtype, of every position of sequences[i][starts[i]:], rows in order.

    The row for position t holds the logits given ids before t, so that starts must be at least 1.
    """
    assert all(1 <= start <= len(sequence) for start, sequence in zip(starts, sequences, strict=True))
    ids, mask = pad_right(sequences, device)
    keep = ids.shape[1] - min(starts) + 1  # positions from the earliest start on, one before it included
    logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=keep, use_cache=False).logits
    offset = ids.shape[1] - keep
    return torch.cat(
        [
            logits[row, start - 1 - offset : len(sequence) - 1 - offset]
            for row, (sequence, start) in enumerate(zip(sequences, starts, strict=True))
        ]
    )
