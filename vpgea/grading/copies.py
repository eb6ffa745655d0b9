r"""Whether an answer is only a piece of its question, or leaves the work to the reader."""

from __future__ import annotations

import math
import re
from collections import Counter

from vpgea.grading.expressions import Tree, read_expression
from vpgea.grading.numbers import read_number
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
_MATHEMATICS = re.compile(r"\$+([^$]+)\$+|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_MAX_LENGTH = 2000
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
    return _is_written(found, gold, question) or _is_written(spelling(found), spelling(gold), _spelled(question))


def _is_written(found: str, gold: str, question: str) -> bool:
    answer = _bare(_fold(found))
    if not question or not answer or len(answer) > _MAX_LENGTH or answer == _fold(gold):
        return False
    asked = _fold(_PROSE.sub("@", question))
    if read_number(found) is not None:
        return (_FORM.search(question) is not None or _is_unfinished(found)) and _stands(answer, asked)
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
    """Whether an answer is a formula of the question with its terms in another order, or its sign drawn out."""
    tree = read_expression(found)
    if tree is None:
        return False
    shape, wanted = _shape(tree), read_expression(gold)
    if wanted and _shape(wanted) == shape:
        return False
    pieces = [next(filter(None, match.groups())) for match in _MATHEMATICS.finditer(question)]
    trees = [read_expression(side.strip()) for piece in pieces for side in piece.rstrip(".,;:?").split("=")]
    return any(_shape(one) == shape for one in trees if one)


def _shape(tree: Tree) -> tuple[int, str]:
    """(sign, spelling) of a tree: terms sorted, factors in order, signs drawn out."""
    kind, parts = tree[0], tree[1:]
    if kind in ("add", "sub", "neg"):
        terms = sorted(_signed_terms(tree), key=lambda term: term[1])
        terms = [term for term in terms if term[1] != "num:0"] or terms[:1]
        sign = terms[0][0]
        inside = "+".join(f"({sign * each}){name}" for each, name in terms)
        return (sign, inside if len(terms) > 1 else terms[0][1])
    if kind in ("mul", "div"):
        (one, left), (other, right) = _shape(parts[0]), _shape(parts[1])
        if right == "num:1":
            return one * other, left
        return one * other, right if kind == "mul" and left == "num:1" else f"{kind}[{left}][{right}]"
    shapes = [_shape(part) if isinstance(part, tuple) else (1, str(part)) for part in parts]
    inside = ",".join(name if sign > 0 else f"-{name}" for sign, name in shapes)
    return 1, f"{kind}:{inside}"


def _signed_terms(tree: Tree) -> list[tuple[int, str]]:
    if tree[0] == "neg":
        return [(-sign, name) for sign, name in _signed_terms(tree[1])]
    if tree[0] in ("add", "sub"):
        sign = 1 if tree[0] == "add" else -1
        return _signed_terms(tree[1]) + [(sign * each, name) for each, name in _signed_terms(tree[2])]
    return [_shape(tree)]


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
