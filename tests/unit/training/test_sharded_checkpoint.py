"""Checkpoints of several ranks, in real processes: any number of them resumes what any number saved."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from tests.support.forks import Forks
from tests.support.ranks import run_ranks
from vpgea.errors import UsageError, VpgeaError
from vpgea.training import checkpoint
from vpgea.training.checkpoint import full_state, load_checkpoint, load_optimizer, save_checkpoint, save_optimizer
from vpgea.training.ranks import OtherRankFailed, Ranks

STEPS = 3  # before the checkpoint


class Net(nn.Module):
    """No number of rows is even: on four ranks one has fewer of `words`, and two have nothing of `out`."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.words = nn.Embedding(11, 6)
        self.layer = nn.Linear(6, 5)
        self.out = nn.Linear(5, 2)
        self.unused = nn.Parameter(torch.randn(3))

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(torch.tanh(self.layer(self.words(ids)))).square().sum()


class Run:
    """A model in training on this rank's share of the data; the gradient is the sum over all ranks."""

    def __init__(self, ranks: Ranks, seed: int, *, sharded: bool) -> None:
        self.ranks, self.net = ranks, Net(seed)
        if sharded:
            fully_shard(self.net.layer)
            fully_shard(self.net)
            for module in self.net.modules():
                if isinstance(module, FSDPModule):
                    module.set_gradient_divide_factor(1.0)
                    module.set_force_sum_reduction_for_comms(True)
        self.sharded = sharded
        self.trainable: dict[str, Tensor] = dict(self.net.named_parameters())
        self.optimizer = torch.optim.AdamW(self.trainable.values(), lr=0.05, weight_decay=0.1, fused=True)

    def step(self, number: int) -> float:
        """One optimiser step on a batch that only the number decides; the loss over all ranks."""
        ids = torch.randint(0, 11, (8,), generator=torch.Generator().manual_seed(number))
        self.optimizer.zero_grad()
        loss = self.net(ids.chunk(self.ranks.world)[self.ranks.rank])
        loss.backward()
        if not self.sharded:
            self.ranks.sum_all([tensor.grad for tensor in self.trainable.values() if tensor.grad is not None])
        self.optimizer.step()
        return float(self.ranks.sum(loss.detach()))

    def everything(self) -> dict[str, Tensor]:
        """Weights and the optimizer's states, whole, on rank 0."""
        states = {f"{name} {key}": value for name in self.trainable for key, value in self._state(name).items()}
        return full_state(self.trainable | states, self.ranks)

    def _state(self, name: str) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.optimizer.state.get(self.trainable[name], {})
        return state


def train_and_save(ranks: Ranks, folder: Path, *, sharded: bool = True) -> None:
    """Two checkpoints, and beside them what the newer holds and how the training goes on."""
    run = Run(ranks, seed=0, sharded=sharded)
    torch.manual_seed(100 + ranks.rank)
    for number in range(STEPS):
        run.step(number)
        if number >= STEPS - 2:
            save_checkpoint(folder / "checkpoints", number + 1, run.trainable, run.optimizer, {"seen": number}, ranks)
    save_optimizer(folder / "optimizer", run.trainable, {}, run.optimizer, {"steps": STEPS}, ranks)
    keep(run, folder)


def keep(run: Run, folder: Path) -> None:
    """Write what the run holds, its next random numbers, and its next losses."""
    draws, whole = torch.rand(4), run.everything()
    losses = torch.tensor([run.step(STEPS + further) for further in range(3)], dtype=torch.float64)
    save_file({"draws": draws, "losses": losses}, folder / f"next-{run.ranks.rank}.safetensors")
    if run.ranks.is_first:
        assert len(whole) == 5 + 1 + 5 * 3  # the unused parameter has no state
        save_file(whole, folder / "whole.safetensors")


def load_and_compare(ranks: Ranks, folder: Path, *, sharded: bool = True, same: bool = False) -> None:
    """From other weights on; same: the number of ranks is that of the checkpoint, so that all goes on bit by bit."""
    run = Run(ranks, seed=1, sharded=sharded)
    torch.manual_seed(7)
    seeded = torch.get_rng_state()
    state = load_checkpoint(folder / "checkpoints", run.trainable, run.optimizer, ranks)
    assert state == {"step": STEPS, "seen": STEPS - 1}
    assert all(isinstance(tensor, DTensor) == sharded for tensor in run.trainable.values())
    whole = run.everything()
    if ranks.is_first:
        expected = load_file(folder / "whole.safetensors")
        assert whole.keys() == expected.keys()
        assert all(torch.equal(whole[name], value) for name, value in expected.items())
    if same:
        following = load_file(folder / f"next-{ranks.rank}.safetensors")
        assert torch.equal(torch.rand(4), following["draws"])
    else:
        following = load_file(folder / "next-0.safetensors")
        assert torch.equal(torch.get_rng_state(), seeded)
    losses = torch.tensor([run.step(STEPS + further) for further in range(3)], dtype=torch.float64)
    assert torch.allclose(losses, following["losses"], rtol=0 if same else 1e-5, atol=0)
    carry_and_compare(ranks, folder, sharded=sharded)


