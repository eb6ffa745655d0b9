"""LoRA adapters looked at as files: which adapter it is, and whether it stands on a given base."""

from __future__ import annotations

from math import prod
from pathlib import Path

from vpgea.errors import UsageError
from vpgea.modeling.weight_files import StoredTensor, read_tensors
from vpgea.storage.records import read_entry


def adapter_rank(folder: Path) -> int:
    return read_entry(folder / "adapter_config.json", "r", int)


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
