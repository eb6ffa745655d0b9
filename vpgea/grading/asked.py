r"""What an answer says it is the value of: `m+n = 73` where the question asks for `m+n`, `\angle ABC = 60`."""

from __future__ import annotations

import re

_NAME = r"(?:\\[A-Za-z]+|[A-Za-z])(?:_\w|_\{\w+\})?'*(?:\([\w, ]+\))?|\|?[A-Z]{1,3}\|?"
_INSIDE = r"[^=<>]{1,60}"
# Quantities by their notation, which claim nothing of their own, so that no question need name them.
_QUANTITY = re.compile(
    rf"\|(?=[^|]*[A-Za-z])[^|=<>]{{1,40}}\||\[[A-Z]{{3,8}}\]"
    r"|(?:m ?)?\\(?:measured)?angle ?\{?(?:[A-Z]{1,3}|\d)\}?|\\(?:overline|vec|overrightarrow) ?\{[A-Za-z]{1,3}\}"
    r"|(?!.*\b(?:not|no|never|wrong|but|or)\b)(?:\\text ?\{ ?[A-Za-z][A-Za-z ]*\}|[A-Z]?[a-z]{2,}(?: [A-Za-z]+){0,4})"
    rf"|(?:P|Pr|E|Var|Cov|\\(?:text|mathbb|Pr) ?\{{? ?(?:P|Pr|E|Var|Cov) ?\}}?|\\Pr) ?(?:\({_INSIDE}\)|\[{_INSIDE}\])"
)
_FOLDED = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"\\(?:displaystyle|left|right|limits|[,;:! ])|[\s$]", ""),
        (r"\\[dt]frac", r"\\frac"),
        (r"\\frac([A-Za-z\d])([A-Za-z\d])", r"\\frac{\1}{\2}"),
        (r"\\(?:cdot|times)(?![A-Za-z])|\*", "*"),
        (r"\{(\w)\}(?<!frac\{\w\})(?<!\}\{\w\})", r"\1"),
    ]
]
_MATHEMATICS = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_IN_WORDS = re.compile(
    r"\b(?:what is|find|compute|calculate|evaluate|determine|value of) (?:the value of )?"
    r"([^$?\n]{1,80}?)(?=[.,?]?(?:\s|$))",
    re.IGNORECASE,
)
_MAX_QUESTION = 20_000  # characters


def is_name(member: str) -> bool:
    """Whether one side of an equation is a letter, function or figure by its name alone."""
    return re.fullmatch(_NAME, member) is not None


def without_asked(found: str, question: str) -> str:
    """A normalised `EXPR = value` without what it is the value of, where that is asked for or is a mere notation.

    Of `x_1 = x_2 = 5` all names but the last are left out. Another expression stays: `a+b = 5` is a claim.
    """
    members = [member.strip() for member in found.split("=")]
    while len(members) > 1 and all(members):
        name = is_name(members[0]) and len(members) > 2 and is_name(members[1])
        if not (name or _QUANTITY.fullmatch(members[0]) or _is_asked(members[0], question)):
            break
        members = members[1:]
    return " = ".join(members) if len(members) < found.count("=") + 1 else found


def _is_asked(member: str, question: str) -> bool:
    if not re.search(r"[A-Za-z]|\\(?:gcd|lcm|max|min)", re.sub(r"\\(?!gcd|lcm|max|min)[A-Za-z]+", "", member)):
        return False  # numbers alone: `2+2 = 5` is false whatever is asked
    if len(question) > _MAX_QUESTION:
        return False
    wanted = _fold(member)
    pieces = [next(filter(None, match.groups())) for match in _MATHEMATICS.finditer(question)]
    pieces += [match[1] for match in _IN_WORDS.finditer(question)]
    return any(_fold(piece).rstrip(".,;:?=") == wanted for piece in pieces)


def _fold(text: str) -> str:
    for pattern, replacement in _FOLDED:
        text = pattern.sub(replacement, text)
    return text
