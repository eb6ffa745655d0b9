"""SGLang on a plain CPU (no AMX, no CUDA), through SGLang's own plugin groups.

`sglang.srt.platforms` -> activate(): an out-of-tree platform that runs SGLang's native torch code on the CPU.
`sglang.srt.plugins` -> hooks(): closes two gaps there, LoRA's pinned memory and per-request seeds. Both do nothing on a
host with an accelerator. No file of SGLang is changed and no module is faked.
"""

from __future__ import annotations

import torch


def activate() -> str | None:
    """Name of the platform class, or None where there is an accelerator."""
    return None if torch.accelerator.is_available() else "sglang_cpu_native.platform.CpuNative"


def hooks() -> None:
    """Register what the native path lacks. SGLang only logs a hook whose target has moved: tests look at the effect."""
    if torch.accelerator.is_available():
        return
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    from . import lora, sampling

    for method in lora.METHODS:
        HookRegistry.register(lora.MANAGER + method, lora.unpinned, HookType.AROUND)
    HookRegistry.register(sampling.BATCH, sampling.add_streams, HookType.AFTER)
    HookRegistry.register(sampling.DRAW, sampling.draw, HookType.REPLACE)
    HookRegistry.register(sampling.TRUNCATED, sampling.draw_truncated, HookType.AROUND)
