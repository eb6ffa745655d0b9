"""A model's tensors as SGLang holds them, and their checksums, made from files alone.

Query, key and value stand on top of each other as one tensor there, and so do gate and up; tables of the vocabulary are
filled up with rows of zeros.
"""

from __future__ import annotations

import hashlib
from math import prod
from pathlib import Path

from vpgea.modeling.weight_files import BITS, STORED_NAMES, StoredTensor, read_tensors

_FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}
_PART_OF = {part: (whole, index) for whole, parts in _FUSED.items() for index, part in enumerate(parts)}
_PADDED = ("embed_tokens", "lm_head")
_ROWS = 64  # tables are filled up to a multiple of it


def is_plain(folder: Path) -> bool:
    """Whether every tensor is float32, float16 or bfloat16, and none quantised."""
    return {tensor.dtype for tensor in read_tensors(folder).values()} <= set(STORED_NAMES.values())


def fused_names(folder: Path) -> set[str]:
    """Names of a model's tensors as SGLang holds them."""
    return {_place(name)[0] for name in read_tensors(folder)}


def fused_checksums(folder: Path, dtype: str) -> dict[str, str]:
    """Checksum of every tensor as SGLang holds it in one process.

    Args:
        folder: A model's, whose tensors are plain.
        dtype: float32, float16 or bfloat16: what the server computes in.

    Returns:
        Name → first 8 bytes of sha256, in hex.
    """
    tensors = read_tensors(folder)
    parts: dict[str, list[tuple[int, str]]] = {}
    for name in tensors:
        whole, index = _place(name)
        parts.setdefault(whole, []).append((index, name))
    return {
        whole: _checksum([tensors[name] for _, name in sorted(named)], STORED_NAMES[dtype], padded=_is_padded(whole))
        for whole, named in parts.items()
    }


def _place(name: str) -> tuple[str, int]:
    """The name of the tensor that holds it there, and its place in that one."""
    for part, (whole, index) in _PART_OF.items():
        if f".{part}." in name:
            return name.replace(f".{part}.", f".{whole}."), index
    return name, 0


def _is_padded(name: str) -> bool:
    return name.removesuffix(".weight").rpartition(".")[2] in _PADDED


def _checksum(tensors: list[StoredTensor], dtype: str, *, padded: bool) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        for block in tensor.blocks(dtype):
            digest.update(block.data)
    if padded and (missing := -tensors[0].shape[0] % _ROWS):
        digest.update(bytes(missing * prod(tensors[0].shape[1:]) * BITS[dtype] // 8))
    return digest.hexdigest()[:16]
