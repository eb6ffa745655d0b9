"""Weight files as files: what is damaged, or of another model, is named without loading anything."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.support import tiny
from tests.support.model_files import edit, edit_header, edit_weights
from tests.support.models import fingerprint
from vpgea.config.schema import ModelConfig
from vpgea.errors import UsageError
from vpgea.modeling.local_model import LocalModel
from vpgea.modeling.weight_files import (
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


def overlapping(file: Path) -> None:
    edit_header(file, lambda header: header["model.norm.weight"].update(data_offsets=[0, 128]))


def below_zero(file: Path) -> None:
    edit_header(file, lambda header: header["model.norm.weight"].update(shape=[-8, -4]))


def no_whole_number(file: Path) -> None:
    edit_header(file, lambda header: header["model.norm.weight"].update(shape=[32.0]))


def a_huge_number(file: Path) -> None:
    edit_header(file, lambda header: header["model.norm.weight"].update(shape=[10**400] * 60))


def too_many_dimensions(file: Path) -> None:
    edit_header(file, lambda header: header["model.norm.weight"].update(shape=[1] * 1000 + [32]))


def no_entry(file: Path) -> None:
    edit_header(file, lambda header: header.update({"model.norm.weight": 3}))


def half_a_surrogate_pair(file: Path) -> None:
    edit_header(file, lambda header: header.update({"\ud800": header.pop("model.norm.weight")}))


def with_header(file: Path, header: bytes, body: bytes = b"") -> None:
    file.write_bytes(len(header).to_bytes(8, "little") + header + body)


def longer_than_any_memory(file: Path) -> None:
    file.write_bytes((2**63).to_bytes(8, "little") + file.read_bytes()[8:])


def nested_deeply(file: Path) -> None:
    with_header(file, b"[" * 100_000 + b"]" * 100_000)


def a_list(file: Path) -> None:
    with_header(file, b"[1]")


def one_name_twice(file: Path) -> None:
    entry = b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    with_header(file, b"{" + entry + b"," + entry + b"}", b"1234")


@pytest.mark.parametrize(
    "spoil",
    [
        *(longer, shorter, cut_in_the_header, empty, not_json, other_shape, a_gap, unknown_dtype),
        *(overlapping, below_zero, no_whole_number, a_huge_number, too_many_dimensions, no_entry),
        *(half_a_surrogate_pair, longer_than_any_memory, nested_deeply, a_list, one_name_twice),
    ],
)
def test_a_file_that_its_header_does_not_describe_to_the_byte_is_damaged(
    copy: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(copy / "model.safetensors")
    with pytest.raises(UsageError, match="damaged weights") as error:
        read_tensors(copy)
    assert len(error.value.why) < 500
    with pytest.raises(UsageError, match="damaged weights"):
        fingerprint(ModelConfig(path=str(copy)))


@pytest.mark.parametrize("named", ["../elsewhere.safetensors", "/elsewhere.safetensors", "", "adapter.bin"])
def test_an_index_that_leads_out_of_the_folder_is_refused(sharded: Path, named: Any) -> None:
    index = sharded / "model.safetensors.index.json"
    files = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    edit(index, weight_map={**files, "model.norm.weight": named})
    for read in (read_tensors, lambda folder: LocalModel.resolve(ModelConfig(path=str(folder))).fingerprint):
        with pytest.raises(UsageError, match="in the same folder"):
            read(sharded)


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
