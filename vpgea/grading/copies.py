r"""Whether an answer is only a piece of its question, or leaves the work to the reader."""

from __future__ import annotations

import math
import re
from collections import Counter
from fractions import Fraction
from functools import lru_cache

from vpgea.grading.expressions import Tree, read_expression
from vpgea.grading.normalise import normalise
from vpgea.grading.numbers import Number, read_number
from vpgea.grading.numeric import clearly_different, formula_values
from vpgea.grading.shapes import is_factored, loose_shape, multiplies_sums, shape, undone
from vpgea.grading.sizes import spelling

# What is to be worked out; a reference without them is not met by an answer that still has them.
_UNDONE = re.compile(
    r"\\(?:sum|prod|int|iint|iiint|oint|lim|det|gcd|lcm|max|min|sup|inf|bmod|pmod|partial|lfloor|lceil)(?![A-Za-z])"
    r"|\\begin ?\{ ?vmatrix"
    r"|\\frac ?\{ ?(?:d|\\partial)\b[^{}]*\} ?\{ ?(?:d|\\partial) ?[a-z]"
    r"|(?<![A-Za-z])(?:gcd|lcm|floor|ceil|mod)(?![A-Za-z])",
    re.IGNORECASE,
)
_SAME = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"\\[dtc]frac|\\frac", r"\\frac"),
        (r"\\frac ?(\w) ?(\w)(?!\w)", r"(\1)/(\2)"),
        (r"\\frac ?\{([^{}]*)\} ?\{([^{}]*)\}", r"(\1)/(\2)"),
        (r"\\frac ?\{([^{}]*)\} ?\{([^{}]*)\}", r"(\1)/(\2)"),
        (r"\\(?:left|right|displaystyle|limits|!|,|;|:|quad|qquad|big|Big)(?![A-Za-z])|\\ |[\s${}~]", ""),
        (r"\\cdot|\\times|×|·|⋅", "*"),
        (r"\\leq?(?:slant)?(?![A-Za-z])|≤", "<="),
        (r"\\geq?(?:slant)?(?![A-Za-z])|≥", ">="),
        (r"\\[lr]?vert|\\mid", "|"),
        (r"−|–", "-"),
        (r"\\operatorname|\\mathrm|\\text", ""),
        (r"\((\d+|[a-z])\)/\((\d+|[a-z])\)", r"\1/\2"),
        (r"\\(?=[a-z%])", ""),
    ]
]
_OPERATION = re.compile(r"[-+*/^!|<>=]|sqrt|log|ln|sin|cos|tan|sum|int|lim|binom|choose|floor|gcd|lcm|exp|det")
_FORM = re.compile(
    r"\bas an? (?:\w+ ){0,2}(?:fraction|decimal|percent\w*|mixed number|integer|power|product)|"
    r"lowest terms|simplest form|"
    r"\breduce\b|\bsimplify\b|\bconvert\b|\brationali[sz]e\b|scientific notation|\bin radical form\b|"
    r"\bto (?:an? )?(?:fraction|decimal|percent\w*)",
    re.IGNORECASE,
)
_PROSE = re.compile(
    r"(?<![\\A-Za-z])(?!(?:sqrt|binom|floor|ceil|frac)\b)(?:[A-Za-z]{4,}|a|an|as|at|be|by|if|in|is|it|of|on|or|so|to|we|all|and|are|can|"
    r"for|has|how|its|let|one|the|two)(?![A-Za-z])",
    re.IGNORECASE,
)
_NUMERALS = re.compile(r"\d+")
_NUMBER = re.compile(
    r"\\[dtc]?frac ?\{?\d+\}? ?\{?\d+\}?|(?<![\w.])(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:/\d+|\\?%| percent\b)?"
)
# What asks for the same in another shape.
_SIMPLER = (
    r"simplif\w+|simplest|expand\w*|multiply out|distribute|factor(?:i[sz]\w+)?|rationali[sz]\w+|combine|reduce\w*"
)
_SHAPE_ASKED = re.compile(rf"\b(?:{_SIMPLER}|lowest terms|evaluate|compute|calculate)\b", re.IGNORECASE)
_SIMPLER_ASKED = re.compile(rf"\b(?:{_SIMPLER})\b", re.IGNORECASE)
_FACTOR_ASKED = re.compile(r"\bfactor(?:i[sz]e)?\b(?! of)", re.IGNORECASE)
_EXPAND_ASKED = re.compile(r"\b(?:expand|multiply out|distribute)\b", re.IGNORECASE)
_POWER_ASKED = re.compile(r"\bas an? (?:\w+ )?power\b|\bexponential (?:form|notation)|\bin the form\b", re.IGNORECASE)
_RAISED = re.compile(r"\b(?:power|squared?|cubed?|raised|exponent)\b", re.IGNORECASE)
_CARDINALS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"]
_COUNTS = {word: str(n) for words in (_CARDINALS, _ORDINALS) for n, word in enumerate(words, 1)}
_COUNTS |= {"squared": "2", "cubed": "3"}
_MATHEMATICS = re.compile(r"\$+([^$]+)\$+|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_MAX_LENGTH = 2000
_MAX_PIECES = 60
_NEAR = 1e-12
_MAX_MEMBERS = 6  # of a chain; what has more is no answer
_VARIABLE = re.compile(r"\\?[A-Za-z]\w*(?:\([\w, ]+\))?")
_IDLE = re.compile(r"\A0\+|[+-]0\Z|\A1\*|\*1\Z|/1\Z")


def leaves_work(found: str, gold: str) -> bool:
    """True when a normalised answer has an operation still to be carried out that its reference has not."""
    return _UNDONE.search(found) is not None and _UNDONE.search(gold) is None


def is_copied(found: str, gold: str, question: str) -> bool:
    """True when an answer stands in the question as it is, apart from spacing and the order of its terms.

    The reference's own text is never a copy. A plain number is one only where the question asks for another form of it,
    and what has no operation in it (a letter, a point, a word) never.
    """
    if "=" in found and not re.search(r"[=<>]|\\(?:le|ge|ne|in)(?![A-Za-z])", gold):
        members = [member.strip() for member in found.split("=")[:_MAX_MEMBERS]]
        members = members[1:] if _VARIABLE.fullmatch(members[0]) else members
        return all(_is_copy(member, gold, question) for member in members)
    return _is_copy(found, gold, question)


def _is_copy(found: str, gold: str, question: str) -> bool:
    """Whether it is one as it is written, or in the one spelling of both."""
    if not question or (read_number(found) and not _FORM.search(question) and not _is_unfinished(found)):
        return False
    return _is_written(found, gold, question) or _is_written(spelling(found), spelling(gold), _spelled(question))


def _is_written(found: str, gold: str, question: str) -> bool:
    answer = _bare(_fold(found))
    if not answer or len(answer) > _MAX_LENGTH or answer == _fold(gold):
        return False
    asked = _fold(_PROSE.sub("@", question))
    if read_number(found) is not None:
        return _stands(answer, asked)
    if not _OPERATION.search(answer.lstrip("-")) or re.fullmatch(r"[\[(]?-?[\d.,]+(?:,-?[\d.]+)*[\])]?", answer):
        return False
    return _stands(answer, asked) or _reordered(answer, question) or _same_tree(found, gold, question)


def _is_unfinished(number: str) -> bool:
    """Whether a plain number is a power, a product or a fraction that can be reduced."""
    parts = [int(digits) for digits in _NUMERALS.findall(number)]
    fraction = ("/" in number or "frac" in number) and len(parts) == 2
    return bool(re.search(r"\^|\\times|\\cdot|\*", number)) or (fraction and (math.gcd(*parts) > 1 or 1 in parts[1:]))


def numerals_from(found: str, question: str) -> bool:
    """True when every number that an answer names stands in the question."""
    asked = set(_NUMERALS.findall(question))
    if _RAISED.search(question):
        asked |= {_COUNTS[word] for word in re.findall("[a-z]+", question.lower()) if word in _COUNTS}
    named = _NUMERALS.findall(found)
    return bool(named) and set(named) <= asked


def _spelled(question: str) -> str:
    """The question with each piece of mathematics in its one spelling."""
    return _MATHEMATICS.sub(lambda piece: f"${spelling(next(filter(None, piece.groups())))}$", question)


def _bare(answer: str) -> str:
    """Without terms and factors that say nothing: `+0`, `1*`."""
    while (bare := _IDLE.sub("", answer)) != answer:
        answer = bare
    inside = answer[2:-1] if answer.startswith("1(") and answer.endswith(")") else ""
    return inside if inside and "(" not in inside and ")" not in inside else answer


def _fold(text: str) -> str:
    for pattern, replacement in _SAME:
        text = pattern.sub(replacement, text)
    return text


def _stands(answer: str, question: str) -> bool:
    edge = r"[\w.^]" if answer[:1].isalnum() or answer[:1] == "." else r"[^\s\S]"
    return re.search(rf"(?<!{edge}){re.escape(answer)}(?![\w^]|\.\d)", question) is not None


def _same_tree(found: str, gold: str, question: str) -> bool:
    r"""Whether an answer is a formula of the question: with its terms in another order or its sign drawn out.

    Where another form is asked for, also in another notation: `x*x` for `x^2`, `72^{1/2}` for `\sqrt{72}`.
    """
    tree, wanted = _read(found), read_expression(gold)
    if tree is None or (wanted and shape(wanted) == shape(tree)):
        return False
    of = loose_shape if _SHAPE_ASKED.search(question) else shape
    return any(of(one) == of(tree) for side in _sides(question) if (one := read_expression(side)))


def is_unfinished(found: str, gold: str, question: str) -> bool:
    """Whether an answer leaves undone what the question asks for and its reference has done.

    Where a simpler form is asked for, an answer is no sum where the product is, multiplies no sums where the sum is,
    and has no sums or products of plain numbers, unsimplified roots, letters below a line and common factors that the
    reference has not.
    """
    asked = _SIMPLER_ASKED.search(question)
    value = found if "=" in gold else found.rpartition("=")[2].strip()  # of `f(x) = x^2+2x`
    tree, wanted = (_read(value), read_expression(gold)) if asked else (None, None)
    if asked and wanted and (number := read_number(found)) and number.decimal and read_number(gold) is None:
        return True  # a root in decimals
    if tree is None or wanted is None:
        return False
    factored = _FACTOR_ASKED.search(question) and is_factored(wanted) and not is_factored(tree)
    expanded = _EXPAND_ASKED.search(question) and not multiplies_sums(wanted) and multiplies_sums(tree)
    return bool(factored or expanded) or not undone(tree) <= undone(wanted)


def _read(text: str) -> Tree | None:
    return read_expression(re.sub(r"\^ ?\(([^()]*)\)", r"^{\1}", text))


@lru_cache(maxsize=64)
def _sides(question: str) -> tuple[str, ...]:
    """The formulas of a question, normalised; without mathematics in dollars those that stand between its words."""
    pieces = [next(filter(None, match.groups())) for match in _MATHEMATICS.finditer(question)]
    if not pieces:
        text = re.sub(r"\bsqrt ?\(([^()]*)\)", r"\\sqrt{\1}", question).replace("**", "^")
        text = _PROSE.sub("@", re.sub(r"\^(\d{2,})", r"^{\1}", text))
        pieces = [piece for piece in re.split(r"@|[:;,?]|\.(?!\d)", text) if re.search(r"\d|[-+*/^]", piece)]
    return tuple(normalise(side) for piece in pieces[:_MAX_PIECES] for side in piece.rstrip(".,;:?").split("="))


def states_value(gold: str, question: str) -> bool:
    """Whether a question has a formula of numbers that comes out at the reference: it asks for the number."""
    if _POWER_ASKED.search(question):
        return False
    sides = [side for side in _sides(question) if read_number(side) is None]
    values = [(side, found) for side in sides if (found := formula_values(side)) and not found.variables]
    return any(found.at[0] and not clearly_different(gold, side, _NEAR) for side, found in values)


def is_unconverted(found: str, gold: str, question: str) -> bool:
    """Whether a plain number is the question's own in a notation not asked for: `0.75` for 75 % as a fraction."""
    number, wanted = read_number(found), read_number(gold)
    if number is None or wanted is None or not _FORM.search(question):
        return False
    texts = [*_sides(question), *(normalise(text) for text in _NUMBER.findall(question))]
    asked = {_share(one) for text in texts[:_MAX_PIECES] if (one := read_number(text))}
    if _share(number) not in asked:
        return False
    return _notation(found) != _notation(gold) or (
        _notation(found) == "/" and _is_reducible(found) > _is_reducible(gold)
    )


def _share(number: Number) -> Fraction:
    return number.value / 100 if number.percent else number.value


def _notation(number: str) -> str:
    return next((sign for sign in ("%", "^", "e", "/") if sign in number.replace(r"\frac", "/")), "")


def _is_reducible(fraction: str) -> bool:
    parts = [int(digits) for digits in _NUMERALS.findall(fraction)]
    return math.gcd(*parts[-2:]) > 1 or parts[-1] == 1


def _reordered(answer: str, question: str) -> bool:
    terms = _terms(answer)
    pieces = [next(filter(None, match.groups())) for match in _MATHEMATICS.finditer(question)]
    return len(terms) > 1 and any(_terms(_fold(piece).rstrip(".,;:?")) == terms for piece in pieces)


def _terms(folded: str) -> Counter[str]:
    """The signed terms of a sum, outside brackets."""
    terms: list[str] = []
    depth, start = 0, 0
    for at, character in enumerate(folded):
        depth += (character in "([") - (character in ")]")
        if character in "+-" and depth <= 0 and at > start:
            terms.append(folded[start:at])
            start = at
    terms.append(folded[start:])
    return Counter(term if term[:1] in "+-" else f"+{term}" for term in terms if term.strip("+-"))
