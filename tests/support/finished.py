"""One finished run of every kind on the tiny model, made once per process, for tests that look at what came out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.support import tiny
from vpgea.config.resolve import resolve
from vpgea.config.schema import RunConfig
from vpgea.phases.distill import distill
from vpgea.phases.filter import filter_rollout
from vpgea.phases.loop import Loop
from vpgea.phases.rollout import RolloutPlan, rollout
from vpgea.questions.load import load_questions


@dataclass(frozen=True)
class Finished:
    """Folders of a rollout, its filter and LoRA distillation, and of a loop of two rounds of full fine-tuning."""

    model: Path
    rollout: Path
    filter: Path
    distill: Path
    loop: Path


@cache
def finished_runs(folder: Path, model: Path) -> Finished:
    """Train on four of the tiny questions, hold out two. `folder` must be new or from an earlier call."""
    runs = Finished(model, folder / "rollout", folder / "filter", folder / "distill", folder / "loop")
    config = small_config(folder, model)
    circle(config, folder)
    looping = config.model_copy(update={"distill": config.distill.model_copy(update={"train": "full"})})
    Loop.open(looping, runs.loop).run()
    return runs


def circle(config: RunConfig, folder: Path) -> None:
    """Rollout, filter and distillation below a folder."""
    rollout(RolloutPlan.make(config, load_questions(config.data).questions), folder / "rollout")
    filter_rollout(config, folder / "rollout", folder / "filter")
    distill(config, folder / "filter", folder / "distill")


def small_config(folder: Path, model: Path) -> RunConfig:
    """Few short samples, and a filter that lets some of a tiny model's paths through."""
    questions = tiny.write_questions(folder / "questions.jsonl", tiny.QUESTIONS[:4])
    held_out = tiny.write_questions(folder / "held-out.jsonl", tiny.QUESTIONS[4:])
    options: dict[str, Any] = {
        "model.path": str(model),
        "model.device": "cpu",
        "model.threads": 1,
        "data.dataset": str(questions),
        "rollout.prior_samples": 4,
        "rollout.posterior_samples": 4,
        "rollout.max_new_tokens": 48,
        "rollout.questions_per_chunk": 2,
        "grading.grader": "exact",  # its worker starts in a quarter of the mathematical one's time
        "grading.workers": 1,
        "filter.answerability.samples": 2,
        "filter.answerability.threshold": 0.5,
        "filter.answerability.max_new_tokens": 16,
        "filter.derivation.samples": 2,
        "distill.learning_rate": 0.003,
        "distill.epochs": 2,
        "distill.questions_per_step": 2,
        "loop.eval_dataset": str(held_out),
        "loop.rounds": 2,
        "eval.max_new_tokens": 48,
        "eval.samples": 2,
        "eval.bootstrap": 100,
    }
    return resolve(options=options).config
