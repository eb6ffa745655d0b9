"""TRL's GRPO and SDFT as rivals of our objectives, on the same base, questions, prompts and sampled tokens.

    .venv-trl/bin/python -m benchmarks.peers.trl_rivals grpo runs/families --price 0.3 --sampled-tokens 400000 -o OUT
    .venv-trl/bin/python -m benchmarks.peers.trl_rivals sdft runs/families --sampled-tokens 400000 -o OUT

The testbed is a loop's configuration, or a folder with one called loop.yaml. Of it are taken the model with its dtype,
device and threads, the questions, the prompts as ids (the prior's, and for SDFT's teacher the posterior's), the
sampling with its cap, the grader, questions per step and learning rate. A step draws as many samples of a question as
a round of ours does of both views together. Everything else is TRL's default; what is not, stands in `settings` of
rival.json, and `--trl KEY=VALUE` changes it. Written are `model`, for `vpgea eval --model`, and `rival.json`.

`grpo`: the reward is `benchmarks.peers.length_reward`, at the price of the configuration where none is given; `--charge
all` has wrong samples pay for their length too. All samples of a step are of the weights before it, and it clips
nothing then.

`sdft`: the student draws behind the prior's prompt, the base model is the teacher behind the posterior's; TRL's
divergence, half-way between forward and reverse over the student's 100 likeliest tokens. No answer is graded.

To be run in TRL's environment (`make trl`), from the root of the checkout. All weights are trained, by one process. The
learning rate is constant, as in ours: how many steps there are is not known before (another `lr_scheduler_type` needs
`--trl max_steps=N`). Only the grader `math` needs a package that is not in that environment.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # read on import; keeps TRL's telemetry off the network too

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer
from trl.experimental.sdft import SDFTConfig

from benchmarks.peers.length_reward import LengthReward
from benchmarks.peers.rival_training import Counted, Library, command, common_settings, questions_of
from benchmarks.peers.trl_training import IdsSDFT
from vpgea.errors import UsageError
from vpgea.grading.pool import GraderPool
from vpgea.phases.rollout import RolloutPlan

_SETTINGS = {"grpo": GRPOConfig, "sdft": SDFTConfig}


class _GRPO(Counted, GRPOTrainer):
    """On prompts of ids."""

    def _tokenize_prompts(self, prompts: list[list[int]]) -> Any:
        return prompts, None, {}

    def _generate_single_turn(self, *arguments: Any, **options: Any) -> Any:
        completion_ids, *rest = super()._generate_single_turn(*arguments, **options)
        self.count(completion_ids)
        return completion_ids, *rest


class _SDFT(Counted, IdsSDFT):
    def _generate(self, prompt_ids: list[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
        prompts, completion_ids = super()._generate(prompt_ids)
        self.count(completion_ids)
        return prompts, completion_ids


def settings_of(plan: RolloutPlan, options: argparse.Namespace) -> dict[str, Any]:
    """What is not TRL's default."""
    return {
        **common_settings(plan, options),
        "num_generations": plan.config.rollout.prior_samples,
        "top_k": plan.config.rollout.top_k,
        "model_init_kwargs": {"dtype": str(plan.model.dtype).removeprefix("torch.")},
    }


def make_trainer(
    plan: RolloutPlan, options: argparse.Namespace, settings: dict[str, Any], graders: GraderPool
) -> Counted:
    """TRL's trainer, which loads the model itself.

    Raises:
        UsageError: It would end completions elsewhere, or the questions are no step.
    """
    views, questions = plan.views, questions_of(plan, plan.config.distill.questions_per_step)
    rows = [{"prompt": views.prior_prompt(question), "question_id": question.id} for question in questions]
    shared: dict[str, Any] = {"model": str(plan.model.folder), "processing_class": views.tokenizer}
    args = _SETTINGS[options.rival](**settings)
    if options.charge is not None:
        reward = LengthReward(plan.config, options.charge, views, questions, graders)
        trainer = _GRPO(args=args, train_dataset=Dataset.from_list(rows), reward_funcs=reward.rewards, **shared)
    else:
        for row, question in zip(rows, questions, strict=True):
            row["privileged_context"] = views.posterior_prompt(question)
        trainer = _SDFT(args=args, train_dataset=Dataset.from_list(rows), **shared)
    if set(trainer.eos_token_ids) != set(views.stop_ids):
        raise UsageError(
            f"TRL ends completions at the ids {sorted(trainer.eos_token_ids)}, vpgea at {sorted(views.stop_ids)}",
            why="TRL knows those of generation_config.json and of the tokenizer, and not the chat template's",
            mend="name all in the eos_token_id of the model's generation_config.json",
        )
    return trainer


LIBRARY = Library(
    name="TRL",
    package="trl",
    option="--trl",
    settings=_SETTINGS,
    noted=frozenset({"sdft"}),
    settings_of=settings_of,
    make_trainer=make_trainer,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options, train, write; the exit code."""
    return command(LIBRARY, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
