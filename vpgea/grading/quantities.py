r"""Numbers in running text, by value: `\dfrac34`, `0.75` and `75\%` are one, and `\frac{\pi}{12}` is `π/12`.

A quantity is rational · π^k · √n. Everything is read in place, without sympy, in time linear in the length of the
(untrusted) text: nesting is read to a fixed depth, and a number of more than MAX_DIGITS digits is never computed.
"""

from __future__ import annotations

import math
import re
import unicodedata
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

MAX_DIGITS = 100  # of what is computed: `9^{9^9}` and `10^{1000}` are no quantities
_MAX_DEPTH = 3  # of fractions and roots within each other
_MAX_RADICAND = 10**6
_MAX_FACTORS = 4

_SPACE = r"(?:[ \t]|\\[ ,;:!]|\\thinspace\b)*"
_GROUP = r"(?:,\\!|\{,\}|\{\\,\}|\\[,!]|[,\u00a0\u2009\u202f])"
_GROUPED = rf"[0-9]{{1,3}}(?:{_GROUP}[0-9]{{3}}){{1,30}}(?![0-9])"
_GROUPED_BY_SPACE = r"(?<![0-9.,] )[1-9][0-9]{0,2}(?: [0-9]{3}){1,30}(?![0-9]| [0-9])"
_NUMBER = re.compile(rf"(?P<whole>{_GROUPED}|{_GROUPED_BY_SPACE}|[0-9]+)(?P<decimals>\.[0-9]+)?|(?P<bare>\.[0-9]+)")
_EXPONENT_LETTER = re.compile(r"[eE]([+-]?[0-9]{1,3})(?![\w.])")
_TIMES_TEN = re.compile(rf"{_SPACE}(?:\\times|\\cdot|[*×·]){_SPACE}10{_SPACE}\^")
_EXPONENT = re.compile(rf"{_SPACE}\^{_SPACE}(?:([+-]?[0-9]{{1,4}})(?![0-9])|\{{{_SPACE}([+-]?[0-9]{{1,4}}){_SPACE}\}})")
_SUPERSCRIPT = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹]{1,4}")
_DIGITS_OF_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
_VULGAR = re.compile(r"[¼½¾⅐-⅞]")
_NO_DIGIT = re.compile(r"[^0-9]")

_FRACTION = re.compile(rf"\\[dtc]?frac(?![A-Za-z]){_SPACE}")
_ROOT = re.compile(rf"(?:\\sqrt(?![A-Za-z])|(?P<sign>√)|\bsqrt(?=[({{])){_SPACE}")
_PI = re.compile(r"\\pi(?![A-Za-z])|π")
_JUXTAPOSED = re.compile(
    rf"{_SPACE}(?:(?:\\cdot|\\times|[*·×]){_SPACE})?(?=\\pi(?![A-Za-z])|π|\\sqrt(?![A-Za-z])|√|sqrt\()"
)
_SLASH = re.compile(rf"{_SPACE}[/÷]{_SPACE}")
_PLAIN_FRACTION = re.compile(r" ([0-9]{1,6})/([1-9][0-9]{0,5})(?![\d/])")
_DIGIT = re.compile(r"[0-9]")
_TWO_DIGITS = re.compile(r"[0-9]{2}")
_SPACES = re.compile(_SPACE)
_OPEN, _CLOSE = re.compile(rf"[{{(]{_SPACE}"), re.compile(rf"{_SPACE}[)}}]")
_DEGREES = re.compile(rf"{_SPACE}(?:\^{_SPACE}(?:\\circ(?![A-Za-z])|\{{{_SPACE}\\circ{_SPACE}\}})|°|\\degrees?\b)")
_PERCENT = re.compile(rf"{_SPACE}(?:\\?%|(?:percent|per cent|pct)\b)")


