"""Checkpoints: everything comes back bit by bit, damage is named, half-written ones are not seen."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vpgea.errors import UsageError
from vpgea.training.checkpoint import load_checkpoint, publish_folder, save_checkpoint

Setup = tuple[dict[str, Tensor], torch.optim.AdamW]


def setup(seed: int) -> Setup:
    generator = torch.Generator().manual_seed(seed)
    parameters = {name: torch.nn.Parameter(torch.randn(3, 4, generator=generator)) for name in ("a", "b", "unused")}
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.1, weight_decay=0.1)
    return dict(parameters), optimizer


def step(trainable: dict[str, Tensor], optimizer: torch.optim.AdamW, times: int = 1) -> None:
    """Two of three parameters get a random gradient, drawn from torch's own generator."""
    for _ in range(times):
        for name in ("a", "b"):
            trainable[name].grad = torch.randn(3, 4)
        optimizer.step()


def saved(folder: Path, steps: int = 3) -> Setup:
    trainable, optimizer = setup(0)
    for number in range(1, steps + 1):
        step(trainable, optimizer)
        save_checkpoint(folder, number, trainable, optimizer, {"trained_tokens": 10 * number})
    return trainable, optimizer


def test_the_run_goes_on_bit_by_bit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    straight, optimizer = saved(tmp_path)
    step(straight, optimizer, 5)
    torch.manual_seed(99)
    resumed, other = setup(1)
    state = load_checkpoint(tmp_path, resumed, other)
    assert state == {"step": 3, "trained_tokens": 30}
    step(resumed, other, 5)
    for name, value in straight.items():
        assert torch.equal(resumed[name], value)
    for mine, theirs in zip(
        optimizer.state_dict()["state"].values(), other.state_dict()["state"].values(), strict=True
    ):
        assert mine.keys() == theirs.keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_only_the_newest_two_are_kept(tmp_path: Path) -> None:
    saved(tmp_path, 5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000004", "step-000005"]


def test_nothing_saved_is_nothing_restored(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "none", *setup(0)) is None


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "optimizer.safetensors", "rng.safetensors", "state.json", "checksums.json"]
)
def test_one_flipped_bit_is_found_and_the_checkpoint_before_it_is_the_way_out(tmp_path: Path, name: str) -> None:
    saved(tmp_path)
    damaged = tmp_path / "step-000003" / name
    content = bytearray(damaged.read_bytes())
    content[-5 if name != "checksums.json" else -10] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(UsageError) as error:
        load_checkpoint(tmp_path, *setup(1))
    assert str(tmp_path / "step-000003") in error.value.what
    assert name in error.value.what or name == "checksums.json"
    shutil.rmtree(tmp_path / "step-000003")  # as the message says
    state = load_checkpoint(tmp_path, *setup(1))
    assert state is not None
    assert state["step"] == 2


def test_a_missing_file_is_damage(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "step-000003" / "optimizer.safetensors").unlink()
    with pytest.raises(UsageError, match=r"optimizer\.safetensors"):
        load_checkpoint(tmp_path, *setup(1))


def test_other_parameters_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    trainable, optimizer = setup(1)
    trainable["another"] = trainable.pop("a")
    with pytest.raises(UsageError, match="of other parameters"):
        load_checkpoint(tmp_path, trainable, optimizer)


def test_a_half_written_checkpoint_is_not_seen(tmp_path: Path) -> None:
    saved(tmp_path)
    shutil.copytree(tmp_path / "step-000003", tmp_path / ".step-000004.1234.tmp")
    (tmp_path / ".step-000004.1234.tmp" / "optimizer.safetensors").write_bytes(b"half")
    state = load_checkpoint(tmp_path, *setup(1))
    assert state is not None
    assert state["step"] == 3
    assert not (tmp_path / ".step-000004.1234.tmp").exists()


def test_publishing_replaces_an_older_folder_whole(tmp_path: Path) -> None:
    for name, file in (("new", "b"), ("old", "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(file)
    publish_folder(tmp_path / "new", tmp_path / "old")
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["b"]
    assert not (tmp_path / "new").exists()
