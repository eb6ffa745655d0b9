"""How long a model's sequences may be: its positions, stretched or not, as config.json says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vpgea.errors import UsageError

_LEARNED = ("n_positions", "n_ctx", "max_seq_len", "seq_length")  # what older architectures call it
_BY_LENGTH = ("longrope", "su", "dynamic")  # frequencies that follow the longest sequence of a batch
_STRETCHED = ("yarn", "linear")


def context_length(text_config: Mapping[str, Any]) -> int | None:
    """Longest sequence whose numbers are the model's own, in tokens; None where its configuration does not say.

    A stretch by YaRN or linear scaling counts, whether or not max_position_embeddings has it already. With longrope and
    dynamic scaling it ends where the stretch begins: beyond, transformers and servers take the frequencies from the
    longest sequence of a batch, so that a path's log-probabilities would depend on what stands beside it.
    """
    named = next((text_config[key] for key in ("max_position_embeddings", *_LEARNED) if text_config.get(key)), None)
    if named is None:
        return None
    length, scaling = int(named), rope_scaling(text_config)
    kind = scaling.get("rope_type") or scaling.get("type")
    original = scaling.get("original_max_position_embeddings") or text_config.get("original_max_position_embeddings")
    if kind in _BY_LENGTH:
        return min(length, int(original)) if original else length
    if kind in _STRETCHED and scaling.get("factor"):
        return max(length, int(float(scaling["factor"]) * int(original or length)))
    return length


def follows_batch(text_config: Mapping[str, Any]) -> bool:
    """Whether rotary frequencies beyond the context depend on the batch."""
    scaling = rope_scaling(text_config)
    return (scaling.get("rope_type") or scaling.get("type")) in _BY_LENGTH


def require_one_side(config: Any, longest: int) -> None:
    """See that a batch's longest sequence stays where rotary frequencies do not depend on it.

    Args:
        config: Of transformers.
        longest: In tokens.

    Raises:
        UsageError: It does not.
    """
    fields = config.get_text_config().to_dict()
    limit = context_length(fields) if follows_batch(fields) else None
    if limit is not None and longest > limit:
        raise UsageError(
            f"a sequence of {longest:,} tokens is beyond the {limit:,} that this model's positions were made for",
            why="its longrope or dynamic scaling takes the frequencies from the longest sequence of a batch, so what "
            "stands beside a sequence would change its numbers",
            mend=f"keep prompts and completions within {limit:,} tokens, or use a model with another scaling",
        )


def rope_scaling(text_config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The one scaling of all layers; empty where there is none, or several by kind of layer."""
    found = text_config.get("rope_parameters") or text_config.get("rope_scaling") or {}
    return found if not any(isinstance(value, Mapping) for value in found.values()) else {}
