r"""Tuples, intervals, sets, lists, vectors, matrices and assignments in a normalised answer."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vpgea.grading.normalise import balanced, normalise

_OPEN, _CLOSE = "([{", ")]}"
_MATRIX = re.compile(r"\\begin ?\{([pbB]?)matrix\}(.*)\\end ?\{\1matrix\}", re.DOTALL)
_THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_NAMES = re.compile(r"\((?: ?\\?[A-Za-z](?:_\w|_\{\w+\})? ?,?){2,}\) ?(?:=|\\in(?![A-Za-z])) ?(?=[\[(\\])")
_NAMED = re.compile(r"(\\?[A-Za-z]\w*(?:_\{\w+\})?) ?= ?([^=<>]+)")


@dataclass(frozen=True, kw_only=True)
class Container:
    r"""A list of values.

    Attributes:
        delimiters: `()`, `[]`, `(]`, `[)`, `\{\}`, or empty for a bare list.
        elements: Normalised, in order.
        rows: Of a matrix or column, how many; 0 for what is none.
        names: Of `x = 5, y = 2`, what the elements are values of.
    """

    delimiters: str
    elements: list[str]
    rows: int = 0
    names: tuple[str, ...] = ()

    @property
    def ordered(self) -> bool:
        """Tuples, intervals and assignments have an order; sets and bare lists (of roots, say) have none."""
        return self.delimiters not in ("", r"\{\}") or bool(self.names)

    @property
    def vector(self) -> bool:
        """A tuple, or a matrix of one row or column."""
        return self.rows in (1, len(self.elements)) if self.rows else self.delimiters == "()"

    def by_name(self) -> list[str]:
        """The elements of assignments in the order of their names."""
        return [element for _, element in sorted(zip(self.names, self.elements, strict=True))]


def read_container(text: str, *, thousands: bool = True) -> Container | None:
    r"""The list that a normalised answer is, or None. `1 \pm 2` is the list `1+2, 1-2`.

    Args:
        text: What `normalise` gives.
        thousands: Whether `1,234` without brackets is a number, not a list.
    """
    if matrix := _MATRIX.fullmatch(text.strip()):
        return _matrix(matrix[2])
    if ";" in text and "=" in text:
        text = _cases(text)
    delimiters, inside = _delimiters(_NAMES.sub("", text.strip()))
    elements = [part for element in _split(inside, thousands and not delimiters) for part in _plus_minus(element)]
    if len(elements) < 2 and delimiters != r"\{\}":
        return None
    named = [_NAMED.fullmatch(element) for element in elements]
    if all(named) and not delimiters.strip("()"):
        names = tuple(match[1] for match in named if match)
        values = [normalise(match[2]) for match in named if match]
        return Container(delimiters="", elements=values, names=names if len(set(names)) == len(names) else ())
    return Container(delimiters=delimiters, elements=[normalise(element) for element in elements])


def _cases(text: str) -> str:
    """`p=5,q=2;p=7,q=2` as `(5,2),(7,2)`."""
    cases = [read_container(case) for case in text.split(";")]
    named = [case for case in cases if case and case.names]
    return ",".join(f"({','.join(case.by_name())})" for case in named) if len(named) == len(cases) else text


def _matrix(body: str) -> Container | None:
    rows = [row.split("&") for row in re.split(r"\\\\(?: ?\[[^\]]*\])?", body.strip()) if row.strip()]
    if not rows or len({len(row) for row in rows}) > 1:
        return None
    return Container(delimiters="()", elements=[normalise(cell) for row in rows for cell in row], rows=len(rows))


def _delimiters(text: str) -> tuple[str, str]:
    if text.startswith(r"\{") and text.endswith(r"\}") and r"\}" not in text[2:-2] and "|" not in text:
        return r"\{\}", text[2:-2]
    if text.startswith(r"\langle") and text.endswith(r"\rangle"):
        return "()", text[7:-7]
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


def _split(text: str, thousands: bool) -> list[str]:
    """Cut at commas and semicolons outside brackets; thousands such as `1,234` stay whole where they may."""
    if thousands and _THOUSANDS.fullmatch(text):
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
