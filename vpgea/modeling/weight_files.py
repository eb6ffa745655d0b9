"""Weight files looked at as files: what they hold, whether they are whole, and whether they fit each other.

Nothing here loads a model. Tensors are read as numpy arrays, one block at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpgea.errors import UsageError
from vpgea.storage.files import file_checksum, read_json, write_json
from vpgea.storage.records import read_entry

if TYPE_CHECKING:
    import numpy as np

CHECKSUMS = "vpgea_checksums.json"
_RECORDED = ("*.safetensors", "*.safetensors.index.json", "config.json", "adapter_config.json")
_LONGEST_HEADER = 100_000_000  # what the format allows
_BLOCK_BYTES = 1 << 26
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
STORED_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor stands. dtype: as safetensors names it (F32, BF16, …). start: its first byte in the file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers would load: one, those of the index, or else all there are."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        named = read_entry(index, "weight_map", dict[str, str])
        return [folder / name for name in sorted(set(named.values()))]
    return sorted(folder.glob("*.safetensors"))


def read_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a model or adapter folder by name, from the headers. Raises UsageError for a damaged file.

    A header is believed only where it accounts for every byte of its file, as the format demands.
    """
    files = weight_files(folder)
    if not files:
        raise UsageError(
            f"no safetensors weights in {folder}",
            why="only safetensors are read: other formats can run code when they are loaded",
            mend="convert the model with save_pretrained(..., safe_serialization=True)",
        )
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        tensors |= _tensors_of(file)
    index = folder / "model.safetensors.index.json"
    if index.is_file() and len(files) > 1:
        missing = sorted(read_entry(index, "weight_map", dict[str, str]).keys() - tensors.keys())
        if missing:
            raise _damaged(index, f"{len(missing)} tensors that it lists are in no file, e.g. {missing[0]}")
    return tensors


def _tensors_of(file: Path) -> dict[str, StoredTensor]:
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            text = stream.read(length) if 0 < length <= min(size - 8, _LONGEST_HEADER) else b""
    except OSError as error:
        raise _damaged(file, error.strerror or str(error)) from error
    if not text:
        raise _damaged(file, "the file is not as long as its own header says")
    tensors, end = {}, 8 + length
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        for name, entry in sorted(header.items(), key=lambda item: (item[1]["data_offsets"], item[0])):
            start, stop = (8 + length + offset for offset in entry["data_offsets"])
            tensor = StoredTensor(file, entry["dtype"], tuple(entry["shape"]), start, stop - start)
            if start != end or tensor.size * 8 != prod(tensor.shape) * _BITS[tensor.dtype]:
                raise ValueError(name)
            tensors[name], end = tensor, stop
    except (ValueError, AttributeError, KeyError, TypeError, IndexError) as error:
        raise _damaged(file, f"its header is not that of a safetensors file: {error}") from error
    if end != size:
        raise _damaged(file, f"the file has {size} bytes, and {end} by its own header")
    return tensors


def _damaged(file: Path, why: str) -> UsageError:
    return UsageError(f"damaged weights: {file}", why=why, mend="copy or download the file again")


# --- checksums beside the weights -----------------------------------------------------------------------------------


def write_checksums(folder: Path) -> None:
    """Record size and sha256 of the weights and their configuration beside them."""
    files = sorted({file for pattern in _RECORDED for file in folder.glob(pattern)})
    record = {file.name: {"size": file.stat().st_size, "sha256": file_checksum(file)} for file in files}
    write_json(folder / CHECKSUMS, record)


def verify_checksums(folder: Path) -> None:
    """Raise UsageError when a weight file is not whole, or is not the one that was recorded, where one was.

    Weights from elsewhere have no record: then each must be as long as its header says.
    """
    read_tensors(folder)
    if not (folder / CHECKSUMS).is_file():
        return
    for name, recorded in read_json(folder / CHECKSUMS).items():
        file = folder / name
        size = file.stat().st_size if file.is_file() else None
        if size != recorded["size"] or file_checksum(file) != recorded["sha256"]:
            state = "the file is gone" if size is None else f"{size} bytes whose checksum is not the recorded one"
            raise UsageError(
                f"damaged weights: {file}",
                why=f"{state} ({recorded['size']} bytes were published)",
                mend=f"copy the folder again, or publish it again; if the change was meant, delete {CHECKSUMS}",
            )


# --- do two checkpoints belong to one model? ------------------------------------------------------------------------


