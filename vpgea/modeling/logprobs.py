"""Log-probabilities of given ids: one code path for the engine's scoring and for the trainer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def pad_right(sequences: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """int64 ids (B, L) and attention mask (B, L), padded on the right with id 0 (masked, so any id does)."""
    length = max(len(sequence) for sequence in sequences)
    ids = torch.zeros((len(sequences), length), dtype=torch.long)
    mask = torch.zeros((len(sequences), length), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.as_tensor(sequence, dtype=torch.long)
        mask[row, : len(sequence)] = 1
    return ids.to(device), mask.to(device)


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


def upcast(values: Tensor) -> Tensor:
    """float64 stays, everything else becomes float32: sums over a vocabulary need it."""
    return values if values.dtype == torch.float64 else values.float()


def token_logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    """log pi(target) in nats, (T,), float32 at least. logits: (T, V), targets: (T,) int64."""
    logits = upcast(logits)
    return logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)