class Quantity(NamedTuple):
    """coefficient · π^pi · √root, root free of squares; percent: written with a percent sign, which is not applied."""

    coefficient: Fraction
    pi: int = 0
    root: int = 1
    percent: bool = False

    @property
    def rational(self) -> bool:
        """True without π and root."""
        return self.pi == 0 and self.root == 1

    def times(self, other: Quantity) -> Quantity:
        """The product."""
        shared = math.gcd(self.root, other.root)
        coefficient = self.coefficient * other.coefficient * shared
        root = self.root * other.root // shared**2
        return Quantity(coefficient, self.pi + other.pi, root) if coefficient else Quantity(coefficient)

    def over(self, other: Quantity) -> Quantity | None:
        """The quotient; None for a division by zero."""
        if other.coefficient == 0:
            return None
        return self.times(Quantity(1 / (other.coefficient * other.root), -other.pi, other.root))


class Reading(NamedTuple):
    """What stands at a place. computed: a division or root that comes out whole, so that the value is still to be
    worked out."""

    quantity: Quantity
    end: int
    computed: bool = False


def read_quantity(text: str, start: int) -> Reading | None:
    """The longest quantity without a sign that begins at `start`, with a degree or percent sign; None without one."""
    reading = _term(text, start, _MAX_DEPTH)
    if reading is None:
        return None
    if degrees := _DEGREES.match(text, reading.end):
        return reading._replace(end=degrees.end())
    if reading.quantity.rational and (percent := _PERCENT.match(text, reading.end)):
        return Reading(reading.quantity._replace(percent=True), percent.end(), reading.computed)
    return reading


def _term(text: str, start: int, depth: int) -> Reading | None:
    r"""Factors with π and roots behind them, over at most one more factor: `3\pi/4`, `2\cdot\sqrt3`, `36/2`."""
    reading = _product(text, start, depth)
    if reading is None or not (slash := _SLASH.match(text, reading.end)):
        return reading
    divisor = _product(text, slash.end(), depth)
    quotient = reading.quantity.over(divisor.quantity) if divisor else None
    if divisor is None or quotient is None:
        return reading
    return Reading(quotient, divisor.end, _whole(quotient) or reading.computed)


def _product(text: str, start: int, depth: int) -> Reading | None:
    reading = _factor(text, start, depth)
    for _ in range(_MAX_FACTORS - 1):
        gap = _JUXTAPOSED.match(text, reading.end) if reading else None
        factor = _factor(text, gap.end(), depth) if gap else None
        if reading is None or factor is None:
            break
        reading = Reading(reading.quantity.times(factor.quantity), factor.end, reading.computed or factor.computed)
    return reading


def _factor(text: str, start: int, depth: int) -> Reading | None:
    if depth == 0:
        return None
    if fraction := _FRACTION.match(text, start):
        return _fraction(text, fraction.end(), depth)
    if root := _ROOT.match(text, start):
        return _root(text, root.end(), depth, digits=root["sign"] is not None)
    if pi := _PI.match(text, start):
        exponent, end = _exponent(text, pi.end())
        return Reading(Quantity(Fraction(1), 1 if exponent is None else exponent), end)
    if vulgar := _VULGAR.match(text, start):
        return Reading(Quantity(_vulgar(vulgar[0])), vulgar.end())
    return _numeral(text, start, depth)


def _numeral(text: str, start: int, depth: int) -> Reading | None:
    """A number in digits with its exponent, or a mixed number."""
    match = _NUMBER.match(text, start)
    if match is None or match.end() - start > MAX_DIGITS:
        return None
    whole, decimals, end = match["whole"] or "0", match["decimals"] or match["bare"], match.end()
    whole = whole if whole.isdigit() else _NO_DIGIT.sub("", whole)
    value = Fraction(whole + decimals) if decimals else Fraction(int(whole))
    if letter := _EXPONENT_LETTER.match(text, end):
        return _power_of_ten(value, int(letter[1]), letter.end())
    if (times := _TIMES_TEN.match(text, end)) and (power := _EXPONENT.match(text, times.end() - 1)):
        return _power_of_ten(value, int(power[1] or power[2]), power.end())
    exponent, power_end = _exponent(text, end)
    if exponent is not None:
        digits = abs(exponent) * math.log10(max(value.numerator, value.denominator, 1))
        if digits > MAX_DIGITS or (value == 0 and exponent < 0):
            return None
        return Reading(Quantity(value**exponent), power_end)
    mixed = _part_of_mixed(text, end, depth) if not decimals else None
    return Reading(Quantity(value + mixed[0]), mixed[1]) if mixed else Reading(Quantity(value), end)


