"""Checkpoints that resume exactly, also on another number of ranks: safetensors and JSON, nothing unpickled.

Each rank writes one file with the rows it holds of sharded tensors; what all ranks hold alike is in rank 0's. An entry
is called what/row/name: `weight` or `optimizer.KEY`, where in the whole tensor its rows begin, and the parameter; or
`rng`, the rank and the device.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from vpgea.errors import UsageError
from vpgea.runs.layout import CHECKPOINT_CHECKSUMS, CHECKPOINT_STATE, checkpoint_dir, checkpoint_steps
from vpgea.storage.files import file_checksum, fsync, publish_folder, read_json, said_of, write_json
from vpgea.storage.records import read_by_name
from vpgea.training.ranks import Ranks

_KEEP = 2

Pieces = list[tuple[int, Any]]  # (first row in the whole tensor, the rows as a slice of safetensors), in order


def save_checkpoint(
    folder: Path,
    step: int,
    trainable: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    ranks: Ranks,
) -> None:
    """Write folder/step-NNNNNN and drop all but the newest two; the name appears only when everything is on disk.

    Collective.

    Args:
        folder: Of all checkpoints.
        step: How many optimiser steps are taken.
        trainable: Name → parameter, which is a DTensor sharded over all ranks by rows, or the same on all of them;
            further tensors may go along.
        optimizer: Its state is written by the parameters' names.
        state: JSON values to get back on resume.
        ranks: All of them write.

    Raises:
        OtherRankFailed: Another rank failed; that one raises its own error.
    """

    def drop_older() -> None:
        for old in checkpoint_steps(folder)[:-_KEEP]:
            shutil.rmtree(checkpoint_dir(folder, old))

    entries = {f"rng/{ranks.rank}/{device}": state for device, state in _rng_state().items()}
    entries |= _entries(trainable, trainable, optimizer, ranks)
    _save(checkpoint_dir(folder, step), entries, {"step": step, **state}, ranks)
    ranks.on_first(drop_older)


def save_optimizer(
    folder: Path,
    trainable: dict[str, Tensor],
    others: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    ranks: Ranks,
) -> None:
    """Write a folder like a checkpoint, without the weights that are trained and without random generators.

    Collective.

    Args:
        folder: Appears only when everything is on disk, and replaces one of its name.
        trainable: Name → parameter, whose state in the optimizer is written.
        others: Further tensors that go along.
        optimizer: Its state is written by the parameters' names.
        state: JSON values to get back.
        ranks: All of them write.

    Raises:
        OtherRankFailed: Another rank failed; that one raises its own error.
    """
    _save(folder, _entries(others, trainable, optimizer, ranks), state, ranks)


def _save(final: Path, entries: dict[str, Tensor], state: dict[str, Any], ranks: Ranks) -> None:
    temporary = final.parent / f".{final.name}.tmp"  # the same on all ranks

    def prepare() -> None:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)

    def write() -> None:
        path = temporary / _part_name(ranks.rank)
        save_file(entries, path)
        fsync(path)  # here, because rank 0 cannot flush what another host still holds back

    def publish() -> None:
        write_json(temporary / CHECKPOINT_STATE, state)
        names = [*map(_part_name, range(ranks.world)), CHECKPOINT_STATE]
        write_json(temporary / CHECKPOINT_CHECKSUMS, {name: file_checksum(temporary / name) for name in names})
        publish_folder(temporary, final)

    with said_of(final, temporary):
        ranks.on_first(prepare)
        with ranks.together():
            write()
        ranks.on_first(publish)


def load_checkpoint(
    folder: Path, trainable: dict[str, Tensor], optimizer: torch.optim.Optimizer, ranks: Ranks
) -> dict[str, Any] | None:
    """Restore the newest checkpoint in place. Collective.

    The number of ranks and what is sharded may differ from when it was saved. Random generators are restored only for
    the same number of ranks and otherwise stay as they were seeded. A sharded module must not be unsharded meanwhile:
    it would go on with the old weights.

    Returns:
        The state that was saved with it; None when there is no checkpoint.

    Raises:
        UsageError: The newest checkpoint is damaged or of another set of parameters.
        OtherRankFailed: Only another rank finds something amiss.
    """

    def sweep() -> None:
        for leftover in folder.glob(".step-*.tmp"):
            shutil.rmtree(leftover)

    ranks.on_first(sweep)
    newest = ranks.largest(max(checkpoint_steps(folder), default=-1))  # all must read the same
    if newest < 0:
        return None
    checkpoint = checkpoint_dir(folder, newest)
    mend = f"delete {checkpoint}: the run then continues from the checkpoint before it"
    ranks.on_first(lambda: _require_whole(checkpoint, mend))
    with ranks.together():
        return _restore(checkpoint, trainable, trainable, optimizer, ranks)


def load_optimizer(
    folder: Path,
    trainable: dict[str, Tensor],
    others: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    ranks: Ranks,
) -> dict[str, Any]:
    """Restore in place what `save_optimizer` wrote; the number of ranks may differ. Collective.

    Returns:
        The state that was saved with it.

    Raises:
        UsageError: It is damaged, or of other parameters.
        OtherRankFailed: Only another rank finds something amiss.
    """
    ranks.on_first(lambda: _require_whole(folder, f"`vpgea doctor {folder.parent} --repair`"))
    with ranks.together():
        return _restore(folder, others, trainable, optimizer, ranks)


def full_state(tensors: dict[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """Name → copy of the whole tensor on rank 0's CPU; nothing on the other ranks.

    Collective: one tensor after the other is put together on every rank, and dropped again on all but the first.
    """
    whole = {}
    for name, tensor in tensors.items():
        value = tensor.detach()
        if isinstance(value, DTensor):
            value = value.full_tensor()
        if ranks.is_first:
            whole[name] = value.to("cpu", copy=True)
    return whole


# --- what a rank writes ---------------------------------------------------------------------------------------------


def _part_name(rank: int) -> str:
    return f"rank-{rank:05d}.safetensors"


def _entries(
    weights: dict[str, Tensor], trained: dict[str, Tensor], optimizer: torch.optim.Optimizer, ranks: Ranks
) -> dict[str, Tensor]:
    """This rank's part of some weights, and of what the optimizer keeps of others: nothing where no gradient came."""
    values = [("weight", name, tensor) for name, tensor in weights.items()]
    for name, tensor in trained.items():
        values += [(f"optimizer.{key}", name, value) for key, value in optimizer.state.get(tensor, {}).items()]
    entries = {}
    for what, name, value in values:
        first, held = _held(value)
        if ranks.is_first or (isinstance(value, DTensor) and len(held)):
            entries[f"{what}/{first}/{name}"] = held.contiguous()
    return entries