def carry_and_compare(ranks: Ranks, folder: Path, *, sharded: bool) -> None:
    """The optimiser's state alone: no weight changes, and no generator."""
    if not (folder / "optimizer").is_dir():  # a folder that was made from a checkpoint
        return
    run, untouched = Run(ranks, seed=2, sharded=sharded), Run(ranks, seed=2, sharded=sharded).everything()
    before = torch.get_rng_state()
    assert load_optimizer(folder / "optimizer", run.trainable, {}, run.optimizer, ranks) == {"steps": STEPS}
    assert torch.equal(torch.get_rng_state(), before)
    whole = run.everything()
    if ranks.is_first:
        expected = load_file(folder / "whole.safetensors")
        assert whole.keys() == expected.keys()
        assert all(torch.equal(value, untouched.get(name, expected[name])) for name, value in whole.items())


def load_and_save_again(ranks: Ranks, source: Path, folder: Path) -> None:
    load_and_compare(ranks, source)
    run = Run(ranks, seed=1, sharded=True)
    state = load_checkpoint(source / "checkpoints", run.trainable, run.optimizer, ranks)
    assert state is not None
    save_checkpoint(folder / "checkpoints", state.pop("step"), run.trainable, run.optimizer, state, ranks)
    keep(run, folder)


def fail_and_go_on(ranks: Ranks, folder: Path) -> None:
    """Rank 1's disk is full for a while; later its file is damaged, which rank 0 finds."""
    run = Run(ranks, seed=0, sharded=True)
    run.step(0)

    def save(step: int) -> None:
        save_checkpoint(folder, step, run.trainable, run.optimizer, {}, ranks)

    def full_disk(*_: object) -> None:
        raise OSError("No space left on device")

    save(1)
    if ranks.rank == 1:
        checkpoint.save_file = full_disk
    with pytest.raises(OSError if ranks.rank == 1 else OtherRankFailed):
        save(2)
    assert [path.name for path in folder.glob("step-*")] == ["step-000001"]
    assert (folder / ".step-000002.tmp").exists()
    ranks.barrier()
    checkpoint.save_file = save_file
    assert load_checkpoint(folder, run.trainable, run.optimizer, ranks) == {"step": 1}
    assert not (folder / ".step-000002.tmp").exists()
    ranks.barrier()
    save(2)
    ranks.barrier()
    if ranks.is_first:
        flip(folder / "step-000002" / "rank-00001.safetensors")
    ranks.barrier()
    with pytest.raises(VpgeaError, match=r"rank-00001" if ranks.is_first else "another rank") as error:
        load_checkpoint(folder, run.trainable, run.optimizer, ranks)
    assert error.value.exit_code == UsageError.exit_code
    if ranks.is_first:
        shutil.rmtree(folder / "step-000002")
    ranks.barrier()
    other = Run(ranks, seed=0, sharded=True)
    del other.trainable["unused"]
    if ranks.rank == 1:  # only one rank is amiss, and yet none goes on
        other.trainable["more"] = torch.zeros(2)
    else:
        other = run
    with pytest.raises(UsageError if ranks.rank == 1 else OtherRankFailed):
        load_checkpoint(folder, other.trainable, other.optimizer, ranks)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


# --- processes ------------------------------------------------------------------------------------------------------


TAKE_PART = "import sys; from tests.unit.training.test_sharded_checkpoint import take_part; take_part(*sys.argv[1:])"
Together = Callable[..., None]


def take_part(action: str, options: str, *folders: str) -> None:
    """What each of the processes does: a function of this file, by its name."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    ranks = Ranks(dist.get_rank(), dist.get_world_size())
    globals()[action](ranks, *map(Path, folders), **json.loads(options))
    dist.barrier()
    os._exit(0)  # FSDP keeps Gloo's threads alive: one that still holds a tensor when Python ends aborts the process


@pytest.fixture(scope="module")
def together(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Together:
    """`together(2, action, folder, ..)` is action(ranks, folder, ..) in two processes; what fails in one fails here."""

    def run(world: int, action: Callable[..., None], *folders: Path, **options: bool) -> None:
        said = tmp_path_factory.mktemp("said")
        codes = run_ranks(forks, [action.__name__, json.dumps(options), *folders], world, said, TAKE_PART)
        assert codes == [0] * world, "\n".join(path.read_text() for path in sorted(said.glob("*.err")))

    return run


@pytest.fixture(scope="module")
def of_two(together: Together, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Saved by two ranks."""
    folder = tmp_path_factory.mktemp("two")
    together(2, train_and_save, folder)
    return folder


