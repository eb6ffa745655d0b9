"""What a target consists of, and the odd values that targets have in common."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from hypothesis import strategies as st

ACCEPTED = "accepted"


class Probe(NamedTuple):
    """inputs: where they come from. check: tries one and says how it ended, unless it is refused with a VpgeaError."""

    inputs: st.SearchStrategy[Any]
    check: Callable[[Any], str]


_ODD_TEXTS = (
    "", " ", "\0", "\x1b[31m", "\r", "\r\n", "\n", "\u2028", "\ufeff", "\ud800", "\udfff", "e\u0301", "\u202e", "𝟗",
    "٣", "Ⅷ", "½", "😀" * 3, "null", "NaN", "-inf", "true", "1e999", "1_000", "0x10", "9" * 5000, "a" * 3000, "../..",
    "~", "<|im_end|>", "</think>", "<think>", "<｜User｜>", "{{ question }}", "{% raw %}", "${HOME}", "%s", "\\", "'",
    '"', "A",
)  # fmt: skip
odd_texts = st.lists(st.one_of(st.sampled_from(_ODD_TEXTS), st.text(max_size=8)), max_size=4).map("".join)
odd_numbers = st.one_of(
    st.integers(-3, 30),
    st.sampled_from([2**31, -(2**31), 2**63, -(2**63) - 1, 2**64, 10**30, 10**400]),
    st.floats(),
)
odd_scalars = st.one_of(st.none(), st.booleans(), odd_numbers, odd_texts)
odd_values = st.recursive(
    odd_scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(odd_texts, inner, max_size=3)),
    max_leaves=6,
)
_FRAGMENTS = [
    *(bytes([byte]) for byte in (0, 1, 0x7F, 0x80, 0xFF)),
    *((number % 2**32).to_bytes(4, "little") for number in (-1, 2**31 - 1, 2**31, 1 << 16)),
    *((number % 2**64).to_bytes(8, "little") for number in (-1, 2**63 - 1, 1 << 40, 8)),
    b"\xff\xff\xff\xff\x00\x00\x00\x00",
    b"\xef\xbb\xbf",
]


class Edit(NamedTuple):
    """One damage to bytes. at and length count from `at` modulo the number of bytes, so that any two numbers will do.

    how: over (written over what is there), into (put between), drop (`length` bytes), cut (everything behind), again
    (`length` bytes a second time).
    """

    how: str
    at: int
    length: int
    content: bytes


edits = st.builds(
    Edit,
    st.sampled_from(["over", "over", "over", "into", "drop", "cut", "again"]),
    st.integers(0, 2**16),
    st.sampled_from([1, 4, 8, 64]),
    st.one_of(st.sampled_from(_FRAGMENTS), st.binary(min_size=1, max_size=8)),
)


def damaged(content: bytes, damages: list[Edit]) -> bytes:
    """Bytes with every damage done to them, one after the other."""
    for how, at, length, new in damages:
        start = at % (len(content) + 1)
        if how == "over":
            content = content[:start] + new + content[start + len(new) :]
        elif how == "into":
            content = content[:start] + new + content[start:]
        elif how == "drop":
            content = content[:start] + content[start + length :]
        elif how == "cut":
            content = content[:start]
        else:
            content = content[: start + length] + content[start:]
    return content


@st.composite
def odd_objects(draw: st.DrawFn, valid: dict[str, Any]) -> dict[str, Any]:
    """A valid object, of which some values are replaced, others left out, and keys that nobody asked for added."""
    value = dict(valid)
    for key in draw(st.lists(st.sampled_from(sorted(valid)), max_size=2)):
        if draw(st.booleans()):
            value[key] = draw(odd_values)
        else:
            value.pop(key, None)
    if draw(st.integers(0, 9)) == 0:
        value[draw(odd_texts)] = draw(odd_values)
    return value


def as_json(value: Any, *, escaped: bool = True) -> bytes:
    """JSON, with halves of surrogate pairs written as bytes where they are not escaped."""
    return json.dumps(value, ensure_ascii=escaped).encode("utf-8", "surrogatepass")


odd_json = st.sampled_from(
    [
        b"", b" ", b"null", b"[]", b"{}", b"0", b'"', b"{", b"nan", b"[" * 100_000, b"[" * 3000 + b"]" * 3000,
        b'{"id":' * 50_000, b'{"id": ' + b"9" * 5000 + b"}", b'{"id": 1, "id": 2}',
        b'{"question": NaN, "answer": 1e999}', b"\xff\xfe{\0}\0", b"\xef\xbb\xbf{}", b"\0" * 40, b"\x1f\x8b\x08",
        b"PAR1", b"ARROW1",
    ]
)  # fmt: skip
