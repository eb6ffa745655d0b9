"""Where a model computes, and in which dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vpgea.config.schema import ModelConfig
from vpgea.errors import UsageError

if TYPE_CHECKING:
    import torch


def torch_device(config: ModelConfig) -> torch.device:
    """The configured device; auto: the GPU where there is one. Also sets the number of threads that torch uses."""
    import torch

    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(config.device)
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise RuntimeError(f"torch sees {torch.cuda.device_count()} CUDA devices")
        return device
    except RuntimeError as error:
        raise UsageError(
            f"unknown device: {config.device}", why=str(error).splitlines()[0], mend="use cpu, cuda, cuda:0 or auto"
        ) from error


def torch_dtype(config: ModelConfig) -> torch.dtype:
    """auto: bfloat16 on a GPU, float32 on a CPU."""
    import torch

    if config.dtype != "auto":
        dtype: torch.dtype = getattr(torch, config.dtype)
        return dtype
    return torch.float32 if torch_device(config).type == "cpu" else torch.bfloat16
