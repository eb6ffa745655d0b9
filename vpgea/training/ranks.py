"""The processes that train one model together: who we are among them, and how they agree."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from vpgea.errors import EngineError, UsageError, VpgeaError

# As torchrun sets them; SLURM scripts set the same from SLURM's own variables.
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


_BUCKET = 1 << 25  # numbers that are exchanged in one call


class OtherRankFailed(VpgeaError):
    """Another rank failed, and says why; this one leaves with the same exit code."""

    def __init__(self, exit_code: int = 1) -> None:
        super().__init__(
            "another rank failed", why="its own message says why", mend="mend that, then start all ranks again"
        )
        self.exit_code = exit_code


class LostRank(EngineError):
    """Another rank is gone without a word: killed, out of memory, or its machine is."""

    def __init__(self, rank: int, said: str) -> None:
        super().__init__(
            f"rank {rank} cannot reach another rank of this training",
            why=f"that process, or its machine, is gone: {said}",
            mend="see why it ended (its messages; out of memory?), then start all ranks again: they continue from the "
            "last checkpoint",
        )


@dataclass(frozen=True)
class Ranks:
    """This process among `world`; rank 0 is the one that speaks and writes what all share."""

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Sum over all ranks, in place; the same bits on each of them."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def sum_all(self, tensors: Sequence[Tensor]) -> None:
        """Sum each tensor over all ranks, in place; small ones travel together."""
        if self.world == 1:
            return
        for group in _buckets(tensors):
            flat = torch.cat([tensor.flatten() for tensor in group])
            dist.all_reduce(flat)
            for tensor, part in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on some rank."""
        return self.largest(int(flag)) > 0

    def largest(self, value: int) -> int:
        """The largest of all ranks' values."""
        if self.world == 1:
            return value
        values = torch.tensor([value], device=collective_device())
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return int(values)

    @contextmanager
    def together(self) -> Iterator[None]:
        """For what every rank does by itself before they meet again: where one fails, all of them fail.

        Where rank 0 fails too, it speaks for the others.
        """
        error: Exception | None = None
        try:
            yield
        except Exception as raised:
            error = raised
        code = 0 if error is None else getattr(error, "exit_code", 1)
        worst, of_first = self.largest(code), self.largest(code if self.is_first else 0)
        if error is not None and (self.is_first or not of_first):
            raise error
        if worst:
            raise OtherRankFailed(worst)

    def on_first(self, action: Callable[[], object]) -> None:
        """Rank 0 acts while the others wait. Where it fails all fail: it with its error, they with its exit code."""
        error: Exception | None = None
        if self.is_first:
            try:
                action()
            except Exception as raised:
                error = raised
        code = self.largest(0 if error is None else getattr(error, "exit_code", 1))
        if error is not None:
            raise error
        if code:
            raise OtherRankFailed(code)

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.largest(0)


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one dtype, up to _BUCKET numbers together."""
    group: list[Tensor] = []
    for tensor in tensors:
        if group and (tensor.dtype != group[0].dtype or sum(map(torch.numel, [*group, tensor])) > _BUCKET):
            yield group
            group = []
        group.append(tensor)
    if group:
        yield group


def collective_device() -> torch.device:
    """Where tensors that ranks exchange must lie: on this rank's GPU with NCCL, else in main memory."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


@contextmanager
def joined_ranks(timeout: timedelta = timedelta(minutes=30)) -> Iterator[Ranks]:
    """Join the group that torchrun or SLURM started this process in; a process started by itself is a group of one.

    Gloo on CPUs, NCCL on GPUs, one device for each rank.

    Raises:
        UsageError: The variables contradict themselves.
        LostRank: Another rank is not there, or not any more.
    """
    world = _number("WORLD_SIZE", 1)
    if world == 1:
        yield Ranks()
        return
    missing = [name for name in _VARIABLES if not os.environ.get(name)]
    rank, local = _number("RANK", 0), _number("LOCAL_RANK", 0)
    if missing or not 0 <= rank < world:
        raise UsageError(
            "the processes of this run cannot find each other",
            why=f"{', '.join(missing)} not set" if missing else f"RANK is {rank} with a WORLD_SIZE of {world}",
            mend="start with torchrun --nproc-per-node N -m vpgea_cli distill ..., or unset WORLD_SIZE",
        )
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(local)
    try:
        dist.init_process_group("nccl" if on_gpu else "gloo", timeout=timeout)
        yield Ranks(rank, world)
        dist.barrier()  # without it Gloo's threads can still be busy when Python ends, which aborts the process
    except RuntimeError as error:
        if _is_lost_connection(error):
            raise LostRank(rank, " ".join(str(error).split())[:200]) from error
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _is_lost_connection(error: RuntimeError) -> bool:
    """Whether a collective call failed since somebody is gone: Gloo says so in words alone."""
    words = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Connection refused")
    timeouts = ("Timed out waiting", "Socket Timeout", "Application timeout")
    text = str(error)
    return isinstance(error, dist.DistError) or ("gloo" in text and any(word in text for word in (*words, *timeouts)))


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable) or str(default)
    if not text.isdecimal():
        raise UsageError(
            f"{variable} is not a number", why=f"it is {text!r}", mend="unset it, or start with torchrun or srun"
        )
    return int(text)
