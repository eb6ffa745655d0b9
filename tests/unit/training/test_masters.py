"""The float32 weights of full fine-tuning carry over from round to round, beside the rounded ones that sample."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.support import tiny
from tests.support.selection_rows import distill_config, sample_rows, write_selection
from vpgea.config.schema import RunConfig
from vpgea.errors import UsageError
from vpgea.inspection.verify import verify
from vpgea.modeling.fingerprint import fingerprint_of
from vpgea.modeling.local_model import LocalModel
from vpgea.phases.distill import distill, trained_model
from vpgea.runs.manifest import Manifest
from vpgea.training.masters import masters_of

SLOW = {"distill__learning_rate": 1e-6, "distill__questions_per_step": 1}  # no bfloat16 weight above 2^-12 can follow


def one_round(config: RunConfig, folder: Path) -> RunConfig:
    """Train in folder/out; the configuration of the next round."""
    distill(config, write_selection(folder / "filter", config, sample_rows(config)), folder / "out")
    return config.model_copy(update={"model": trained_model(config, folder / "out")})


@pytest.fixture(scope="module")
def two_rounds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunConfig]:
    """Of full fine-tuning in bfloat16, and the configuration of the third; do not change it."""
    folder = tmp_path_factory.mktemp("rounds")
    config = distill_config(tiny.make_model(folder / "base"), distill__train="full", model__dtype="bfloat16", **SLOW)
    return folder, one_round(one_round(config, folder / "0"), folder / "1")


def weights(folder: Path, name: str) -> dict[str, Tensor]:
    return load_file(folder / "out" / name / "model.safetensors")


def test_small_updates_of_two_rounds_add_up(two_rounds: tuple[Path, RunConfig]) -> None:
    folder, _ = two_rounds
    first, second = (weights(folder / name, "masters") for name in "01")
    for name, tensor in second.items():
        assert tensor.dtype == torch.float32
        # three steps of 1e-6 at most; from the rounded weights on it would be their rounding, 100 times more
        assert 0 < float((tensor - first[name]).abs().max()) < 1e-5, name
    published = weights(folder / "1", "model")
    assert published.keys() == second.keys()
    for name, tensor in published.items():
        assert torch.equal(tensor, second[name].bfloat16()), name


def test_what_is_sampled_and_taken_along_are_the_rounded_ones(two_rounds: tuple[Path, RunConfig]) -> None:
    folder, following = two_rounds
    assert following.model.path == str(folder / "1" / "out" / "model")
    masters = masters_of(LocalModel.resolve(following.model))
    assert masters is not None
    inputs = Manifest.read(folder / "1" / "out" / "manifest.json").inputs
    assert inputs["masters"] == fingerprint_of([folder / "0" / "out" / "masters"]) != masters.fingerprint


def test_nothing_is_added_where_nothing_is_rounded(tmp_path: Path) -> None:
    config = distill_config(tiny.make_model(tmp_path / "base"), distill__train="full")
    following = one_round(config, tmp_path)
    assert not (tmp_path / "out" / "masters").exists()
    assert masters_of(LocalModel.resolve(following.model)) is None
    assert "masters" not in Manifest.read(tmp_path / "out" / "manifest.json").inputs


def test_a_verification_finds_masters_that_are_damaged_exchanged_or_gone(
    two_rounds: tuple[Path, RunConfig], tmp_path: Path
) -> None:
    copy = shutil.copytree(two_rounds[0] / "1" / "out", tmp_path / "distill")
    assert verify(copy).findings == []
    file = copy / "masters" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    damaged = verify(copy).findings
    shutil.rmtree(copy / "masters")
    gone = verify(copy).findings
    shutil.copytree(two_rounds[0] / "0" / "out" / "masters", copy / "masters")
    exchanged = verify(copy).findings
    for found in (damaged, gone, exchanged):
        assert [(finding.path, finding.redo) for finding in found] == [(Path("masters"), "the training")]


def test_masters_that_are_gone_or_of_another_model_are_not_done_without(
    two_rounds: tuple[Path, RunConfig], tmp_path: Path
) -> None:
    folder, following = two_rounds
    copy = tmp_path / "copy"
    shutil.copytree(folder / "1" / "out", copy)
    model = LocalModel.resolve(following.model.model_copy(update={"path": str(copy / "model")}))
    assert masters_of(model) is not None
    shutil.rmtree(copy / "masters")
    with pytest.raises(UsageError, match="float32 weights") as error:
        masters_of(model)
    assert "gone" in error.value.why
    shutil.copytree(folder / "0" / "out" / "masters", copy / "masters")
    with pytest.raises(UsageError, match="float32 weights"):
        masters_of(model)
    shutil.copytree(copy / "model", tmp_path / "elsewhere")  # the way out that the message names
    assert masters_of(LocalModel.resolve(model.config.model_copy(update={"path": str(tmp_path / "elsewhere")}))) is None