def require_same_tensors(folder: Path, other: Path) -> None:
    """Raise UsageError unless both hold the same tensors by name and shape; dtypes may differ."""
    ours, theirs = read_tensors(folder), read_tensors(other)
    if names := sorted(ours.keys() ^ theirs.keys()):
        lacking = folder if names[0] in theirs else other
        raise _other_model(folder, other, f"{len(names)} tensors are in one only; {names[0]} is not in {lacking}")
    for name, tensor in ours.items():
        if tensor.shape != theirs[name].shape:
            why = f"{name} is {list(tensor.shape)} in one and {list(theirs[name].shape)} in the other"
            raise _other_model(folder, other, why)


def require_same_architecture(folder: Path, other: Path, *, trust_remote_code: bool) -> None:
    """Raise UsageError unless both configurations build the same network.

    Read through transformers, which writes the same settings in several ways.
    """
    ours, theirs = (_architecture(one, trust_remote_code) for one in (folder, other))
    different = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    if different:
        key = different[0]
        why = f"config.json: {', '.join(different)} differ; {key} is {ours.get(key)} in one, {theirs.get(key)} there"
        raise _other_model(folder, other, why)


def _architecture(folder: Path, trust_remote_code: bool) -> dict[str, Any]:
    from transformers import AutoConfig

    try:
        loaded: dict[str, Any] = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code).to_dict()
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"the model's configuration cannot be read: {folder / 'config.json'}",
            why=" ".join(str(error).split())[:300],
            mend="compare config.json with the one that was published with the model",
        ) from error
    without_effect = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache")
    return {key: value for key, value in loaded.items() if key not in without_effect and not key.endswith("_token_id")}


def _other_model(folder: Path, other: Path, why: str) -> UsageError:
    return UsageError(
        f"{folder} is not of the same model as {other}", why=why, mend="give weights that were trained from that model"
    )


# --- tensors as a server holds them ---------------------------------------------------------------------------------

_FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}
_PART_OF = {part: (whole, index) for whole, parts in _FUSED.items() for index, part in enumerate(parts)}
_PADDED = ("embed_tokens", "lm_head")
_ROWS = 64  # tables are filled up with rows of zeros to a multiple of it


def is_plain(folder: Path) -> bool:
    """Whether every tensor is float32, float16 or bfloat16, and none quantised."""
    return {tensor.dtype for tensor in read_tensors(folder).values()} <= set(STORED_NAMES.values())


def fused_names(folder: Path) -> set[str]:
    """Names of a model's tensors as SGLang holds them."""
    return {_place(name)[0] for name in read_tensors(folder)}


def fused_checksums(folder: Path, dtype: str) -> dict[str, str]:
    """Name → first 8 bytes of sha256, in hex, of every tensor as SGLang holds it in one process in this dtype.

    Query, key and value stand on top of each other as one tensor there, and so do gate and up. The folder is_plain.
    """
    tensors = read_tensors(folder)
    parts: dict[str, list[tuple[int, str]]] = {}
    for name in tensors:
        whole, index = _place(name)
        parts.setdefault(whole, []).append((index, name))
    return {
        whole: _checksum([tensors[name] for _, name in sorted(named)], dtype, padded=_is_padded(whole))
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
        for block in _blocks(tensor):
            digest.update(_as_dtype(block, tensor.dtype, STORED_NAMES[dtype]).data)
    if padded and (missing := -tensors[0].shape[0] % _ROWS):
        digest.update(bytes(missing * prod(tensors[0].shape[1:]) * _BITS[STORED_NAMES[dtype]] // 8))
    return digest.hexdigest()[:16]


def is_zero(tensor: StoredTensor) -> bool:
    """Whether every element is zero, of either sign."""
    return not any((_as_dtype(block, tensor.dtype, "F32") != 0).any() for block in _blocks(tensor))


def _blocks(tensor: StoredTensor) -> Iterator[np.ndarray]:
    """The tensor's elements, flat, in blocks; bfloat16 as the upper half of a float32 in uint16."""
    import numpy as np

    assert tensor.dtype in STORED_NAMES.values(), tensor.dtype
    kind = np.dtype({"F32": np.float32, "F16": np.float16, "BF16": np.uint16}[tensor.dtype])
    left = tensor.size // kind.itemsize
    with tensor.file.open("rb") as stream:
        stream.seek(tensor.start)
        while left:
            block = np.fromfile(stream, kind, min(left, _BLOCK_BYTES // kind.itemsize))
            left -= len(block)
            yield block


def _as_dtype(block: np.ndarray, stored: str, wanted: str) -> np.ndarray:
    """Rounded to the nearest, ties to even, as torch does."""
    import numpy as np

    if stored == wanted:
        return block
    single = (block.astype(np.uint32) << 16).view(np.float32) if stored == "BF16" else block.astype(np.float32)
    if wanted == "BF16":
        bits = single.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    with np.errstate(over="ignore"):  # beyond float16 it is infinity there too
        return single.astype(np.float16 if wanted == "F16" else np.float32)
