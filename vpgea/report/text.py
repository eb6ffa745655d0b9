"""How figures and foreign text are written for people."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

_INVISIBLE = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}  # controls, bidirectional marks, line separators, ...


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines with columns under one another."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def rate(tokens: int, seconds: float) -> str:
    return f"{tokens / seconds:,.0f} tokens/s" if seconds > 0 else f"{tokens:,} tokens"


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 07 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def with_interval(
    value: float | None, low: float | None, high: float | None, *, digits: int = 3, unit: str = ""
) -> str:
    """`0.912 [0.887, 0.935]`."""
    if value is None:
        return "-"
    text = f"{value:.{digits}f}{unit}"
    return text if low is None or high is None else f"{text} [{low:.{digits}f}, {high:.{digits}f}]"


def visible(text: str) -> str:
    """The text with control characters made visible: what a model wrote must not steer the terminal."""
    if text.isprintable():  # of which no control, format or unassigned character is
        return text
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in _INVISIBLE else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