def _power_of_ten(value: Fraction, exponent: int, end: int) -> Reading | None:
    return Reading(Quantity(value * Fraction(10) ** exponent), end) if abs(exponent) <= MAX_DIGITS else None


def _part_of_mixed(text: str, end: int, depth: int) -> tuple[Fraction, int] | None:
    r"""The proper fraction behind a whole number: `1\frac{4}{5}`, `1 4/5`, `1½`; (fraction, end)."""
    if vulgar := _VULGAR.match(text, end):
        return _vulgar(vulgar[0]), vulgar.end()
    if plain := _PLAIN_FRACTION.match(text, end):
        value, stop = Fraction(int(plain[1]), int(plain[2])), plain.end()
    elif fraction := _FRACTION.match(text, _after_space(text, end)):
        reading = _fraction(text, fraction.end(), depth)
        if reading is None or not reading.quantity.rational:
            return None
        value, stop = reading.quantity.coefficient, reading.end
    else:
        return None
    return (value, stop) if 0 < value < 1 else None


def _fraction(text: str, start: int, depth: int) -> Reading | None:
    r"""The two arguments of `\frac`, each in braces or one digit."""
    if not (top := _argument(text, start, depth)):
        return None
    bottom = _argument(text, _after_space(text, top.end), depth)
    quotient = top.quantity.over(bottom.quantity) if bottom else None
    if bottom is None or quotient is None:
        return None
    return Reading(quotient, bottom.end, _whole(quotient))


def _root(text: str, start: int, depth: int, *, digits: bool) -> Reading | None:
    """What is under a root; digits: several may stand there without braces (`√12`)."""
    argument = (_numeral(text, start, depth) if digits else None) or _argument(text, start, depth)
    if _TWO_DIGITS.match(text, start) and not digits:
        return None
    if argument is None or not argument.quantity.rational or argument.quantity.coefficient < 0:
        return None
    inside = argument.quantity.coefficient
    radicand = inside.numerator * inside.denominator
    if radicand > _MAX_RADICAND:
        return None
    outside, rest = _draw_out(radicand)
    root = Quantity(Fraction(outside, inside.denominator), 0, rest) if radicand else Quantity(Fraction(0))
    return Reading(root, argument.end, _whole(root))


def _argument(text: str, start: int, depth: int) -> Reading | None:
    """A quantity in braces or parentheses, with a sign where there is one, or one digit that no other follows."""
    if opening := _OPEN.match(text, start):
        sign = -1 if text.startswith("-", opening.end()) else 1
        inner = _term(text, opening.end() + (sign < 0), depth - 1)
        closing = _CLOSE.match(text, inner.end) if inner else None
        if inner is None or closing is None:
            return None
        return Reading(inner.quantity._replace(coefficient=sign * inner.quantity.coefficient), closing.end())
    if _DIGIT.match(text, start):
        return Reading(Quantity(Fraction(int(text[start]))), start + 1)
    return None


def _exponent(text: str, start: int) -> tuple[int | None, int]:
    if power := _EXPONENT.match(text, start):
        return int(power[1] or power[2]), power.end()
    if raised := _SUPERSCRIPT.match(text, start):
        return raised_digits(raised[0]), raised.end()
    return None, start


def raised_digits(written: str) -> int:
    """The number that superscript digits are."""
    return int(written[:MAX_DIGITS].translate(_DIGITS_OF_SUPERSCRIPT))


def _after_space(text: str, start: int) -> int:
    match = _SPACES.match(text, start)
    return match.end() if match else start


@lru_cache(maxsize=4096)
def _draw_out(radicand: int) -> tuple[int, int]:
    """(a, b) with a²b = radicand and b free of squares."""
    outside, inside, divisor = 1, radicand, 2
    while divisor * divisor <= inside:
        while inside % (divisor * divisor) == 0:
            inside //= divisor * divisor
            outside *= divisor
        divisor += 1
    return outside, inside


def _vulgar(character: str) -> Fraction:
    return Fraction(unicodedata.numeric(character)).limit_denominator(10)


def _whole(quantity: Quantity) -> bool:
    return quantity.rational and quantity.coefficient.denominator == 1
