"""The student and the frozen models beside it: reference, teacher, and the weights the paths were sampled from."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vpgea.config import ModelConfig, RunConfig
from vpgea.errors import UsageError
from vpgea.modeling.load import load_model, torch_device, torch_dtype
from vpgea.modeling.logprobs import next_token_logits
from vpgea.training.data import TrainingPath

_TEACHER = "round_teacher"


class Roles:
    """Holds the student and gives the logits of each role.

    With LoRA the reference is the adapter switched off and the round's teacher a second, frozen adapter; with full
    fine-tuning both are frozen copies, made only when a term needs them. Full fine-tuning keeps float32 weights and
    computes in the model's dtype: bfloat16 weights would round small updates away.
    """

    def __init__(self, config: RunConfig) -> None:
        distill = config.distill
        self.device = torch_device(config.model)
        self.is_lora = distill.train == "lora"
        self.compute_dtype = torch_dtype(config.model)
        torch.manual_seed(distill.seed)
        self.student = _lora_student(config) if self.is_lora else _full_student(config)
        self._teacher_kind = distill.teacher if distill.runs_teacher else "none"
        self._needs_reference = distill.reference_weight > 0 or self._teacher_kind == "frozen"
        self._reference = self._make_reference(config)
        self._teacher = self._make_teacher(config)
        self.student.train()

    @property
    def trainable(self) -> dict[str, Tensor]:
        """Name → parameter, in the model's order."""
        return {name: parameter for name, parameter in self.student.named_parameters() if parameter.requires_grad}

    def student_logits(self, paths: Sequence[TrainingPath]) -> Tensor:
        """Logits (T, V) of all completion tokens in the prior view, with gradient."""
        return self._logits(self.student, [path.prompt_ids for path in paths], paths)

    @torch.no_grad()
    def frozen_student_logits(self, paths: Sequence[TrainingPath]) -> Tensor:
        """The same without gradient, in eval mode."""
        with _eval_mode(self.student):
            return self.student_logits(paths)

    @torch.no_grad()
    def reference_logits(self, paths: Sequence[TrainingPath]) -> Tensor:
        """Logits (T, V) of the base model in the prior view."""
        return self._base_logits([path.prompt_ids for path in paths], paths)

    @torch.no_grad()
    def teacher_logits(self, paths: Sequence[TrainingPath]) -> Tensor:
        """Logits (T, V) of the teacher in the posterior view; posterior paths only."""
        prompts = [path.posterior_prompt_ids for path in paths]
        if self._teacher_kind == "frozen":
            return self._base_logits(prompts, paths)
        if self._teacher_kind == "current":
            with _eval_mode(self.student):
                return self._logits(self.student, prompts, paths)
        if self.is_lora:
            with _adapter(self.student, _TEACHER):
                return self._logits(self.student, prompts, paths)
        return self._logits(self._teacher, prompts, paths)

    def _base_logits(self, prompts: Sequence[Any], paths: Sequence[TrainingPath]) -> Tensor:
        if self.is_lora:
            with _eval_mode(self.student), self.student.disable_adapter():
                return self._logits(self.student, prompts, paths)
        return self._logits(self._reference, prompts, paths)

    def _logits(self, model: Any, prompts: Sequence[Any], paths: Sequence[TrainingPath]) -> Tensor:
        sequences = [[*prompt, *path.completion_ids] for prompt, path in zip(prompts, paths, strict=True)]
        with self._autocast():
            return next_token_logits(model, sequences, [len(prompt) for prompt in prompts], self.device)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.is_lora or self.compute_dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.compute_dtype)

    def _make_reference(self, config: RunConfig) -> Any:
        if self.is_lora:
            if config.distill.reference is not None:
                raise UsageError(
                    "distill.reference cannot be combined with LoRA",
                    why="the reference of an adapter is its own base model, with the adapter off",
                    mend="leave distill.reference out, or use distill.train=full",
                )
            return None
        if not self._needs_reference:
            return None
        if config.distill.reference is None:
            return _frozen_copy(self.student)
        path = ModelConfig(**{**config.model.model_dump(), "path": config.distill.reference, "adapter": None})
        return load_model(path).requires_grad_(False)

    def _make_teacher(self, config: RunConfig) -> Any:
        if self._teacher_kind != "round":
            return None
        if not self.is_lora:
            reference_is_start = self._reference is not None and config.distill.reference is None
            return self._reference if reference_is_start else _frozen_copy(self.student)
        self.student.add_adapter(_TEACHER, self.student.peft_config["default"])
        weights = {name: parameter.detach() for name, parameter in self.student.named_parameters()}
        with torch.no_grad():
            for name, parameter in weights.items():
                if f".{_TEACHER}." in name:
                    parameter.copy_(weights[name.replace(f".{_TEACHER}.", ".default.")])
        self.student.set_adapter("default")
        return None

    def save(self, folder: Path) -> None:
        """Write the student as a peft adapter or a Hugging Face folder that plain transformers loads.

        Full weights are rounded to the model's dtype in place, so nothing can be trained afterwards.
        """
        if self.is_lora:
            self.student.save_pretrained(str(folder), selected_adapters=["default"])
            return
        self.student.to(self.compute_dtype).save_pretrained(str(folder))


