"""Checkpoints: everything comes back bit by bit, damage is named, half-written ones are not seen."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vpgea.errors import UsageError
from vpgea.storage.files import publish_folder
from vpgea.training.checkpoint import load_checkpoint, save_checkpoint
from vpgea.training.ranks import Ranks

RANKS = Ranks()
Setup = tuple[dict[str, Tensor], torch.optim.Optimizer]
Make = Callable[[list[Tensor]], torch.optim.Optimizer]


def adamw(parameters: list[Tensor]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.1)


def fused_adamw(parameters: list[Tensor]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.1, fused=True)


def adafactor(parameters: list[Tensor]) -> torch.optim.Optimizer:
    return torch.optim.Adafactor(parameters, lr=0.1, weight_decay=0.1)


def setup(seed: int, make: Make = adamw) -> Setup:
    """A matrix, a vector, a matrix that never has a gradient, and one that is saved but not trained."""
    generator = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {"a": (3, 4), "b/c": (5,), "unused": (3, 4), "average": (2, 3)}
    tensors: dict[str, Tensor] = {
        name: torch.nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()
    }
    return tensors, make([tensors[name] for name in ("unused", "b/c", "a")])  # in an order of its own


def step(trainable: dict[str, Tensor], optimizer: torch.optim.Optimizer, times: int = 1) -> None:
    """Two parameters get a random gradient, drawn from torch's own generator."""
    for _ in range(times):
        for name in ("a", "b/c"):
            trainable[name].grad = torch.randn_like(trainable[name])
        optimizer.step()


def saved(folder: Path, steps: int = 3, make: Make = adamw) -> Setup:
    trainable, optimizer = setup(0, make)
    for number in range(1, steps + 1):
        step(trainable, optimizer)
        save_checkpoint(folder, number, trainable, optimizer, {"trained_tokens": 10 * number}, RANKS)
    return trainable, optimizer


@pytest.mark.parametrize("make", [adamw, fused_adamw, adafactor])
def test_the_run_goes_on_bit_by_bit(tmp_path: Path, make: Make) -> None:
    torch.manual_seed(0)
    straight, optimizer = saved(tmp_path, make=make)
    step(straight, optimizer, 5)
    torch.manual_seed(99)
    resumed, other = setup(1, make)
    state = load_checkpoint(tmp_path, resumed, other, RANKS)
    assert state == {"step": 3, "trained_tokens": 30}
    step(resumed, other, 5)
    for name, value in straight.items():
        assert torch.equal(resumed[name], value)
    mine, theirs = optimizer.state_dict()["state"], other.state_dict()["state"]
    assert mine.keys() == theirs.keys() == {1, 2}
    for number, state_of_one in mine.items():
        assert state_of_one.keys() == theirs[number].keys()
        for key, value in state_of_one.items():
            assert torch.equal(value, theirs[number][key])
            assert value.shape == theirs[number][key].shape


def test_what_was_loaded_outlives_the_files(tmp_path: Path) -> None:
    trainable, optimizer = saved(tmp_path)
    resumed, other = setup(1)
    load_checkpoint(tmp_path, resumed, other, RANKS)
    for path in tmp_path.rglob("*.safetensors"):
        with path.open("r+b") as stream:  # in place: memory that is mapped to the file would change along
            stream.write(bytes(path.stat().st_size))
    assert all(torch.equal(resumed[name], value) for name, value in trainable.items())
    assert torch.equal(other.state[resumed["a"]]["exp_avg"], optimizer.state[trainable["a"]]["exp_avg"])


def test_only_the_newest_two_are_kept(tmp_path: Path) -> None:
    saved(tmp_path, 5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000004", "step-000005"]


def test_nothing_saved_is_nothing_restored(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "none", *setup(0), RANKS) is None


@pytest.mark.parametrize("name", ["rank-00000.safetensors", "state.json", "checksums.json"])
def test_one_flipped_bit_is_found_and_the_checkpoint_before_it_is_the_way_out(tmp_path: Path, name: str) -> None:
    saved(tmp_path)
    damaged = tmp_path / "step-000003" / name
    content = bytearray(damaged.read_bytes())
    content[-5 if name != "checksums.json" else -10] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(UsageError) as error:
        load_checkpoint(tmp_path, *setup(1), RANKS)
    assert str(tmp_path / "step-000003") in error.value.what
    assert name in error.value.what or name == "checksums.json"
    shutil.rmtree(tmp_path / "step-000003")  # as the message says
    state = load_checkpoint(tmp_path, *setup(1), RANKS)
    assert state is not None
    assert state["step"] == 2


def test_a_missing_file_is_damage(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "step-000003" / "rank-00000.safetensors").unlink()
    with pytest.raises(UsageError, match=r"rank-00000\.safetensors"):
        load_checkpoint(tmp_path, *setup(1), RANKS)


@pytest.mark.parametrize("change", ["name", "shape"])
def test_other_parameters_are_refused(tmp_path: Path, change: str) -> None:
    saved(tmp_path)
    trainable, optimizer = setup(1)
    if change == "name":
        trainable["another"] = trainable.pop("average")
    else:
        trainable["average"] = torch.zeros(1, 3)  # which could be broadcast
    with pytest.raises(UsageError, match="of other parameters"):
        load_checkpoint(tmp_path, trainable, optimizer, RANKS)


def test_a_half_written_checkpoint_is_not_seen(tmp_path: Path) -> None:
    saved(tmp_path)
    shutil.copytree(tmp_path / "step-000003", tmp_path / ".step-000004.tmp")
    (tmp_path / ".step-000004.tmp" / "rank-00000.safetensors").write_bytes(b"half")
    state = load_checkpoint(tmp_path, *setup(1), RANKS)
    assert state is not None
    assert state["step"] == 3
    assert not (tmp_path / ".step-000004.tmp").exists()


def test_publishing_replaces_an_older_folder_whole(tmp_path: Path) -> None:
    for name, file in (("new", "b"), ("old", "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(file)
    (tmp_path / "new" / "for-its-owner").touch(mode=0o600)
    (tmp_path / "new" / "for-its-group").touch()
    (tmp_path / "new" / "for-its-group").chmod(0o660)  # as a default access list makes it
    publish_folder(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old" / "for-its-group").stat().st_mode & 0o777 == 0o660
    usual = tmp_path / "any"
    usual.touch()
    assert (tmp_path / "old" / "for-its-owner").stat().st_mode == usual.stat().st_mode
    assert [path.name for path in (tmp_path / "old").glob("[!f]*")] == ["b"]
    assert not (tmp_path / "new").exists()
