"""How a rival is trained, by whichever library: questions and prompts, the end at a budget, what it leaves behind."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback

from benchmarks.peers.rivals import RECORD, RIVALS, Charge, require_price
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
from vpgea.questions.question import Question
from vpgea.runs.layout import MODEL
from vpgea.storage.files import publish_folder, write_json
from vpgea.training.requirements import require_no_adapter

_PACKAGES = ("torch", "transformers", "accelerate")


class Counted(Trainer):
    """To stand before a library's trainer among the bases: counts completion tokens, the ends included."""

    sampled_tokens = trained_tokens = 0

    def count(self, completion_ids: Sequence[Sequence[int]]) -> None:
        self.sampled_tokens += sum(map(len, completion_ids))

    def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **options: Any) -> Tensor:
        self.trained_tokens += int(self.trained(inputs).sum())
        return super().compute_loss(model, inputs, *arguments, **options)

    def trained(self, inputs: Any) -> Tensor:
        """Which tokens of a micro-batch are trained."""
        return inputs["completion_mask"]


class _EndsAtBudget(TrainerCallback):
    """No step follows the one in which so many tokens are reached."""

    def __init__(self, trainer: Counted, budget: int) -> None:
        self._trainer, self._budget = trainer, budget

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._trainer.sampled_tokens >= self._budget:
            control.should_training_stop = True


def _plan_of(options: argparse.Namespace, *, noted: bool) -> RolloutPlan:
    """The questions and prompts of a rival, as a rollout of its samples would have them.

    Args:
        options: Of the command line.
        noted: The rival needs the posterior's prompts as well.

    Raises:
        UsageError: What planning a rollout raises, an adapter, or a price that is too high.
    """
    file = options.testbed / "loop.yaml" if options.testbed.is_dir() else options.testbed
    price = [] if options.price is None else [f"filter.utility.length_price={options.price}"]
    config = resolve(file=file, sets=[*options.set, *price]).config
    require_price(options.charge, config.filter.utility.length_price)
    samples = config.rollout.prior_samples + config.rollout.posterior_samples
    own = {"prior_samples": samples, "posterior_samples": 0, "noted_prior": noted}
    config = with_values(config, {f"rollout.{key}": value for key, value in own.items()})
    questions = load_questions(config.data, grader=config.grading.grader, offline=True).questions
    plan = RolloutPlan.make(config, questions)
    require_no_adapter(plan.model)
    return plan


def questions_of(plan: RolloutPlan, per_step: int) -> list[Question]:
    """Those that a rival is asked.

    Raises:
        UsageError: They are fewer than a step has.
    """
    questions = [question for chunk in plan.chunks for question in chunk]
    if len(questions) < per_step:
        raise UsageError(
            f"{len(questions)} questions are no optimiser step",
            why=f"a step of this rival has {per_step}, and it leaves smaller ones out",
            mend="give more questions, or set distill.questions_per_step lower",
        )
    return questions


def common_settings(plan: RolloutPlan, options: argparse.Namespace) -> dict[str, Any]:
    """What is no library's default, under the names that the libraries share."""
    config, model = plan.config, plan.model
    return {
        "per_device_train_batch_size": config.rollout.prior_samples * config.distill.questions_per_step,
        "max_completion_length": config.rollout.max_new_tokens,
        "temperature": config.rollout.temperature,
        "top_p": config.rollout.top_p,
        "learning_rate": config.distill.learning_rate,
        "lr_scheduler_type": "constant",
        "max_steps": options.sampled_tokens,  # a step draws more than one token: what ends the training is the budget
        "seed": options.seed,
        "bf16": model.dtype == torch.bfloat16,  # TRL's default is True with float32 weights too
        "use_cpu": model.device.type == "cpu",
        "gradient_checkpointing": config.distill.gradient_checkpointing,  # the same numbers, slower
        "disable_tqdm": True,
        "save_strategy": "no",
        "report_to": "none",
    }


def _given_settings(library: Library, options: argparse.Namespace) -> dict[str, Any]:
    """What the user gives of a library's settings, KEY=VALUE with YAML for the value.

    Raises:
        UsageError: There is no such key.
    """
    config, parted = library.settings[options.rival], [text.partition("=") for text in options.settings]
    given = {key: strict_yaml.parse(value, f"{library.name}'s {key}")[0] for key, _, value in parted}
    if unknown := sorted(given.keys() - {field.name for field in fields(config)}):
        raise UsageError(
            f"{library.name} has no setting {unknown[0]}",
            why=f"it is none of {config.__name__}",
            mend="write KEY=VALUE with a key of its documentation",
        )
    return given