def _lora_student(config: RunConfig) -> Any:
    """A trainable adapter: the configured one continued, or a new one that changes nothing at first."""
    from peft import LoraConfig, get_peft_model

    model, lora = load_model(config.model), config.distill.lora
    if config.model.adapter is not None:
        _require_same_adapter(config, model.peft_config["default"])
        model.set_adapter("default")  # trainable again
        return model
    targets: Any = "all-linear"
    if lora.targets != ["all-linear"]:
        _require_known_targets(lora.targets, model)
        targets = list(lora.targets)
    return get_peft_model(
        model,
        LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=targets,
            task_type="CAUSAL_LM",
        ),
    )


def _require_same_adapter(config: RunConfig, found: Any) -> None:
    """An adapter that is continued has its own shape; the configuration must not say another."""
    lora = config.distill.lora
    for field, value in {"rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout"}.items():
        has = getattr(found, value, None)
        if has != getattr(lora, field):
            raise UsageError(
                f"the adapter {config.model.adapter} is not of the configured shape",
                why=f"distill.lora.{field} is {getattr(lora, field)}, the adapter has {has}",
                mend=f"--set distill.lora.{field}={has}, or leave --adapter out",
            )


def _require_known_targets(targets: Sequence[str], model: Any) -> None:
    """Every target must be there: peft leaves out a misspelt one as long as another is found."""
    linear = [name for name, module in model.named_modules() if type(module).__name__ in ("Linear", "Conv1D")]
    unknown = [target for target in targets if not any(f".{name}".endswith(f".{target}") for name in linear)]
    if unknown:
        raise UsageError(
            f"no adapter can be put on {', '.join(unknown)}",
            why="the model has no linear layer of that name",
            mend="set distill.lora.targets to all-linear or to some of: "
            + ", ".join(sorted({name.rsplit(".", 1)[-1] for name in linear})),
        )


def _full_student(config: RunConfig) -> Any:
    """All weights, in float32."""
    if config.model.adapter is not None:
        raise UsageError(
            "full fine-tuning of a model with an adapter",
            why="the adapter would be trained along and could not be told apart afterwards",
            mend="merge it first with `vpgea export --merge`, or use distill.train=lora",
        )
    return load_model(ModelConfig(**{**config.model.model_dump(), "dtype": "float32"})).requires_grad_(True)


def _frozen_copy(model: Any) -> Any:
    return copy.deepcopy(model).requires_grad_(False).eval()


@contextmanager
def _eval_mode(model: Any) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@contextmanager
def _adapter(model: Any, name: str) -> Iterator[None]:
    """Another adapter in eval mode, then the trained one again."""
    with _eval_mode(model):
        model.set_adapter(name, inference_mode=True)
        try:
            yield
        finally:
            model.set_adapter("default")
