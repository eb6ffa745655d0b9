"""Checkpoints that resume exactly: weights, optimiser, schedule position and RNG, as safetensors and JSON."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vpgea.errors import UsageError
from vpgea.shards import file_checksum, read_json, write_json

_KEEP = 2


def save_checkpoint(
    folder: Path, step: int, trainable: dict[str, Tensor], optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Write folder/step-NNNNNN and drop all but the newest two; the name appears only when everything is on disk.

    state: JSON values to get back on resume.
    """
    final = folder / f"step-{step:06d}"
    temporary = folder / f".step-{step:06d}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(
        {name: tensor.detach().contiguous() for name, tensor in trainable.items()}, temporary / "weights.safetensors"
    )
    save_file(_optimizer_tensors(optimizer), temporary / "optimizer.safetensors")
    save_file(_rng_state(), temporary / "rng.safetensors")
    write_json(temporary / "state.json", {"step": step, **state})
    checksums = {path.name: file_checksum(path) for path in sorted(temporary.iterdir())}
    write_json(temporary / "checksums.json", checksums)
    publish_folder(temporary, final)
    for old in sorted(folder.glob("step-*"))[:-_KEEP]:
        shutil.rmtree(old)


def load_checkpoint(
    folder: Path, trainable: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> dict[str, Any] | None:
    """Restore the newest checkpoint in place and return its state; None when there is none.

    Raises UsageError when the newest one is damaged or of another set of parameters.
    """
    for leftover in folder.glob(".step-*.tmp"):
        shutil.rmtree(leftover)
    found = sorted(folder.glob("step-*"))
    if not found:
        return None
    newest = found[-1]
    _require_whole(newest)
    state = read_json(newest / "state.json")
    weights = load_file(newest / "weights.safetensors")
    if weights.keys() != trainable.keys():
        raise UsageError(
            f"the checkpoint {newest} is of other parameters",
            why=f"{len(weights.keys() ^ trainable.keys())} names differ",
            mend="start anew with --overwrite",
        )
    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(weights[name])
    _restore_optimizer(optimizer, load_file(newest / "optimizer.safetensors"))
    _restore_rng(load_file(newest / "rng.safetensors"))
    return state


def publish_folder(temporary: Path, final: Path) -> None:
    """Make a finished folder appear under its name, replacing an older one."""
    for path in temporary.rglob("*"):
        _fsync(path)
    if final.exists():
        shutil.rmtree(final)
    temporary.rename(final)
    _fsync(final.parent)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _require_whole(checkpoint: Path) -> None:
    for name, checksum in read_json(checkpoint / "checksums.json").items():
        if not (checkpoint / name).is_file() or file_checksum(checkpoint / name) != checksum:
            raise UsageError(
                f"damaged checkpoint: {checkpoint / name}",
                why="its checksum is not the recorded one",
                mend=f"delete {checkpoint}: the run then continues from the checkpoint before it",
            )


def _rng_state() -> dict[str, Tensor]:
    """Of the CPU and of every GPU: adapter dropout draws where the model is."""
    devices = range(torch.cuda.device_count())
    return {"cpu": torch.get_rng_state(), **{f"cuda:{i}": torch.cuda.get_rng_state(i) for i in devices}}


def _restore_rng(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    for index in range(torch.cuda.device_count()):
        if f"cuda:{index}" in states:  # a run may move to a machine with more devices
            torch.cuda.set_rng_state(states[f"cuda:{index}"], index)


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State of every parameter under `index/key`; parameters without a state yet have none."""
    return {
        f"{index}/{key}": torch.as_tensor(value).detach().contiguous()
        for index, values in optimizer.state_dict()["state"].items()
        for key, value in values.items()
    }


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split("/", 1)
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
