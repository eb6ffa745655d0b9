"""Weight files as files: what is damaged, or of another model, is named without loading anything."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from tests.support import tiny
from vpgea.engines.sglang.weights.adapters import require_room, require_servable
from vpgea.engines.sglang.weights.base import wrongly_moved
from vpgea.engines.sglang.weights.facts import Facts
from vpgea.errors import UsageError
from vpgea.modeling.adapter_files import adapter_fingerprint, adapter_has_effect, adapter_rank, require_adapter_fits
from vpgea.modeling.weight_files import (
    fused_checksums,
    fused_names,
    is_plain,
    read_tensors,
    require_same_architecture,
    require_same_tensors,
    verify_checksums,
    weight_files,
    write_checksums,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 with random weights: biases, grouped heads, an output layer of its own."""
    return tiny.make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "copy"))


@pytest.fixture
def sharded(model: Path, tmp_path: Path) -> Path:
    """The same weights in several files with an index."""
    loaded = AutoModelForCausalLM.from_pretrained(model)
    loaded.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    return tmp_path / "sharded"


def make_adapter(base: Path, folder: Path, *, std: float = 0.1, **options: Any) -> Path:
    torch.manual_seed(0)
    chosen = {"r": 2, "target_modules": "all-linear", **options}
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM", **chosen))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=std)
    adapted.save_pretrained(folder)
    return folder


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def edit_header(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Write the file's header anew, and its bytes as they are."""
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


# --- headers --------------------------------------------------------------------------------------------------------


def test_headers_say_what_torch_finds(model: Path, sharded: Path) -> None:
    expected = AutoModelForCausalLM.from_pretrained(model).state_dict()
    assert len(weight_files(sharded)) > 2
    for folder in (model, sharded):
        found = read_tensors(folder)
        assert {name: tensor.shape for name, tensor in found.items()} == {
            name: tuple(tensor.shape) for name, tensor in expected.items()
        }
        assert {tensor.dtype for tensor in found.values()} == {"F32"}
        for name, tensor in found.items():
            content = tensor.file.read_bytes()[tensor.start : tensor.start + tensor.size]
            assert content == expected[name].numpy().tobytes(), name


def longer(file: Path) -> None:
    with file.open("ab") as stream:
        stream.write(b"\0")


def shorter(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def cut_in_the_header(file: Path) -> None:
    os.truncate(file, 100)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def not_json(file: Path) -> None:
    file.write_bytes((4).to_bytes(8, "little") + b"abcd")


def other_shape(file: Path) -> None:
    edit_header(file, lambda header: header["model.norm.weight"].update(shape=[31]))


def a_gap(file: Path) -> None:
    edit_header(file, lambda header: header.pop("model.norm.weight"))


def unknown_dtype(file: Path) -> None:
    edit_header(file, lambda header: header["model.norm.weight"].update(dtype="F33"))


@pytest.mark.parametrize(
    "spoil", [longer, shorter, cut_in_the_header, empty, not_json, other_shape, a_gap, unknown_dtype]
)
def test_a_file_that_its_header_does_not_describe_to_the_byte_is_damaged(
    copy: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(copy / "model.safetensors")
    with pytest.raises(UsageError, match="damaged weights"):
        read_tensors(copy)


def test_a_lost_part_of_a_sharded_model_is_named(sharded: Path) -> None:
    last = weight_files(sharded)[-1]
    last.rename(sharded / "elsewhere")
    with pytest.raises(UsageError, match="No such file"):
        read_tensors(sharded)
    shutil.copy(weight_files(sharded)[0], last)
    with pytest.raises(UsageError, match="are in no file"):
        read_tensors(sharded)


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no safetensors"):
        read_tensors(tmp_path)


# --- checksums ------------------------------------------------------------------------------------------------------


def test_recorded_checksums_find_every_change_of_weights_and_configuration(copy: Path) -> None:
    verify_checksums(copy)  # nothing recorded
    write_checksums(copy)
    verify_checksums(copy)
    edit(copy / "generation_config.json", eos_token_id=[1, 2])  # may be mended by hand
    verify_checksums(copy)
    edit_weights(copy, lambda tensors: tensors["model.norm.weight"].add_(1))
    with pytest.raises(UsageError, match="whose checksum is not the recorded one"):
        verify_checksums(copy)
    write_checksums(copy)
    edit(copy / "config.json", rms_norm_eps=1e-3)
    with pytest.raises(UsageError, match=r"config\.json"):
        verify_checksums(copy)
    (copy / "config.json").unlink()
    with pytest.raises(UsageError, match="the file is gone"):
        verify_checksums(copy)


def test_a_truncated_file_is_found_without_a_record(copy: Path) -> None:
    shorter(copy / "model.safetensors")
    with pytest.raises(UsageError, match="damaged weights"):
        verify_checksums(copy)


# --- the same model? ------------------------------------------------------------------------------------------------


def test_the_same_tensors_in_other_files_and_dtypes_are_the_same_model(
    model: Path, sharded: Path, tmp_path: Path
) -> None:
    AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    for folder in (sharded, tmp_path / "half"):
        require_same_tensors(folder, model)
        require_same_architecture(folder, model, trust_remote_code=False)


def test_missing_further_and_reshaped_tensors_are_named(model: Path, copy: Path) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    for change, said in (
        (lambda tensors: tensors.update({name: tensors[name][:, :-1].contiguous()}), "in one and"),
        (lambda tensors: tensors.pop(name), rf"{name} is not in .*copy"),
        (lambda tensors: tensors.update({"a.further": torch.zeros(1), name: torch.zeros(1)}), "a.further is not in"),
    ):
        edit_weights(copy, change)
        with pytest.raises(UsageError, match=said):
            require_same_tensors(copy, model)


@pytest.mark.parametrize(
    "change", [{"rms_norm_eps": 1e-3}, {"num_attention_heads": 8}, {"tie_word_embeddings": True}, {"vocab_size": 77}]
)
def test_settings_that_a_server_does_not_read_again_must_be_the_same(
    model: Path, copy: Path, change: dict[str, Any]
) -> None:
    edit(copy / "config.json", transformers_version="4.0", dtype="bfloat16", eos_token_id=3, use_cache=False)
    require_same_architecture(copy, model, trust_remote_code=False)
    edit(copy / "config.json", **change)
    with pytest.raises(UsageError, match=next(iter(change))):
        require_same_architecture(copy, model, trust_remote_code=False)


def test_a_configuration_in_an_older_spelling_is_the_same(model: Path, copy: Path) -> None:
    fields = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    fields |= {"rope_theta": fields.pop("rope_parameters")["rope_theta"], "torch_dtype": fields.pop("dtype")}
    (copy / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    require_same_architecture(copy, model, trust_remote_code=False)


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


def test_an_adapter_fits_its_own_base_alone(model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(model, tmp_path / "adapter")
    require_adapter_fits(adapter, model)
    require_servable(adapter, model)
    wider, shallower = tiny.make_model(tmp_path / "wider", hidden=48), tiny.make_model(tmp_path / "shallower", layers=1)
    with pytest.raises(UsageError, match=r"\[48, 96\], and the adapter has lora_A \[2, 64\] and lora_B \[32, 2\]"):
        require_adapter_fits(adapter, wider)
    with pytest.raises(UsageError, match=r"layers\.1.* which the model does not have"):
        require_adapter_fits(adapter, shallower)


def test_an_adapter_is_known_by_its_files_and_a_new_one_has_no_effect(model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(model, tmp_path / "adapter")
    idle = make_adapter(model, tmp_path / "idle", std=0.0)
    assert adapter_has_effect(adapter)
    assert not adapter_has_effect(idle)
    assert adapter_fingerprint(adapter) == adapter_fingerprint(Path(shutil.copytree(adapter, tmp_path / "copy")))
    assert adapter_fingerprint(adapter) != adapter_fingerprint(idle)
    edit(idle / "adapter_config.json", lora_alpha=99)
    assert adapter_fingerprint(idle) != adapter_fingerprint(make_adapter(model, tmp_path / "again", std=0.0))


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
