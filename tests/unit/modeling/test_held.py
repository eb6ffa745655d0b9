"""Weights that stay in memory: the files' or none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from vpgea.config.schema import ModelConfig
from vpgea.engines.transformers import TransformersEngine
from vpgea.modeling.held import HeldModel
from vpgea.modeling.load import load_model
from vpgea.modeling.local_model import LocalModel


@pytest.fixture
def local(tiny_model: Path, tmp_path: Path) -> LocalModel:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    return LocalModel.resolve(ModelConfig(path=str(folder), device="cpu", dtype="float32"))


def test_what_is_taken_is_no_longer_held(local: LocalModel) -> None:
    held, loaded = HeldModel(), load_model(local)
    held.put(local, loaded)
    assert held.get(local) is loaded
    assert held.take(local) is loaded
    assert held.get(local) is not loaded


def test_a_model_that_has_sampled_is_taken_as_if_it_were_read(local: LocalModel) -> None:
    held, fresh = HeldModel(), load_model(local)
    TransformersEngine(held.get(local), batch_size=2)
    taken = held.take(local)
    assert taken.config._attn_implementation == fresh.config._attn_implementation
    assert not taken.training
    for (name, ours), (other, theirs) in zip(taken.named_parameters(), fresh.named_parameters(), strict=True):
        assert name == other
        assert ours.requires_grad == theirs.requires_grad
        assert torch.equal(ours, theirs)


def test_files_that_were_written_again_are_read_again(local: LocalModel) -> None:
    held = HeldModel()
    loaded = held.get(local)
    weights = local.folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes())
    assert held.get(LocalModel.resolve(local.config)) is not loaded


def test_another_dtype_is_another_model(local: LocalModel) -> None:
    held = HeldModel()
    loaded = held.get(local)
    other = held.get(local.in_dtype("bfloat16"))
    assert other is not loaded
    assert other.dtype == torch.bfloat16
    assert held.get(local) is not loaded, "one at a time"
