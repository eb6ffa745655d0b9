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
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

os.environ["HF_HUB_OFFLINE"] = "1"  # read on import; keeps TRL's telemetry off the network too

from datasets import Dataset
from torch import Tensor
from transformers import Trainer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from trl.experimental.sdft import SDFTConfig

from benchmarks.peers.length_reward import LengthReward
from benchmarks.peers.rivals import RECORD, Charge, require_price
from benchmarks.peers.trl_training import IdsSDFT
from examples.inputs import count
from vpgea import __version__
from vpgea.config import strict_yaml
from vpgea.config.resolve import resolve
from vpgea.config.schema import with_values
from vpgea.errors import UsageError, VpgeaError
from vpgea.grading.pool import GraderPool
from vpgea.grading.samples import grader_pool
from vpgea.modeling.tokenizer_files import copy_tokenizer
from vpgea.modeling.weight_files import write_checksums
from vpgea.phases.rollout import RolloutPlan
from vpgea.questions.load import load_questions
from vpgea.runs.layout import MODEL
from vpgea.storage.files import publish_folder, write_json
from vpgea.training.requirements import require_no_adapter

CONFIGS = {"grpo": GRPOConfig, "sdft": SDFTConfig}
_PACKAGES = ("trl", "torch", "transformers", "accelerate")


class _Counted(Trainer):
    """To stand before one of TRL's trainers among the bases: counts completion tokens, the ends included."""

    sampled_tokens = trained_tokens = 0

    def count(self, completion_ids: Sequence[Sequence[int]]) -> None:
        self.sampled_tokens += sum(map(len, completion_ids))

    def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **options: Any) -> Tensor:
        self.trained_tokens += int(inputs["completion_mask"].sum())
        return super().compute_loss(model, inputs, *arguments, **options)


class _GRPO(_Counted, GRPOTrainer):
    """On prompts of ids."""

    def _tokenize_prompts(self, prompts: list[list[int]]) -> Any:
        return prompts, None, {}

    def _generate_single_turn(self, *arguments: Any, **options: Any) -> Any:
        completion_ids, *rest = super()._generate_single_turn(*arguments, **options)
        self.count(completion_ids)
        return completion_ids, *rest


