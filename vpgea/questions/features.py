"""What the columns of a table mean where its storage alone does not say it: labels, JSON, images."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from vpgea.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

Features = Mapping[str, Any]  # column → its type as `datasets` writes it: {"_type": "ClassLabel", "names": [...]}

_METADATA = b"huggingface"
_MEDIA_TYPES = ("Image", "Audio", "Video", "Pdf", "Nifti", "Mesh", "BioSequence", "BioStructure")
_MEDIA_NAME = re.compile(
    r"(?:decoded_?)?(?P<kind>image|img|picture|photo|audio|video|pixel_value)s?_?\d*"
    r"(?:_(?:path|url|file|file_?name|bytes|base64)s?)?",
    re.IGNORECASE,
)
_FIGURE_NAME = re.compile(r"(?:figure|fig|diagram|chart|plot|graph|screenshot)s?_?\d*", re.IGNORECASE)
_IMAGE_FILE = re.compile(r"[^\n]{1,1000}\.(?:png|jpe?g|gif|bmp|webp|svg|tiff?)", re.IGNORECASE)
_MEDIA_START = (
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"GIF8",
    b"RIFF",
    b"II*\x00",
    b"MM\x00*",
    b"%PDF",
    b"OggS",
    b"ID3",
    b"fLaC",
)
_MEDIA_PARTS = ("image", "image_url", "input_image", "audio", "input_audio", "audio_url", "video", "video_url")


class Media(NamedTuple):
    """Stands for a value that is no text: an image, a sound, ..."""

    kind: str


def described_in(schema: pa.Schema, file: str) -> Features:
    """The description that `datasets` puts into the files it writes; empty where there is none.

    Raises:
        UsageError: It is none.
    """
    written = (schema.metadata or {}).get(_METADATA)
    if written is None:
        return {}
    try:
        features = (json.loads(written).get("info") or {}).get("features") or {}
        if not isinstance(features, dict):
            raise TypeError(f"features are {type(features).__name__}")
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise UsageError(
            f"{file}: the description of its columns cannot be read",
            why=f"the metadata {_METADATA.decode()!r} says what `datasets` does not write: {str(error)[:100]}",
            mend="write the file again with `datasets`, or without that metadata",
        ) from error
    return features


def values_of(feature: Any, stored: pa.DataType | None, value: object) -> object:
    """A stored value as its column means it: a label's name, what JSON says, `Media` for what is no text.

    Args:
        feature: The column's type as `datasets` writes it, or None.
        stored: Arrow's.
        value: As Python has it.

    Raises:
        ValueError: It is none of that type.
    """
    if value is None:
        return None
    if isinstance(feature, list):  # an older way to write a list's type
        feature = {"_type": "List", "feature": feature[0]} if feature else None
    kind = feature.get("_type") if isinstance(feature, dict) else None
    if kind == "ClassLabel":
        value = _label(feature.get("names") or [], value)
    elif kind == "Json" or (kind is None and getattr(stored, "extension_name", None) == "arrow.json"):
        value = json.loads(value) if isinstance(value, str | bytes) else value
    elif kind in _MEDIA_TYPES:
        value = Media(str(kind).lower())
    elif kind in ("List", "LargeList", "Sequence"):
        value = _list(feature.get("feature"), value)
    elif kind is None and isinstance(feature, dict) and isinstance(value, dict):
        value = {name: values_of(feature.get(name), None, item) for name, item in value.items()}
    return value


def _list(feature: Any, value: object) -> object:
    if isinstance(value, dict) and isinstance(feature, dict):  # a list of groups may be stored as a group of lists
        return {name: values_of([feature.get(name)], None, items) for name, items in value.items()}
    return [values_of(feature, None, item) for item in value] if isinstance(value, list) else value


def shortest(stored: pa.DataType, value: object) -> object:
    """Half and single precision numbers as they are written, not with the digits that they have as doubles."""
    import numpy as np
    import pyarrow as pa

    if value is None or not _holds(stored, _is_short_float):
        return value
    if isinstance(value, float):
        short = np.float16 if pa.types.is_float16(stored) else np.float32
        return float(str(short(value)))
    if isinstance(value, dict):
        return {name: shortest(stored.field(name).type, item) for name, item in value.items()}
    if isinstance(value, list) and stored.num_fields == 1:
        return [shortest(stored.field(0).type, item) for item in value]
    return value


def _is_short_float(stored: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_float16(stored) or pa.types.is_float32(stored)


def _label(names: list[str], value: object) -> object:
    if not isinstance(value, int):
        return value
    if value == -1:  # `datasets` writes it for "not labelled"
        return None
    if not 0 <= value < len(names):
        raise ValueError(f"the label {value} is none of the {len(names)} that the column has")
    return names[value]


def is_media_column(field: pa.Field, feature: Any) -> bool:
    """May a column hold what is no text?"""
    return _has_media_type(feature) or _holds(field.type, _is_binary) or _is_media_name(field.name)


def _is_media_name(name: str) -> bool:
    return any(pattern.fullmatch(name) for pattern in (_MEDIA_NAME, _FIGURE_NAME))


def _has_media_type(feature: Any) -> bool:
    if isinstance(feature, list):
        return any(map(_has_media_type, feature))
    if not isinstance(feature, dict):
        return False
    return feature.get("_type") in _MEDIA_TYPES or any(map(_has_media_type, feature.values()))


def _holds(stored: pa.DataType, has: Callable[[pa.DataType], bool]) -> bool:
    import pyarrow as pa

    if pa.types.is_nested(stored):
        return any(_holds(stored.field(i).type, has) for i in range(stored.num_fields))
    return has(stored)


def _is_binary(stored: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_binary(stored) or pa.types.is_large_binary(stored)


def media_in(row: Mapping[str, object]) -> tuple[str, str] | None:
    """The first column of a row that holds an image, a sound or the like, and which of them; None without one."""
    for name, value in row.items():
        kind = _media_kind(value)
        if kind is None and _is_something(value) and (named := _MEDIA_NAME.fullmatch(name)):
            kind = {"audio": "audio", "video": "video"}.get(named["kind"].lower(), "image")
        if kind is None and isinstance(value, str) and _FIGURE_NAME.fullmatch(name) and _IMAGE_FILE.fullmatch(value):
            kind = "image"
        if kind is not None:
            return name, kind
    return None


def _is_something(value: object) -> bool:
    if isinstance(value, list):
        return any(map(_is_something, value))
    return isinstance(value, str | bytes | dict) and bool(value)


def _media_kind(value: object) -> str | None:
    kind = None
    if isinstance(value, Media):
        kind = value.kind
    elif isinstance(value, bytes):
        is_bitmap = value.startswith(b"BM") and value[6:10] == bytes(4)
        kind = "image" if is_bitmap or value.startswith(_MEDIA_START) else None
    elif isinstance(value, str):
        kind = "image" if value.startswith("data:image/") else None
    elif isinstance(value, dict) and value.keys() == {"bytes", "path"}:
        kind = "image" if value["bytes"] or value["path"] else None
    elif isinstance(value, dict) and value.get("type") in _MEDIA_PARTS:
        kind = str(value["type"]).removeprefix("input_").removesuffix("_url")
    elif isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        kind = next((kind for item in items if (kind := _media_kind(item)) is not None), None)
    return kind
