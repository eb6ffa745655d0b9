"""A model's dimensions, read without its weights: from config.json and the headers of its safetensors files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from vpgea.config.training import LoraConfig
from vpgea.errors import UsageError
from vpgea.modeling.local_model import LocalModel
from vpgea.modeling.weight_files import read_tensors

Tensors = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What costs depend on. Mixtures of experts are counted as if every expert were active.

    Attributes:
        matrices: Name → (out, in) of the linear layers inside the decoder's blocks.
        matmul_parameters: Parameters that every token is multiplied with; an input embedding is only looked up, and
            counts when it is the output layer too (tied).
    """

    parameters: int
    matmul_parameters: int
    stored_bytes: int
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    matrices: Mapping[str, tuple[int, int]]

    def kv_bytes_per_token(self, dtype_bytes: int) -> int:
        """Keys and values of all layers for one token: 2 x layers x kv_heads x head_dim x bytes of the dtype."""
        return 2 * self.layers * self.kv_heads * self.head_dim * dtype_bytes

    def targeted(self, lora: LoraConfig) -> list[tuple[int, int]]:
        """(out, in) of the matrices that the adapter stands on; `all-linear`: every one inside the blocks."""
        wanted = lora.targets
        return [
            size
            for name, size in self.matrices.items()
            if wanted == ["all-linear"] or name.removesuffix(".weight").rsplit(".", 1)[-1] in wanted
        ]

    def lora_parameters(self, lora: LoraConfig) -> int:
        """rank x (in + out), summed over the targeted matrices (arXiv 2106.09685)."""
        return sum(lora.rank * (rows + columns) for rows, columns in self.targeted(lora))


def read_shape(model: LocalModel) -> ModelShape:
    """Dimensions of a model folder.

    Raises:
        UsageError: A header or the configuration cannot be read.
    """
    from transformers import AutoConfig

    folder = model.folder
    tensors = read_tensors(folder)
    stored_bytes = sum(tensor.size for tensor in tensors.values())
    try:
        loaded = AutoConfig.from_pretrained(folder, trust_remote_code=model.config.trust_remote_code)
        return shape_of(loaded, {name: tensor.shape for name, tensor in tensors.items()}, stored_bytes)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UsageError(
            f"the model's dimensions cannot be read: {folder / 'config.json'}",
            why=" ".join(str(error).split())[:300],
            mend="compare config.json with the one that was published with the model",
        ) from error


def published_shape(fields: Mapping[str, Any], dtype_bytes: int) -> ModelShape:
    """Dimensions of a published model from the fields of its config.json alone, `model_type` included.

    The model is built on torch's meta device, where tensors have a shape and no memory.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    given = dict(fields)
    config = AutoConfig.for_model(given.pop("model_type"), **given)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    tensors = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    return shape_of(config, tensors, dtype_bytes * sum(prod(shape) for shape in tensors.values()))


def shape_of(config: Any, tensors: Tensors, stored_bytes: int) -> ModelShape:
    """Dimensions from a transformers configuration and the names and shapes of all tensors."""
    text = config.get_text_config()
    heads, hidden = int(text.num_attention_heads), int(text.hidden_size)
    head_dim = getattr(text, "head_dim", None) or hidden // heads
    parameters = sum(prod(shape) for shape in tensors.values())
    vocabulary = int(text.vocab_size)
    tables = [prod(shape) for name, shape in tensors.items() if _is_table(name, shape, vocabulary)]
    return ModelShape(
        parameters=parameters,
        matmul_parameters=parameters - (tables[0] if len(tables) > 1 else 0),
        stored_bytes=stored_bytes,
        layers=int(text.num_hidden_layers),
        hidden=hidden,
        intermediate=int(getattr(text, "intermediate_size", None) or 4 * hidden),  # 4: the rule where none is named
        heads=heads,
        kv_heads=int(getattr(text, "num_key_value_heads", None) or heads),
        head_dim=int(head_dim),
        vocabulary=vocabulary,
        matrices={
            name: (shape[0], shape[1])
            for name, shape in tensors.items()
            if len(shape) == 2 and not _is_table(name, shape, vocabulary)
        },
    )


def _is_table(name: str, shape: tuple[int, ...], vocabulary: int) -> bool:
    """An embedding or output layer: a matrix with a row for every token of the vocabulary."""
    return len(shape) == 2 and shape[0] >= vocabulary and ("embed" in name or "lm_head" in name or "wte" in name)
