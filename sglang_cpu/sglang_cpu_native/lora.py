"""LoRA asks for pinned host memory without looking for a device; torch then raises.

Inside LoRAManager the request is dropped: pinning only speeds up copies to an accelerator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

MANAGER = "sglang.srt.lora.lora_manager.LoRAManager."
METHODS = ("__init__", "load_lora_adapter", "load_lora_adapter_from_tensors", "prepare_lora_batch")


class _Unpinned(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.pin_memory:
            return args[0]
        kwargs = dict(kwargs or {})
        kwargs.pop("pin_memory", None)
        return func(*args, **kwargs)


def unpinned(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The original without pinned memory; the mode ends with the call, so that nothing else sees it."""
    with _Unpinned():
        return original(*args, **kwargs)
