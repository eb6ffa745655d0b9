"""What SGLang holds and serves of a model, known from its files alone."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from tests.support import tiny
from tests.support.model_files import edit_weights, make_adapter
from vpgea.engines.sglang.weights.adapters import require_room, require_servable
from vpgea.engines.sglang.weights.base import wrongly_moved
from vpgea.engines.sglang.weights.checksums import fused_checksums, fused_names, is_plain
from vpgea.engines.sglang.weights.facts import Facts
from vpgea.errors import UsageError
from vpgea.modeling.adapter_files import adapter_rank


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 with random weights: biases, grouped heads, an output layer of its own."""
    return tiny.make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "copy"))


# --- a server's tensors ---------------------------------------------------------------------------------------------


def sha(*tensors: torch.Tensor, rows: int | None = None) -> str:
    whole = torch.cat(tensors)
    if rows is not None:
        whole = torch.cat([whole, torch.zeros((rows - len(whole), *whole.shape[1:]), dtype=whole.dtype)])
    return hashlib.sha256(whole.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("stored", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("served", ["float32", "bfloat16", "float16"])
def test_fused_checksums_are_those_of_torch_s_tensors(model: Path, tmp_path: Path, stored: str, served: str) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, stored))
    loaded.save_pretrained(tmp_path)
    assert is_plain(tmp_path)
    found = fused_checksums(tmp_path, served)
    assert found.keys() == fused_names(tmp_path)
    tensors = loaded.to(getattr(torch, served)).state_dict()
    rows = -(-len(tensors["lm_head.weight"]) // 64) * 64
    expected = {
        "model.embed_tokens.weight": sha(tensors["model.embed_tokens.weight"], rows=rows),
        "lm_head.weight": sha(tensors["lm_head.weight"], rows=rows),
        "model.norm.weight": sha(tensors["model.norm.weight"]),
    }
    for layer in range(2):
        at = f"model.layers.{layer}"
        for kind in ("weight", "bias"):
            parts = [tensors[f"{at}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            expected[f"{at}.self_attn.qkv_proj.{kind}"] = sha(*parts)
        gate_up = [tensors[f"{at}.mlp.{part}_proj.weight"] for part in ("gate", "up")]
        expected[f"{at}.mlp.gate_up_proj.weight"] = sha(*gate_up)
        for name in ("self_attn.o_proj", "mlp.down_proj", "input_layernorm", "post_attention_layernorm"):
            expected[f"{at}.{name}.weight"] = sha(tensors[f"{at}.{name}.weight"])
    assert found == expected


def test_tied_tables_and_head_norms_keep_their_names(tmp_path: Path) -> None:
    config = Qwen3Config(
        vocab_size=70,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        tie_word_embeddings=True,
    )
    Qwen3ForCausalLM(config).save_pretrained(tmp_path)
    names = fused_names(tmp_path)
    assert "lm_head.weight" not in names
    assert {"model.layers.0.self_attn.q_norm.weight", "model.layers.0.self_attn.k_norm.weight"} < names


def test_infinite_and_subnormal_numbers_are_rounded_as_torch_does(copy: Path) -> None:
    values = torch.tensor([0.0, -0.0, 1e-45, 1e-40, 65519.0, 65520.0, 3.4e38, float("inf"), 1 + 2**-8, 1 + 3 * 2**-8])
    edit_weights(copy, lambda tensors: tensors.update({"model.norm.weight": values}))
    for dtype in ("bfloat16", "float16"):
        found = fused_checksums(copy, dtype)["model.norm.weight"]
        assert found == sha(values.to(getattr(torch, dtype))), dtype


def test_quantised_weights_are_not_plain(copy: Path) -> None:
    edit_weights(copy, lambda tensors: tensors.update({"model.norm.weight": torch.zeros(4, dtype=torch.float8_e4m3fn)}))
    assert not is_plain(copy)


def test_an_update_that_moved_the_wrong_tensors_is_found() -> None:
    """Two ranks hold parts of a tensor; their checksums are of another kind than those of the files."""
    old, new = {"a": "1", "b": "2", "c": "3"}, {"a": "9", "b": "2", "c": "8"}
    before = [{"a": "p", "b": "q", "c": "r"}, {"a": "s", "b": "q", "c": "u"}]
    right = [{"a": "P", "b": "q", "c": "r"}, {"a": "s", "b": "q", "c": "U"}]
    assert wrongly_moved(before, right, old, new) == []
    assert wrongly_moved(before, before, old, new) == ["a", "c"]
    assert wrongly_moved(before, [{**rank, "b": "Q"} for rank in right], old, new) == ["b"]


# --- adapters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"use_rslora": True}, "use_rslora"),
        ({"alpha_pattern": {"q_proj": 5}}, "alpha_pattern"),
        ({"rank_pattern": {"q_proj": 5}}, "rank_pattern"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
        ({"target_modules": ["v_proj"]}, "self_attn.v_proj and not its neighbours"),
        ({"target_modules": ["q_proj", "k_proj"]}, "self_attn.[kq]_proj and not its neighbours"),
        ({"target_modules": ["up_proj"]}, "mlp.up_proj and not its neighbours"),
    ],
)
def test_adapters_that_sglang_would_apply_otherwise_are_refused(
    model: Path, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        require_servable(make_adapter(model, tmp_path / "adapter", **options), model)


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ["gate_proj"], ["o_proj", "down_proj"]])
def test_usual_choices_of_modules_are_served(model: Path, tmp_path: Path, targets: list[str]) -> None:
    require_servable(make_adapter(model, tmp_path / "adapter", target_modules=targets), model)


def test_a_server_must_have_room_for_the_adapter(model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(model, tmp_path / "adapter")
    able = {"enable_lora": True, "max_lora_rank": 2, "dp_size": 1}
    require_room(
        adapter_rank(adapter),
        Facts(url="url", version="v", model_path="path", architecture="Qwen2ForCausalLM", options=able),
    )
    for change, said in (
        ({"enable_lora": False}, "LoRA is not enabled"),
        ({"max_lora_rank": 1}, "room for 1"),
        ({"dp_size": 2}, "2 data-parallel copies"),
    ):
        with pytest.raises(UsageError, match=said):
            require_room(
                adapter_rank(adapter),
                Facts(
                    url="url", version="v", model_path="path", architecture="Qwen2ForCausalLM", options=able | change
                ),
            )
    with pytest.raises(UsageError, match="is a router"):
        require_room(
            adapter_rank(adapter),
            Facts(url="url", version="v", model_path="path", architecture="Qwen2ForCausalLM", options={}),
        )
