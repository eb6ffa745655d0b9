r"""Parts of the number line: `(-\infty,-2)\cup(2,\infty)`, `x < -2 \text{ or } x > 2`, `\mathbb{R}`."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import NamedTuple

from vpgea.grading.containers import read_container
from vpgea.grading.normalise import normalise
from vpgea.grading.numbers import read_number
from vpgea.grading.numeric import formula_values
from vpgea.grading.sizes import spelling

_NAME = r"\\?[A-Za-z]+(?:_\w|_\{\w+\})?(?:\([a-z]\))?"
_MEMBER = re.compile(rf"{_NAME} ?\\in(?![A-Za-z])(.*)", re.DOTALL)
_BUILT = re.compile(rf"\\\{{ ?{_NAME}(?: ?\\in ?\\mathbb ?\{{?R\}}?)? ?[|:](.*)\\\}}", re.DOTALL)
_SIGN = re.compile(r"(<|>|\\le(?![A-Za-z])|\\ge(?![A-Za-z]))")
_UNEQUAL = re.compile(rf"{_NAME} ?\\ne(?![A-Za-z])(.*)")
_REALS = re.compile(r"\\mathbb ?\{? ?R ?\}?")
_WITHOUT = re.compile(
    rf"(?:{_REALS.pattern}|\(-\\infty, ?\+?\\infty\)) ?(?:\\setminus(?![A-Za-z])|\\backslash(?![A-Za-z])|-) ?(.+)"
)
_MIRRORED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}
_LOWEST, _HIGHEST = r"-\infty", r"\infty"


class Piece(NamedTuple):
    """An interval by its ends, normalised text, and which of them belong to it."""

    low: str
    high: str
    closed: tuple[bool, bool]


def is_inequality(text: str) -> bool:
    """Whether a normalised answer has a sign of order in it."""
    return _SIGN.search(text) is not None


def read_region(text: str) -> list[Piece] | None:
    """The intervals that a normalised answer is the union of; None where it is no region, or has still to be solved."""
    text = text.strip()
    if member := _MEMBER.fullmatch(text):
        text = member[1].strip()
    if built := _BUILT.fullmatch(text):
        text = normalise(built[1])
    if _REALS.fullmatch(text):
        return [Piece(_LOWEST, _HIGHEST, (False, False))]
    if without := _WITHOUT.fullmatch(text):
        return _complement(_pieces(normalise(without[1])))
    return _pieces(text)


def _pieces(text: str) -> list[Piece] | None:
    text = _joined(text)
    pieces: list[Piece] = []
    for part in re.split(r"\\cup(?![A-Za-z])|\\lor(?![A-Za-z])", text):
        read = _inequality(part.strip()) if is_inequality(part) or r"\ne" in part else _interval(part.strip())
        if read is None:
            return None
        pieces += read
    return _merged(pieces)


def _joined(text: str) -> str:
    """`x > 1, x < 2` as one condition: bounds of one name, each of its own side."""
    bounds = [part.strip() for part in text.split(",")]
    if len(bounds) != 2 or not all(len(_SIGN.split(bound)) == 3 for bound in bounds):
        return text
    return r" \land ".join(bounds)


def _place(end: str) -> Fraction | float | None:
    """Where an end lies; None where that is no number that can be read."""
    if end in (_LOWEST, _HIGHEST, f"+{_HIGHEST}"):
        return -math.inf if end == _LOWEST else math.inf
    if number := read_number(end):
        return None if number.percent else number.value
    values = formula_values(end)
    value = values.at[0] if values and not values.variables else None
    return value.value.real if value and not value.value.imag and not value.infinite else None


def _in_order(pieces: list[Piece]) -> list[tuple[Fraction | float, Fraction | float, Piece]] | None:
    placed = [(_place(piece.low), _place(piece.high), piece) for piece in pieces]
    known = [(low, high, piece) for low, high, piece in placed if low is not None and high is not None]
    return sorted(known, key=lambda one: (one[0], not one[2].closed[0])) if len(known) == len(placed) else None


def _merged(pieces: list[Piece]) -> list[Piece]:
    """The pieces with those joined that touch or overlap; as they are where an end is no number."""
    placed = _in_order(pieces)
    if len(pieces) < 2 or placed is None:
        return pieces
    merged = placed[:1]
    for low, high, piece in placed[1:]:
        start, stop, last = merged[-1]
        if low > stop or (low == stop and not (piece.closed[0] or last.closed[1])):
            merged.append((low, high, piece))
        elif high > stop or (high == stop and piece.closed[1]):
            merged[-1] = (start, high, Piece(last.low, piece.high, (last.closed[0], piece.closed[1])))
    return [piece for _, _, piece in merged]


def _complement(pieces: list[Piece] | None) -> list[Piece] | None:
    placed = _in_order(pieces) if pieces else None
    if not placed:
        return None
    left: list[Piece] = []
    low, closed = _LOWEST, False
    for start, _, piece in placed:
        if start > -math.inf:
            left.append(Piece(low, piece.low, (closed, not piece.closed[0])))
        low, closed = piece.high, not piece.closed[1]
    if placed[-1][1] < math.inf:
        left.append(Piece(low, _HIGHEST, (closed, False)))
    return left or None


def read_sets(text: str) -> tuple[str, object] | str | None:
    r"""A union or intersection of named sets without the order of its members; None for what is neither."""
    if not re.search(r"\\c[ua]p(?![A-Za-z])", text):
        return None
    return _sets(text)


def _sets(text: str) -> tuple[str, object] | str:
    text = normalise(text)
    for operator in (r"\cup", r"\cap"):
        members: list[str] = []
        depth = start = 0
        for at, character in enumerate(text):
            depth += (character in "([{") - (character in ")]}")
            if not depth and text.startswith(operator, at):
                members.append(text[start:at])
                start = at + len(operator)
        if members:
            return operator, sorted(map(repr, map(_sets, [*members, text[start:]])))
    return spelling(text)


def _interval(text: str) -> list[Piece] | None:
    container = read_container(text)
    if container is None or container.rows or container.names:
        return None
    if container.delimiters == r"\{\}":
        return [Piece(element, element, (True, True)) for element in container.elements]
    if len(container.delimiters) != 2 or len(container.elements) != 2:
        return None
    low, high = (element.removeprefix("+") for element in container.elements)
    return [Piece(low, high, (container.delimiters[0] == "[", container.delimiters[1] == "]"))]


def _inequality(text: str) -> list[Piece] | None:
    """Bounds of one name: `x < 2`, `1 \\le x < 2`, `x > 1 \\land x < 2`, `x \\ne 0`."""
    if unequal := _UNEQUAL.fullmatch(text):
        value = normalise(unequal[1])
        return [Piece(_LOWEST, value, (False, False)), Piece(value, _HIGHEST, (False, False))]
    low, high, names = (_LOWEST, False), (_HIGHEST, False), set()
    for condition in re.split(r"\\land(?![A-Za-z])", text):
        parts = [part.strip() for part in _SIGN.split(condition)]
        if len(parts) not in (3, 5):
            return None
        sides = [parts[:3]] if len(parts) == 3 else [parts[:3], parts[2:]]
        for side in sides:
            solved = _solved(*side)
            if solved is None:
                return None
            left, sign, right = solved
            names.add(left)
            bound = (normalise(right), sign in (r"\le", r"\ge"))
            if sign in ("<", r"\le"):
                if high[0] != _HIGHEST:
                    return None
                high = bound
            elif low[0] != _LOWEST:
                return None
            else:
                low = bound
    return [Piece(low[0], high[0], (low[1], high[1]))] if len(names) == 1 else None


def _solved(left: str, sign: str, right: str) -> tuple[str, str, str] | None:
    """The inequality with its name on the left; None where it is not solved for one."""
    if not re.fullmatch(rf"(?:- ?)?{_NAME}", left):
        left, sign, right = right, _MIRRORED[sign], left
    if negative := re.fullmatch(rf"- ?({_NAME})", left):
        left, sign, right = negative[1], _MIRRORED[sign], _negative(right)
    if not re.fullmatch(_NAME, left) or re.search(rf"(?<![A-Za-z\\]){re.escape(left)}(?![A-Za-z])", right):
        return None
    return left, sign, right


def _negative(bound: str) -> str:
    return bound[1:].strip() if re.fullmatch(r"- ?[^+-]+", bound) else f"-({bound})"
