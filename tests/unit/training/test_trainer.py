"""Single optimiser steps: what they change, report and refuse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support import tiny
from tests.support.selection_rows import distill_config, sample_rows
from tests.support.trainers import trainer_of
from vpgea.config.schema import RunConfig
from vpgea.errors import VpgeaError
from vpgea.training.optimizer import learning_rate
from vpgea.training.ranks import Ranks
from vpgea.training.roles import Roles
from vpgea.training.trainer import Trainer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("model"), tie=True)


@pytest.mark.parametrize("form", ["sampled", "dense-cv", "dense"])
@pytest.mark.parametrize("train", ["lora", "full"])
def test_a_step_without_signal_changes_nothing(model: Path, tmp_path: Path, train: str, form: str) -> None:
    """One question has a signal, the other has equal utilities: gradient exactly 0, no decay either."""
    config = distill_config(
        model, distill__train=train, distill__kl_form=form, distill__questions_per_step=1, distill__weight_decay=0.5
    )
    rows = sample_rows(config, questions=2)
    rows = [row if row["question_id"] == "q1" else {**row, "advantage": 0.0, "gate": 0.0} for row in rows]
    trainer = trainer_of(config, tmp_path, rows)
    changed = {}
    for index in range(2):
        before = {name: parameter.detach().clone() for name, parameter in trainer.trainable.items()}
        line = trainer.train_step(trainer.data.step(index))
        same = all(torch.equal(parameter, before[name]) for name, parameter in trainer.trainable.items())
        changed[line["paths"] > 0] = (line["loss"], line["gradient_norm"], line["tokens"], same)
    assert changed[False] == (0.0, 0.0, 0, True)
    assert changed[True][1] > 0
    assert not changed[True][3]


class _OneOfTwo(Ranks):
    """Rank 0 of two, whose companion has as little to do as itself."""

    def sum(self, values: Tensor) -> Tensor:
        return values

    def sum_all(self, tensors: Sequence[Tensor]) -> None:
        pass


def test_a_step_without_signal_moves_nothing_on_several_ranks_either(model: Path, tmp_path: Path) -> None:
    """Neither the optimiser's momentum nor its decay acts where no rank has a gradient."""
    config = distill_config(model, distill__questions_per_step=1, distill__weight_decay=0.5)
    trainer = trainer_of(config, tmp_path)
    trainer.train_step(trainer.data.step(0))
    before = {name: parameter.detach().clone() for name, parameter in trainer.trainable.items()}
    trainer.next_step, trainer.ranks = 1, _OneOfTwo(0, 2)
    line = trainer.train_step(replace(trainer.data.step(1), paths=[]))
    assert line["gradient_norm"] == 0
    assert all(torch.equal(parameter, before[name]) for name, parameter in trainer.trainable.items())


def test_an_ema_teacher_is_the_average_of_the_steps(model: Path, tmp_path: Path) -> None:
    for train in ("lora", "full"):
        options = {"kl_form": "dense", "teacher": "ema", "ema_decay": 0.75, "train": train, "learning_rate": 0.01}
        config = distill_config(
            model, distill__questions_per_step=1, **{f"distill__{name}": value for name, value in options.items()}
        )
        trainer = trainer_of(config, tmp_path / train)
        average = {name: tensor.detach().clone() for name, tensor in trainer.trainable.items()}
        for index in range(3):
            trainer.train_step(trainer.data.step(index))
            trainer.next_step += 1
            for name, tensor in trainer.trainable.items():
                average[name] = 0.75 * average[name] + 0.25 * tensor.detach()
        for (teacher, student), expected in zip(trainer.roles.ema_pairs(), average.values(), strict=True):
            torch.testing.assert_close(teacher, expected)
            assert not teacher.requires_grad
            assert student.requires_grad


