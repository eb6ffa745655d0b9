"""Exact comparison without large numbers: what formulas of integers are, modulo primes and at fixed places."""

from __future__ import annotations

import math
from typing import Any

_PRIMES = (2**61 - 1, 2**89 - 1, 2**127 - 1)
_MAX_FACTORIAL = 20_000
_MAX_EXPONENT = 10**40  # of what is worked out to be an exponent
_MAX_LOGARITHM = 3000  # decimal digits by which a term may be smaller than the others


class _NotExactError(Exception):
    """It is no formula of integers, or none for this prime."""


def residues(expression: Any, symbols: list[Any]) -> list[int] | None:
    """A sympy formula modulo some primes, each symbol a fixed number; None where it is not made of integers alone.

    Two rational functions with the same residues are the same, and so are two numbers.
    """
    try:
        return [
            _residue(expression, prime, {one: pow(k + 3, 12_345_677, prime) for k, one in enumerate(symbols)})
            for prime in _PRIMES
        ]
    except (_NotExactError, RecursionError, ValueError):
        return None


def _residue(expression: Any, prime: int, places: dict[Any, int]) -> int:
    if expression in places:
        return places[expression]
    if expression.is_Rational:
        return int(expression.p) * _inverse(int(expression.q), prime) % prime
    if expression.is_Add:
        return sum(_residue(part, prime, places) for part in expression.args) % prime
    if expression.is_Mul:
        product = 1
        for part in expression.args:
            product = product * _residue(part, prime, places) % prime
        return product
    if expression.is_Pow:
        exponent = _integer(expression.exp)
        base = _residue(expression.base, prime, places)
        return pow(base if exponent >= 0 else _inverse(base, prime), abs(exponent), prime)
    return _counted(expression) % prime


def _inverse(number: int, prime: int) -> int:
    if number % prime == 0:
        raise _NotExactError
    return pow(number, -1, prime)


def _integer(expression: Any) -> int:
    """An integer of bounded size."""
    if expression.is_Integer:
        return int(expression)
    if expression.is_Add or expression.is_Mul:
        parts = [_integer(part) for part in expression.args]
        value = sum(parts) if expression.is_Add else math.prod(parts)
        if abs(value) <= _MAX_EXPONENT:
            return value
    raise _NotExactError


def _counted(expression: Any) -> int:
    """A factorial or binomial."""
    import sympy

    if not isinstance(expression, (sympy.factorial, sympy.binomial)):
        raise _NotExactError
    top, *bottom = (_integer(part) for part in expression.args)
    if not all(0 <= number <= _MAX_FACTORIAL for number in (top, *bottom)):
        raise _NotExactError
    return math.comb(top, *bottom) if bottom else math.factorial(top)


def further_digits(*expressions: Any) -> int:
    """By how many decimal digits the terms of formulas may differ in size: digits that a comparison needs besides."""
    import sympy

    digits = 0.0
    for expression in expressions:
        for power in expression.atoms(sympy.Pow, sympy.exp):
            written, exponent = power.as_base_exp()
            if exponent.is_Rational and written.is_number:
                base = abs(sympy.N(written, 15))
                digits += abs(float(exponent)) * abs(math.log10(float(base))) if base > 0 and base.is_finite else 0
        digits += sum(len(str(abs(number.p))) + len(str(number.q)) - 2 for number in expression.atoms(sympy.Rational))
        digits += sum(3 * int(one.args[0]) for one in expression.atoms(sympy.factorial) if one.args[0].is_Integer)
        if digits > _MAX_LOGARITHM:
            return _MAX_LOGARITHM
    return int(digits)
