r"""Rewriting an answer into plain LaTeX: one spelling for what is written in many ways.

Each rule mends a form that a parser would misread or reject; docs/grading.md lists them with examples.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from vpgea.grading.characters import plain_characters

_TO_SPACES = re.compile(
    r"(?<!\\)\\(?:[,;:> ]|q?quad\b|(?:thin|med|thick|en)space\b|[hv]space\*?\s?\{[^{}]*\})|~|[\s\u00a0]+"
)
_SPACES = re.compile(r"\s{2,}")
_INEQUALITY = re.compile(r"[<>]|\\(?:le|ge|lt|gt)(?![A-Za-z])")


def _primes(match: re.Match[str]) -> str:
    return "'" * match[1].count("prime")


# (pattern, replacement), applied in this order to a text without runs of spaces.
_RULES: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"(?<=\d)(?:,\\! ?| ?\{ ?, ?\} ?)(?=\d{3}(?!\d))", ""),
    (r"\\! ?", ""),
    (r"\\\\(?=(?:le|ge|leq|geq|lt|gt|in|cup|infty)(?![A-Za-z]))", r"\\"),
    (r"\{ ?, ?\}", ","),
    (r"\\[hv]?phantom ?(?:\{[^{}]*\}|.)|\\(?:label|tag\*?) ?\{[^{}]*\}", ""),
    (r"\\(?:color|textcolor|colorbox) ?\{[^{}]*\}", ""),
    (r"\\(?:math(?:bf|it|sf|normal|strut)|boldsymbol|bm|pmb|underline|ensuremath|strut|relax)(?![A-Za-z])", ""),
    (r"\\(?:bf|it|rm|sf|tt|sc|em|tiny|small|normalsize|large|Large|LARGE|huge|Huge)(?![A-Za-z]) ?", ""),
    (r"\\(?:(?:display|text|script)style|(?:no)?limits|bfseries|itshape|rmfamily)(?![A-Za-z]) ?", ""),
    (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
    (r"\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z]) ?\.?", ""),
    (r"\\(?:text(?:bf|it|rm|normal|sf|tt|up)|mbox|hbox|mathrm|operatorname\*?) ?\{", r"\\text{"),
    (r"\\text ?\{ ?\}", ""),
    (r"\\text ?\{ ?([eid]) ?\}", r"\1"),
    (r"\\text ?\{ ?(gcd|lcm|sinh|cosh|tanh|arcsin|arccos|arctan|sgn) ?\}", r"\\\1"),
    (r"\\(?:leqq?|leqslant)(?![A-Za-z])", r"\\le"),
    (r"\\(?:geqq?|geqslant)(?![A-Za-z])", r"\\ge"),
    (r"\\neq(?![A-Za-z])|!=", r"\\ne"),
    (r"\\lt(?![A-Za-z])", "<"),
    (r"\\gt(?![A-Za-z])", ">"),
    (r"\\vee(?![A-Za-z])", r"\\lor"),
    (r"\\wedge(?![A-Za-z])", r"\\land"),
    (r"\\big(cup|cap)(?![A-Za-z])", r"\\\1"),
    (r"\\smallsetminus(?![A-Za-z])", r"\\setminus"),
    (r"<=", r"\\le "),
    (r">=", r"\\ge "),
    (r"\\(?:[lr]vert|vert|mid)(?![A-Za-z])", "|"),
    (r"\\lbrace(?![A-Za-z])", r"\\{"),
    (r"\\rbrace(?![A-Za-z])", r"\\}"),
    (r"\\varnothing(?![A-Za-z])", r"\\emptyset"),
    (r"\\%", "%"),
    (r"\\?\$", ""),
    (r" ?\\text ?\{ ?(?:percent(?:age)?|pct|%) ?\}| ?\b(?:per ?cent(?:age)?|pct)\b", "%"),
    (r"\^ ?\{ ?((?:\\prime ?)+)\}", _primes),
    (r"\^ ?\\prime(?![A-Za-z])", "'"),
    (r"(?<![A-Za-z\\])pi(?![A-Za-z])", r"\\pi "),
    (r"\\frac ?(\d) ?(\d)(?!\d)", r"\\frac{\1}{\2}"),
    (r"\\frac ?(\d) ?\{", r"\\frac{\1}{"),
    (r"(\\frac ?\{[^{}]*\}) ?(\d)", r"\1{\2}"),
    (
        r"(?<=\d) ?(?:\^ ?)?(?:\{ ?)?(?:\\text ?\{ ?)?(?:st|nd|rd|th) ?\}{0,2}(?= ?$| ?\\text| ?[.,;]| [A-Za-z])",
        "",
    ),
    (
        r"^ ?(?:=|\\(?:approx|sim|simeq)(?![A-Za-z])|(?:about|approximately|roughly|around)\b)(?= ?[\d\\.+-])",
        "",
    ),
]
_COMPILED = [(re.compile(pattern), replacement) for pattern, replacement in _RULES]
_AND_OR = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"^ ?(?:\\text ?\{ ?either ?\}|either\b)(?=.*\bor\b)", ""),
        (r",? ?\\text ?\{ ?,? ?(?:and|or) ?\}", ","),
        (r",? (?:and|or) |(?<=\))(?:and|or)(?=\()", ", "),
    ]
]
_OF_CONDITIONS = [
    (re.compile(rf",? ?(?:\\text ?\{{ ?,? ?{word} ?\}}| {word} )"), sign)
    for word, sign in (("or", r" \\lor "), ("and", r" \\land "))
]
_DEGREES = re.compile(r" ?(?:\^ ?\{? ?\\circ ?\}?|\\degrees?(?![A-Za-z]))(?= ?$| ?,| ?\\text| ?[CF]$)")
_TRIGONOMETRIC = re.compile(r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)")
_GROUPED_BY_SPACE = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?! ?\d)")
_OPENING = re.compile(r" ?(?:\\{1,3}(?:boxed|fbox) ?)?\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_MAX_WRAPPED = 12  # rounds, so that what a looping answer nests costs no more than its length
_PLAIN = re.compile(r"-?\d{1,40}(?:\.\d{1,40})?", re.ASCII)  # nothing to rewrite
_WRAPPERS = [
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"\\\((.*)\\\)",
        r"\\\[(.*)\\\]",
        r"\\text ?\{([^{}]*)\}",
        r"\*\*(.*)\*\*",
        r"[\"`](.*)[\"`]",
    )
]


def normalise(text: str) -> str:
    """Plain LaTeX of an answer: no delimiters, spacing, style, currency, ordinals or closing full stop."""
    if _PLAIN.fullmatch(text):
        return text
    text = _drop_braces(_SPACES.sub(" ", _TO_SPACES.sub(" ", plain_characters(text))).strip())
    for pattern, replacement in _COMPILED:
        text = pattern.sub(replacement, text)
    for pattern, replacement in _OF_CONDITIONS if _INEQUALITY.search(text) else _AND_OR:
        text = pattern.sub(replacement, text)
    if not _TRIGONOMETRIC.search(text):
        text = _DEGREES.sub("", text)
    text = _GROUPED_BY_SPACE.sub(lambda match: match[0].replace(" ", ""), text)
    return _unwrap(text)


def _drop_braces(text: str) -> str:
    """The inside of boxes and braces around the whole text, however many there are, in one pass."""
    opening, at = [0], 0
    while match := _OPENING.match(text, at):
        at = match.end()
        opening.append(at)
    inside = text[at:].rstrip("} ")
    inside += "}" if inside.endswith("\\") and not inside.endswith("\\\\") else ""
    closing = text[at + len(inside) :].count("}")
    depth = lowest = 0
    for token in _BRACE.finditer(inside):
        depth += (token[0] == "{") - (token[0] == "}")
        lowest = min(lowest, depth)
    drop = len(opening) - 1 + lowest
    if drop <= 0 or len(opening) - 1 + depth != closing:
        return text
    return text[opening[drop] : at] + inside + "}" * (closing - drop)


def _unwrap(text: str) -> str:
    """The inside of delimiters and marks around the whole text, of which at most _MAX_WRAPPED rounds are peeled."""
    for _ in range(_MAX_WRAPPED):
        stripped = text.strip()
        stripped = stripped if stripped.endswith("..") else stripped.rstrip(".,;:").strip()
        if re.match(r"\+\s*[\d.\\(]", stripped):
            stripped = stripped[1:].lstrip()
        for wrapper in _WRAPPERS:
            if (match := wrapper.fullmatch(stripped)) and balanced(match[1]):
                stripped = match[1]
        stripped = _drop_outer_parentheses(_drop_braces(stripped))
        if stripped == text:
            break
        text = stripped
    return text


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
    for token in _BRACE.finditer(text):
        depth += (token[0] == "{") - (token[0] == "}")
        if depth < 0:
            return False
    return depth == 0
