"""Fingerprints stand in every manifest: they must stay what they were, to the last digit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.support import tiny
from tests.support.model_files import edit
from vpgea.config.schema import ModelConfig
from vpgea.modeling.local_model import LocalModel


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


def write_safetensors(file: Path, header: dict[str, object], body: bytes) -> None:
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + body)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Bytes that no library chose: two weight files, the second longer than all sampled blocks' length."""
    folder = tmp_path / "model"
    folder.mkdir()
    config = {"model_type": "qwen2", "vocab_size": 7, "transformers_version": "5.0", "_name_or_path": "x"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 4]}), encoding="utf-8")
    (folder / "tokenizer.json").write_bytes(b'{"version": "1.0"}\n')
    (folder / "chat_template.jinja").write_text("{{ messages }} é", encoding="utf-8")
    names = {}
    for number, rows in ((1, 3), (2, 70001)):
        name = names[f"a.{number}"] = f"model-{number:05d}-of-00002.safetensors"
        header = {
            "__metadata__": {"format": "pt"},
            f"a.{number}": {"dtype": "F32", "shape": [rows], "data_offsets": [0, rows * 4]},
            f"b.{number}": {"dtype": "BF16", "shape": [rows, 2], "data_offsets": [rows * 4, rows * 8]},
        }
        body = bytes((number * 7 + 13 * index + (index >> 8)) % 256 for index in range(rows * 8))
        write_safetensors(folder / name, header, body)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}), encoding="utf-8")
    return folder


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {"r": 2, "base_model_name_or_path": "somewhere", "revision": None}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    header = b'{"x.lora_A.weight":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]}}'
    (folder / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(range(12)))
    return folder


def test_fingerprints_are_those_that_version_0_1_0_gave(model: Path, adapter: Path) -> None:
    assert LocalModel.resolve(ModelConfig(path=str(model))).fingerprint == "55e2f9518c39a87f"
    assert LocalModel.resolve(ModelConfig(path=str(model), adapter=str(adapter))).fingerprint == "bf3abe4869f9f8c7"


def test_the_fingerprint_does_not_depend_on_the_path(tiny_model: Path, copy: Path) -> None:
    assert (
        LocalModel.resolve(ModelConfig(path=str(tiny_model))).fingerprint
        == LocalModel.resolve(ModelConfig(path=str(copy))).fingerprint
    )
    edit(copy / "config.json", transformers_version="0.0", _name_or_path="elsewhere")
    assert (
        LocalModel.resolve(ModelConfig(path=str(tiny_model))).fingerprint
        == LocalModel.resolve(ModelConfig(path=str(copy))).fingerprint
    )


@pytest.mark.parametrize("what", ["weight", "config", "end", "tokenizer", "chat template"])
def test_the_fingerprint_changes_with_what_changes_results(tiny_model: Path, copy: Path, what: str) -> None:
    if what == "weight":
        weights = load_file(copy / "model.safetensors")
        weights["model.layers.1.mlp.up_proj.weight"][3, 5] += 1e-3
        save_file(weights, copy / "model.safetensors", {"format": "pt"})
    elif what == "config":
        edit(copy / "config.json", rms_norm_eps=1e-5)
    elif what == "end":
        edit(copy / "generation_config.json", eos_token_id=[1])
    elif what == "tokenizer":
        edit(copy / "tokenizer.json", version="1.1")
    else:
        (copy / "chat_template.jinja").write_text(tiny.CHAT_TEMPLATES["r1-old"], encoding="utf-8")
    assert (
        LocalModel.resolve(ModelConfig(path=str(tiny_model))).fingerprint
        != LocalModel.resolve(ModelConfig(path=str(copy))).fingerprint
    )
