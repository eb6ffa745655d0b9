"""Several ranks give what one process gives: losses, weights, after a stop, with another number of ranks too."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.support import tiny
from tests.support.forks import COMMAND_LINE, Forks
from tests.support.ranks import run_ranks, start_ranks
from tests.support.selection_rows import distill_config, sample_rows, write_selection
from vpgea.config.resolve import dump_yaml
from vpgea.config.schema import RunConfig

# At its fourth step the last rank is sent a signal, whose number stands before the command.
STRUCK = f"""
import os, sys
from vpgea.training.trainer import Trainer
number, train_step = int(sys.argv.pop(1)), Trainer.train_step

def strike(trainer, step):
    if trainer.next_step == 3 and int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1:
        os.kill(os.getpid(), number)
    return train_step(trainer, step)

Trainer.train_step = strike
{COMMAND_LINE}
"""
# name → configuration of distill. Together they hold every term, both kinds of training and both ways of many ranks.
CASES: dict[str, dict[str, Any]] = {
    "ddp-lora": {"parallel": "ddp", "kl_form": "dense-cv", "lora__dropout": 0.0},
    "fsdp-lora": {"parallel": "fsdp", "kl_form": "dense-cv", "gradient_checkpointing": True},
    "fsdp-full": {"parallel": "fsdp", "train": "full", "kl_form": "dense", "teacher": "frozen"},
    "fsdp-full-ema": {"parallel": "fsdp", "train": "full", "kl_form": "dense", "teacher": "ema"},
    "ddp-full": {"parallel": "ddp", "train": "full", "answer_from": "crossview", "optimizer": "adafactor"},
}
FIGURES = ("loss", "kl", "policy_gradient", "reference_kl", "reference_k3", "entropy", "gradient_norm")
COUNTS = ("tokens", "pg_tokens", "clipped_tokens", "paths", "questions")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("model"))


def prepared(folder: Path, model: Path, **options: Any) -> list[str | Path]:
    """The command line over a selection of its own, without the output folder."""
    keys = {
        "max_tokens_per_batch": 40,  # several micro-batches for each rank
        "questions_per_step": 2,
        "epochs": 2,
        "learning_rate": 0.01,
        "checkpoint_every": 1,
        "weight_decay": 0.1,
        **options,
    }
    config: RunConfig = distill_config(model, **{f"distill__{name}": value for name, value in keys.items()})
    folder.mkdir(parents=True, exist_ok=True)
    quiet = np.random.default_rng([0, 0]).permutation(5)[2:4]  # nothing to learn from in the second step
    rows = [
        {**row, "gate": row["gate"] and 0.0, "advantage": row["advantage"] and 0.0}
        if row["question_id"] in {f"q{number}" for number in quiet}
        else row
        for row in sample_rows(config, questions=5)
    ]
    selection = write_selection(folder / "filter", config, rows)
    (folder / "config.yaml").write_text(dump_yaml(config), encoding="utf-8")
    return ["distill", selection, "-c", folder / "config.yaml", "--quiet"]


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = [*folder.glob("adapter/adapter_model.safetensors"), *folder.glob("model/model.safetensors")]
    return load_file(file)


def require_same(found: Path, expected: Path) -> None:
    for mine, theirs in zip(lines_of(found), lines_of(expected), strict=True):
        for name in FIGURES:
            if theirs[name] is None:  # the entropy of a step without prior samples
                assert mine[name] is None, (mine["step"], name)
                continue
            assert mine[name] == pytest.approx(theirs[name], rel=2e-3, abs=2e-5), (mine["step"], name)
        for name in COUNTS:
            assert mine[name] == theirs[name], (mine["step"], name)
    theirs = weights_of(expected)
    mine = weights_of(found)
    assert mine.keys() == theirs.keys()
    for name, tensor in theirs.items():
        # AdamW divides by the root of the second moment: where that is next to nothing, rounding shows
        assert (mine[name] - tensor).abs().max() < 2e-3, name
        assert (mine[name] - tensor).abs().mean() < 1e-5, name


def ran(codes: list[int], folder: Path) -> None:
    assert codes == [0] * len(codes), "\n".join(path.read_text() for path in sorted(folder.glob("rank-*.err")))


@pytest.mark.parametrize(("case", "world"), [*((case, 2) for case in CASES if case != "fsdp-full"), ("fsdp-full", 4)])
def test_ranks_train_what_one_process_trains(case: str, world: int, forks: Forks, model: Path, tmp_path: Path) -> None:
    command = prepared(tmp_path, model, **CASES[case])
    ran(run_ranks(forks, [*command, "-o", tmp_path / "one"], 1, tmp_path), tmp_path)
    ran(run_ranks(forks, [*command, "-o", tmp_path / "many"], world, tmp_path), tmp_path)
    require_same(tmp_path / "many", tmp_path / "one")
    assert [line["paths"] == 0 for line in lines_of(tmp_path / "many")][:3] == [False, True, False]
    summary = json.loads((tmp_path / "many" / "summary.json").read_text())
    assert summary["reload_difference"] < 1e-5
    assert not list(tmp_path.glob("many/parts/*/checkpoints"))
    said = [(tmp_path / f"rank-{rank}.out").read_text() for rank in range(world)]
    assert said[0]
    assert not any(said[1:]), "only rank 0 has a result"


def test_sharded_float32_weights_compute_in_bfloat16(forks: Forks, model: Path, tmp_path: Path) -> None:
    """Against autocast in one process: the same losses up to that dtype's rounding, and published in it."""
    command = [*prepared(tmp_path, model, **CASES["fsdp-full"], pg_weight=0.0), "--dtype", "bfloat16"]
    ran(run_ranks(forks, [*command, "-o", tmp_path / "one"], 1, tmp_path), tmp_path)
    ran(run_ranks(forks, [*command, "-o", tmp_path / "many"], 2, tmp_path), tmp_path)
    for mine, theirs in zip(lines_of(tmp_path / "many"), lines_of(tmp_path / "one"), strict=True):
        for name in ("loss", "kl", "gradient_norm"):
            assert mine[name] == pytest.approx(theirs[name], rel=0.1, abs=0.01), (mine["step"], name)
    weights = weights_of(tmp_path / "many")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "many" / "model" / "config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("case", "first", "then", "sent", "codes"),
    [
        ("fsdp-full-ema", 2, 1, signal.SIGUSR1, [75, 75]),  # one rank's stops all of them, at the same step
        ("fsdp-lora", 2, 4, signal.SIGKILL, [4, -signal.SIGKILL]),
    ],
)
def test_a_stopped_or_killed_training_goes_on_with_another_number_of_ranks(
    case: str,
    first: int,
    then: int,
    sent: signal.Signals,
    codes: list[int],
    forks: Forks,
    model: Path,
    tmp_path: Path,
) -> None:
    command = prepared(tmp_path, model, **CASES[case])
    ran(run_ranks(forks, [*command, "-o", tmp_path / "straight"], 1, tmp_path), tmp_path)
    struck = [str(int(sent)), *command, "-o", tmp_path / "stopped"]
    processes = start_ranks(forks, struck, first, tmp_path, STRUCK)
    assert [process.wait(100) for process in processes] == codes
    said = (tmp_path / "rank-0.err").read_text()
    assert ("error: rank 0 cannot reach another rank" in said) == (sent == signal.SIGKILL), said
    done = len(lines_of(tmp_path / "stopped"))
    assert 3 <= done < 6
    assert list(tmp_path.glob("stopped/parts/*/checkpoints/step-*"))
    ran(run_ranks(forks, [*command, "-o", tmp_path / "stopped"], then, tmp_path), tmp_path)
    require_same(tmp_path / "stopped", tmp_path / "straight")


def test_where_all_ranks_refuse_rank_0_alone_says_why(forks: Forks, model: Path, tmp_path: Path) -> None:
    command = prepared(tmp_path, model)
    command += ["--set", "distill.lora.targets=['nonsense']"]
    assert run_ranks(forks, [*command, "-o", tmp_path / "out"], 2, tmp_path) == [2, 2]
    assert "no adapter can be put on nonsense" in (tmp_path / "rank-0.err").read_text()
    assert (tmp_path / "rank-1.err").read_text() == ""
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_refused_by_all(forks: Forks, model: Path, tmp_path: Path) -> None:
    command = prepared(tmp_path, model)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    assert run_ranks(forks, [*command, "-o", tmp_path / "out"], 2, tmp_path) == [2, 2]
    assert "error:" in (tmp_path / "rank-0.err").read_text()
