r"""Tuples, intervals, sets and comma lists in a normalised answer: math-verify compares comma lists as sets."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vpgea.grading.normalise import balanced, normalise

_OPEN, _CLOSE = "([{", ")]}"


@dataclass(frozen=True)
class Container:
    r"""A list of values.

    Attributes:
        delimiters: `()`, `[]`, `(]`, `[)`, `\{\}`, or empty for a bare list.
        elements: Normalised, in order.
    """

    delimiters: str
    elements: list[str]

    @property
    def ordered(self) -> bool:
        """Tuples and intervals have an order; sets and bare lists (of roots, say) have none."""
        return self.delimiters not in ("", r"\{\}")


def read_container(text: str) -> Container | None:
    r"""The list that a normalised answer is, or None. `1 \pm 2` is the list `1+2, 1-2`."""
    delimiters, inside = _delimiters(text.strip())
    elements = [part for element in _split(inside) for part in _plus_minus(element)]
    if len(elements) < 2 and delimiters != r"\{\}":
        return None
    return Container(delimiters, [normalise(element) for element in elements])


def _delimiters(text: str) -> tuple[str, str]:
    if text.startswith(r"\{") and text.endswith(r"\}") and r"\}" not in text[2:-2] and r"\mid" not in text:
        return r"\{\}", text[2:-2]
    if text.startswith("{") and text.endswith("}") and balanced(text[1:-1]):
        return "", text[1:-1]
    if text[:1] in ("(", "[") and text[-1:] in (")", "]") and _encloses(text):
        return text[0] + text[-1], text[1:-1]
    return "", text


def _encloses(text: str) -> bool:
    """True when the first bracket closes with the last character. `(1,2),(3,4)` does not, nor `[0,1)\\cup(1,2]`."""
    depth = 0
    for position, character in enumerate(text):
        depth += (character in _OPEN) - (character in _CLOSE)
        if depth == 0:
            return position == len(text) - 1
    return False


def _split(text: str) -> list[str]:
    """Cut at commas and semicolons outside brackets; thousands such as `1,234` stay whole."""
    if re.fullmatch(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?", text):
        return [text]
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        depth += (character in _OPEN) - (character in _CLOSE)
        if character in ",;" and depth <= 0:
            parts.append(text[start:position])
            start = position + 1
    return [part.strip() for part in [*parts, text[start:]] if part.strip()]


def _plus_minus(element: str) -> list[str]:
    if element.count(r"\pm") != 1 or r"\mp" in element:
        return [element]
    return [re.sub(r"\\pm(?![A-Za-z])", sign, element) for sign in ("+", "-")]
