"""Log-probabilities of given ids: one code path for the engine's scoring and for the trainer."""

from __future__ import annotations

from collections.abc import Sequence

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


def upcast(values: Tensor) -> Tensor:
    """float64 stays, everything else becomes float32: sums over a vocabulary need it."""
    return values if values.dtype == torch.float64 else values.float()


def token_logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    """log pi(target) in nats, (T,), float32 at least. logits: (T, V), targets: (T,) int64."""
    logits = upcast(logits)
    return pick(logits, targets) - logits.logsumexp(-1)


def log_softmax(logits: Tensor) -> Tensor:
    """log pi (T, V) over the vocabulary in nats, float32 at least. logits: (T, V)."""
    return torch.log_softmax(upcast(logits), -1)


def pick(values: Tensor, targets: Tensor) -> Tensor:
    """The entry of each row (T, V) at its target, (T,); targets: (T,) int64."""
    return values.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
