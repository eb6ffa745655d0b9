"""LoRA adapters looked at as files: which adapter it is, and whether it stands on a given base."""

from __future__ import annotations

from math import prod
from pathlib import Path

from vpgea.errors import UsageError
from vpgea.modeling.weight_files import StoredTensor, read_tensors
from vpgea.storage.files import read_json
from vpgea.storage.records import read_entry


def adapter_rank(folder: Path) -> int:
    return read_entry(folder / "adapter_config.json", "r", int)


# What peft can write into adapter_config.json that makes more of an adapter than A and B on linear layers.
SPECIAL = (
    *("use_dora", "use_rslora", "use_qalora", "lora_bias", "rank_pattern", "alpha_pattern", "modules_to_save"),
    *("layer_replication", "trainable_token_indices", "target_parameters"),
)


def special_settings(folder: Path) -> list[str]:
    """Settings of an adapter by which it is more than plain LoRA."""
    fields = read_json(folder / "adapter_config.json")
    return [name for name in SPECIAL if fields.get(name)] + (["bias"] if fields.get("bias", "none") != "none" else [])


def require_lora(folder: Path) -> None:
    """See that an adapter is LoRA, of any kind: others change more than what its layers compute.

    Raises:
        UsageError: It is not.
    """
    kind = read_json(folder / "adapter_config.json").get("peft_type", "LORA")
    if kind != "LORA":
        raise UsageError(
            f"adapters of the kind {kind} cannot be used: {folder}",
            why="only LoRA is: sampling, scoring and training take an adapter's layers alone, and others add tokens or "
            "states of their own",
            mend="merge it into the base with peft's merge_and_unload, where it can be, and give --model the result",
        )


def adapter_has_effect(folder: Path) -> bool:
    """False when every B is zero: a new adapter, which changes nothing yet."""
    return any(not tensor.is_zero for name, tensor in read_tensors(folder).items() if ".lora_B." in name)


def adapter_modules(folder: Path) -> dict[str, dict[str, StoredTensor]]:
    """Module of the base → {"lora_A": …, "lora_B": …}; whatever is no such pair stands under a name of its own."""
    modules: dict[str, dict[str, StoredTensor]] = {}
    for name, tensor in read_tensors(folder).items():
        module, _, half = name.removeprefix("base_model.model.").removesuffix(".weight").rpartition(".")
        modules.setdefault(module, {})[half] = tensor
    return modules


def require_adapter_fits(adapter: Path, base: Path) -> None:
    """See that every matrix of the adapter stands on one of the base's, with the right shapes.

    Raises:
        UsageError: One does not.
    """
    rank = adapter_rank(adapter)
    weights = read_tensors(base)
    for module, pair in adapter_modules(adapter).items():
        weight = weights.get(f"{module}.weight")
        if weight is None:
            raise _other_base(adapter, base, f"it changes {module}, which the model does not have")
        rows, columns = weight.shape[0], prod(weight.shape[1:])
        shapes = {half: tensor.shape for half, tensor in pair.items()}
        if shapes != {"lora_A": (rank, columns), "lora_B": (rows, rank)}:
            found = " and ".join(f"{half} {list(shape)}" for half, shape in sorted(shapes.items()))
            raise _other_base(adapter, base, f"{module} is {[rows, columns]}, and the adapter has {found} for it")


def _other_base(adapter: Path, base: Path, why: str) -> UsageError:
    return UsageError(
        f"the adapter {adapter} is not of the model {base}", why=why, mend="give --model the base of the adapter"
    )
