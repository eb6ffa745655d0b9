"""The files of a tokenizer beside weights that are published: what is trained on must render the same prompts again."""

from __future__ import annotations

import shutil
from pathlib import Path

from vpgea.modeling.tokenizer import brings_another, template_of
from vpgea.storage.files import read_json, write_json

_FILES = (
    *("tokenizer*", "chat_template*", "special_tokens_map.json", "added_tokens.json"),
    *("vocab*", "merges.txt", "spiece.model", "tekken.json"),
)
_TEMPLATE = "chat_template.jinja"
_GENERATION = "generation_config.json"


def copy_tokenizer(folder: Path, adapter: Path | None, target: Path) -> None:
    """Copy tokenizer, chat template and generation settings of a model with its adapter, as it was read.

    Byte for byte where they are one folder's: the adapter's own go before the base's.

    Args:
        folder: Of the base.
        adapter: That was trained further, if any.
        target: Of what is published.
    """
    own = adapter is not None and brings_another(adapter, folder)
    source = adapter if adapter is not None and own else folder
    for pattern in _FILES:
        for file in source.glob(pattern):
            shutil.copyfile(file, target / file.name)
    template = (None if adapter is None else template_of(adapter)) or template_of(folder)
    if isinstance(template, dict):  # several by name, of which the views take this one
        template = template.get("default")
    if adapter is not None and template is not None and template != _default(template_of(target)):
        (target / _TEMPLATE).write_text(template, encoding="utf-8")
    _copy_generation(folder, adapter, target)


def _default(template: object) -> object:
    return template.get("default") if isinstance(template, dict) else template


def _copy_generation(folder: Path, adapter: Path | None, target: Path) -> None:
    """The adapter's settings go before the base's, and sampling stops at the ends of both."""
    base = folder / _GENERATION
    own = None if adapter is None else adapter / _GENERATION
    if own is None or not own.is_file():
        if base.is_file():
            shutil.copyfile(base, target / _GENERATION)
        return
    settings = read_json(own)
    ends = [*_ends(settings), *(_ends(read_json(base)) if base.is_file() else [])]
    if ends:
        settings["eos_token_id"] = list(dict.fromkeys(ends))
    write_json(target / _GENERATION, settings)


def _ends(settings: dict[str, object]) -> list[object]:
    ends = settings.get("eos_token_id")
    return [] if ends is None else ends if isinstance(ends, list) else [ends]
