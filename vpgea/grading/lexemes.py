r"""A text as the signs that a reader sees: quantities, words and symbols, whatever their spelling and spacing.

`\left( 3, \dfrac\pi2 \right)` and `(3,π/2)` give the same lexemes. Each keeps its place in the text.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from vpgea.grading.quantities import Quantity, raised_digits, read_quantity


class Lexeme(NamedTuple):
    """One sign in [start, end) of the text.

    content: a quantity with its sign, or a word (of two letters and more in lower case) or symbol in its one spelling.
    alone: a quantity that is a value by itself, no part of another one: not an exponent, an index or a coefficient.
    """

    start: int
    end: int
    content: Quantity | str
    alone: bool = False


# One character for one, so that places stay.
_SAME = {
    **{chr(ord("０") + digit): str(digit) for digit in range(10)},
    **dict(zip("−–﹣－＋＝（）［］，．：；％！／⁄×·∗✕", "----+=()[],.:;%!//****", strict=True)),
}
_SYMBOLS = str.maketrans(_SAME)
_SPELLINGS = {
    **{"≤": r"\le", "≥": r"\ge", "≠": r"\ne", "∞": r"\infty", "∪": r"\cup", "∩": r"\cap", "∈": r"\in", "±": r"\pm"},
    **{r"\leq": r"\le", r"\leqslant": r"\le", r"\geq": r"\ge", r"\geqslant": r"\ge", r"\neq": r"\ne"},
    **{r"\lt": "<", r"\gt": ">", r"\dfrac": r"\frac", r"\tfrac": r"\frac", r"\cfrac": r"\frac"},
    **{r"\{": "{", r"\}": "}", r"\lbrace": "{", r"\rbrace": "}", r"\%": "%", r"\_": "_", r"\&": "&", r"\#": "#"},
    **{"√": r"\sqrt", "π": r"\pi", "θ": r"\theta", r"\vert": "|", r"\mid": "|"},
}
_IDEOGRAPH = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_VALUES, _RAISED = "¼½¾⅐-⅞√π", "⁰¹²³⁴-⁹"
_SCANNER = re.compile(
    rf"""
    [ ]*(?:
    (?P<word>(?!sqrt[({{])(?:[A-Za-z]+(?![^\W\d_])|[{_IDEOGRAPH}]|(?:(?![{_IDEOGRAPH}{_VALUES}{_RAISED}])[^\W\d_])+))
  | (?P<line>\s*\n\s*)
  | (?P<gap>[^\S\n]+|[$~]|\\[$ ,;:!>()\[\]\\]
      |\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits|q?quad|thinspace|boxed|fbox|text[a-z]{{0,6}}|mbox|hbox
        |math(?:rm|bf|it|sf|tt)|operatorname)(?![A-Za-z]))
  | (?P<times>\*|\\(?:times|cdot)(?![A-Za-z]))
  | (?P<minus>-)
  | (?P<raised>[{_RAISED}]+)
  | (?P<value>[0-9]+|[{_VALUES}]|\.[0-9]|\\(?:[dtc]?frac|sqrt(?!\s*\[)|pi)(?![A-Za-z])|sqrt(?=[({{]))
  | (?P<command>\\sqrt\s*\[[^\]\n]{{0,12}}\]|\\[A-Za-z]+|\\.)
  | (?P<other>.)
  | (?P<end>$)
    )""",
    re.VERBOSE | re.DOTALL,
)
# The underscore too; an ideograph is a word of its own.
_LETTER = re.compile(rf"(?![{_IDEOGRAPH}{_VALUES}{_RAISED}])[^\W\d]")
_LETTER_X = re.compile(r"(?<=[0-9])(?<!\b0)[xX](?=[0-9])")
_CURRENCY = re.compile(r"(?:\s|\\?[$€£])*")
_UNIT = re.compile(r"(?:mm|cm|dm|km|mi|ft|in|yd|kg|mg|lbs?|oz|ml|mL|ms|hrs?|mph|min|[ap]m)(?![A-Za-z])")
_GREEK = "pi|alpha|beta|gamma|delta|theta|lambda|mu|phi|rho|sigma|omega"
_FACTOR = re.compile(rf"\\(?:frac|sqrt|binom|sin|cos|tan|log|ln|{_GREEK})(?![A-Za-z])|[√πθ]")
_COEFFICIENT_OF = re.compile(rf"(?:\s|\\[ ,;!])*(?:{_FACTOR.pattern}|[\^_])|\(")
_GOES_ON = re.compile(r"[.,:][0-9]|(?<=\\pi)\s+[A-Za-z](?![A-Za-z])|!(?!\s+[A-Z\"'*]|\s*\n)|\s*/(?!\s*[A-Za-z]{3})")
_GLUED = re.compile(r"[0-9][.,:]$|[^\W\d]{2}-$|(?<![A-Za-z])[A-Za-z]\($")
_FUNCTIONS = re.compile(rf"\\(?:sin|cos|tan|cot|sec|csc|log|ln|exp|gcd|lcm|{_GREEK})$")
_OWNERS = ("^", "_", "/", r"\frac", r"\sqrt", r"\binom")  # what stands behind them is a part of something
_CLOSERS = (")", "]", "}", "|", "!", "%", "_")


def read_lexemes(text: str) -> list[Lexeme]:
    """The lexemes of a text, in order. Braces around a single lexeme and signs of multiplication are left out."""
    return _Reader(text).read()


class _Group(NamedTuple):
    """An open brace.

    opened: its place among the lexemes. part: it stands in an argument, an exponent or an index, or is one.
    followed: another argument comes behind it.
    """

    opened: int
    part: bool
    followed: bool


class _Reader:
    """One pass over a text. before: the last lexeme or sign, multiplication too, which is none of the lexemes."""

    def __init__(self, text: str) -> None:
        self.text = _LETTER_X.sub("*", text.translate(_SYMBOLS))
        self.found: list[Lexeme] = []
        self.groups: list[_Group] = []
        self.before: Lexeme | None = None
        self.argument_next = False

    def read(self) -> list[Lexeme]:
        position, text = 0, self.text
        while position < len(text):
            match = _SCANNER.match(text, position)
            assert match is not None, "the last alternatives take any character and the end"
            kind, position = match.lastgroup, match.end()
            if kind == "word":
                word = match["word"]
                self._add(Lexeme(match.start("word"), position, word.lower() if len(word) > 1 else word))
            elif kind == "line":
                self.groups.clear()  # a brace that was never closed spoils its own line only
            elif kind in ("value", "minus") and (end := self._signed_value(match)):
                position = end
            elif kind == "raised":
                self._symbol(match.start("raised"), "^")
                self._add(Lexeme(match.start("raised"), position, Quantity(Fraction(raised_digits(match["raised"])))))
            elif kind == "times":
                self.before = Lexeme(match.start("times"), position, "*")
            elif kind not in ("gap", "end"):
                self._symbol(match.start(str(kind)), match[str(kind)])
        return self.found

    def _value(self, start: int, digits: int, sign: int) -> int | None:
        """Take the quantity at `digits` with the sign that stands at `start`."""
        reading = read_quantity(self.text, digits)
        if reading is None:
            return None
        quantity = reading.quantity._replace(coefficient=sign * reading.quantity.coefficient)
        alone = not reading.computed and self._begins(start) and self._ends(reading.end)
        self._add(Lexeme(start, reading.end, quantity, alone))
        return reading.end

    def _signed_value(self, match: re.Match[str]) -> int | None:
        """Take the quantity at a digit, or behind a minus that is its sign; its end, None where there is none."""
        if match.lastgroup == "value":
            return self._value(match.start("value"), match.start("value"), sign=1)
        start, end = match.span("minus")
        value = _SCANNER.match(self.text, _after_currency(self.text, end)) if self._is_sign(start, end) else None
        if value is None or value.lastgroup != "value":
            return None
        return self._value(start, value.start("value"), sign=-1)

    def _is_sign(self, start: int, end: int) -> bool:
        """False for the minus between two operands, a hyphen, a dash and a bullet."""
        before, spaced = self.before, self.text[end : end + 1].isspace()
        if before is None or "\n" in self.text[before.end : start]:
            return not spaced
        content = before.content
        if isinstance(content, Quantity):
            return False
        if content.startswith("\\"):
            return not _FACTOR.match(content)
        if content.isalpha():
            prose = len(content) > 1 and before.end < start
            return not spaced and (prose or _LETTER.match(content) is None)
        return content not in _CLOSERS

    def _begins(self, start: int) -> bool:
        """True when nothing before a quantity makes it a part of something else."""
        before = self.before
        if self.groups and self.groups[-1].part:
            return False
        if before is None:
            return True
        content, adjacent = before.content, before.end == start
        if isinstance(content, Quantity):
            return not adjacent or self.text[start] == "-"
        if content in _OWNERS or _FUNCTIONS.match(content):
            return False
        if adjacent and not content.startswith("\\") and _LETTER.match(content[-1]):
            return False
        return not (adjacent and _GLUED.search(self.text[max(0, start - 3) : start]))

    def _ends(self, end: int) -> bool:
        """True when nothing behind a quantity makes it a part of something else."""
        if _LETTER.match(self.text, end) and not _UNIT.match(self.text, end):
            return False
        return not _COEFFICIENT_OF.match(self.text, end) and not _GOES_ON.match(self.text, end)

    def _symbol(self, start: int, written: str) -> None:
        lexeme = Lexeme(start, start + len(written), _SPELLINGS.get(written, written))
        if written == "{":
            owner = str(self.before.content) if self.before else ""
            part = self.argument_next or owner in _OWNERS or owner.startswith(r"\sqrt[")
            part = part or _FUNCTIONS.match(owner) is not None or (bool(self.groups) and self.groups[-1].part)
            self.groups.append(_Group(len(self.found), part, owner in (r"\frac", r"\binom")))
        if written == "}" and self.groups:
            self._close(lexeme)
        else:
            self._add(lexeme)

    def _close(self, brace: Lexeme) -> None:
        """End a group; around one lexeme or none its braces go."""
        group = self.groups.pop()
        if len(self.found) - group.opened <= 2:
            del self.found[group.opened]
            self.before = brace
        else:
            self._add(brace)
        self.argument_next = group.followed

    def _add(self, lexeme: Lexeme) -> None:
        self.found.append(lexeme)
        self.before = lexeme
        self.argument_next = False


def _after_currency(text: str, start: int) -> int:
    match = _CURRENCY.match(text, start)
    return match.end() if match else start
