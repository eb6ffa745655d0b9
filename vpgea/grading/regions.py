r"""Parts of the number line: `(-\infty,-2)\cup(2,\infty)`, `x < -2 \text{ or } x > 2`, `\mathbb{R}`."""

from __future__ import annotations

import re
from typing import NamedTuple

from vpgea.grading.containers import read_container
from vpgea.grading.normalise import normalise

_NAME = r"\\?[A-Za-z]+(?:_\w|_\{\w+\})?(?:\([a-z]\))?"
_MEMBER = re.compile(rf"{_NAME} ?\\in(?![A-Za-z])(.*)", re.DOTALL)
_BUILT = re.compile(rf"\\\{{ ?{_NAME}(?: ?\\in ?\\mathbb ?\{{?R\}}?)? ?[|:](.*)\\\}}", re.DOTALL)
_SIGN = re.compile(r"(<|>|\\le(?![A-Za-z])|\\ge(?![A-Za-z]))")
_UNEQUAL = re.compile(rf"{_NAME} ?\\ne(?![A-Za-z])(.*)")
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
    if re.fullmatch(r"\\mathbb ?\{? ?R ?\}?", text):
        return [Piece(_LOWEST, _HIGHEST, (False, False))]
    pieces: list[Piece] = []
    for part in re.split(r"\\cup(?![A-Za-z])|\\lor(?![A-Za-z])", text):
        read = _inequality(part.strip()) if is_inequality(part) or r"\ne" in part else _interval(part.strip())
        if read is None:
            return None
        pieces += read
    return pieces


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