def _held(tensor: Tensor) -> tuple[int, Tensor]:
    """What this rank holds of a tensor, and with which row of it that begins."""
    if not isinstance(tensor, DTensor):
        return 0, tensor.detach()
    assert tensor.placements == (Shard(0),), tensor.placements
    rows, mesh = len(tensor), tensor.device_mesh
    each = -(-rows // mesh.size())  # the last ranks have fewer rows or none
    return min(each * mesh.get_local_rank(), rows), tensor.to_local().detach()


def _rng_state() -> dict[str, Tensor]:
    """Of the CPU and of every GPU: adapter dropout draws where the model is."""
    devices = range(torch.cuda.device_count())
    return {"cpu": torch.get_rng_state(), **{f"cuda:{i}": torch.cuda.get_rng_state(i) for i in devices}}


# --- what a rank reads ----------------------------------------------------------------------------------------------


def _require_whole(checkpoint: Path, mend: str) -> None:
    recorded = read_by_name(checkpoint / CHECKPOINT_CHECKSUMS, str)
    for name, checksum in {CHECKPOINT_STATE: "", **recorded}.items():
        if not (checkpoint / name).is_file() or file_checksum(checkpoint / name) != checksum:
            raise UsageError(
                f"damaged checkpoint: {checkpoint / name}",
                why="its checksum is not the recorded one",
                mend=mend,
            )


@torch.no_grad()
def _restore(
    checkpoint: Path,
    weights: dict[str, Tensor],
    trained: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    ranks: Ranks,
) -> dict[str, Any]:
    """Fill the weights, the optimizer and the random generators; the state of the checkpoint."""
    parts = sorted(name for name in read_by_name(checkpoint / CHECKPOINT_CHECKSUMS, str) if name.startswith("rank-"))
    with ExitStack() as stack:
        files = [stack.enter_context(safe_open(checkpoint / name, framework="pt")) for name in parts]
        stored = _stored(files)
        pieces = stored.get("weight", {})
        _require_same(checkpoint, pieces, weights)
        _require_known(checkpoint, stored, trained)
        for name, tensor in weights.items():
            tensor.copy_(_read(pieces[name], tensor))
        if len(files) == ranks.world and "rng" in stored:
            _restore_rng(stored["rng"], ranks)
        _restore_optimizer(optimizer, trained, stored)
    return read_json(checkpoint / CHECKPOINT_STATE)


def _stored(files: list[Any]) -> dict[str, dict[str, Pieces]]:
    """What → name → its pieces, whose rows ascend with the ranks that wrote them."""
    stored: dict[str, dict[str, Pieces]] = {}
    for file in files:
        for entry in file.keys():  # noqa: SIM118  # it is no mapping
            what, first, name = entry.split("/", 2)
            stored.setdefault(what, {}).setdefault(name, []).append((int(first), file.get_slice(entry)))
    return stored


def _require_same(checkpoint: Path, weights: dict[str, Pieces], trainable: dict[str, Tensor]) -> None:
    theirs = {name: _shape(pieces) for name, pieces in weights.items()}
    ours = {name: tuple(tensor.shape) for name, tensor in trainable.items()}
    if theirs != ours:
        raise UsageError(
            f"the checkpoint {checkpoint} is of other parameters",
            why=f"{len({name for name, _ in theirs.items() ^ ours.items()})} names or shapes differ",
            mend="start anew with --overwrite",
        )


def _require_known(checkpoint: Path, stored: dict[str, dict[str, Pieces]], trained: dict[str, Tensor]) -> None:
    """See that the optimizer's state is of no other parameters: it would be left out without a word."""
    of_optimizer = {what: by_name for what, by_name in stored.items() if what.startswith("optimizer.")}
    others = set[str]().union(*of_optimizer.values()) - trained.keys()
    for name, pieces in of_optimizer.get("optimizer.exp_avg", {}).items():
        if name in trained and _shape(pieces) != tuple(trained[name].shape):
            others.add(name)
    if others:
        raise UsageError(
            f"the optimiser's state in {checkpoint} is of other parameters",
            why=f"{len(others)} names or shapes differ, {min(others)} among them",
            mend="train what was trained before, or begin with --set distill.optimizer_state=fresh in another folder",
        )


def _shape(pieces: Pieces) -> tuple[int, ...]:
    """Of the whole tensor."""
    shapes = [piece.get_shape() for _, piece in pieces]
    return (sum(shape[0] for shape in shapes), *shapes[0][1:]) if shapes[0] else ()


def _read(pieces: Pieces, like: Tensor) -> Tensor:
    """A stored tensor, sharded as `like` is where it has its shape, else whole; in memory of its own."""
    if not (isinstance(like, DTensor) and _shape(pieces) == like.shape):
        whole = [piece[...] for _, piece in pieces]
        return torch.cat(whole) if whole[0].dim() else whole[0].clone()
    first, held = _held(like)
    end = first + len(held)
    rows = torch.cat([piece[max(first - at, 0) : max(end - at, 0)] for at, piece in pieces])
    value = torch.empty_like(like, dtype=rows.dtype)
    _held(value)[1].copy_(rows)
    return value


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, trainable: dict[str, Tensor], stored: dict[str, dict[str, Pieces]]
) -> None:
    """The state of each parameter that had one; the optimizer numbers its parameters."""
    names = {id(tensor): name for name, tensor in trainable.items()}
    states: dict[int, dict[str, Tensor]] = {}
    for number, parameter in enumerate(parameter for group in optimizer.param_groups for parameter in group["params"]):
        for what, by_name in stored.items():
            pieces = by_name.get(names[id(parameter)])
            if what.startswith("optimizer.") and pieces is not None:
                states.setdefault(number, {})[what.removeprefix("optimizer.")] = _read(pieces, parameter)
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})


def _restore_rng(stored: dict[str, Pieces], ranks: Ranks) -> None:
    """What this rank had."""
    states = {device: piece[...] for device, pieces in stored.items() for rank, piece in pieces if rank == ranks.rank}
    torch.set_rng_state(states["cpu"])
    for index in range(torch.cuda.device_count()):
        if f"cuda:{index}" in states:  # a run may move to a machine with more devices
            torch.cuda.set_rng_state(states[f"cuda:{index}"], index)