def _train(
    trainer: Counted, plan: RolloutPlan, options: argparse.Namespace, settings: dict[str, Any], package: str
) -> dict[str, Any]:
    """Train and write the model; returns what rival.json says.

    Args:
        trainer: Of the library.
        plan: Of the rival.
        options: Of the command line.
        settings: Of the library.
        package: That is the library.
    """
    trainer.add_callback(_EndsAtBudget(trainer, options.sampled_tokens))
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    _publish(trainer, plan, options.output)
    return {
        "rival": options.rival,
        "charge": options.charge,
        "price": None if options.charge is None else plan.config.filter.utility.length_price,
        "budget": options.sampled_tokens,
        "steps": trainer.state.global_step,
        "sampled_tokens": trainer.sampled_tokens,
        "trained_tokens": trainer.trained_tokens,
        "seconds": round(seconds, 1),
        "settings": settings,
        "inputs": plan.manifest.inputs,
        "questions": sum(map(len, plan.chunks)),
        **plan.rejection_counts,
        "versions": {"vpgea": __version__, **{name: metadata.version(name) for name in (package, *_PACKAGES)}},
    }


def _publish(trainer: Counted, plan: RolloutPlan, output: Path) -> None:
    """The trained weights with the base's tokenizer, so that prompts are rendered as before."""
    temporary = output / f".{MODEL}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    trainer.accelerator.unwrap_model(trainer.model).save_pretrained(temporary)
    copy_tokenizer(plan.model.folder, None, temporary)
    write_checksums(temporary)
    publish_folder(temporary, output / MODEL)


@dataclass(frozen=True, kw_only=True)
class Library:
    """Whose trainers the rivals of a script are.

    Attributes:
        name: For people.
        package: That is installed.
        option: That gives one of its settings.
        settings: Rival → the class of its settings.
        noted: Rivals whose teacher is shown the posterior's prompts.
        settings_of: What is no default of the library, of a plan and the options.
        make_trainer: Of a plan, the options, the settings and graders; it loads the model.
        require: What a plan must have besides.
    """

    name: str
    package: str
    option: str
    settings: Mapping[str, type]
    noted: frozenset[str]
    settings_of: Callable[[RolloutPlan, argparse.Namespace], dict[str, Any]]
    make_trainer: Callable[[RolloutPlan, argparse.Namespace, dict[str, Any], GraderPool], Counted]
    require: Sequence[Callable[[RolloutPlan], None]] = ()


def command(library: Library, about: str, arguments: Sequence[str] | None = None) -> int:
    """What the script of a library does: parses the options, trains, writes rival.json; the exit code.

    Args:
        library: Whose trainers they are.
        about: The script's docstring.
        arguments: None: those of the process.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    rivals = parser.add_subparsers(dest="rival", required=True, metavar="|".join(library.settings))
    for name in library.settings:
        _add_options(rivals.add_parser(name), name, library)
    options = parser.parse_args(arguments)
    try:
        if (options.output / RECORD).exists():
            raise UsageError(
                f"{options.output} holds a rival already", why=f"it has a {RECORD}", mend="give another folder"
            )
        record = _trained(library, options)
    except VpgeaError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    write_json(options.output / RECORD, record)
    print(options.output / MODEL)
    return 0


def _trained(library: Library, options: argparse.Namespace) -> dict[str, Any]:
    """Train one; returns what rival.json says."""
    plan = _plan_of(options, noted=options.rival in library.noted)
    for require in library.require:
        require(plan)
    settings = library.settings_of(plan, options) | _given_settings(library, options)
    with TemporaryDirectory(prefix="rivals-") as scratch, grader_pool(plan.config) as graders:
        trainer = library.make_trainer(plan, options, settings | {"output_dir": scratch}, graders)
        return _train(trainer, plan, options, settings, library.package)


def _add_options(parser: argparse.ArgumentParser, rival: str, library: Library) -> None:
    """Those that every rival has, and those of one whose samples are graded."""
    parser.add_argument("testbed", type=Path, help="a loop's configuration, or a folder with loop.yaml")
    parser.add_argument("--sampled-tokens", type=count, required=True, help="no step follows that reaches it")
    parser.add_argument("--seed", type=int, default=0, help="of questions' order and samples")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a key of the configuration")
    parser.add_argument(
        library.option,
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"a key of {library.name}'s",
    )
    parser.add_argument("--output", "-o", type=Path, required=True, help="folder of model and rival.json")
    parser.set_defaults(price=None, charge=None)
    if RIVALS[rival].charge is not None:
        parser.add_argument("--price", type=float, help="of length; default: that of the configuration")
        parser.add_argument(
            "--charge", choices=get_args(Charge), default="correct", help="whose length is priced; default: correct"
        )
