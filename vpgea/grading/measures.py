r"""An answer as a value and its unit: `12\frac{\text{km}}{\text{h}}`, `3 hours 20 minutes`, `2.5 million`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from vpgea.grading.normalise import normalise
from vpgea.grading.numbers import read_number
from vpgea.grading.units import SCALES, Unit, read_unit

_MAX_LENGTH = 400  # characters; a longer text is no value with a unit
_POWER = r"(?: ?\^ ?(?:-?[1-9]|\{ ?-?[1-9] ?\}))"
_TEXT = rf"\\text ?\{{[^{{}}]*(?:\{{-?[1-9]\}}[^{{}}]*){{0,4}}\}}{_POWER}?"
_SHORT = "[cdkmnu]m|k[gmWJ]|mg|m[lLs]|ft|in|yd|mi|lb|oz|hr|yr|wk|mo|pt|qt|[ap]m|pc|[KMGT]B|eV|Hz|Pa|sq|cu|cc|of"
_BARE = rf"(?<![\\A-Za-z\d}}])(?:[A-Za-z]{{3,}}|{_SHORT})\.?{_POWER}?(?![A-Za-z({{\\])"
_WORD = rf"(?:\\frac ?\{{ ?{_TEXT} ?\}} ?\{{ ?{_TEXT} ?\}}|{_TEXT}|{_BARE}| \([A-Za-z ]{{3,}}\))"
_JOIN = r"(?:/|\\cdot(?![A-Za-z]))"
_LETTER = rf"[A-Za-z]{_POWER}?(?![A-Za-z])"
# A unit begins with a word or with what is set as text: `x/y` and `m \cdot g` are formulas.
_UNIT = rf"(?:{_JOIN} ?)?{_WORD}(?: ?-? ?(?:(?:{_JOIN} ?)?{_WORD}|{_JOIN} ?{_LETTER}))*"
_WITH_UNIT = re.compile(rf"(?P<value>.*?[\d.}}%)!a-z])(?P<tail> ?-? ?{_UNIT})[ .]*", re.DOTALL)
# Letters alone are a unit behind a plain number, a space between them, where people write them so: `5 m/s`.
_PER_UNIT = re.compile(
    r"(-?(?:\d[\d,]*(?:\.\d+)?|\.\d+|\\frac ?\{\d+\} ?\{\d+\}|\d+/\d+)) "
    rf"((?:[mLl] ?/ ?(?:min|[sh])|g ?/ ?(?:mL|ml|mol|cm|[LlsmhJ])|J ?/ ?(?:kg|mol|[sgKC])|[NVWC] ?/ ?[msC]){_POWER}?)"
)
_VALUE_END = re.compile(r"[\d.%)!]$|\\(?:pi|infty)$|(?<!text)\}$|(?<![A-Za-z\\])[a-z]$")
_WORDS = re.compile(rf"(?:[A-Za-z]+\.?(?:[A-Za-z]\.)?|¢){_POWER}?|/")
_DOTTED = re.compile(r"(?<![A-Za-z])(?:[A-Za-z]\. ?){1,3}[A-Za-z]\b\.?")  # `a.m.`, `m.p.h.`
_ABBREVIATED = re.compile(r"(?<=[A-Za-z]{2})\.(?= ?[A-Za-z])")  # `sq.ft`
_COMPOUND = re.compile(r"(\d+(?:\.\d+)?) ?((?:\\text ?\{ ?)?[A-Za-z]+ ?\}?),? ?")
_GLUED = re.compile(
    r"(.*\d) ?((?:[mck]m|kg|mg|ft|in|yd|mi|lbs?|oz|ml|mL|cc|[ap]m|mph|kph|yrs?|hrs?|mins?|secs?|wks?)(?:\^\{?\d\}?)?)$"
)
_LETTER_UNIT = re.compile(rf"(?<=[\d}}]) ?[mgshlL]{_POWER}?(?: ?/ ?[mgshlL]{_POWER}?)?$")
_PRIMES = re.compile(r"(.*\d)('{1,2})$")


@dataclass(frozen=True)
class Measure:
    """A value and what it is a value of.

    Attributes:
        value: Normalised text without unit.
        unit: None without one.
        known: False where words stand behind the value that name no unit.
    """

    value: str
    unit: Unit | None = None
    known: bool = True


@lru_cache(maxsize=2048)
def read_measure(text: str, also: frozenset[str] | None = frozenset()) -> Measure:
    """A normalised text as a value with its unit.

    Args:
        text: What `normalise` gives.
        also: Stems of words that may be counted besides those that are known; None takes every word for a unit.
    """
    if len(text) > _MAX_LENGTH:
        return Measure(text)
    text = _ABBREVIATED.sub(" ", _DOTTED.sub(lambda dotted: re.sub(r"[. ]", "", dotted[0]), text))
    if compound := _compound(text):
        return compound
    if primes := _PRIMES.fullmatch(text):
        arc = Unit((("arc", 1),), Fraction(1, 60) if len(primes[2]) == 2 else Fraction(1))
        return Measure(primes[1], arc, known=also is None)
    match = _PER_UNIT.fullmatch(text) or _WITH_UNIT.fullmatch(text) or _GLUED.fullmatch(text)
    if match is None or not _VALUE_END.search(match[1]):
        return Measure(text)
    return _with_words(match[1], words_of(match[2]), also)


def _with_words(value: str, words: list[str], also: frozenset[str] | None) -> Measure:
    scale = 1
    while words and words[0].lower() in SCALES:
        scale *= SCALES[words.pop(0).lower()]
    if scale > 1:
        words = words[words[:1] == ["of"] :]
        number = read_number(value)
        if number is None or number.percent:
            return Measure(value, known=False)
        value = str(number.value * scale)
    unit = read_unit(words, also)
    if unit is None:
        return Measure(value, known=False)
    return Measure(normalise(value), unit if unit.dimensions else None)


def words_of(tail: str) -> list[str]:
    r"""The words of a unit as `read_unit` takes them: `\frac{\text{km}}{\text{h}^2}` is km, /, h^2."""
    tail = re.sub(r"\\frac ?\{(.*?\}[^{}]*)\} ?\{(.*)\}", r"\1 / \2", tail)
    tail = re.sub(r"\bin (?:total|all)\b", " ", tail)
    tail = re.sub(r"\\text ?|\\cdot|[(){}]|-(?!\d)", " ", re.sub(r"\^ ?\{ ?(-?\d) ?\}", r"^\1", tail))
    tail = re.sub(r" \^ ?| ?\^ ", "^", tail)
    return (
        [word.replace(" ", "") for word in _WORDS.findall(tail)]
        if not re.search(r"(?<!\^)(?<!\^-)\d|[?=]", tail)
        else ["?"]
    )


def _compound(text: str) -> Measure | None:
    """`3 hours 20 minutes` in its smallest measure; None where it is no such sum."""
    parts, at = [], 0
    while match := _COMPOUND.match(text, at):
        parts.append(match)
        at = match.end()
    if len(parts) < 2 or at < len(text):
        return None
    units = [read_unit(words_of(part[2]), frozenset()) for part in parts]
    if any(unit is None or not unit.measured or unit.dimensions != units[0].dimensions for unit in units if units[0]):
        return None
    total = sum((Fraction(part[1]) * unit.factor for part, unit in zip(parts, units, strict=True) if unit), Fraction(0))
    return Measure(str(total), Unit(units[0].dimensions, Fraction(1))) if units[0] else None


def with_letter(measure: Measure) -> Measure:
    """`5 m` without a unit as five of it, where that letter names one."""
    plain = without_letter(measure.value)
    unit = read_unit(words_of(measure.value[len(plain) :]), frozenset()) if plain != measure.value else None
    return Measure(plain, unit) if unit and read_number(plain) else measure


def without_letter(text: str) -> str:
    """`5 m^2` → `5`: a unit of one letter, which may be a variable as well."""
    return _LETTER_UNIT.sub("", text)


def plain_value(text: str) -> str:
    """The value of a normalised reference, whatever it counts."""
    return read_measure(text, None).value
