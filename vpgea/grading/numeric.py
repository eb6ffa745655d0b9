r"""Telling formulas apart by their values, with bounded arithmetic: a rejection that needs no sympy.

Both are evaluated at three fixed points in floating-point numbers, each with a bound of its error. What is undefined,
on a branch cut, or not exact enough decides nothing. A power or factorial beyond every floating-point number is
infinite here and costs nothing.
"""

from __future__ import annotations

import cmath
import math
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from vpgea.grading.containers import read_container
from vpgea.grading.expressions import Tree, read_expression
from vpgea.grading.numbers import read_number

_POINTS = range(3)
_EPS = 1e-15
_TINY = 1e-290
_EXACT = 2.0**53
_CLEAR = 1e-5  # of the larger value: at least so far apart are values that are certainly different
_MATRIX = re.compile(r"\\begin\{([pb]?matrix)\}(?:(?!\\begin).)*\\end\{\1\}", re.DOTALL)
_NAME = re.compile(r"[A-Za-z]{3,}(?: [A-Za-z]+)*")
_INTEGERS = frozenset("jklmnpqNMKL")  # names that often stand for integers get such values


class UndefinedError(Exception):
    """No certain value here."""


class TooLargeError(UndefinedError):
    """It needs numbers beyond every bound."""


@dataclass(frozen=True, slots=True)
class Value:
    """A real or complex value; error: a bound of how far it is off. Infinite: larger than every float."""

    value: complex
    error: float = 0.0

    @property
    def infinite(self) -> bool:
        return self.value in (math.inf, -math.inf)

    @property
    def whole(self) -> bool:
        """Whether it is an integer, exactly."""
        return (
            self.error == 0 and isinstance(self.value, float) and self.value.is_integer() and abs(self.value) < _EXACT
        )

    def real(self) -> float:
        if isinstance(self.value, complex):
            raise UndefinedError
        return self.value


@dataclass(frozen=True, slots=True)
class Values:
    """What a formula is at the points, None where undefined. too_large: at some point it needs unbounded numbers."""

    at: tuple[Value | None, ...]
    too_large: bool = False
    variables: frozenset[str] = frozenset()


def clearly_different(gold: str, found: str, relative_tolerance: float) -> bool:
    """Whether two normalised formulas certainly have different values somewhere, or are different kinds of things.

    Args:
        gold: The reference. Where it is a constant, an answer that needs numbers beyond every bound differs from it.
        found: The answer.
        relative_tolerance: Values that are nearer than ten times this are not told apart here.

    Returns:
        False says nothing.
    """
    golds, founds = formula_values(gold), formula_values(found)
    if golds is None and founds is not None:
        return _is_no_single_value(gold, found, founds, relative_tolerance)
    if founds is None and golds is not None:
        return _is_no_single_value(found, gold, golds, relative_tolerance)
    if golds is None or founds is None or {"C", "c"} <= golds.variables ^ founds.variables:
        return False  # a constant of integration may be written either way
    if founds.too_large and not golds.variables and not golds.too_large:
        return True
    share = max(_CLEAR, 10 * relative_tolerance)
    return any(_apart(a, b, share) for a, b in zip(golds.at, founds.at, strict=True) if a and b)


def _is_no_single_value(text: str, single: str, values: Values, relative_tolerance: float) -> bool:
    """Whether a text is a matrix, a union of intervals, a word, or a list with another value than the single one."""
    if _MATRIX.fullmatch(text) or r"\cup" in text or (_NAME.fullmatch(text) and not values.variables):
        return True
    container = read_container(text) if "=" not in text else None
    return container is not None and any(
        clearly_different(element, single, relative_tolerance) for element in container.elements if element != text
    )


def _apart(one: Value, other: Value, share: float) -> bool:
    if one.infinite or other.infinite:
        return one.infinite != other.infinite
    larger = max(abs(one.value), abs(other.value))
    return abs(one.value - other.value) > share * larger + 8 * (one.error + other.error)


@lru_cache(maxsize=8192)
def formula_values(text: str) -> Values | None:
    """The values of a normalised formula at the points; None where it cannot be read with certainty."""
    if (number := read_number(text)) and not number.percent:
        return Values((_constant(number.value),) * len(_POINTS))
    tree = read_expression(text)
    if tree is None:
        return None
    variables = frozenset(_variables(tree))
    found: list[Value | None] = []
    too_large = False
    for point in _POINTS if variables else (0,):
        try:
            found.append(_evaluate(tree, point))
        except TooLargeError:
            too_large = True
            found.append(None)
        except (UndefinedError, ValueError, OverflowError, ZeroDivisionError):
            found.append(None)
    if len(found) < len(_POINTS):
        found *= len(_POINTS)
    return Values(tuple(found), too_large, variables)


def _constant(number: Fraction) -> Value:
    try:
        value = float(number)
    except OverflowError:
        return Value(math.copysign(math.inf, number))
    return Value(value, 0.0 if value.is_integer() and abs(value) < _EXACT else _EPS * abs(value) + _TINY)


