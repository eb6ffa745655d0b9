"""ms-swift's RLSD and OPSD as rivals of our objectives, on the same base, questions, prompts and sampled tokens.

    .venv-swift/bin/python -m benchmarks.peers.swift_rivals rlsd TESTBED --price 0.3 --sampled-tokens 400000 -o OUT
    .venv-swift/bin/python -m benchmarks.peers.swift_rivals opsd TESTBED --sampled-tokens 400000 -o OUT

The testbed is a loop's configuration, or a folder with one called loop.yaml. Of it are taken the model with its dtype,
device and threads, the questions, the prompts as ids (the prior's, and for the teacher the posterior's), the sampling
with its cap, the grader, samples per step and learning rate. Everything else is ms-swift's default; what is not, stands
in `settings` of rival.json, and `--swift KEY=VALUE` changes it. Written are `model`, for `vpgea eval --model`, and
`rival.json`.

`rlsd`: GRPO, the advantage of a sample weighed token by token by how much likelier the token is behind the posterior's
prompt than behind the prior's; the weights are clipped and positive, and the teacher is the model as it is. The reward
is `benchmarks.peers.length_reward`, at the price of the configuration where none is given. A step draws as many samples
of a question as a round of ours does of both views together. No KL to the base, as ms-swift advises for RLSD.

`opsd`: GKD on the student's own samples and nothing else, the base model being the teacher behind the posterior's
prompt; the Jensen-Shannon divergence of the two over the whole vocabulary, mean over all tokens of the step. No answer
is graded. A step has as many samples as one of `rlsd`, each of another question: ms-swift's GKD knows no groups.

To be run in ms-swift's environment (`make swift`), from the root of the checkout. All weights are trained, by one
process. The learning rate is constant, as in ours: how many steps there are is not known before (another
`lr_scheduler_type` needs `--swift max_steps=N`). Only the grader `math` needs a
package that is not in that environment.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # read on import
os.environ.setdefault("LOG_LEVEL", "WARNING")  # likewise: ms-swift's, which shows all arguments otherwise

from datasets import Dataset
from swift.arguments import RLHFArguments
from swift.model import ModelMeta, register_model
from swift.pipelines.train import SwiftRLHF
from swift.rewards import orms
from swift.rlhf_trainers import GKDTrainer, GRPOTrainer
from swift.template import Template, TemplateMeta, register_template
from swift.trainers import TrainerFactory
from torch import Tensor

from benchmarks.peers.length_reward import LengthReward
from benchmarks.peers.rival_training import Counted, Library, command, common_settings, questions_of
from vpgea.errors import UsageError
from vpgea.grading.pool import GraderPool
from vpgea.phases.rollout import RolloutPlan
from vpgea.storage.files import read_json

_NAME = "vpgea"  # of the template, the kind of model and the reward, among ms-swift's own


class _IdsTemplate(Template):
    """The text of a turn is ids in decimal, and they are the whole prompt."""

    def _encode_context_list(self, context_list: list[Any], loss_scale_list: list[float] | None = None) -> Any:
        ids = [_ids(context) if isinstance(context, str) else context for context in context_list]
        return super()._encode_context_list(ids, loss_scale_list)


def _text(ids: Sequence[int]) -> str:
    return " ".join(map(str, ids))


def _ids(text: str) -> list[int]:
    return [int(word) for word in text.split()]


class _CountedRollout(Counted):
    def _generate_completions(self, samples: list[Any]) -> list[Any]:
        drawn = super()._generate_completions(samples)
        self.count([sample.response_token_ids for sample in drawn])
        return drawn


class _RLSD(_CountedRollout, GRPOTrainer):
    def trained(self, inputs: Any) -> Tensor:
        return inputs["grpo_batch"].completion_mask


class _OPSD(_CountedRollout, GKDTrainer):
    def trained(self, inputs: Any) -> Tensor:
        return inputs["model_inputs"]["labels"] != -100


TrainerFactory.TRAINER_MAPPING |= {"grpo": f"{__name__}._RLSD", "gkd": f"{__name__}._OPSD"}


class _Pipeline(SwiftRLHF):
    """ms-swift's own, up to the trainer: the rows are given, and the training is begun by another."""

    rows: list[dict[str, Any]]
    trainer: Counted

    def _get_dataset(self) -> tuple[Dataset, None]:
        return Dataset.from_list(self.rows), None

    def train(self, trainer: Counted) -> None:
        self.trainer = trainer


