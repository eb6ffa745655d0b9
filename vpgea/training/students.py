"""The model that is trained: an adapter on a frozen base, or all weights in float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vpgea.config.schema import RunConfig
from vpgea.errors import UsageError
from vpgea.modeling.load import load_model
from vpgea.modeling.local_model import LocalModel


def lora_student(config: RunConfig, base: LocalModel) -> Any:
    """A trainable adapter: the configured one continued, or a new one that changes nothing at first."""
    from peft import LoraConfig, get_peft_model

    model, lora = load_model(base), config.distill.lora
    if base.adapter is not None:
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


def _require_same_adapter(config: RunConfig, adapter: Any) -> None:
    """An adapter that is continued has its own shape; the configuration must not say another."""
    lora = config.distill.lora
    for field, value in {"rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout"}.items():
        actual = getattr(adapter, value, None)
        if actual != getattr(lora, field):
            raise UsageError(
                f"the adapter {config.model.adapter} is not of the configured shape",
                why=f"distill.lora.{field} is {getattr(lora, field)}, the adapter has {actual}",
                mend=f"--set distill.lora.{field}={actual}, or leave --adapter out",
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


def full_student(model: LocalModel, masters: LocalModel | None = None) -> Any:
    """All weights, in float32: those behind the published ones where there are such."""
    if model.adapter is not None:
        raise UsageError(
            "full fine-tuning of a model with an adapter",
            why="the adapter would be trained along and could not be told apart afterwards",
            mend="merge it first with `vpgea export --merge`, or use distill.train=lora",
        )
    return load_model((masters or model).in_dtype("float32")).requires_grad_(True)
