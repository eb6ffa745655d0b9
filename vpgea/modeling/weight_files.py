"""Weight files looked at as files: what they hold, whether they are whole, and whether they fit each other.

Nothing here loads a model. Tensors are read as numpy arrays, one block at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpgea.errors import DamagedError, UsageError
from vpgea.storage.files import file_checksum, write_json
from vpgea.storage.records import json_of, read_by_name, read_entry

if TYPE_CHECKING:
    import numpy as np

CHECKSUMS = "vpgea_checksums.json"
CANARY = "vpgea_canary.json"  # beside published weights: ids with their log-probabilities
_RECORDED = ("*.safetensors", "*.safetensors.index.json", "config.json", "adapter_config.json")
_LONGEST_HEADER = 100_000_000  # bytes: what the format allows
_MOST_DIMENSIONS = 64  # what torch and numpy allow
_BLOCK_BYTES = 1 << 26
BITS = {
    "F4": 4,
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E5M2FNUZ", "F8_E4M3FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
STORED_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """Where a tensor stands. dtype: as safetensors names it (F32, BF16, …). start: its first byte in the file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int

    def blocks(self, dtype: str) -> Iterator[np.ndarray]:
        """The elements, flat, in blocks, in one of the dtypes of STORED_NAMES.

        They are rounded to the nearest, ties to even, as torch does. bfloat16 comes as the upper half of a float32, in
        uint16. The tensor's own dtype must be one of STORED_NAMES too.
        """
        import numpy as np

        assert self.dtype in STORED_NAMES.values(), self.dtype
        kind = np.dtype({"F32": np.float32, "F16": np.float16, "BF16": np.uint16}[self.dtype])
        left = self.size // kind.itemsize
        with self.file.open("rb") as stream:
            stream.seek(self.start)
            while left:
                block = np.fromfile(stream, kind, min(left, _BLOCK_BYTES // kind.itemsize))
                left -= len(block)
                yield _as_dtype(block, self.dtype, dtype)

    @property
    def is_zero(self) -> bool:
        """Whether every element is zero, of either sign."""
        return not any((block != 0).any() for block in self.blocks("F32"))


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of itself. text: its bytes. tensors: in the order in which they stand."""

    text: bytes
    tensors: dict[str, StoredTensor]

    @property
    def size(self) -> int:
        """Bytes in front of the first tensor."""
        return 8 + len(self.text)


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers would load: one, those of the index, or else all there are.

    Raises:
        UsageError: The index leads out of the folder, or is none.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        return [folder / name for name in sorted(set(_weight_map(index).values()))]
    return sorted(folder.glob("*.safetensors"))


def stored_files(folder: Path) -> list[Path]:
    """Those, and whatever else of weights stands beside them.

    Raises:
        UsageError: There is none, or the index is none.
    """
    files = sorted({*weight_files(folder), *folder.glob("*.safetensors")})
    if not files:
        raise no_safetensors(folder)
    return files


def read_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a model or adapter folder by name, from the headers.

    Raises:
        UsageError: A file is damaged.
    """
    files = weight_files(folder)
    if not files:
        raise no_safetensors(folder)
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        tensors |= read_header(file).tensors
    index = folder / "model.safetensors.index.json"
    if index.is_file() and len(files) > 1:
        missing = sorted(_weight_map(index).keys() - tensors.keys())
        if missing:
            raise _damaged(index, f"{len(missing)} tensors that it lists are in no file, e.g. {missing[0]}")
    return tensors


def read_header(file: Path) -> Header:
    """The header of a safetensors file (https://huggingface.co/docs/safetensors: 8 bytes of length, JSON, tensors).

    It is believed only where it accounts for every byte of its file, each once, as the format demands.

    Raises:
        UsageError: The file is cut short, or its header is not one.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            text = stream.read(length) if 0 < length <= min(size - 8, _LONGEST_HEADER) else b""
    except OSError as error:
        raise _damaged(file, error.strerror or str(error)) from error
    if not text:
        raise _damaged(file, "the file is not as long as its own header says")
    header, end = Header(text, {}), 8 + length
    try:
        for name, entry in _entries(text):
            tensor = _stored_tensor(file, header.size, entry)
            if tensor.start != end:
                raise ValueError(f"{name!r} does not begin where the one before it ends")
            header.tensors[name], end = tensor, end + tensor.size
    except RecursionError as error:
        raise _damaged(file, "its header is nested too deeply") from error
    except (ValueError, AttributeError, KeyError, TypeError, IndexError) as error:
        raise _damaged(file, f"its header is not that of a safetensors file: {str(error)[:200]}") from error
    if end != size:
        raise _damaged(file, f"the file has {size} bytes, and {end} by its own header")
    return header


def _entries(text: bytes) -> list[tuple[str, dict[str, Any]]]:
    """(name, entry) of all tensors, in the order in which they stand."""
    header = json.loads(text, object_pairs_hook=_unique)
    header.pop("__metadata__", None)
    "".join(header).encode()  # half of a surrogate pair could not be written anywhere
    return sorted(header.items(), key=lambda item: (item[1]["data_offsets"], item[0]))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two entries under one name each reader would take another."""
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _stored_tensor(file: Path, first: int, entry: dict[str, Any]) -> StoredTensor:
    """An entry whose shape, dtype and place agree. first: where the file's tensors begin."""
    shape = tuple(entry["shape"])
    start, stop = entry["data_offsets"]
    if len(shape) > _MOST_DIMENSIONS or any(type(number) is not int or number < 0 for number in (*shape, start, stop)):
        raise ValueError(f"{str(entry)[:100]} has a shape or a place that cannot be")
    if (stop - start) * 8 != prod(shape) * BITS[entry["dtype"]]:
        raise ValueError(f"{str(entry)[:100]} has another size than its shape")
    return StoredTensor(file=file, dtype=entry["dtype"], shape=shape, start=first + start, size=stop - start)


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor → name of the file beside the index that holds it."""
    named = read_entry(index, "weight_map", dict[str, str])
    if any(name != Path(name).name or not name.endswith(".safetensors") for name in named.values()):
        raise _damaged(index, "its weight_map must name safetensors files in the same folder")
    return named


def no_safetensors(folder: Path) -> DamagedError:
    return DamagedError(
        f"no safetensors weights in {folder}",
        why="only safetensors are read: other formats can run code when they are loaded",
        mend="convert the model with save_pretrained(..., safe_serialization=True)",
    )


def _damaged(file: Path, why: str) -> DamagedError:
    return DamagedError(f"damaged weights: {file}", why=why, mend="copy or download the file again")


def _as_dtype(block: np.ndarray, stored: str, wanted: str) -> np.ndarray:
    import numpy as np

    if stored == wanted:
        return block
    single = (block.astype(np.uint32) << 16).view(np.float32) if stored == "BF16" else block.astype(np.float32)
    if wanted == "BF16":
        bits = single.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    with np.errstate(over="ignore"):  # beyond float16 it is infinity in torch too
        return single.astype(np.float16 if wanted == "F16" else np.float32)


# --- checksums beside the weights -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class FileChecksum:
    """What vpgea_checksums.json says of a file: its bytes, and their sha256."""

    size: int
    sha256: str


def write_checksums(folder: Path) -> None:
    """Record size and sha256 of the weights and their configuration beside them."""
    files = sorted({file for pattern in _RECORDED for file in folder.glob(pattern)})
    record = {file.name: FileChecksum(size=file.stat().st_size, sha256=file_checksum(file)) for file in files}
    write_json(folder / CHECKSUMS, {name: json_of(checksum) for name, checksum in record.items()})


def verify_checksums(folder: Path) -> None:
    """See that every weight file is whole, and the one that was recorded, where one was.

    Weights from elsewhere have no record: then each must be as long as its header says.

    Raises:
        DamagedError: One is not.
    """
    read_tensors(folder)
    if not (folder / CHECKSUMS).is_file():
        return
    for name, recorded in read_by_name(folder / CHECKSUMS, FileChecksum).items():
        file = folder / name
        size = file.stat().st_size if file.is_file() else None
        if size != recorded.size or file_checksum(file) != recorded.sha256:
            state = "the file is gone" if size is None else f"{size} bytes whose checksum is not the recorded one"
            raise DamagedError(
                f"damaged weights: {file}",
                why=f"{state} ({recorded.size} bytes were published)",
                mend=f"copy the folder again, or publish it again; if the change was meant, delete {CHECKSUMS}",
            )


# --- do two checkpoints belong to one model? ------------------------------------------------------------------------


def require_same_tensors(folder: Path, other: Path) -> None:
    """See that both hold the same tensors by name and shape; dtypes may differ.

    Raises:
        UsageError: They do not.
    """
    ours, theirs = read_tensors(folder), read_tensors(other)
    if names := sorted(ours.keys() ^ theirs.keys()):
        lacking = folder if names[0] in theirs else other
        raise _other_model(folder, other, f"{len(names)} tensors are in one only; {names[0]} is not in {lacking}")
    for name, tensor in ours.items():
        if tensor.shape != theirs[name].shape:
            why = f"{name} is {list(tensor.shape)} in one and {list(theirs[name].shape)} in the other"
            raise _other_model(folder, other, why)


def require_same_architecture(folder: Path, other: Path, *, trust_remote_code: bool) -> None:
    """See that both configurations build the same network.

    Read through transformers, which writes the same settings in several ways.

    Raises:
        UsageError: They do not.
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
