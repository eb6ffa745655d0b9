"""What a model is known by: a fingerprint of its files, never of their path."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from vpgea.modeling.weight_files import CANARY, read_header, stored_files
from vpgea.storage.files import file_checksum, read_json

_CONFIGURATION_FILES = ("config.json", "adapter_config.json", "generation_config.json")
_VOLATILE = ("_name_or_path", "transformers_version", "base_model_name_or_path", "revision")
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
_SAMPLED_BLOCKS = 16
_BLOCK_BYTES = 1 << 16


def fingerprint_of(folders: Sequence[Path]) -> str:
    """Of configuration, tokenizer, safetensors headers and sampled blocks of a model, and of its adapter if any.

    Raises:
        UsageError: A file is damaged.
    """
    digest = hashlib.sha256()
    for folder in folders:
        for content in _identifying(folder):
            digest.update(content)
    return digest.hexdigest()[:16]


def adapter_fingerprint(folder: Path) -> str:
    """Of the adapter's weights and configuration, all bytes."""
    digest = hashlib.sha256()
    for file in [folder / "adapter_config.json", *sorted(folder.glob("*.safetensors"))]:
        digest.update(f"{file.name} {file_checksum(file)}\n".encode())
    return digest.hexdigest()[:16]


def small_files(folder: Path) -> Iterator[bytes]:
    """Of a model's folder all that is said beside its weights: configuration, tokenizer, and a canary's values.

    Raises:
        DamagedError: A file is damaged.
    """
    yield from _configuration(folder)
    if (folder / CANARY).is_file():
        yield CANARY.encode() + (folder / CANARY).read_bytes()


def _identifying(folder: Path) -> Iterator[bytes]:
    """All that a folder's fingerprint is made of, in a fixed order."""
    yield from _configuration(folder)
    for file in stored_files(folder):
        yield from _header_and_blocks(file)


def _configuration(folder: Path) -> Iterator[bytes]:
    """Without what is another in each place and version, and changes nothing."""
    for name in _CONFIGURATION_FILES:
        if (folder / name).is_file():
            fields = {key: value for key, value in read_json(folder / name).items() if key not in _VOLATILE}
            yield json.dumps([name, fields], sort_keys=True).encode()
    for name in _TOKENIZER_FILES:
        if (folder / name).is_file():
            yield name.encode() + (folder / name).read_bytes()


def _header_and_blocks(file: Path) -> Iterator[bytes]:
    header = read_header(file)
    yield header.text
    with file.open("rb") as stream:
        span = max(file.stat().st_size - header.size - _BLOCK_BYTES, 0)
        for block in range(_SAMPLED_BLOCKS):
            stream.seek(header.size + span * block // (_SAMPLED_BLOCKS - 1))
            yield stream.read(_BLOCK_BYTES)