def test_recomputed_and_compiled_layers_train_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced to graphs with their guards; what PyTorch then makes of a graph, in a minute of CPU, is its own."""
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    model = tiny.make_model(tmp_path / "model", tie=True, layers=1)
    found = {}
    for name in ("plain", "gradient_checkpointing", "compile", "packing"):
        option = {} if name == "plain" else {f"distill__{name}": name != "packing"}
        trainer = trainer_of(distill_config(model, distill__kl_form="dense-cv", **option), tmp_path / name)
        found[name] = trainer.train_step(trainer.data.step(0))
    for name, line in found.items():
        for key in ("loss", "kl", "policy_gradient", "reference_kl", "gradient_norm", "entropy"):
            assert line[key] == pytest.approx(found["plain"][key], rel=1e-4, abs=1e-6), (name, key)


def test_clipped_tokens_are_counted_and_give_no_gradient(model: Path, tmp_path: Path) -> None:
    alone = {"distill__pg_weight": 0.0, "distill__reference_weight": 0.0}
    lines = {
        clip: trainer_of(distill_config(model, **alone, distill__kl_clip=clip), tmp_path / str(clip))
        for clip in (1e-6, 100)
    }
    all_clipped, none_clipped = (one.train_step(one.data.step(0)) for one in lines.values())
    assert all_clipped["clipped_kl_tokens"] == all_clipped["tokens"] > 0
    assert all_clipped["gradient_norm"] == 0
    assert none_clipped["clipped_kl_tokens"] == 0
    assert none_clipped["gradient_norm"] > 0


def test_the_first_steps_own_forward_pass_gives_pi_old(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All questions in one step: no path is scored for it, and the ratio is 1 on every token."""
    trainer = trainer_of(distill_config(model), tmp_path)
    prior = [path for path in trainer.data.paths if path.is_prior]
    assert trainer.old_logprobs.values == {}
    expected = {path.index: trainer.roles.student_logprobs([path]) for path in prior}
    line = trainer.train_step(trainer.data.step(0))
    assert line["clipped_tokens"] == 0
    assert trainer.old_logprobs.values.keys() == expected.keys()
    for index, logprobs in expected.items():
        torch.testing.assert_close(trainer.old_logprobs.values[index], logprobs, atol=1e-5, rtol=1e-5)
    with_dropout = trainer_of(distill_config(model, distill__lora__dropout=0.1), tmp_path / "dropout")
    assert with_dropout.old_logprobs.values.keys() == expected.keys()  # dropout would change them: scored apart


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_out_of_memory_says_what_did_not_fit_and_what_would(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: Any) -> None:
        raise error

    trainer = trainer_of(distill_config(model), tmp_path)
    tokens = sum(path.length for path in trainer.data.paths)
    monkeypatch.setattr(Roles, "student_forward", full)
    with pytest.raises(VpgeaError, match="out of memory in step 0") as told:
        trainer.train_step(trainer.data.step(0))
    assert f"{len(trainer.data.paths)} paths and {tokens:,} tokens" in told.value.why
    assert f"--max-tokens-per-batch to {tokens // 2:,}" in told.value.mend
    assert "--gradient-checkpointing" in told.value.mend
    monkeypatch.setattr(Roles, "student_forward", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # anything else stays what it is
        trainer.train_step(trainer.data.step(0))


def test_schedules() -> None:
    def rates(schedule: str, warmup: int, total: int) -> list[float]:
        config = RunConfig(
            distill={"learning_rate": 2.0, "schedule": schedule, "warmup_steps": warmup}  # type: ignore[arg-type]
        ).distill
        return [learning_rate(config, step, total) for step in range(total)]

    assert rates("constant", 2, 5) == [1.0, 2.0, 2.0, 2.0, 2.0]
    assert rates("linear", 1, 5) == [2.0, 2.0, 1.5, 1.0, 0.5]
    assert rates("cosine", 0, 4) == pytest.approx([2.0, 1 + math.sqrt(0.5), 1.0, 1 - math.sqrt(0.5)])
    ended = RunConfig(distill={"schedule": "linear", "final_learning_rate": 0.1, "learning_rate": 1.0})  # type: ignore[arg-type]
    assert [learning_rate(ended.distill, step, 2) for step in (0, 1, 2)] == pytest.approx([1.0, 0.55, 0.1])
    assert rates("cosine", 9, 3) == pytest.approx([2 / 9, 4 / 9, 6 / 9])  # the run ends within the warm-up
    assert rates("linear", 3, 3) == pytest.approx([2 / 3, 4 / 3, 2.0])


def one_step(model: Path, folder: Path, **dotted: Any) -> tuple[Trainer, dict[str, Tensor], dict[str, Any]]:
    """A trainer after its first step, the weights before it, and its line."""
    trainer = trainer_of(distill_config(model, **{"distill__train": "full", **dotted}), folder)
    before = {name: parameter.detach().clone() for name, parameter in trainer.trainable.items()}
    return trainer, before, trainer.train_step(trainer.data.step(0))


def test_weight_decay_is_decoupled(model: Path, tmp_path: Path) -> None:
    plain, before, _ = one_step(model, tmp_path / "plain", distill__learning_rate=0.1)
    decayed, _, line = one_step(model, tmp_path / "decayed", distill__learning_rate=0.1, distill__weight_decay=0.5)
    assert line["learning_rate"] == 0.1
    for name, parameter in decayed.trainable.items():
        torch.testing.assert_close(parameter.detach(), plain.trainable[name].detach() - 0.1 * 0.5 * before[name])


def test_the_gradient_norm_is_reported_and_clipped(model: Path, tmp_path: Path) -> None:
    for limit in (0.5, 1e6):
        trainer, _, line = one_step(model, tmp_path / str(limit), distill__max_grad_norm=limit)
        gradients = [p.grad for p in trainer.trainable.values() if p.grad is not None]
        norm = float(torch.stack([gradient.norm() for gradient in gradients]).norm())
        assert line["gradient_norm"] > 0.5
        assert norm == pytest.approx(min(limit, line["gradient_norm"]), rel=1e-4)


def test_master_weights_of_a_bfloat16_model_keep_what_rounding_would_lose(model: Path, tmp_path: Path) -> None:
    trainer, before, _ = one_step(
        model, tmp_path, model__dtype="bfloat16", distill__learning_rate=1e-6, distill__questions_per_step=1
    )
    for index in (1, 2):
        trainer.train_step(trainer.data.step(index))
    start = torch.cat([tensor.flatten() for tensor in before.values()])
    now = torch.cat([parameter.detach().flatten() for parameter in trainer.trainable.values()])
    assert now.dtype == torch.float32
    moved = start != now
    assert moved.float().mean() > 0.5
    assert (start.bfloat16() == now.bfloat16())[moved].float().mean() > 0.95


def test_the_first_steps_ratio_is_one(model: Path, tmp_path: Path) -> None:
    """Nothing is clipped before the weights have moved: pi_old is what the trainer computes itself."""
    _, _, line = one_step(model, tmp_path)
    assert line["clipped_tokens"] == 0
    assert line["reference_kl"] == pytest.approx(0, abs=1e-9)
