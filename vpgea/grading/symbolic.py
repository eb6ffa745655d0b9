r"""Equality of formulas: read into sympy with the case of every symbol, and compared by value at many places."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from itertools import islice
from typing import Any

from vpgea.grading.residues import further_digits, residues

_MAX_LENGTH = 5000
_UNREADABLE = re.compile(
    r"\\boxed|\\fbox|\.\.\.|\\[lc]?dots|\\(?:x|b)?cancel|\\sout|(?<!_)\d\s+\d|[–—?]|\\overline\s*\{?\s*\d|\\(?:dot|bar)\s*\{?\s*\d"
)


def _primed(match: re.Match[str]) -> str:
    return f"{match[1]}_{{{'p' * len(match[2])}}}"


_REWRITTEN: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"(\d+(?:\.\d+)?|[A-Za-z])\s*\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\})", r"(\1\\cdot\\frac{\\pi}{180})"),
    (r"\\gamma\s*(?=\()", r"\\gamma\\cdot "),
    (r"\\lg(?![A-Za-z])", r"\\log_{10}"),
    (r"\\log ?_ ?(?:e(?![A-Za-z])|\{ ?e ?\})", r"\\ln"),
    (r"(?<![A-Za-z\\])([fF])(?=\s*\()", r"\1_{of}\\cdot "),
    (r"([A-Za-z])('+)", _primed),
]
_COMPILED = [(re.compile(pattern), replacement) for pattern, replacement in _REWRITTEN]
_DIGITS = 60  # to which constants are computed; two that agree to _SAME of them are one
_SAME = 50
# Where formulas are compared: the k-th symbol gets the k-th of a place, times its sign.
_PLACES = ((0.73, 1.31, 2.17, 0.41, 1.87), (1.63, 0.57, 0.89, 2.71, 1.13), (2.39, 3.41, 0.37, 1.21, 0.67))
_SIGNS = ((1, 1, 1), (-1, -1, -1), (1, -1, 1), (-1, 1, 1))
_WHOLE = ((3, 2, 5, 4, 7), (6, 5, 2, 3, 4), (2, 7, 3, 5, 6))
_ENOUGH = 3  # places at which both have a value


def formulas_equal(gold: str, found: str, relative_tolerance: float, *, positive: bool = False) -> bool:
    """True when two normalised formulas are the same.

    Args:
        gold: The reference.
        found: The answer, untrusted.
        relative_tolerance: For what has decimals in it.
        positive: Whether all symbols stand for positive numbers.

    Raises:
        MemoryError: It says nothing about the answer.
        RecursionError: Neither does this.
    """
    try:
        gold_read, found_read = read_formula(gold), read_formula(found)
        if gold_read is None or found_read is None:
            return False
        return _equal(gold_read, found_read, relative_tolerance, positive)
    except (MemoryError, RecursionError):
        raise
    except Exception:  # sympy meets untrusted text: whatever it raises, the two were not shown to be equal
        return False


@lru_cache(maxsize=512)
def read_formula(text: str) -> Any:
    """The sympy object of a normalised formula; None where it is none."""
    import sympy
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
    from latex2sympy2_extended.math_normalization import NormalizationConfig

    if not text.strip() or len(text) > _MAX_LENGTH or _UNREADABLE.search(text):
        return None
    for pattern, replacement in _COMPILED:
        text = pattern.sub(replacement, text)
    try:
        read = latex2sympy(
            text,
            is_real=True,
            normalization_config=NormalizationConfig(
                basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
            ),
            conversion_config=ConversionConfig(lowercase_symbols=False),
        )
    except (MemoryError, RecursionError):
        raise
    except Exception:  # its parser raises bare exceptions; what it cannot read is no formula
        return None
    imaginary = sympy.Symbol("i", real=True)
    return read.subs(imaginary, sympy.I) if isinstance(read, sympy.Basic) and read.has(imaginary) else read


def _equal(gold: Any, found: Any, tolerance: float, positive: bool) -> bool:
    import sympy
    from sympy.core.relational import Relational

    if isinstance(gold, sympy.Expr) and isinstance(found, sympy.Expr):
        return _expressions_equal(gold, found, tolerance, positive)
    if isinstance(gold, Relational) and isinstance(found, Relational):
        return _relations_equal(gold, found, tolerance, positive)
    return type(gold) is type(found) and bool(gold == found)


def _expressions_equal(gold: Any, found: Any, tolerance: float, positive: bool) -> bool:
    import sympy

    share = tolerance if gold.has(sympy.Float) or found.has(sympy.Float) else 0.0
    symbols = sorted(gold.free_symbols | found.free_symbols, key=str)
    if gold == found:
        return True
    gold, found = _done(gold), _done(found)
    if not share and (exact := residues(gold, symbols)) and (other := residues(found, symbols)):
        return exact == other
    if not symbols:
        if gold.is_Rational and found.is_Rational:
            return bool(gold == found)
        further = 0 if share else further_digits(gold, found)
        least = share or sympy.Float(f"1e-{_SAME + further}")
        return _close(sympy.N(gold, _DIGITS + further), sympy.N(found, _DIGITS + further), least)
    further = 0 if share else further_digits(gold, found)
    verdicts = (_equal_at(gold, found, place, share, further) for place in _places(symbols, positive))
    seen = list(islice((verdict for verdict in verdicts if verdict is not None), 10))
    if False in seen:
        return False
    return len(seen) >= _ENOUGH or sympy.simplify(gold - found) == 0


def _done(expression: Any) -> Any:
    import sympy

    left = (sympy.Sum, sympy.Product, sympy.Integral, sympy.Limit, sympy.Derivative)
    return expression.doit() if expression.has(*left) else expression


def _places(symbols: list[Any], positive: bool) -> list[dict[Any, Any]]:
    import sympy

    places = []
    for signs in _SIGNS[:1] if positive else _SIGNS:
        for values in (*_PLACES, *_WHOLE) if signs == _SIGNS[0] else _PLACES[:2]:
            places.append(
                {
                    symbol: sympy.Rational(str(values[k % len(values)] + k // len(values))) * signs[k % len(signs)]
                    for k, symbol in enumerate(symbols)
                }
            )
    return places


def _equal_at(gold: Any, found: Any, place: dict[Any, Any], share: float, further: int) -> bool | None:
    """Whether they agree at a place; None where the reference has no real value there, or none at all."""
    import sympy

    gold_value = sympy.N(gold.subs(place), 30 + further)
    if not gold_value.is_number or not gold_value.is_finite:
        return None
    if not gold.has(sympy.I) and not found.has(sympy.I) and abs(sympy.im(gold_value)) > 1e-20 * abs(gold_value):
        return None
    found_value = sympy.N(found.subs(place), 30 + further)
    if not found_value.is_number or not found_value.is_finite:
        return None
    return _close(gold_value, found_value, share or sympy.Float(f"1e-{18 + further}"))


def _close(gold: Any, found: Any, share: Any) -> bool:
    if not (gold.is_number and found.is_number and gold.is_finite and found.is_finite):
        return bool(gold == found)
    scale = abs(gold)
    if scale < 1e-40:
        return bool(abs(found) < 1e-40)
    return bool(abs(gold - found) <= share * scale)


def _relations_equal(gold: Any, found: Any, tolerance: float, positive: bool) -> bool:
    """Equations and inequalities are the same when one is the other times a number, or side by side.

    One that says nothing (`1 = 1`) is only itself.
    """
    import sympy

    def same(one: Any, other: Any) -> bool:
        return _expressions_equal(one, other, tolerance, positive)

    greater = {">": "<", ">=": "<="}
    if gold.rel_op in greater:
        gold = gold.reversed
    if found.rel_op in greater:
        found = found.reversed
    if gold.rel_op != found.rel_op:
        return False
    gold_side, found_side = gold.lhs - gold.rhs, found.lhs - found.rhs
    if same(gold_side, sympy.Integer(0)) or same(found_side, sympy.Integer(0)):
        return bool(gold == found)
    if same(gold.lhs, found.lhs) and same(gold.rhs, found.rhs):
        return True
    ratio = _ratio(gold_side, found_side)
    if (
        ratio is None
        or not (ratio.is_number and ratio.is_finite)
        or (gold.rel_op not in ("==", "!=") and not ratio > 0)
    ):
        return False
    return same(gold_side * ratio, found_side)


def _ratio(gold: Any, found: Any) -> Any:
    """found over gold at the first place where they have values."""
    import sympy

    for place in _places(sorted(gold.free_symbols | found.free_symbols, key=str), positive=True):
        one, other = gold.subs(place), found.subs(place)
        if one.is_finite and other.is_finite and one != 0 and other != 0:
            return sympy.nsimplify(other / one) if not (other / one).is_Rational else other / one
    return None
