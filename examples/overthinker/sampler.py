"""A small batched sampler with a key-value cache, enough to measure a model folder without the rest of vpgea."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.inference_mode()
def sample(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    generator: torch.Generator,
    batch_size: int = 256,
) -> list[list[int]]:
    """Draw one completion per prompt at temperature 1, in the order of the prompts.

    A completion ends with, and includes, the end-of-sequence id, unless it met the cap. Ended rows leave the batch.
    """
    completions: list[list[int]] = []
    for begin in range(0, len(prompts), batch_size):
        completions += _sample_batch(model, prompts[begin : begin + batch_size], max_new_tokens, generator)
    return completions


def _sample_batch(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int, generator: torch.Generator
) -> list[list[int]]:
    from transformers import DynamicCache

    config = model.config
    width = max(map(len, prompts))
    ids = torch.tensor([[config.pad_token_id] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    cache, rows = DynamicCache(config=config), torch.arange(len(prompts))
    completions: list[list[int]] = [[] for _ in prompts]
    for _ in range(max_new_tokens):
        output = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1
        )
        ids = torch.multinomial(output.logits[:, -1].float().softmax(-1), 1, generator=generator)
        for row, token in zip(rows.tolist(), ids.flatten().tolist(), strict=True):
            completions[row].append(token)
        going = (ids.flatten() != config.eos_token_id).nonzero().flatten()
        if not len(going):
            break
        if len(going) < len(ids):
            rows, ids, mask, positions = rows[going], ids[going], mask[going], positions[going]
            cache.batch_select_indices(going)
        mask = torch.cat([mask, torch.ones_like(ids)], 1)
        positions = positions[:, -1:] + 1
    return completions
