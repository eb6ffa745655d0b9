"""Where a model computes, and in which dtype."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vpgea.config.devices import Devices
from vpgea.config.schema import ModelConfig
from vpgea.errors import UsageError

if TYPE_CHECKING:
    import torch


def torch_device(config: ModelConfig) -> torch.device:
    """Where this process computes: on the first of its devices. Also sets the number of threads that torch uses."""
    import torch

    if config.threads is not None:
        torch.set_num_threads(config.threads)
    return devices_of(config)[0]


def devices_of(config: ModelConfig) -> list[torch.device]:
    """What servers and ranks are spread over; a rank of several has one, that of its number.

    Raises:
        UsageError: A device is not there, or `model.device` and `model.devices` contradict each other.
    """
    import torch

    asked = Devices.parse(config.devices)
    if config.device != "auto" and asked.kind not in ("auto", config.device):
        raise UsageError(
            "model.device and model.devices contradict each other",
            why=f"they are {config.device} and {config.devices}",
            mend="give one of them",
        )
    if config.device != "auto" and (asked.kind == "auto" or is_one_of_many()):
        return [_known(config.device)]
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if is_one_of_many() or (asked.kind == "auto" and gpus < 2):
        return [torch.device("cuda" if gpus else "cpu")]
    if asked.kind == "cpu":
        return [torch.device("cpu")] * asked.count
    numbers = asked.numbers or range(gpus if asked.kind == "auto" else asked.count)
    if missing := [number for number in numbers if number >= gpus]:
        raise UsageError(
            f"no GPU with the number {missing[0]}",
            why=f"model.devices is {config.devices}, and torch sees {gpus} of them, counted from 0",
            mend="give fewer or other ones (--devices), or cpu:N for N processes on the CPU",
        )
    return [torch.device("cuda", number) for number in numbers]


def is_one_of_many() -> bool:
    """Whether this process is a rank among others, started by vpgea, torchrun or SLURM."""
    return os.environ.get("WORLD_SIZE", "") not in ("", "1")


def visible_gpus(devices: Sequence[torch.device]) -> str:
    """What CUDA_VISIBLE_DEVICES must be for a process that is to see these alone, in this order; none: no GPU."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = None if seen is None else seen.split(",")
    numbers = [device.index or 0 for device in devices if device.type == "cuda"]
    return ",".join(str(number) if names is None else names[number].strip() for number in numbers)


def _known(name: str) -> torch.device:
    import torch

    try:
        device = torch.device(name)
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise RuntimeError(f"torch sees {torch.cuda.device_count()} CUDA devices")
        return device
    except RuntimeError as error:
        raise UsageError(
            f"unknown device: {name}", why=str(error).splitlines()[0], mend="use cpu, cuda, cuda:0 or auto"
        ) from error


def torch_dtype(config: ModelConfig) -> torch.dtype:
    """auto: bfloat16 on a GPU, float32 on a CPU."""
    import torch

    if config.dtype != "auto":
        dtype: torch.dtype = getattr(torch, config.dtype)
        return dtype
    return torch.float32 if torch_device(config).type == "cpu" else torch.bfloat16