def _given_ids(reward: LengthReward) -> Callable[..., list[float | None]]:
    """The reward as ms-swift calls one, with the texts first and the columns by name."""

    def rewards(_: Sequence[str], response_token_ids: Any, question_id: Any, **__: Any) -> list[float | None]:
        return reward.rewards(response_token_ids, question_id)

    return rewards


def settings_of(plan: RolloutPlan, options: argparse.Namespace) -> dict[str, Any]:
    """What is not ms-swift's default."""
    config, samples, model = plan.config, plan.config.rollout.prior_samples, plan.model
    own = {
        "rlsd": {"rlhf_type": "grpo", "advantage_reweight": "rlsd", "num_generations": samples, "beta": 0.0},
        "opsd": {"rlhf_type": "gkd", "lmbda": 1.0, "teacher_model": str(model.folder)},
    }
    return {
        **own[options.rival],
        **common_settings(plan, options),
        "tuner_type": "full",
        "gradient_accumulation_steps": 1,
        "top_k": config.rollout.top_k or model.vocabulary_size,  # without one transformers takes 50
        "torch_dtype": str(model.dtype).removeprefix("torch."),
        "fp16": False,  # ms-swift's default is True with float32 weights
        "device_map": str(model.device),
        "dataloader_num_workers": 0,
    }


def require_no_code(plan: RolloutPlan) -> None:
    """See that no Python comes with the model, which ms-swift would run whatever the configuration says.

    Raises:
        UsageError: Some does, and model.trust_remote_code is off.
    """
    files = [plan.model.folder / name for name in ("config.json", "tokenizer_config.json")]
    coded = [file.name for file in files if file.is_file() and "auto_map" in read_json(file)]
    if coded and not plan.model.config.trust_remote_code:
        raise UsageError(
            f"the {coded[0]} of {plan.model.folder} names Python code",
            why="ms-swift would run it, and model.trust_remote_code is off",
            mend="read it, then give --set model.trust_remote_code=true; or take another model",
        )


def require_padding(plan: RolloutPlan) -> None:
    """See that what ends a completion is no padding, which ms-swift takes out of what was sampled.

    Raises:
        UsageError: It is.
    """
    tokenizer = plan.views.tokenizer
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    if pad in plan.views.stop_ids:
        raise UsageError(
            f"id {pad} both pads and ends completions",
            why="ms-swift takes padding out of what was sampled, and would never train an end",
            mend="give the tokenizer another pad_token in its tokenizer_config.json",
        )


def make_trainer(
    plan: RolloutPlan, options: argparse.Namespace, settings: dict[str, Any], graders: GraderPool
) -> Counted:
    """ms-swift's trainer, made by its own pipeline, which loads the models itself.

    Raises:
        UsageError: The questions are no step.
    """
    views = plan.views
    per_step = settings["per_device_train_batch_size"] // settings.get("num_generations", 1)
    questions = questions_of(plan, per_step)
    if options.charge is not None:
        reward = LengthReward(plan.config, options.charge, views, questions, graders)
        orms[_NAME] = lambda args: _given_ids(reward)
        settings = settings | {"reward_funcs": [_NAME]}
    ends = [[token] for token in views.stop_ids]
    template = TemplateMeta(_NAME, [], ["{{QUERY}}"], None, template_cls=_IdsTemplate, stop_words=ends)
    register_template(template, exist_ok=True)
    register_model(ModelMeta(_NAME, [], template=_NAME), exist_ok=True)
    folder = str(plan.model.folder)
    kinds = {"model_type": _NAME, "teacher_model_type": _NAME, "template": _NAME}
    pipeline = _Pipeline(RLHFArguments(model=folder, dataset=[plan.config.data.dataset], **kinds, **settings))
    pipeline.rows = [
        {
            "messages": [{"role": "user", "content": _text(views.prior_prompt(question))}],
            "teacher_prompt": _text(views.posterior_prompt(question)),
            "question_id": question.id,
        }
        for question in questions
    ]
    pipeline.main()
    return pipeline.trainer


LIBRARY = Library(
    name="ms-swift",
    package="ms-swift",
    option="--swift",
    settings={"rlsd": RLHFArguments, "opsd": RLHFArguments},
    noted=frozenset({"rlsd", "opsd"}),
    settings_of=settings_of,
    make_trainer=make_trainer,
    require=(require_no_code, require_padding),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options, train, write; the exit code."""
    return command(LIBRARY, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
