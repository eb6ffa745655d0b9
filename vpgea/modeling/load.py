"""Weights of a model into memory: safetensors only, nothing is unpickled."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from vpgea.errors import UsageError
from vpgea.modeling.local_model import LocalModel
from vpgea.modeling.weight_files import CHECKSUMS, read_header, verify_checksums
from vpgea.storage.files import read_json

ATTENTION = "sdpa"  # transformers' name of torch's scaled_dot_product_attention, by which every model here attends


def load_model(local: LocalModel) -> Any:
    """The causal language model in eval mode with its adapter, if any, on its device and in its dtype."""
    require_plain_weights(local)
    require_whole(local)
    try:
        with quiet_libraries():
            model, unused = _loaded(local)
    except Exception as error:  # each library has classes of its own for damaged files
        require_attention(local)
        raise UsageError(
            f"the model in {local.folder} cannot be loaded"
            + (f" with adapter {local.adapter}" if local.adapter else ""),
            why=" ".join(str(error).split())[:300],
            mend="check that config.json and the safetensors files belong together and are whole",
        ) from error
    if unused:  # ascii: whoever wrote the file chose the names
        warnings.warn(f"{len(unused)} tensors in {local.folder} are not the model's: {unused[0]!a}", stacklevel=2)
    return model.to(local.device).eval()


def require_whole(local: LocalModel) -> None:
    """See that weights with checksums beside them have them.

    Raises:
        UsageError: They do not.
    """
    for place in (local.folder, local.adapter):
        if place is not None and (place / CHECKSUMS).is_file():
            verify_checksums(place)


def require_plain_weights(local: LocalModel) -> None:
    """See that the weights are numbers, not codes.

    Raises:
        UsageError: config.json says that they are quantised.
    """
    fields = read_json(local.folder / "config.json")
    section = fields.get("quantization_config") or fields.get("text_config", {}).get("quantization_config")
    if section:
        method = section.get("quant_method", "?") if isinstance(section, dict) else section
        raise UsageError(
            f"the model in {local.folder} is quantised ({method})",
            why="quantised weights are neither sampled nor trained in process: their log-probabilities are not those "
            "of the weights that are published",
            mend="use the model's unquantised weights; if these are, delete quantization_config from its config.json",
        )


def _loaded(local: LocalModel) -> tuple[Any, list[str]]:
    """The model with its adapter, every weight from the files, and names of tensors that were not used."""
    from transformers import AutoModelForCausalLM

    model, loaded = AutoModelForCausalLM.from_pretrained(
        local.folder,
        dtype=local.dtype,
        trust_remote_code=local.config.trust_remote_code,
        use_safetensors=True,
        attn_implementation=ATTENTION,
        output_loading_info=True,
    )
    _require_all(loaded["missing_keys"])
    if local.adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(local.adapter))
        stored = read_header(local.adapter / "adapter_model.safetensors").tensors.keys()
        _require_all(_adapter_weights(model) - stored)
    return model, sorted(loaded["unexpected_keys"])


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Without bars and reports of transformers and peft: stderr is ours, and reports print names as they stand."""
    from transformers.utils.logging import disable_progress_bar, get_verbosity, set_verbosity, set_verbosity_error

    disable_progress_bar()
    verbosity = get_verbosity()
    set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        set_verbosity(verbosity)


def empty_model(local: LocalModel) -> Any:
    """The same model without weights, on no device: its modules, their names and shapes.

    Raises:
        UsageError: transformers cannot make one of its configuration.
    """
    try:
        return _empty(local)
    except Exception as error:  # whatever a model's own code raises
        raise UsageError(
            f"the model in {local.folder} cannot be made of its configuration",
            why=" ".join(str(error).split())[:300],
            mend="check that its config.json is that of a causal language model",
        ) from error


def require_attention(local: LocalModel) -> None:
    """See that a model's architecture attends as models are loaded to. What else keeps one from being made is left.

    Raises:
        UsageError: It does not.
    """
    try:
        _empty(local, attn_implementation=ATTENTION)
    except Exception as error:  # whatever a model's own code raises
        try:
            _empty(local)
        except Exception:  # then its attention is not the reason
            return
        kind = read_json(local.folder / "config.json").get("model_type")
        raise UsageError(
            f"models of type {kind} can neither be scored nor trained",
            why="transformers does not compute their attention by scaled_dot_product_attention, the only way here",
            mend="use a model of another architecture",
        ) from error


def _empty(local: LocalModel, **options: str) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    trust = local.config.trust_remote_code
    with torch.device("meta"), quiet_libraries():
        config = AutoConfig.from_pretrained(local.folder, trust_remote_code=trust)
        return AutoModelForCausalLM.from_config(config, trust_remote_code=trust, **options)


def _require_all(missing: Iterable[str]) -> None:
    """Weights that a file lacks are left at random values by the loader, with nothing but a warning."""
    if names := sorted(missing):
        raise ValueError(f"{len(names)} weights are not in the files, e.g. {names[0]}")


def _adapter_weights(model: Any) -> set[str]:
    from peft import get_peft_model_state_dict

    return set(get_peft_model_state_dict(model))
