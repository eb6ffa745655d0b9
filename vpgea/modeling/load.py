"""Models and tokenizers from a Hugging Face id or a local folder: safetensors only, nothing is unpickled."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpgea.config.schema import ModelConfig
from vpgea.errors import UsageError
from vpgea.modeling.weight_files import CHECKSUMS, read_header, verify_checksums
from vpgea.storage.files import read_json

if TYPE_CHECKING:
    import torch


def model_folder(config: ModelConfig) -> Path:
    """The model's files on this machine; a hub id is looked up in the cache, and downloaded unless offline."""
    if not config.path:
        raise UsageError(
            "no model was given", why="model.path is empty", mend="give --model with a folder or a Hugging Face id"
        )
    folder = Path(config.path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UsageError(
                f"not a model folder: {folder}",
                why="it has no config.json",
                mend="point --model at a folder written by save_pretrained, or at a Hugging Face id",
            )
        return folder
    if folder.is_absolute() or config.path.startswith((".", "~")) or config.path.count("/") != 1 or folder.exists():
        raise UsageError(
            f"model not found: {config.path}",
            why="no such folder, and it does not look like a Hugging Face id (owner/name)",
            mend="check --model for a typing error",
        )
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.jinja", "*.txt", "tokenizer.model"]
    if config.trust_remote_code:
        patterns.append("*.py")
    try:
        return Path(snapshot_download(config.path, revision=config.revision, allow_patterns=patterns))
    except Exception as error:  # the hub client has a dozen classes for "cannot be had"
        raise UsageError(
            f"model not found: {config.path}",
            why=f"no such folder here, and the Hugging Face hub did not give it: {' '.join(str(error).split())[:200]}",
            mend="check the name, your access and the network, or download it first and give the folder",
        ) from error


def adapter_folder(config: ModelConfig) -> Path | None:
    """The peft adapter's folder, checked; None without one."""
    if config.adapter is None:
        return None
    folder = Path(config.adapter).expanduser()
    if not (folder / "adapter_config.json").is_file() or not (folder / "adapter_model.safetensors").is_file():
        raise UsageError(
            f"not an adapter folder: {folder}",
            why="adapter_config.json or adapter_model.safetensors is missing",
            mend="point --adapter at a folder written by peft",
        )
    return folder


def load_tokenizer(config: ModelConfig) -> Any:
    from transformers import AutoTokenizer

    folder = model_folder(config)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=config.trust_remote_code)
        if not tokenizer.get_vocab().keys() - tokenizer.get_added_vocab().keys():
            raise ValueError("it has no vocabulary")  # what the loader makes of a folder without tokenizer files
        return tokenizer
    except Exception as error:  # every tokenizer class fails in its own way
        raise UsageError(
            f"the tokenizer in {folder} cannot be loaded",
            why=" ".join(str(error).split())[:300],
            mend="copy tokenizer.json and tokenizer_config.json of the model into the folder",
        ) from error


def eos_ids(config: ModelConfig, tokenizer: Any) -> list[int]:
    """Every id that ends a response: those of the generation configuration, then the tokenizer's own."""
    ids: list[int] = []
    generation = model_folder(config) / "generation_config.json"
    if generation.is_file():
        listed = read_json(generation).get("eos_token_id")
        ids += listed if isinstance(listed, list) else [listed] if listed is not None else []
    if tokenizer.eos_token_id is not None:
        ids.append(tokenizer.eos_token_id)
    if not ids:
        raise UsageError(
            "the model names no end-of-sequence id",
            why="neither generation_config.json nor the tokenizer has one, so no response would ever end",
            mend="set eos_token_id in the model's generation_config.json",
        )
    return list(dict.fromkeys(ids))


def context_length(config: ModelConfig) -> int | None:
    """Longest sequence that the model was made for, in tokens; None where its configuration does not say."""
    fields = read_json(model_folder(config) / "config.json")
    length = fields.get("text_config", fields).get("max_position_embeddings")
    return None if length is None else int(length)


def vocabulary_size(config: ModelConfig) -> int:
    """Rows of the model's embedding: every id below it can be fed, also those without a token."""
    fields = read_json(model_folder(config) / "config.json")
    return int(fields.get("text_config", fields)["vocab_size"])


def torch_device(config: ModelConfig) -> torch.device:
    import torch

    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(config.device)
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise RuntimeError(f"torch sees {torch.cuda.device_count()} CUDA devices")
        return device
    except RuntimeError as error:
        raise UsageError(
            f"unknown device: {config.device}", why=str(error).splitlines()[0], mend="use cpu, cuda, cuda:0 or auto"
        ) from error


def torch_dtype(config: ModelConfig) -> torch.dtype:
    """auto: bfloat16 on a GPU, float32 on a CPU."""
    import torch

    if config.dtype != "auto":
        dtype: torch.dtype = getattr(torch, config.dtype)
        return dtype
    return torch.float32 if torch_device(config).type == "cpu" else torch.bfloat16


def load_model(config: ModelConfig) -> Any:
    """The causal language model in eval mode with its adapter, if any, on its device and in its dtype."""
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # stderr is ours: "Loading weights" and "Writing model shards" would break the progress line
    folder, adapter = model_folder(config), adapter_folder(config)
    for place in (folder, adapter):
        if place is not None and (place / CHECKSUMS).is_file():
            verify_checksums(place)
    try:
        model, loaded = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch_dtype(config),
            trust_remote_code=config.trust_remote_code,
            use_safetensors=True,
            attn_implementation="sdpa",
            output_loading_info=True,
        )
        _require_all(loaded["missing_keys"])
        if adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(adapter))
            _require_all(_adapter_weights(model) - read_header(adapter / "adapter_model.safetensors").tensors.keys())
    except Exception as error:  # each library has classes of its own for damaged files
        raise UsageError(
            f"the model in {folder} cannot be loaded" + (f" with adapter {adapter}" if adapter else ""),
            why=" ".join(str(error).split())[:300],
            mend="check that config.json and the safetensors files belong together and are whole",
        ) from error
    return model.to(torch_device(config)).eval()


def _require_all(missing: Iterable[str]) -> None:
    """Weights that a file lacks are left at random values by the loader, with nothing but a warning."""
    if names := sorted(missing):
        raise ValueError(f"{len(names)} weights are not in the files, e.g. {names[0]}")


def _adapter_weights(model: Any) -> set[str]:
    from peft import get_peft_model_state_dict

    return set(get_peft_model_state_dict(model))