class _SDFT(_Counted, IdsSDFT):
    def _generate(self, prompt_ids: list[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
        prompts, completion_ids = super()._generate(prompt_ids)
        self.count(completion_ids)
        return prompts, completion_ids


class _EndsAtBudget(TrainerCallback):
    """No step follows the one in which so many tokens are reached."""

    def __init__(self, trainer: _Counted, budget: int) -> None:
        self._trainer, self._budget = trainer, budget

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._trainer.sampled_tokens >= self._budget:
            control.should_training_stop = True


def plan_of(rival: str, testbed: Path, sets: Sequence[str]) -> RolloutPlan:
    """The questions and prompts of the rival, as a rollout of its samples would have them.

    Raises:
        UsageError: What planning a rollout raises, an adapter, or fewer questions than a step has.
    """
    file = testbed / "loop.yaml" if testbed.is_dir() else testbed
    config = resolve(file=file, sets=sets).config
    samples = config.rollout.prior_samples + config.rollout.posterior_samples
    own = {"prior_samples": samples, "posterior_samples": 0, "noted_prior": rival == "sdft"}
    config = with_values(config, {f"rollout.{key}": value for key, value in own.items()})
    questions = load_questions(config.data, grader=config.grading.grader, offline=True).questions
    plan = RolloutPlan.make(config, questions)
    require_no_adapter(plan.model)
    if (held := sum(map(len, plan.chunks))) < config.distill.questions_per_step:
        raise UsageError(
            f"{held} questions are no optimiser step",
            why=f"distill.questions_per_step is {config.distill.questions_per_step}, and TRL leaves smaller steps out",
            mend="give more questions, or set it lower",
        )
    return plan


def settings_of(plan: RolloutPlan, seed: int, budget: int) -> dict[str, Any]:
    """What is not TRL's default."""
    config, samples, model = plan.config, plan.config.rollout.prior_samples, plan.model
    dtype = str(model.dtype).removeprefix("torch.")
    return {
        "per_device_train_batch_size": samples * config.distill.questions_per_step,
        "num_generations": samples,
        "max_completion_length": config.rollout.max_new_tokens,
        "temperature": config.rollout.temperature,
        "top_p": config.rollout.top_p,
        "top_k": config.rollout.top_k,
        "learning_rate": config.distill.learning_rate,
        "lr_scheduler_type": "constant",
        "max_steps": budget,  # a step draws more than one token: what ends the training is the budget
        "seed": seed,
        "model_init_kwargs": {"dtype": dtype},
        "bf16": dtype == "bfloat16",  # TRL's default is True with float32 weights too
        "use_cpu": model.device.type == "cpu",
        "gradient_checkpointing": config.distill.gradient_checkpointing,  # the same numbers, slower
        "disable_tqdm": True,
        "save_strategy": "no",
        "report_to": "none",
    }


def given_settings(rival: str, texts: Sequence[str]) -> dict[str, Any]:
    """What the user gives of TRL's settings, KEY=VALUE with YAML for the value.

    Raises:
        UsageError: There is no such key.
    """
    parted = [text.partition("=") for text in texts]
    given = {key: strict_yaml.parse(value, f"--trl {key}")[0] for key, _, value in parted}
    if unknown := sorted(given.keys() - {field.name for field in fields(CONFIGS[rival])}):
        raise UsageError(
            f"TRL has no setting {unknown[0]}",
            why=f"it is none of {CONFIGS[rival].__name__}",
            mend="write --trl KEY=VALUE with a key of its documentation",
        )
    return given


def make_trainer(
    rival: str, charge: Charge | None, plan: RolloutPlan, settings: dict[str, Any], graders: GraderPool
) -> _Counted:
    """TRL's trainer, which loads the model itself.

    Raises:
        UsageError: It would end completions elsewhere.
    """
    views, questions = plan.views, [question for chunk in plan.chunks for question in chunk]
    rows = [{"prompt": views.prior_prompt(question), "question_id": question.id} for question in questions]
    shared: dict[str, Any] = {"model": str(plan.model.folder), "processing_class": views.tokenizer}
    args = CONFIGS[rival](**settings)
    if charge is not None:
        reward = LengthReward(plan.config, charge, views, questions, graders)
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


def train(
    rival: str, charge: Charge | None, plan: RolloutPlan, output: Path, settings: dict[str, Any], budget: int
) -> dict[str, Any]:
    """Train and write the model; returns what rival.json says. charge: who pays for length, None without a price."""
    with TemporaryDirectory(prefix="trl-rivals-") as scratch, grader_pool(plan.config) as graders:
        trainer = make_trainer(rival, charge, plan, settings | {"output_dir": scratch}, graders)
        trainer.add_callback(_EndsAtBudget(trainer, budget))
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
    publish(trainer, plan, output)
    return {
        "rival": rival,
        "charge": charge,
        "price": None if charge is None else plan.config.filter.utility.length_price,
        "budget": budget,
        "steps": trainer.state.global_step,
        "sampled_tokens": trainer.sampled_tokens,
        "trained_tokens": trainer.trained_tokens,
        "seconds": round(seconds, 1),
        "settings": settings,
        "inputs": plan.manifest.inputs,
        "questions": sum(map(len, plan.chunks)),
        **plan.rejection_counts,
        "versions": {"vpgea": __version__, **{name: metadata.version(name) for name in _PACKAGES}},
    }


def publish(trainer: _Counted, plan: RolloutPlan, output: Path) -> None:
    """The trained weights with the base's tokenizer, so that prompts are rendered as before."""
    temporary = output / f".{MODEL}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    trainer.accelerator.unwrap_model(trainer.model).save_pretrained(temporary)
    copy_tokenizer(plan.model.folder, None, temporary)
    write_checksums(temporary)
    publish_folder(temporary, output / MODEL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options, train, write; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if (options.output / RECORD).exists():
            raise UsageError(
                f"{options.output} holds a rival already", why=f"it has a {RECORD}", mend="give another folder"
            )
        price = [] if options.price is None else [f"filter.utility.length_price={options.price}"]
        plan = plan_of(options.rival, options.testbed, [*options.set, *price])
        require_price(options.charge, plan.config.filter.utility.length_price)
        settings = settings_of(plan, options.seed, options.sampled_tokens) | given_settings(options.rival, options.trl)
        options.output.mkdir(parents=True, exist_ok=True)
        record = train(options.rival, options.charge, plan, options.output, settings, options.sampled_tokens)
    except VpgeaError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    write_json(options.output / RECORD, record)
    print(options.output / MODEL)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.set_defaults(price=None, charge=None)
    rivals = parser.add_subparsers(dest="rival", required=True, metavar="grpo|sdft")
    for name in ("grpo", "sdft"):
        rival = rivals.add_parser(name)
        rival.add_argument("testbed", type=Path, help="a loop's configuration, or a folder with loop.yaml")
        rival.add_argument("--sampled-tokens", type=count, required=True, help="no step follows that reaches it")
        rival.add_argument("--seed", type=int, default=0, help="of questions' order and samples")
        rival.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a key of the configuration")
        rival.add_argument("--trl", action="append", default=[], metavar="KEY=VALUE", help="a key of TRL's settings")
        rival.add_argument("--output", "-o", type=Path, required=True, help="folder of model and rival.json")
        if name == "grpo":
            rival.add_argument("--price", type=float, help="of length; default: that of the configuration")
            rival.add_argument(
                "--charge", choices=get_args(Charge), default="correct", help="whose length is priced; default: correct"
            )
    return parser


if __name__ == "__main__":
    sys.exit(main())
