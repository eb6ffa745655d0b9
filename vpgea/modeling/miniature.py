"""A small model of the same architecture as another: what its kind can do, before that one's weights are read."""

from __future__ import annotations

from typing import Any

from vpgea.modeling.load import ATTENTION, quiet_libraries
from vpgea.modeling.local_model import LocalModel

_LAYERS = 6  # of an architecture that does not list its kinds of layers; those that alternate do so more often
_HEADS = 4
_NARROW = 64
_MOST = {  # of what a configuration names, whatever its architecture
    "vocab_size": _NARROW,
    "intermediate_size": _NARROW,
    "moe_intermediate_size": _NARROW,
    "shared_expert_intermediate_size": _NARROW,
    "num_experts": 16,
    "num_local_experts": 16,
}
_SPREAD = 0.2  # of the weights: with less of it every token says nearly the same, and no difference shows


def miniature(local: LocalModel) -> Any | None:
    """A narrow model with a few layers of each kind and random weights, always the same.

    float32, on the CPU, in eval mode. Torch's generator is left as it is.

    Returns:
        None where an architecture ties its sizes to one another in a way of its own: only its weights can tell then.
    """
    try:
        with quiet_libraries():
            return _made(local)
    except Exception:  # whatever a model's own code raises; the training asks the whole model again
        return None


def _made(local: LocalModel) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    trust = local.config.trust_remote_code
    config = AutoConfig.from_pretrained(local.folder, trust_remote_code=trust)
    _shrink(config.get_text_config())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = AutoModelForCausalLM.from_config(config, trust_remote_code=trust, attn_implementation=ATTENTION)
    model = made.float().eval()
    with torch.no_grad():
        model(input_ids=torch.tensor([[5, 6, 7, 8]]))
    return model


def _shrink(text: Any) -> None:
    """Fewer layers and heads, each head as wide as it is; a configuration changes in place."""
    heads, kv_heads = text.num_attention_heads, getattr(text, "num_key_value_heads", None)
    head_dim, few = getattr(text, "head_dim", None) or text.hidden_size // heads, min(heads, _HEADS)
    text.num_attention_heads, text.hidden_size = few, few * head_dim
    if kv_heads is not None:
        text.num_key_value_heads = few if kv_heads == heads else max(1, few // 2)
    is_derived = isinstance(getattr(type(text), text.attribute_map.get("layer_types", "layer_types"), None), property)
    kinds = [] if is_derived else list(dict.fromkeys(getattr(text, "layer_types", None) or ()))
    text.num_hidden_layers = 2 * len(kinds) or min(text.num_hidden_layers, _LAYERS)
    if kinds:
        text.layer_types = kinds * 2
    for name, most in _MOST.items():
        value = getattr(text, name, None)
        if isinstance(value, int):
            setattr(text, name, min(value, most))
    text.pad_token_id = text.bos_token_id = text.eos_token_id = None  # of the large vocabulary
    text.initializer_range = _SPREAD
