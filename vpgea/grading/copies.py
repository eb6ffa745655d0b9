r"""Whether an answer is only a piece of its question, or leaves the work to the reader."""

from __future__ import annotations

import math
import re
from collections import Counter

from vpgea.grading.numbers import read_number

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
_MATHEMATICS = re.compile(r"\$+([^$]+)\$+|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_MAX_LENGTH = 2000


def leaves_work(found: str, gold: str) -> bool:
    """True when a normalised answer has an operation still to be carried out that its reference has not."""
    return _UNDONE.search(found) is not None and _UNDONE.search(gold) is None


def is_copied(found: str, gold: str, question: str) -> bool:
    """True when an answer stands in the question as it is, apart from spacing and the order of its terms.

    The reference's own text is never a copy. A plain number is one only where the question asks for another form of it,
    and what has no operation in it (a letter, a point, a word) never.
    """
    answer = _fold(found)
    if not question or not answer or len(answer) > _MAX_LENGTH or answer == _fold(gold):
        return False
    asked = _fold(_PROSE.sub("@", question))
    if read_number(found) is not None:
        return (_FORM.search(question) is not None or _is_unfinished(found)) and _stands(answer, asked)
    if not _OPERATION.search(answer.lstrip("-")) or re.fullmatch(r"[\[(]?-?[\d.,]+(?:,-?[\d.]+)*[\])]?", answer):
        return False
    return _stands(answer, asked) or _reordered(answer, question)


def _is_unfinished(number: str) -> bool:
    """Whether a plain number is a power, a product or a fraction that can be reduced."""
    parts = [int(digits) for digits in _NUMERALS.findall(number)]
    fraction = ("/" in number or "frac" in number) and len(parts) == 2
    return bool(re.search(r"\^|\\times|\\cdot|\*", number)) or (fraction and (math.gcd(*parts) > 1 or 1 in parts[1:]))


def numerals_from(found: str, question: str) -> bool:
    """True when every number that an answer names stands in the question."""
    asked = set(_NUMERALS.findall(question))
    named = _NUMERALS.findall(found)
    return bool(named) and set(named) <= asked


def _fold(text: str) -> str:
    for pattern, replacement in _SAME:
        text = pattern.sub(replacement, text)
    return text


def _stands(answer: str, question: str) -> bool:
    edge = r"[\w.^]" if answer[:1].isalnum() or answer[:1] == "." else r"[^\s\S]"
    return re.search(rf"(?<!{edge}){re.escape(answer)}(?![\w^]|\.\d)", question) is not None


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
