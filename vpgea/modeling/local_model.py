"""A model on this machine: found once, and each thing of it read once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpgea.config.schema import ModelConfig
from vpgea.errors import UsageError
from vpgea.modeling.adapter_files import require_lora
from vpgea.modeling.contents import Contents
from vpgea.modeling.context import context_length, follows_batch
from vpgea.modeling.device import torch_device, torch_dtype
from vpgea.modeling.fingerprint import fingerprint_of
from vpgea.modeling.tokenizer import LoadedTokenizer, declared_tokenizer, load_tokenizer
from vpgea.storage.files import read_json

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class LocalModel:
    """A model's files with what phases and engines want to know of them; its weights are loaded by `load_model`.

    Each phase makes one of its own. What was read is kept, so that one made earlier does not see files that change.

    Attributes:
        config: What was asked for.
        folder: Absolute; it has a config.json.
        adapter: The peft adapter's folder, absolute; None without one.
    """

    config: ModelConfig
    folder: Path
    adapter: Path | None

    @classmethod
    def resolve(cls, config: ModelConfig) -> LocalModel:
        """Look up the files; a hub id is looked up in the cache, and downloaded unless offline.

        Raises:
            UsageError: There is no such model, or no such adapter.
        """
        adapter = _adapter_folder(config)
        return cls(
            config=config,
            folder=_model_folder(config).absolute(),
            adapter=None if adapter is None else adapter.absolute(),
        )

    @cached_property
    def base(self) -> LocalModel:
        """The model without its adapter."""
        if self.adapter is None:
            return self
        return LocalModel(config=self.config.model_copy(update={"adapter": None}), folder=self.folder, adapter=None)

    def in_dtype(self, dtype: str) -> LocalModel:
        """The same files, to be loaded in another dtype."""
        config = self.config.model_copy(update={"dtype": dtype})
        return LocalModel(config=config, folder=self.folder, adapter=self.adapter)

    @cached_property
    def fingerprint(self) -> str:
        """Of model and adapter, whatever their paths.

        Raises:
            UsageError: A file is damaged.
        """
        return fingerprint_of([self.folder] if self.adapter is None else [self.folder, self.adapter])

    @cached_property
    def contents(self) -> Contents:
        """The content of the model, and of its adapter if any, which the fingerprint only samples."""
        return Contents({"model": self.folder} | ({} if self.adapter is None else {"adapter": self.adapter}))

    @property
    def device(self) -> torch.device:
        return torch_device(self.config)

    @property
    def dtype(self) -> torch.dtype:
        return torch_dtype(self.config)

    @cached_property
    def loaded_tokenizer(self) -> LoadedTokenizer:
        """The tokenizer, the adapter's own where it has one, and how it was found.

        Raises:
            UsageError: It cannot be loaded, or does not read its own file rightly.
        """
        return load_tokenizer(self.folder, self.adapter, trust_remote_code=self.config.trust_remote_code)

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer. Raises what `loaded_tokenizer` does."""
        return self.loaded_tokenizer.tokenizer

    @cached_property
    def declared_tokenizer(self) -> LoadedTokenizer | None:
        """The tokenizer as version 0.1.0 read it, for what it began; None where that would lose spaces."""
        return declared_tokenizer(self.folder, trust_remote_code=self.config.trust_remote_code)

    @cached_property
    def eos_ids(self) -> list[int]:
        """Ids that end a response: those of the generation configuration, then the tokenizer's own."""
        generation = self.folder / "generation_config.json"
        listed = read_json(generation).get("eos_token_id") if generation.is_file() else None
        return list(dict.fromkeys([*_listed(listed), *_listed(self.tokenizer.eos_token_id)]))

    @cached_property
    def configured_eos_ids(self) -> list[int]:
        """Those that config.json names, and the generation configuration beside an adapter."""
        ids = _listed(read_json(self.folder / "config.json").get("eos_token_id"))
        ids += _listed(self._text_config.get("eos_token_id"))
        if self.adapter is not None and (file := self.adapter / "generation_config.json").is_file():
            ids += _listed(read_json(file).get("eos_token_id"))
        return list(dict.fromkeys(ids))

    @property
    def context_length(self) -> int | None:
        """Longest sequence that the model was made for, in tokens; None where its configuration does not say."""
        return context_length(self._text_config)

    @property
    def context_follows_batch(self) -> bool:
        """Whether the context ends where numbers would depend on what else is in a batch, not where the model does."""
        return follows_batch(self._text_config)

    @property
    def vocabulary_size(self) -> int:
        """Rows of the model's embedding: every id below it can be fed, also those without a token."""
        return int(self._text_config["vocab_size"])

    @cached_property
    def _text_config(self) -> dict[str, Any]:
        fields = read_json(self.folder / "config.json")
        text: dict[str, Any] = fields.get("text_config", fields)
        return text


def _listed(ids: int | list[int] | None) -> list[int]:
    return [] if ids is None else ids if isinstance(ids, list) else [ids]


def _model_folder(config: ModelConfig) -> Path:
    """The model's files on this machine; a hub id is looked up in the cache, and downloaded unless offline."""
    if not config.path:
        raise UsageError(
            "no model was given", why="model.path is empty", mend="give --model with a folder or a Hugging Face id"
        )
    folder = Path(config.path).expanduser()
    if folder.is_dir():
        if (folder / "adapter_config.json").is_file():
            raise UsageError(
                f"an adapter lies in the model's folder: {folder}",
                why="transformers would load it, and perhaps another base, without a word",
                mend="give its base as --model and a folder with the adapter alone as --adapter, or move "
                "adapter_config.json away",
            )
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


def _adapter_folder(config: ModelConfig) -> Path | None:
    """The peft adapter's folder, checked; None without one."""
    if config.adapter is None:
        return None
    folder = Path(config.adapter).expanduser()
    if not (folder / "adapter_config.json").is_file() or not (folder / "adapter_model.safetensors").is_file():
        why, mend = "adapter_config.json or adapter_model.safetensors is missing", "give a folder written by peft"
        if not folder.is_dir():
            why = "there is no such folder"
        elif (folder / "config.json").is_file():
            why, mend = "it holds a whole model, not an adapter", f"give it as --model {folder}"
        elif inner := next(folder.glob("**/adapter_config.json"), None):
            mend = f"give {inner.parent}"
        raise UsageError(f"not an adapter folder: {folder}", why=why, mend=mend)
    require_lora(folder)
    return folder