def _variables(tree: Tree) -> list[str]:
    if tree[0] == "var":
        return [tree[1]]
    return [name for part in tree[1:] if isinstance(part, tuple) for name in _variables(part)]


def _evaluate(tree: Tree, point: int) -> Value:
    kind = tree[0]
    if kind == "num":
        return _number(tree[1])
    if kind == "var":
        return Value(_at_point(tree[1], point))
    if kind in _CONSTANTS:
        return _CONSTANTS[kind]
    if kind == "call":
        return _call(tree[1], _evaluate(tree[2], point))
    if kind == "pow" and tree[1] == ("e",):
        return _call("exp", _evaluate(tree[2], point))
    return _OPERATIONS[kind](*(_evaluate(part, point) for part in tree[1:]))


_CONSTANTS = {"pi": Value(math.pi, _EPS), "e": Value(math.e, _EPS), "i": Value(1j)}


def _number(digits: str) -> Value:
    number = float(digits)
    return Value(number, 0.0 if math.isinf(number) or (number.is_integer() and number < _EXACT) else _EPS * number)


def _at_point(name: str, point: int) -> float:
    """A value that is fixed by the name: positive, and whole where the name often stands for a whole number."""
    seed = zlib.crc32(f"{name}/{point}".encode())
    if name[0] in _INTEGERS:
        return float(2 + seed % 7)
    return 0.3 + 1.9 * (seed % 99_991) / 99_991


def _finite(value: complex, error: float) -> Value:
    if not cmath.isfinite(value):
        if isinstance(value, float) and not math.isnan(value):
            return Value(value)
        raise TooLargeError
    return Value(value, error)


def _negative(a: Value) -> Value:
    return Value(-a.value, a.error)


def _add(a: Value, b: Value) -> Value:
    if a.infinite or b.infinite:
        return _with_infinity(a.real() + b.real())
    value = a.value + b.value
    return _finite(value, 0.0 if a.whole and b.whole and abs(value) < _EXACT else a.error + b.error + _EPS * abs(value))


def _with_infinity(value: float) -> Value:
    if math.isnan(value):
        raise TooLargeError
    return Value(value, _TINY if value == 0 else 0.0)


def _multiply(a: Value, b: Value) -> Value:
    if a.infinite or b.infinite:
        if any(abs(side.value) <= 4 * side.error or isinstance(side.value, complex) for side in (a, b)):
            raise TooLargeError
        return _with_infinity(a.real() * b.real())
    value = a.value * b.value
    error = abs(a.value) * b.error + abs(b.value) * a.error + a.error * b.error + _EPS * abs(value)
    return _finite(value, 0.0 if a.whole and b.whole and abs(value) < _EXACT else error + _TINY)


def _divide(a: Value, b: Value) -> Value:
    if b.infinite:
        if a.infinite or isinstance(a.value, complex):
            raise TooLargeError
        return Value(0.0, _TINY)
    if abs(b.value) <= 4 * b.error:
        raise UndefinedError
    if a.infinite:
        return _with_infinity(a.real() / b.real())
    value = a.value / b.value
    if a.whole and b.whole and value.real.is_integer() and abs(value) < _EXACT:
        return Value(value)
    return _finite(value, (a.error + abs(value) * b.error) / (abs(b.value) - b.error) + _EPS * abs(value) + _TINY)


def _power(a: Value, b: Value) -> Value:
    if a.infinite or b.infinite:
        return _power_of_infinities(a, b)
    if b.whole:
        return _whole_power(a, int(b.real()))
    if isinstance(b.value, complex) or a.real() <= 4 * a.error:
        raise UndefinedError  # a root of a negative number has several values
    exponent = b.real() * math.log(a.real())
    spread = abs(b.value) * a.error / a.real() + abs(math.log(a.real())) * b.error + _EPS * (2 + abs(exponent))
    if exponent > 709:
        return Value(math.inf)
    if exponent < -600:
        return Value(0.0, _TINY)
    if spread > 0.01:
        raise UndefinedError
    value = math.exp(exponent)
    return Value(value, 2 * value * spread)


def _power_of_infinities(a: Value, b: Value) -> Value:
    base, exponent = a.real(), b.real()
    if a.infinite and base > 0 and abs(exponent) > 4 * b.error:
        return Value(math.inf) if exponent > 0 else Value(0.0, _TINY)
    if b.infinite and base > 4 * a.error and abs(base - 1) > 4 * a.error + 1e-9:
        return Value(math.inf) if (base > 1) == (exponent > 0) else Value(0.0, _TINY)
    raise TooLargeError


