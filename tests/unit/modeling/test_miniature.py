"""A small model of an architecture tells what the architecture can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vpgea.config.schema import ModelConfig
from vpgea.errors import UsageError
from vpgea.modeling.local_model import LocalModel
from vpgea.modeling.miniature import miniature
from vpgea.modeling.policy import checked_policy

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
KINDS: dict[str, dict[str, Any]] = {  # with the sizes of their first published models
    "llama": {"num_key_value_heads": 8, "vocab_size": 128256, "eos_token_id": 128001, "rope_parameters": LLAMA3},
    "qwen2": {"num_key_value_heads": 4, "bos_token_id": 151643},
    "qwen3_moe": {},
    "mistral": {"sliding_window": 4096},
    "phi3": {"pad_token_id": 32000},
    "gemma2": {},
    "gpt2": {},
    "smollm3": {},
}
WINDOWED = {"use_sliding_window": True, "max_window_layers": 24}


def described(folder: Path, kind: str, **options: Any) -> LocalModel:
    """The folder of a model that has a configuration, and no weights."""
    from transformers import AutoConfig

    AutoConfig.for_model(kind, **options).save_pretrained(folder)
    return LocalModel(config=ModelConfig(path=str(folder)), folder=folder, adapter=None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_narrow_layers_take_packed_sequences_where_their_architecture_does(kind: str, tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    small = miniature(described(tmp_path, kind, **KINDS[kind]))
    assert small is not None
    assert small.config.model_type == kind
    assert sum(parameter.numel() for parameter in small.parameters()) < 3e7
    checked_policy(small, packing=True)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(("kind", "options"), [("jamba", {}), ("qwen2_moe", WINDOWED)])
def test_what_packing_would_lose_of_an_architecture_shows_in_a_small_model(
    kind: str, options: dict[str, Any], tmp_path: Path
) -> None:
    small = miniature(described(tmp_path, kind, **options))
    with pytest.raises(UsageError, match=f"models of type {kind} cannot take packed sequences"):
        checked_policy(small, packing=True)


def test_of_what_cannot_be_made_small_nothing_is_said(tmp_path: Path) -> None:
    assert miniature(described(tmp_path, "mamba")) is None
