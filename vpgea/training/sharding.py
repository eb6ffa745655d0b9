"""A policy whose weights are shared out among ranks: FSDP2, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from vpgea.modeling.policy import Policy
from vpgea.training.ranks import Ranks


def shard(policy: Policy, ranks: Ranks, dtype: torch.dtype | None) -> None:
    """Keep 1 / ranks of every weight here; whole layers exist only while they compute. In place.

    dtype: what float32 weights compute in, with float32 sums of gradients; None: each weight as it is. Gradients become
    plain sums over ranks: the loss is divided by constants of the whole step.
    """
    mesh = init_device_mesh(policy.device.type, (ranks.world,))
    precision = MixedPrecisionPolicy(
        param_dtype=dtype, reduce_dtype=None if dtype is None else torch.float32, cast_forward_inputs=False
    )
    for layer in policy.layers:
        fully_shard(layer, mesh=mesh, mp_policy=precision)
    # What is left, embedding and head, too: kept whole after a pass without gradient, it would miss the next update.
    fully_shard(policy, mesh=mesh, mp_policy=precision, reshard_after_forward=True)
    for module in _sharded(policy):
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)


@contextmanager
def only_last_reduces(policy: Policy, *, is_last: bool) -> Iterator[None]:
    """Gradients of micro-batches add up here, and travel between ranks with the step's last one."""
    if isinstance(policy, FSDPModule):
        policy.set_requires_gradient_sync(is_last)
    yield


@contextmanager
def whole_head(policy: Policy) -> Iterator[None]:
    """The policy's embedding and head are whole while the block runs, outside of a forward pass of its own."""
    if isinstance(policy, FSDPModule):
        policy.unshard()
    try:
        yield
    finally:
        if isinstance(policy, FSDPModule):
            policy.reshard()


def _sharded(policy: Policy) -> Iterator[FSDPModule]:
    return (module for module in policy.modules() if isinstance(module, FSDPModule))
