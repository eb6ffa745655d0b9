"""Every phase puts its model on the device, and the loop goes through all of them there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.gpu.places import DEVICE, ON_CPU, command
from tests.support import overthinker, rollouts
from tests.support.models import causal_model
from vpgea.config.resolve import dump_yaml
from vpgea.config.schema import RunConfig
from vpgea.modeling.policy import completion_logprobs
from vpgea.phases.distill import distill
from vpgea.phases.evaluate import evaluate
from vpgea.phases.filter import filter_rollout
from vpgea.questions.load import load_questions
from vpgea.runs.complete_phase import CompletePhase, chunk_paths
from vpgea.storage.files import read_json
from vpgea.storage.rows import read_rows
from vpgea.storage.schemas import SampleRow

pytestmark = pytest.mark.gpu
OPTIONS: dict[str, Any] = {
    "model__device": DEVICE,
    "model__dtype": "float32",
    "rollout__engine": "transformers",
    "distill__questions_per_step": 4,
    "filter__plausibility__enabled": False,
}


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return overthinker.config(**OPTIONS)


def on_device(work: Callable[[], object], config: RunConfig) -> None:
    """Do it, and see that the device held the model's weights meanwhile."""
    if ON_CPU:
        work()
        return
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    weights = (Path(config.model.path) / "model.safetensors").stat().st_size
    assert torch.cuda.max_memory_allocated() - before > 0.9 * weights


@pytest.fixture(scope="module")
def phases(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a rollout, its filter, a distillation and an evaluation, each made on the device."""
    place = tmp_path_factory.mktemp("phases")
    on_device(lambda: rollouts.run(config, place / "rollout"), config)
    on_device(lambda: filter_rollout(config, place / "rollout", place / "filter"), config)
    on_device(lambda: distill(config, place / "filter", place / "distill"), config)
    adapted = config.model.model_copy(update={"adapter": str(place / "distill" / "adapter")})
    measured = config.model_copy(update={"model": adapted})
    on_device(lambda: evaluate(measured, load_questions(config.data).questions, place / "eval"), config)
    return place


def test_samples_have_the_log_probabilities_that_the_cpu_gives_them(phases: Path) -> None:
    rows = [row for path in chunk_paths(phases / "rollout") for row in read_rows(path, SampleRow)]
    model = causal_model(overthinker.config(model__device="cpu", model__dtype="float32").model)
    for row in rows:
        ids = [*row.prompt_ids.tolist(), *row.completion_ids.tolist()]
        logprobs = completion_logprobs(model, [ids], [len(row.prompt_ids)]).numpy()
        np.testing.assert_allclose(row.logprobs, logprobs, atol=1e-3)


def test_the_filter_accepts_and_the_training_follows_the_engine(phases: Path) -> None:
    assert read_json(phases / "filter" / "summary.json")["counts"]["posterior_accepted"] > 0
    summary = read_json(phases / "distill" / "summary.json")
    assert summary["steps"] > 0 == summary["skipped_steps"]
    assert summary["engine_mismatch"]["largest"] < 1e-3
    assert summary["reload_difference"] < 1e-4
    assert CompletePhase.open(phases / "eval", "eval").content_fingerprint


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_loop_of_one_round_runs_with_what_the_device_has(config: RunConfig, dtype: str, tmp_path: Path) -> None:
    """All GPUs of the machine: `--devices auto`."""
    held_out = str(overthinker.ROOT / "questions" / "test.jsonl")
    model = config.model.model_copy(update={"device": DEVICE if ON_CPU else "auto", "dtype": dtype})
    loop = config.loop.model_copy(update={"rounds": 1, "eval_dataset": held_out, "eval_limit": 8})
    changed = config.model_copy(update={"model": model, "loop": loop})
    (tmp_path / "run.yaml").write_text(dump_yaml(changed), encoding="utf-8")
    command(tmp_path, "loop", "-c", "run.yaml", "-o", "run", "-q", "--offline")
    *_, line = [json.loads(text) for text in (tmp_path / "run" / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert line["round"] == 0
    assert line["trained_tokens"] > 0
    assert line["engine_mismatch"] < {"float32": 1e-3, "bfloat16": 0.5}[dtype]
