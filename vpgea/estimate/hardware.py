"""How fast a machine multiplies and moves numbers: measured here, or taken from published figures."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_MEASURE_S = 0.15  # for each of the two rates

# Seconds that Python and kernel launches add per decoder layer and forward pass in plain transformers, whatever the
# size of the batch. On a CPU: seen with Qwen2 layers of width 32 to 128. On a GPU: assumed; eager transformers
# is commonly seen at 25 to 35 steps per second with models of 28 to 32 layers.
CPU_OVERHEAD_S = 6e-4
GPU_OVERHEAD_S = 1e-3

# Shares of the published peaks that plain transformers is assumed to reach.
MATMUL_EFFICIENCY = 0.4
BANDWIDTH_EFFICIENCY = 0.6


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Rates that can be reached.

    Attributes:
        flops: Per second and device.
        bandwidth: Bytes per second and device.
        overhead_s: Seconds per decoder layer and forward pass.
        memory_bytes: Of one device.
        devices: Servers, or parts (`--shard i/N`), that run side by side.
        ranks: Devices that train together.
        on_gpu: Whether the devices are GPUs, with memory of their own.
    """

    name: str
    flops: float
    bandwidth: float
    overhead_s: float
    memory_bytes: int
    devices: int = 1
    ranks: int = 1
    on_gpu: bool = False


def _published(name: str, teraflops: float, terabytes_per_s: float, gigabytes: int, devices: int = 1) -> Hardware:
    return Hardware(
        name=name,
        flops=teraflops * 1e12 * MATMUL_EFFICIENCY,
        bandwidth=terabytes_per_s * 1e12 * BANDWIDTH_EFFICIENCY,
        overhead_s=GPU_OVERHEAD_S,
        memory_bytes=gigabytes * 10**9,
        devices=devices,
        ranks=devices,
        on_gpu=True,
    )


# Dense bfloat16 peaks and memory bandwidth of the SXM cards, from NVIDIA's data sheets.
NAMED: dict[str, Hardware] = {
    hardware.name: hardware
    for hardware in (
        _published("1x A100 80GB", 312, 2.039, 80),
        _published("1x H100 80GB", 989.4, 3.35, 80),
        _published("8x H100 80GB", 989.4, 3.35, 80, devices=8),
    )
}


def measure(device: torch.device, dtype: torch.dtype) -> Hardware:
    """Rates of a device of this machine, from about 0.3 s of multiplying and copying; rough by nature."""
    import torch

    on_gpu = device.type == "cuda"
    side, block = (4096, 1 << 28) if on_gpu else (512, 1 << 25)
    left = torch.ones((side, side), dtype=dtype, device=device)
    source = torch.zeros(block, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    wait = torch.cuda.synchronize if on_gpu else None
    multiplications = _per_second(lambda: torch.mm(left, left), wait)
    copies = _per_second(lambda: target.copy_(source), wait)
    return Hardware(
        name=torch.cuda.get_device_name(device) if on_gpu else "this machine's CPU",
        flops=multiplications * 2 * side**3,
        bandwidth=copies * 2 * block,  # read and written
        overhead_s=GPU_OVERHEAD_S if on_gpu else CPU_OVERHEAD_S,
        memory_bytes=free_memory(device),
        on_gpu=on_gpu,
    )


def free_memory(device: torch.device) -> int:
    """Bytes that a process could still take on a device of this machine."""
    import psutil
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def _per_second(work: Callable[[], object], wait: Callable[[], None] | None) -> float:
    """Calls per second, the first one left out."""
    work()
    if wait is not None:
        wait()
    count, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < _MEASURE_S:
        work()
        if wait is not None:
            wait()
        count += 1
    return count / elapsed
