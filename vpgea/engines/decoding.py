"""Attention of one token per row to what its row has: the query heads that share keys and values go in as one call.

An attention function of our own for transformers' attention interface. Where several query heads share a head of keys
and values and there is a mask, transformers first repeats all keys and values for each of them, at every token. With a
single query per row those heads can be the queries of one attention instead: (rows, shared heads, heads each, size).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "vpgea_decoding"


def use_decoding_attention(model: Any) -> None:
    """Let a model that attends with torch's function attend with `attend`, which differs at single tokens alone."""
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(ATTENTION)


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attention as transformers' own with torch's function.

    Args:
        module: The attention layer.
        query: (rows, heads, queries, size).
        key: (rows, shared heads, tokens, size).
        value: (rows, shared heads, tokens, size of values).
        attention_mask: (rows, 1, queries, tokens), or None: all that comes before is seen.
        options: Of transformers' attention functions.

    Returns:
        (rows, queries, heads, size of values), as they do.
    """
    rows, heads, queries, size = query.shape
    shared = key.shape[1]
    of_each_head = attention_mask is not None and attention_mask.shape[1] > 1
    if queries > 1 or shared == heads or of_each_head or options.get("position_bias") is not None:
        attended: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return attended
    grouped = scaled_dot_product_attention(
        query.view(rows, shared, heads // shared, size),
        key,
        value,
        attn_mask=attention_mask,
        scale=options.get("scaling"),
    )
    return grouped.reshape(rows, 1, heads, value.shape[-1]), None


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