def _whole_power(a: Value, n: int) -> Value:
    size = abs(a.value)
    if n <= 0 and size <= 4 * a.error:
        raise UndefinedError  # 0^0, and divisions by zero
    if n == 0:
        return Value(1.0)
    if size <= 4 * a.error:
        return Value(0.0, (size + a.error) ** n) if n < 1000 else Value(0.0, _TINY)
    magnitude = n * math.log(size)
    if magnitude > 709:
        if isinstance(a.value, complex):
            raise TooLargeError
        return Value(-math.inf if a.value < 0 and n % 2 else math.inf)
    if magnitude < -600:
        return Value(0.0, _TINY)
    value = a.value**n
    if a.whole and n > 0 and abs(value) < _EXACT:
        return Value(value)
    spread = abs(n) * (a.error / size + _EPS)
    if spread > 0.01:
        raise UndefinedError
    return _finite(value, 2 * abs(value) * spread)


def _root(degree: Value, a: Value) -> Value:
    if not degree.whole or degree.real() < 1:
        raise UndefinedError
    if a.whole and a.value == 0:
        return a
    if degree.value == 2 and a.whole and a.real() > 0 and (root := math.sqrt(a.real())).is_integer():
        return Value(root)
    return _power(a, _divide(Value(1.0), degree))


def _factorial(a: Value) -> Value:
    if a.infinite and a.real() > 0:
        return a
    if not a.whole or a.real() < 0:
        raise UndefinedError
    n = int(a.real())
    if n > 170:
        return Value(math.inf)
    value = float(math.factorial(n))
    return Value(value, 0.0 if value < _EXACT else _EPS * value)


def _binomial(a: Value, b: Value) -> Value:
    if not (a.whole and b.whole) or not 0 <= b.real() <= a.real():
        raise UndefinedError
    if a.real() > 1000:
        raise TooLargeError
    value = float(math.comb(int(a.real()), int(b.real())))
    return Value(value, 0.0 if value < _EXACT else _EPS * value)


def _logarithm(base: Value, a: Value) -> Value:
    return _divide(_call("ln", a), _call("ln", base))


_OPERATIONS: dict[str, Callable[..., Value]] = {
    "neg": _negative,
    "add": _add,
    "sub": lambda a, b: _add(a, _negative(b)),
    "mul": _multiply,
    "div": _divide,
    "pow": _power,
    "root": _root,
    "fac": _factorial,
    "binom": _binomial,
    "logb": _logarithm,
}


def _call(name: str, a: Value) -> Value:
    if name == "exp" and isinstance(a.value, complex) and abs(a.value) < 600:
        value = cmath.exp(a.value)
        return Value(value, abs(value) * (2 * a.error + _EPS * (1 + abs(a.value))))
    x = a.real()
    if a.infinite:
        return _call_infinite(name, x)
    if a.error > 0.01 * max(1.0, abs(x)) or (a.error > 0.01 and name not in ("abs", "ln")):
        raise UndefinedError
    if special := _SPECIAL.get(name):
        return special(a)
    if name in ("exp", "sinh", "cosh") and abs(x) > 700:
        return (
            _power(_CONSTANTS["e"], a) if name == "exp" else Value(math.copysign(math.inf, x if name == "sinh" else 1))
        )
    if name == "ln" and x <= 4 * a.error:
        raise UndefinedError
    function, slope = _FUNCTIONS[name]
    value = function(x)
    return Value(value, 2 * slope(x) * a.error + 2 * _EPS * (1 + abs(value)))


def _step(rounded: Callable[[float], int]) -> Callable[[Value], Value]:
    def at(a: Value) -> Value:
        x = a.real()
        if not a.whole and abs(x - round(x)) <= 1e-9 + 8 * a.error:
            raise UndefinedError  # which side of the step it is on is not certain
        return Value(float(rounded(x)))

    return at


_SPECIAL: dict[str, Callable[[Value], Value]] = {
    "floor": _step(math.floor),
    "ceil": _step(math.ceil),
    "tan": lambda a: _divide(_call("sin", a), _call("cos", a)),
    "cot": lambda a: _divide(_call("cos", a), _call("sin", a)),
    "sec": lambda a: _divide(Value(1.0), _call("cos", a)),
    "csc": lambda a: _divide(Value(1.0), _call("sin", a)),
}


def _call_infinite(name: str, x: float) -> Value:
    if name in ("abs", "cosh"):
        return Value(math.inf)
    if name in ("floor", "ceil", "sinh") or (name in ("ln", "exp") and x > 0):
        return Value(x)
    raise TooLargeError


# Function, and the size of its derivative.
_FUNCTIONS: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "abs": (abs, lambda x: 1.0),
    "sin": (math.sin, lambda x: 1.0),
    "cos": (math.cos, lambda x: 1.0),
    "arcsin": (math.asin, lambda x: 1 / math.sqrt(1 - x * x) if abs(x) < 1 else 1e9),
    "arccos": (math.acos, lambda x: 1 / math.sqrt(1 - x * x) if abs(x) < 1 else 1e9),
    "arctan": (math.atan, lambda x: 1.0),
    "sinh": (math.sinh, math.cosh),
    "cosh": (math.cosh, lambda x: abs(math.sinh(x))),
    "tanh": (math.tanh, lambda x: 1.0),
    "exp": (math.exp, math.exp),
    "ln": (math.log, lambda x: 1 / x),
}
