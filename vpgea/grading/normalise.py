r"""Rewriting an answer into plain LaTeX, and reading plain numbers without sympy.

Each rule mends a form that math-verify misreads or rejects; docs/grading.md lists them with examples.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_UNICODE = str.maketrans(
    {
        "−": "-", "–": "-", "＋": "+", "％": "%", "，": ",", "\u00a0": " ", "\u202f": " ", "\u2009": " ",
        "×": r"\times ", "·": r"\cdot ", "÷": "/", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ",
        "≠": r"\ne ", "∪": r"\cup ", "²": "^2", "³": "^3", "°": r"^\circ ", "€": "", "£": "", "¥": "",
    }
)  # fmt: skip

# Units of two letters; words of three and more (`dollars`) count as units as well. A single letter may be a
# variable: see `drop_letter_unit`.
_UNITS = "mm|cm|dm|km|mi|ft|in|yd|kg|mg|lb|oz|ml|mL|ms|hr"
_POWER = r"(?:\s*\^\s*(?:-?[1-9]|\{\s*-?[1-9]\s*\}))?"
_NO_UNIT = r"(?:and|or|mod|sqrt|sin|cos|tan|log|base|inf|infinity)\b"
_WORD = rf"(?:(?!{_NO_UNIT})(?:[A-Za-z]{{3,}}|(?:{_UNITS})(?![A-Za-z])){_POWER})"
_TEXT_UNIT = r"\\text\s*\{(?!\s*[ap]\.?\s?m\b)[^{}]*[A-Za-z.][^{}]*\}" + _POWER
_AFTER_VALUE = r"(?<=[\d.}%)])\s*"

# (pattern, replacement), applied in this order.
_RULES: list[tuple[re.Pattern[str], str]] = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"\\!\s*", ""),
        (r"\{\s*,\s*\}", ","),
        (r"(?<!\\)\\(?:[,;:> ]|q?quad\b|thinspace\b)|~", " "),
        (r"\s{2,}", " "),  # a long run would be scanned again by every rule that allows white space
        (r"\\(?:displaystyle|textstyle|limits)\b\s*", ""),
        (r"\\[dtc]frac", r"\\frac"),
        (r"\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])\s*\.?", ""),
        (r"\\(?:text(?:bf|it|rm|normal|sf|tt)|mbox|hbox|mathrm|mathbf|mathit|mathsf|textup)\s*\{", r"\\text{"),
        (r"\\text\s*\{\s*\}", ""),
        (r"\\(?:leq|leqslant)\b", r"\\le"),
        (r"\\(?:geq|geqslant)\b", r"\\ge"),
        (r"\\neq\b|!=", r"\\ne"),
        (r"\\lt\b", "<"),
        (r"\\gt\b", ">"),
        (r"\\%", "%"),
        (r"\\?\$", ""),
        (r"\s*\\text\s*\{\s*(?:percent(?:age)?|pct|%)\s*\}|\s*\b(?:percent(?:age)?|pct)\b", "%"),
        (r",?\s*\\text\s*\{\s*,?\s*(?:and|or)\s*\}", ","),
        (r",?\s+(?:and|or)\s+|(?<=\))(?:and|or)(?=\()", ", "),
        (r"\\frac\s*(\d)\s*(\d)(?!\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
        (r"(\\frac\s*\{[^{}]*\})\s*(\d)", r"\1{\2}"),
        (r"(?<=\d)\s*(?:\^\s*)?(?:\{\s*)?(?:\\text\s*\{\s*)?(?:st|nd|rd|th)\s*\}{0,2}\s*$", ""),
        (r"\s*(?:\^\s*\{?\s*\\circ\s*\}?|\\degrees?\b)\s*(?=$|,)", ""),
        (_AFTER_VALUE + rf"{_TEXT_UNIT}(?:(?:\s|/|\\cdot)*{_TEXT_UNIT})*\s*$", ""),
        (_AFTER_VALUE + rf"(?<=\s){_WORD}(?:[ /-]{{1,2}}{_WORD})*\s*$", ""),
        (rf"(?<=\d)(?:[mck]m|kg|ft){_POWER}\s*$", ""),
    ]
]
_GROUPED_BY_SPACE = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?! ?\d)")
_LETTER_UNIT = re.compile(rf"(?<=[\d}}])\s*[mgshlL]{_POWER}(?:\s?/\s?[mgshlL]{_POWER})?$")
_BOXES = re.compile(r"(?:\\{1,3}(?:boxed|fbox) ?\{ ?)+")
_WRAPPERS = [
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"\\\((.*)\\\)",
        r"\\\[(.*)\\\]",
        r"\\{1,3}(?:boxed|fbox)\s*\{(.*)\}",
        r"\\text\s*\{([^{}]*)\}",
        r"\*\*(.*)\*\*",
    )
]


def normalise(text: str) -> str:
    """Plain LaTeX of an answer: no delimiters, spacing commands, currency, units, ordinals or closing full stop."""
    text = _drop_boxes(" ".join(text.translate(_UNICODE).split()))
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    text = _GROUPED_BY_SPACE.sub(lambda match: match[0].replace(" ", ""), text)
    return _unwrap(text)


def _drop_boxes(text: str) -> str:
    """The inside of boxes around the whole text, however many there are, in one pass."""
    opening = _BOXES.match(text)
    if not opening:
        return text
    count = min(opening[0].count("{"), len(text) - len(text.rstrip("}")))
    inside = text[opening.end() : len(text) - count]
    return inside if count == opening[0].count("{") and balanced(inside) else text


def drop_letter_unit(text: str) -> str:
    """`5 m^2` → `5`. Only for an answer whose reference is a plain number: else the letter may be a variable."""
    return _LETTER_UNIT.sub("", text)


def _unwrap(text: str) -> str:
    while True:
        stripped = text.strip().rstrip(".,;:").strip()
        if re.match(r"\+\s*[\d.\\(]", stripped):
            stripped = stripped[1:].lstrip()
        for wrapper in _WRAPPERS:
            if (match := wrapper.fullmatch(stripped)) and balanced(match[1]):
                stripped = match[1]
        stripped = _drop_outer_parentheses(stripped)
        if stripped == text:
            return text
        text = stripped


def _drop_outer_parentheses(text: str) -> str:
    """`((5))` → `5` and `(C)` → `C`, in one pass; a comma inside makes it a tuple, which stays."""
    if not (text.startswith("(") and text.endswith(")")) or "," in text or ";" in text:
        return text
    depth, lowest_inside, outer = 0, len(text), len(text) - len(text.lstrip("("))
    for character in text[outer : len(text.rstrip(")"))]:
        depth += (character == "(") - (character == ")")
        lowest_inside = min(lowest_inside, depth)
    closing = len(text) - len(text.rstrip(")"))
    if outer == len(text) or closing - depth != outer:
        return text
    drop = outer + min(0, lowest_inside)
    return text[drop : len(text) - drop]


def balanced(text: str) -> bool:
    """True when every unescaped brace in the text has its partner."""
    depth = 0
    for token in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        depth += (token[0] == "{") - (token[0] == "}")
        if depth < 0:
            return False
    return depth == 0


@dataclass(frozen=True)
class Number:
    """A plain number.

    Attributes:
        value: Exact.
        decimal: Whether it is written with a decimal point or an exponent.
        percent: Whether a percent sign follows.
    """

    value: Fraction
    decimal: bool = False
    percent: bool = False


_MAX_DIGITS = 400  # longer ones are left to sympy under the deadline
_NUMBER = re.compile(
    r"""(?P<sign>[+-]?)\s*
    (?:
      (?P<digits>(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)
      (?: [eE](?P<exponent>[+-]?\d{1,3})
        | \s*(?:\\times|\\cdot|\*|x)\s*10\s*\^\s*(?P<power>[+-]?\d{1,3}|\{\s*[+-]?\d{1,3}\s*\})
      )?
    | 10\s*\^\s*\{\s*(?P<ten>[+-]?\d{1,3})\s*\}
    | (?:(?P<whole>\d+)\s*)?\\frac\s*\{\s*(?P<top>-?\d+)\s*\}\s*\{\s*(?P<bottom>\d+)\s*\}
    | (?:(?P<plain_whole>\d+)\s+)?(?P<plain_top>\d+)\s*/\s*(?P<plain_bottom>\d+)
    )
    \s*(?P<percent>%?)""",
    re.VERBOSE | re.ASCII,
)


def read_number(text: str) -> Number | None:
    r"""What number a normalised text is: `1,234`, `-3.5`, `1e-5`, `2\times10^{-3}`, `\frac{1}{2}`, `1 4/5`, `7%`."""
    if len(text) > _MAX_DIGITS or not (match := _NUMBER.fullmatch(text.strip())):
        return None
    decimal = False
    if (digits := match["digits"]) is not None:
        exponent = int((match["exponent"] or match["power"] or "0").strip("{} "))
        value = Fraction(digits.replace(",", "")) * Fraction(10) ** exponent
        decimal = "." in digits or exponent < 0
    elif match["ten"] is not None:
        value, decimal = Fraction(10) ** int(match["ten"]), int(match["ten"]) < 0
    else:
        bottom = int(match["bottom"] or match["plain_bottom"])
        if bottom == 0:
            return None
        value = Fraction(int(match["top"] or match["plain_top"]), bottom)
        value += int(match["whole"] or match["plain_whole"] or 0)
    return Number(-value if match["sign"] == "-" else value, decimal, bool(match["percent"]))
