r"""Plain numbers in normalised text, read exactly: `1,234`, `-3.5`, `2\times10^{-3}`, `\frac{1}{2}`, `0.(3)`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache


@dataclass(frozen=True, kw_only=True)
class Number:
    """A plain number.

    Attributes:
        value: Exact.
        decimal: Whether it is written with a decimal point or an exponent.
        percent: Whether a percent sign follows.
        step: Of a decimal, what one more in its last digit would add.
    """

    value: Fraction
    decimal: bool = False
    percent: bool = False
    step: Fraction = Fraction(0)

    @property
    def finite(self) -> bool:
        """Whether it can be written as a decimal that ends."""
        rest = self.value.denominator
        for prime in (2, 5):
            while rest % prime == 0:
                rest //= prime
        return rest == 1


_MAX_DIGITS = 400  # longer ones are left to sympy under the deadline
_POWER_OF_TEN = r"10\s*\^\s*(?:[+-]?\d{1,3}(?!\d)|\{\s*[+-]?\d{1,3}\s*\})"
_NUMBER = re.compile(
    rf"""(?P<sign>[+-]?)\s*
    (?:
      (?P<digits>(?:\d{{1,3}}(?:,\d{{3}})+|\d+)(?:\.\d*)?|\.\d+)
      (?: [eE](?P<exponent>[+-]?\d{{1,3}}) | \s*(?:\\times|\\cdot|\*|x)\s*(?P<power>{_POWER_OF_TEN}) )?
    | (?P<ten>{_POWER_OF_TEN})
    | (?:(?P<whole>\d+)\s*)?\\frac\s*\{{\s*(?P<top>-?\d+)\s*\}}\s*\{{\s*(?P<bottom>-?\d+)\s*\}}
    | (?:(?P<plain_whole>\d+)\s+)?(?P<plain_top>\d+)\s*/\s*(?P<plain_bottom>\d+)
    )
    \s*(?P<percent>%?)""",
    re.VERBOSE | re.ASCII,
)
_REPEATING = re.compile(
    r"""(?P<sign>[+-]?)\s*(?P<whole>\d*)\.(?P<first>\d*?)
    (?: \\(?:overline|bar|overbar|dot)\s*\{?\s*(?P<period>\d{1,40})\s*\}? | \((?P<bracketed>\d{1,40})\)
      | (?P<shown>\d{1,9}?)(?P=shown){2,}\s*(?:\.\.\.|\\[lc]?dots) )
    \s*(?P<percent>%?)""",
    re.VERBOSE | re.ASCII,
)


@lru_cache(maxsize=4096)
def read_number(text: str) -> Number | None:
    r"""What number a normalised text is: `1,234`, `1e-5`, `2\times10^{-3}`, `\frac{1}{2}`, `1 4/5`, `7%`, `0.(3)`."""
    text = text.strip()
    if len(text) > _MAX_DIGITS:
        return None
    if match := _NUMBER.fullmatch(text):
        return _number(match)
    repeating = _REPEATING.fullmatch(text)
    return _repeating(repeating) if repeating else None


def _number(match: re.Match[str]) -> Number | None:
    decimal, step = False, Fraction(0)
    if (digits := match["digits"]) is not None:
        digits = digits.replace(",", "")
        exponent = int(match["exponent"] or _exponent(match["power"]))
        scale = Fraction(10) ** exponent
        value = Fraction(digits) * scale
        decimal = "." in digits or exponent < 0
        step = scale / 10 ** len(digits.partition(".")[2])
    elif match["ten"] is not None:
        exponent = _exponent(match["ten"])
        value, decimal = Fraction(10) ** exponent, exponent < 0
        step = value
    else:
        bottom = int(match["bottom"] or match["plain_bottom"])
        if bottom == 0:
            return None
        value = Fraction(int(match["top"] or match["plain_top"]), bottom)
        value += int(match["whole"] or match["plain_whole"] or 0)
    value = -value if match["sign"] == "-" else value
    return Number(value=value, decimal=decimal, percent=bool(match["percent"]), step=step if decimal else Fraction(0))


def _exponent(power: str | None) -> int:
    return int(power.partition("^")[2].strip("{} ")) if power else 0


def _repeating(match: re.Match[str]) -> Number:
    period = match["period"] or match["bracketed"] or match["shown"]
    start = Fraction(f"{match['whole'] or 0}.{match['first'] or 0}")
    value = start + Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(match["first"]))
    return Number(value=-value if match["sign"] == "-" else value, percent=bool(match["percent"]))
