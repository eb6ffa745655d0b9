"""The over-thinking testbed for tests: a real model whose answers are right, and whose paths can be judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vpgea.config.resolve import resolve
from vpgea.config.schema import RunConfig

ROOT = Path(__file__).parents[2] / "examples" / "overthinker"
OPTIONS: dict[str, Any] = {
    "model.path": str(ROOT / "base-global"),
    "model.device": "cpu",
    "model.threads": 1,
    "data.dataset": str(ROOT / "questions" / "dev.jsonl"),
    "data.limit": 8,
    "views.template": str(ROOT / "template.yaml"),
    "views.max_prompt_tokens": 64,
    "rollout.prior_samples": 2,
    "rollout.posterior_samples": 3,
    "rollout.max_new_tokens": 192,
    "rollout.questions_per_chunk": 2,
    "rollout.batch_size": 128,
    "grading.grader": "exact",
    "grading.workers": 1,
    "filter.answerability.samples": 4,
    "filter.answerability.threshold": 0.75,
    "filter.answerability.max_new_tokens": 8,
    "filter.derivation.window": 0,
    "eval.max_new_tokens": 192,
    "eval.bootstrap": 200,
}


def options(**dotted: Any) -> dict[str, Any]:
    """Configuration keys of a small run on the testbed; `__` in a name stands for the dot. Skips without its model."""
    if not Path(OPTIONS["model.path"]).is_dir():
        pytest.skip("examples/overthinker/base-global is not there: build it with examples.overthinker.build")
    return {**OPTIONS, **{key.replace("__", "."): value for key, value in dotted.items()}}


def config(**dotted: Any) -> RunConfig:
    return resolve(options=options(**dotted)).config
