"""Loading models: what is damaged, incomplete or odd is named before anything is sampled."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support import tiny
from tests.support.models import causal_model, fingerprint
from vpgea.config.schema import ModelConfig, ViewsConfig
from vpgea.errors import UsageError
from vpgea.modeling.device import torch_device
from vpgea.modeling.local_model import LocalModel
from vpgea.prompts.views import load_views


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model's folder, to be spoilt."""
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


@pytest.fixture
def adapter(copy: Path, tmp_path: Path) -> Path:
    """A LoRA adapter for the tiny model with random weights."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(causal_model(at(copy)), config).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def at(folder: Path, **more: Any) -> ModelConfig:
    return ModelConfig(path=str(folder), device="cpu", threads=1, **more)


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def test_a_folder_is_loaded_in_eval_mode_and_the_asked_dtype(tiny_model: Path) -> None:
    assert LocalModel.resolve(at(tiny_model)).folder == tiny_model
    assert LocalModel.resolve(at(tiny_model)).dtype == torch.float32
    model = causal_model(at(tiny_model, dtype="bfloat16"))
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("path", ["", "/nowhere/at/all", "./nowhere", "one-name", "a/b/c"])
def test_a_model_that_is_nowhere_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="model"):
        LocalModel.resolve(ModelConfig(path=path))


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a model folder"):
        LocalModel.resolve(at(tmp_path))


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown device: tpu9"):
        torch_device(ModelConfig(device="tpu9"))
    with pytest.raises(UsageError, match="unknown device: cuda:99"):
        torch_device(ModelConfig(device="cuda:99"))


# --- ends -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listed", "expected"), [([457, 3], [457, 3]), (3, [3, 457]), ([3], [3, 457]), (None, [457]), ([457, 457], [457])]
)
def test_every_end_id_counts_once(copy: Path, listed: Any, expected: list[int]) -> None:
    edit(copy / "generation_config.json", eos_token_id=listed)
    assert LocalModel.resolve(at(copy)).eos_ids == expected


def test_ends_come_from_every_file_that_can_name_them(copy: Path) -> None:
    edit(copy / "generation_config.json", eos_token_id=3)
    edit(copy / "config.json", eos_token_id=[3, 5])
    model = LocalModel.resolve(at(copy))
    assert (model.eos_ids, model.configured_eos_ids) == ([3, 457], [3, 5])
    assert load_views(model, ViewsConfig()).stop_ids == (3, 457, 5)


def test_a_model_without_end_is_refused(copy: Path) -> None:
    (copy / "generation_config.json").unlink()
    edit(copy / "config.json", eos_token_id=None)
    file = copy / "chat_template.jinja"
    file.write_text(file.read_text(encoding="utf-8").replace("<｜end▁of▁sentence｜>", ""), encoding="utf-8")
    model = LocalModel.resolve(at(copy))
    assert model.eos_ids == [model.tokenizer.eos_token_id]
    endless = LocalModel.resolve(at(copy))
    endless.tokenizer.eos_token = None
    with pytest.raises(UsageError, match="no end-of-sequence id"):
        assert load_views(endless, ViewsConfig()).stop_ids


def test_files_that_change_are_seen_by_a_model_that_is_resolved_afterwards(copy: Path) -> None:
    before = LocalModel.resolve(at(copy))
    known = before.fingerprint
    edit(copy / "config.json", max_position_embeddings=77)
    after = LocalModel.resolve(at(copy))
    assert (before.fingerprint, after.context_length) == (known, 77)
    assert after.fingerprint != known


def test_a_model_without_its_adapter_is_the_base(copy: Path, adapter: Path) -> None:
    plain, adapted = LocalModel.resolve(at(copy)), LocalModel.resolve(at(copy, adapter=str(adapter)))
    assert adapted.base.fingerprint == plain.fingerprint != adapted.fingerprint
    assert plain.base is plain
    assert adapted.base.config == plain.config


# --- damage ---------------------------------------------------------------------------------------------------------


def test_weights_cut_short_are_refused(copy: Path) -> None:
    file = copy / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-100])
    with pytest.raises(UsageError, match="cannot be loaded"):
        causal_model(at(copy))
    file.write_bytes(content[:100])
    with pytest.raises(UsageError, match="damaged weights"):
        fingerprint(at(copy))
    file.write_bytes(b"")
    with pytest.raises(UsageError):
        fingerprint(at(copy))


def test_weights_that_are_missing_are_never_left_random(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    gone = "model.layers.1.mlp.up_proj.weight"
    save_file(
        {name: tensor for name, tensor in weights.items() if name != gone}, copy / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(UsageError) as error:
        causal_model(at(copy))
    assert gone in error.value.why


def test_tied_weights_are_not_missing(tmp_path: Path) -> None:
    folder = tiny.make_model(tmp_path, tie=True)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    model = causal_model(at(folder))
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_config_of_another_shape_is_refused(copy: Path) -> None:
    edit(copy / "config.json", intermediate_size=48)
    with pytest.raises(UsageError, match="cannot be loaded"):
        causal_model(at(copy))


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_json_that_is_damaged_is_named(copy: Path, name: str) -> None:
    (copy / name).write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match=name.replace(".", r"\.")):
        fingerprint(at(copy))


def test_only_safetensors_are_read(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save(weights, copy / "pytorch_model.bin")
    with pytest.raises(UsageError, match="no safetensors"):
        fingerprint(at(copy))
    with pytest.raises(UsageError, match="cannot be loaded"):
        causal_model(at(copy))


def test_a_tokenizer_that_is_missing_is_refused(copy: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    with pytest.raises(UsageError, match="tokenizer") as raised:
        assert LocalModel.resolve(at(copy)).tokenizer
    assert raised.value.why == "tokenizer.json is not there, nor is any other file with a vocabulary"


def test_a_tokenizer_that_is_cut_off_is_named(copy: Path) -> None:
    (copy / "tokenizer.json").write_bytes((copy / "tokenizer.json").read_bytes()[:200])
    with pytest.raises(UsageError, match="cannot be loaded") as raised:
        assert LocalModel.resolve(at(copy)).tokenizer
    assert str(raised.value.why).startswith("tokenizer.json is damaged")


# --- adapters -------------------------------------------------------------------------------------------------------


def test_an_adapter_changes_the_logits_and_the_fingerprint(copy: Path, adapter: Path) -> None:
    ids = torch.tensor([[1, 2, 3]])
    with torch.inference_mode():
        plain = causal_model(at(copy))(ids).logits
        adapted = causal_model(at(copy, adapter=str(adapter)))(ids).logits
    assert (plain - adapted).abs().max() > 1e-3
    assert LocalModel.resolve(at(copy)).fingerprint != LocalModel.resolve(at(copy, adapter=str(adapter))).fingerprint


def test_a_folder_that_is_no_adapter_is_refused(copy: Path) -> None:
    assert LocalModel.resolve(at(copy)).adapter is None
    with pytest.raises(UsageError, match="not an adapter folder"):
        LocalModel.resolve(at(copy, adapter=str(copy)))


def test_adapter_weights_that_are_missing_are_never_left_random(copy: Path, adapter: Path) -> None:
    file = adapter / "adapter_model.safetensors"
    weights = load_file(file)
    gone = sorted(weights)[0]
    save_file({name: tensor for name, tensor in weights.items() if name != gone}, file, {"format": "pt"})
    with pytest.raises(UsageError) as error:
        causal_model(at(copy, adapter=str(adapter)))
    assert gone in error.value.why


def test_an_adapter_of_another_model_is_refused(adapter: Path, tmp_path: Path) -> None:
    other = tiny.make_model(tmp_path / "other", hidden=64)
    with pytest.raises(UsageError, match="cannot be loaded"):
        causal_model(at(other, adapter=str(adapter)))
