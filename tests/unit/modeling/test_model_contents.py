"""What else lies in a model's or an adapter's folder is looked at before it is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.support import tiny
from tests.support.model_files import edit, edit_weights, make_adapter
from vpgea.config.resolve import resolve
from vpgea.config.schema import ModelConfig
from vpgea.engines.transformers import TransformersEngine
from vpgea.errors import UsageError
from vpgea.modeling.load import load_model
from vpgea.modeling.local_model import LocalModel
from vpgea.training.requirements import require_trainable
from vpgea.training.students import without_dropout


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("contents") / "model")


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "copy"))


def local(folder: Path, adapter: Path | None = None) -> LocalModel:
    return LocalModel.resolve(ModelConfig(path=str(folder), adapter=None if adapter is None else str(adapter)))


def test_an_adapter_in_the_model_s_folder_is_refused(copy: Path) -> None:
    (copy / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "x"}))
    with pytest.raises(UsageError, match="an adapter lies in the model's folder") as error:
        local(copy)
    assert "--adapter" in error.value.mend


def test_a_quantised_model_is_refused_by_name(copy: Path) -> None:
    edit(copy / "config.json", quantization_config={"quant_method": "awq", "bits": 4})
    with pytest.raises(UsageError, match=r"is quantised \(awq\)") as error:
        load_model(local(copy))
    assert "delete quantization_config" in error.value.mend


def test_an_adapter_of_another_kind_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "prompt"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4}))
    save_file({"prompt_embeddings": torch.zeros(4, 32)}, adapter / "adapter_model.safetensors")
    with pytest.raises(UsageError, match="PROMPT_TUNING"):
        local(base, adapter)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"use_rslora": True}, "use_rslora"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"target_modules": ["q_proj"]}, "stands on q_proj"),
    ],
)
def test_an_adapter_is_continued_only_where_the_run_makes_the_same_kind(
    base: Path, tmp_path: Path, options: dict[str, Any], named: str
) -> None:
    adapter = make_adapter(base, tmp_path / "adapter", lora_alpha=4, lora_dropout=0.0, **options)
    shape = {"distill.lora.rank": 2, "distill.lora.alpha": 4.0, "distill.lora.dropout": 0.0}
    config = resolve(options={"model.path": str(base), "model.adapter": str(adapter), **shape}).config
    with pytest.raises(UsageError) as error:
        require_trainable(config, local(base, adapter))
    assert named in error.value.why


def test_names_in_a_file_reach_people_without_their_escapes(copy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    edit_weights(copy, lambda tensors: tensors.update({"\x1b[31mRED.weight": torch.zeros(1)}))
    with pytest.warns(UserWarning, match="1 tensors in .* are not the model's") as told:
        load_model(local(copy))
    assert "\x1b" not in str(told[0].message)
    assert capfd.readouterr().err == ""


def test_dropout_of_the_model_s_own_is_off_and_the_adapter_s_is_not() -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2, n_positions=32))
    adapted = get_peft_model(model, LoraConfig(r=2, lora_dropout=0.25, target_modules=["c_attn"]))
    rates = [module.p for module in without_dropout(adapted).modules() if isinstance(module, torch.nn.Dropout)]
    assert sorted(set(rates)) == [0.0, 0.25]


def test_a_model_with_more_than_a_cache_of_attention_is_refused_by_name() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = AutoConfig.for_model(
        "lfm2", vocab_size=32, intermediate_size=16, layer_types=["conv", "full_attention"], pad_token_id=0, **sizes
    )
    with pytest.raises(UsageError, match="models of type lfm2 cannot be sampled"):
        TransformersEngine(AutoModelForCausalLM.from_config(config), batch_size=1)
