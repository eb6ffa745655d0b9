"""The model that is trained: an adapter on a frozen base, or all weights in float32."""

from __future__ import annotations

from typing import Any

from torch import nn

from vpgea.config.schema import RunConfig
from vpgea.modeling.local_model import LocalModel
from vpgea.training.requirements import (
    require_known_targets,
    require_no_adapter,
    require_same_adapter,
)


def beginning(config: RunConfig, model: LocalModel, masters: LocalModel | None = None) -> LocalModel:
    """What a student is made of: with an adapter the model as it is, else all weights in float32.

    masters: those behind the published weights, where there are such.
    """
    if config.distill.train == "lora":
        return model
    require_no_adapter(model)
    return (masters or model).in_dtype("float32")


def lora_student(config: RunConfig, base: LocalModel, loaded: Any) -> Any:
    """A trainable adapter: the configured one continued, or a new one that changes nothing at first.

    loaded: the base, with its adapter if any, as `load_model` gives it; it becomes the student.
    """
    from peft import LoraConfig, get_peft_model

    model, lora = without_dropout(loaded), config.distill.lora
    if base.adapter is not None:
        require_same_adapter(config, model.peft_config["default"])
        model.set_adapter("default")  # trainable again
        return model
    targets: Any = "all-linear"
    if lora.targets != ["all-linear"]:
        require_known_targets(lora.targets, model)
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


def full_student(loaded: Any) -> Any:
    """All weights are trained. loaded: in float32, as `load_model` gives them; they become the student."""
    return without_dropout(loaded).requires_grad_(True)


def without_dropout(model: Any) -> Any:
    """The model with dropout of its own set to 0; an adapter's stays, which the configuration states.

    Log-probabilities are compared with those of the sampler, which drops nothing, and stored over epochs.
    """
    for name, module in model.named_modules():
        if "lora_dropout" in name:
            continue
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for key, value in vars(module).items():
            if isinstance(value, float) and ("dropout" in key or key.endswith("pdrop")):
                setattr(module, key, 0.0)  # of attention that takes its rate as a number
    return model
