"""What a training would refuse, asked before anything is sampled: a look at configurations, no weights are loaded."""

from __future__ import annotations

import importlib.util
import netrc
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vpgea.config.schema import RunConfig
from vpgea.errors import UsageError, did_you_mean
from vpgea.modeling.adapter_files import adapter_modules, special_settings
from vpgea.modeling.load import empty_model, require_attention
from vpgea.modeling.local_model import LocalModel
from vpgea.modeling.miniature import miniature
from vpgea.training.carried import carried_by

_WANDB = "https://api.wandb.ai"


def require_trainable(
    config: RunConfig,
    model: LocalModel,
    *,
    warn: Callable[[str], None] | None = None,
    continued: bool = False,
) -> None:
    """See that a model can be trained as configured: its adapter, targets, reference, optimiser's state and loggers.

    Args:
        config: Of the run.
        model: To be trained.
        warn: Of a run that was begun: hears what of the adapter a new run would be refused for. An earlier version may
            have begun it, and its identity holds the adapter and the targets: it can only go on as it is.
        continued: It is a part of a run that was asked at its start how the model computes; rounds do not change that.

    Raises:
        UsageError: It cannot; the key is named.
    """
    if config.distill.train == "full":
        require_no_adapter(model)
    elif model.adapter is not None:
        from peft import PeftConfig

        require_same_adapter(config, PeftConfig.from_pretrained(str(model.adapter)))
        try:
            require_plain_lora(model.adapter)
            require_same_targets(config, model.adapter, empty_model(model.base))
        except UsageError as error:
            if warn is None:
                raise
            warn(f"{error.what}: {error.why}; the run goes on as it was begun, a new one would be refused")
    else:
        require_known_targets(config.distill.lora.targets, empty_model(model))
    if not continued:
        _require_computable(model, packing=config.distill.packing)
    _require_reference(config, model)
    if warn is None:
        carried_by(config, model)
    for kind in config.distill.log_to:
        _require_logger(kind)


def require_no_adapter(model: LocalModel) -> None:
    """All weights are trained only where no adapter stands on them. Raises UsageError."""
    if model.adapter is not None:
        raise UsageError(
            "full fine-tuning of a model with an adapter",
            why="the adapter would be trained along and could not be told apart afterwards",
            mend="merge it first with `vpgea export --merge`, or use distill.train=lora",
        )


def require_same_adapter(config: RunConfig, adapter: Any) -> None:
    """An adapter that is continued has its own shape; the configuration must not say another.

    Args:
        config: Of the run.
        adapter: peft's configuration of the adapter.

    Raises:
        UsageError: They differ.
    """
    lora = config.distill.lora
    for field, value in {"rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout"}.items():
        actual = getattr(adapter, value, None)
        if actual != getattr(lora, field):
            raise UsageError(
                f"the adapter {config.model.adapter} is not of the configured shape",
                why=f"distill.lora.{field} is {getattr(lora, field)}, the adapter has {actual}",
                mend=f"--set distill.lora.{field}={actual}, or leave --adapter out",
            )


def require_known_targets(targets: Sequence[str], model: Any) -> None:
    """Every target must be there: peft leaves out a misspelt one as long as another is found.

    Raises:
        UsageError: One is not.
    """
    if list(targets) == ["all-linear"]:
        return
    linear = [name for name, module in model.named_modules() if type(module).__name__ in ("Linear", "Conv1D")]
    unknown = [target for target in targets if not any(f".{name}".endswith(f".{target}") for name in linear)]
    if unknown:
        names = sorted({name.rsplit(".", 1)[-1] for name in linear})
        raise UsageError(
            f"no adapter can be put on {', '.join(unknown)}",
            why="the model has no linear layer of that name",
            mend=did_you_mean(
                unknown[0], names, f"set distill.lora.targets to all-linear or to some of: {', '.join(names)}"
            ),
        )


def _require_reference(config: RunConfig, model: LocalModel) -> None:
    if config.distill.reference is None:
        return
    if config.distill.train == "lora":
        raise UsageError(
            "distill.reference cannot be combined with LoRA",
            why="the reference of an adapter is its own base model, with the adapter off",
            mend="leave distill.reference out, or use distill.train=full",
        )
    path = config.distill.reference
    reference = LocalModel.resolve(config.model.model_copy(update={"path": path, "adapter": None}))
    if reference.vocabulary_size != model.vocabulary_size:
        raise UsageError(
            f"distill.reference={path} is of another vocabulary",
            why=f"it has {reference.vocabulary_size:,} tokens, and the model that is trained {model.vocabulary_size:,}",
            mend="give a model with the same tokenizer, or leave distill.reference out",
        )


def _require_computable(model: LocalModel, *, packing: bool) -> None:
    """Its kind must be one that can be loaded, and a small model of it give what its own forward pass does.

    The training asks the model itself, once it is loaded.
    """
    from vpgea.modeling.policy import checked_policy

    require_attention(model.base)
    if (small := miniature(model)) is not None:
        checked_policy(small, packing=packing)


def _require_logger(kind: str) -> None:
    if importlib.util.find_spec(kind) is None:
        raise UsageError(
            f"{kind} is not installed",
            why="distill.log_to names it",
            mend=f"pip install {kind}, or leave it out of distill.log_to",
        )
    if kind == "wandb" and not _wandb_has_a_key():
        raise UsageError(
            "wandb has no key to log with",
            why="distill.log_to names it; WANDB_API_KEY is not set, and ~/.netrc names no key for its host",
            mend="run `wandb login`, set WANDB_MODE=offline, or leave wandb out of distill.log_to",
        )


def _wandb_has_a_key() -> bool:
    """Whether it may log: with a key, or without one since nothing is sent. It would ask for one on the terminal."""
    if os.environ.get("WANDB_MODE", "online") not in ("online", "shared") or os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", _WANDB)).hostname or ""
    with suppress(OSError, netrc.NetrcParseError):
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    return False


def require_plain_lora(adapter: Path) -> None:
    """What is trained here is LoRA on linear layers, whose reference is the base with the adapter off.

    Raises:
        UsageError: The adapter is more than that.
    """
    if special := special_settings(adapter):
        raise UsageError(
            f"the adapter {adapter} cannot be trained further",
            why=f"it sets {', '.join(special)}, which a run here would drop or could not switch off",
            mend="merge it first with `vpgea export --merge` and give the model, or leave --adapter out",
        )


def require_same_targets(config: RunConfig, adapter: Path, base: Any) -> None:
    """An adapter that is continued stands on certain layers; the configuration must not name others.

    Args:
        config: Of the run.
        adapter: Its folder.
        base: The model without it, with or without weights.

    Raises:
        UsageError: It does.
    """
    wanted, head = config.distill.lora.targets, base.get_output_embeddings()
    ends = tuple(f".{target}" for target in wanted)
    asked = {
        name
        for name, module in base.named_modules()
        if type(module).__name__ in ("Linear", "Conv1D")
        and (module is not head if wanted == ["all-linear"] else f".{name}".endswith(ends))
    }
    there = set(adapter_modules(adapter))
    if there != asked:
        names = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in there}))
        raise UsageError(
            f"the adapter {config.model.adapter} is not of the configured shape",
            why=f"distill.lora.targets is {', '.join(wanted)} ({len(asked)} layers), the adapter stands on {names} "
            f"({len(there)} layers)",
            mend=f"--set 'distill.lora.targets=[{names}]', or leave --adapter out",
        )