@pytest.fixture(scope="module")
def of_four(together: Together, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Saved by one rank, loaded, compared and saved again by four."""
    one, four = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("four")
    train_and_save(Ranks(), one, sharded=False)
    together(4, load_and_save_again, one, four)
    return four


# --- tests ----------------------------------------------------------------------------------------------------------


def test_each_rank_writes_its_rows_and_no_more(of_two: Path) -> None:
    names = {path.name for path in (of_two / "checkpoints" / "step-000003").iterdir()}
    assert names == {"rank-00000.safetensors", "rank-00001.safetensors", "state.json", "checksums.json"}
    for rank, rows in ((0, 6), (1, 5)):
        part = load_file(of_two / "checkpoints" / "step-000003" / f"rank-{rank:05d}.safetensors")
        assert part[f"weight/{6 * rank}/words.weight"].shape == (rows, 6)
        assert part[f"optimizer.exp_avg/{6 * rank}/words.weight"].shape == (rows, 6)
        assert ("optimizer.step/0/words.weight" in part) == (rank == 0)


def test_saved_by_two_loaded_by_one(of_two: Path) -> None:
    load_and_compare(Ranks(), of_two, sharded=False)


def test_the_same_number_goes_on_bit_by_bit(together: Together, of_two: Path) -> None:
    together(2, _again, of_two)


def _again(ranks: Ranks, folder: Path) -> None:
    load_and_compare(ranks, folder, same=True)
    assert [float(load_file(folder / f"next-{rank}.safetensors")["draws"][0]) for rank in (0, 1)] == pytest.approx(
        [float(torch.rand(1, generator=torch.Generator().manual_seed(100 + rank))) for rank in (0, 1)]
    )


def test_saved_by_one_loaded_by_four_whose_last_rank_has_no_row_of_some_tensor(of_four: Path) -> None:
    part = load_file(of_four / "checkpoints" / "step-000003" / "rank-00003.safetensors")
    assert part["weight/9/words.weight"].shape == (2, 6)
    assert not [name for name in part if name.endswith("/out.weight")]


def test_saved_by_four_loaded_by_two(together: Together, of_four: Path) -> None:
    together(2, load_and_compare, of_four)


def test_replicated_weights_are_written_once(together: Together, tmp_path: Path) -> None:
    together(2, train_and_save, tmp_path, sharded=False)
    part = load_file(tmp_path / "checkpoints" / "step-000003" / "rank-00001.safetensors")
    assert all(name.startswith("rng/1/") for name in part)
    load_and_compare(Ranks(), tmp_path, sharded=False)


def test_what_fails_on_one_rank_fails_on_all(together: Together, tmp_path: Path) -> None:
    together(2, fail_and_go_on, tmp_path)


@pytest.mark.parametrize("rank", [0, 1])
def test_one_flipped_bit_is_found_in_the_file_of_any_rank(of_two: Path, tmp_path: Path, rank: int) -> None:
    shutil.copytree(of_two / "checkpoints", tmp_path, dirs_exist_ok=True)
    flip(tmp_path / "step-000003" / f"rank-{rank:05d}.safetensors")
    run = Run(Ranks(), seed=1, sharded=False)
    with pytest.raises(UsageError, match=rf"rank-0000{rank}\.safetensors"):
        load_checkpoint(tmp_path, run.trainable, run.optimizer, Ranks())
    shutil.rmtree(tmp_path / "step-000003")  # as the message says
    assert load_checkpoint(tmp_path, run.trainable, run.optimizer, Ranks()) == {"step": 2, "seen": 1}


def test_a_half_written_checkpoint_is_not_seen(of_two: Path, tmp_path: Path) -> None:
    shutil.copytree(of_two / "checkpoints", tmp_path, dirs_exist_ok=True)
    shutil.copytree(tmp_path / "step-000003", tmp_path / ".step-000004.tmp")
    (tmp_path / ".step-000004.tmp" / "rank-00001.safetensors").unlink()
    run = Run(Ranks(), seed=1, sharded=False)
    state = load_checkpoint(tmp_path, run.trainable, run.optimizer, Ranks())
    assert state is not None
    assert state["step"] == STEPS
    assert not (tmp_path / ".step-000004.tmp").exists()
