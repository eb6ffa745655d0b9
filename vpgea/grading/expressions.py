r"""Reading a normalised formula without sympy: a tree of plain arithmetic, or nothing where there are two readings.

Trees are tuples: ("num", text), ("var", name), ("i",), ("e",), ("pi",), ("neg", a), ("add", a, b), ("sub", a, b),
("mul", a, b), ("div", a, b), ("pow", a, b), ("root", n, a), ("fac", a), ("call", name, a), ("logb", base, a),
("binom", a, b). What a person or sympy may read in another way (`1/2x`, `\sin x^2`, words, units, relations,
lists) is refused, for these trees decide only what is certain.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

Tree = tuple[Any, ...]

_MAX_LENGTH = 3000  # characters
_MAX_DEPTH = 60
_MAX_TOKENS = 300
_TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d+)?|\.\d+)|(\\[A-Za-z]+)|([A-Za-z])|([-+*/^_(){}|!\[\]]))")
_AMBIGUOUS = re.compile(  # where commands are blanked out: words, numbers side by side or with an exponent
    r"[A-Za-z]{3}|(?<![A-Za-z])(?:ln|lg|pi|or|to|if|is|no)(?![A-Za-z])|\d\s*e\s*[-+]?\s*\d|(?<![_\d])\d+\s+\d|\d\s*x\s*\d|\.\."
)
_DERIVATIVE = re.compile(r"\\frac\s*\{\s*(?:d|\\partial)")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_GREEK_NAMES = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho varrho sigma tau "
    "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell hbar"
)
_GREEK = frozenset(_GREEK_NAMES.split())
_TRIGONOMETRIC = frozenset({"sin", "cos", "tan", "cot", "sec", "csc"})
_FUNCTIONS = _TRIGONOMETRIC | {"arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "ln", "exp", "log"}
_PAIRS = {"\\lfloor": ("\\rfloor", "floor"), "\\lceil": ("\\rceil", "ceil"), "\\lvert": ("\\rvert", "abs")}
_CLOSING = frozenset(closing for closing, _ in _PAIRS.values())
_NO_FACTOR = frozenset({"+", "-", "*", "/", "^", "_", ")", "}", "]", "[", "!", "\\cdot", "\\times", "\\div"})
_END = ""


class UnreadableError(Exception):
    """No reading, or more than one."""


@lru_cache(maxsize=2048)
def read_expression(text: str) -> Tree | None:
    """The tree of a normalised formula, None where it is not certain what it says."""
    if not text or len(text) > _MAX_LENGTH or _DERIVATIVE.search(text) or _AMBIGUOUS.search(_COMMAND.sub(" ; ", text)):
        return None
    try:
        return _Reader(text).whole()
    except UnreadableError:
        return None


class _Reader:
    """Recursive descent over the tokens of one formula."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._at = 0
        self._depth = 0
        self._bars = 0

    def whole(self) -> Tree:
        tree = self._sum()
        if self._next() != _END:
            raise UnreadableError
        return tree

    def _next(self) -> str:
        return self._tokens[self._at]

    def _take(self) -> str:
        word = self._tokens[self._at]
        self._at += 1
        return word

    def _expect(self, word: str) -> None:
        if self._take() != word:
            raise UnreadableError

    def _sum(self) -> Tree:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise UnreadableError
        tree = self._product()
        while self._next() in ("+", "-"):
            kind = "add" if self._take() == "+" else "sub"
            tree = (kind, tree, self._product())
        self._depth -= 1
        return tree

    def _product(self) -> Tree:
        tree = self._signed()
        while True:
            word = self._next()
            if word in ("*", "\\cdot", "\\times"):
                self._take()
                tree = ("mul", tree, self._signed())
            elif word in ("/", "\\div"):
                self._take()
                tree = ("div", tree, self._signed())
                if self._starts_factor():
                    raise UnreadableError  # `1/2x`
            elif self._starts_factor():
                previous = self._tokens[self._at - 1]
                if word[0].isdigit() or (previous[:1].isdigit() and word == "\\frac"):
                    raise UnreadableError  # `x2`; `1\frac{4}{5}` is a mixed number or a product
                tree = ("mul", tree, self._factor())
            else:
                return tree

    def _starts_factor(self) -> bool:
        word = self._next()
        if word == "|":
            return self._bars == 0
        if word in _NO_FACTOR or word in _CLOSING:
            return False
        return word != _END

    def _signed(self) -> Tree:
        if self._next() in ("+", "-"):
            sign = self._take()
            if self._next() in ("+", "-"):
                raise UnreadableError
            inner = self._factor()
            return ("neg", inner) if sign == "-" else inner
        return self._factor()

    def _factor(self) -> Tree:
        tree = self._atom()
        if self._next() == "^":
            self._take()
            tree = ("pow", tree, self._exponent())
            if self._next() in ("^", "!"):
                raise UnreadableError
        while self._next() == "!":
            self._take()
            tree = ("fac", tree)
            if tree[1][0] == "fac" and self._tokens[self._at - 2] == "!":
                raise UnreadableError  # a double factorial
        if self._next() == "^":
            raise UnreadableError
        return tree

    def _exponent(self) -> Tree:
        if self._next() == "{":
            return self._group()
        word = self._take()
        if len(word) == 1 and word.isalnum():
            return _symbol(word) if word.isalpha() else ("num", word)
        if word == "\\pi" or word[1:] in _GREEK:
            return _symbol(word)
        raise UnreadableError  # `2^10` is 2^1 0 for TeX

    def _group(self) -> Tree:
        self._expect("{")
        bars, self._bars = self._bars, 0
        tree = self._sum()
        self._bars = bars
        self._expect("}")
        return tree

    def _argument(self) -> Tree:
        """What a command takes: a group, or one digit or letter."""
        if self._next() == "{":
            return self._group()
        word = self._take()
        if len(word) == 1 and word.isalnum():
            return _symbol(word) if word.isalpha() else ("num", word)
        raise UnreadableError

    def _atom(self) -> Tree:
        word = self._take()
        if word[:1].isdigit() or word[:1] == ".":
            if self._next() == "_":
                raise UnreadableError
            return ("num", word)
        if word.isalpha() or word[1:] in _GREEK or word == "\\pi":
            return self._named(word)
        if word == "{":
            self._at -= 1
            return self._group()
        if word == "(":
            bars, self._bars = self._bars, 0
            tree = self._sum()
            self._bars = bars
            self._expect(")")
            return tree
        if word == "|":
            self._bars += 1
            tree = self._sum()
            self._expect("|")
            self._bars -= 1
            return ("call", "abs", tree)
        return self._command(word)

    def _named(self, word: str) -> Tree:
        if word == "\\Gamma" and self._next() == "(":
            raise UnreadableError  # the function, or a variable
        if self._next() != "_":
            return _symbol(word)
        self._take()
        if self._next() != "{":
            index = self._take()
            if not (len(index) == 1 and index.isalnum()):
                raise UnreadableError
            return ("var", f"{word}_{index}")
        self._take()
        index = ""
        while self._next() != "}":
            part = self._take()
            if not (part.isalnum() or part[1:] in _GREEK):
                raise UnreadableError
            index += part
        self._take()
        return ("var", f"{word}_{index}")

    def _command(self, word: str) -> Tree:
        if word == "\\frac":
            return ("div", self._argument(), self._argument())
        if word == "\\binom":
            return ("binom", self._argument(), self._argument())
        if word == "\\sqrt":
            if self._next() != "[":
                return ("root", ("num", "2"), self._argument())
            self._take()
            degree = self._sum()
            self._expect("]")
            return ("root", degree, self._argument())
        if word in _PAIRS:
            closing, name = _PAIRS[word]
            tree = self._sum()
            self._expect(closing)
            return ("call", name, tree)
        if word[1:] in _FUNCTIONS:
            return self._function(word[1:])
        raise UnreadableError

    def _function(self, name: str) -> Tree:
        base = power = None
        if name == "log":
            self._expect("_")  # without a base it is one of two functions
            base = self._argument()
        if self._next() == "^":
            self._take()
            power = self._exponent()
            if power[0] != "num":
                raise UnreadableError  # \sin^{-1}: the inverse, or a reciprocal
        inner = self._function_argument(name)
        tree: Tree = ("logb", base, inner) if base else ("call", name, inner)
        return ("pow", tree, power) if power else tree

    def _function_argument(self, name: str) -> Tree:
        word = self._next()
        if word in ("(", "{", "\\frac", "\\sqrt", "|"):
            tree = self._atom()
            if word in ("\\frac", "\\sqrt", "{") and self._starts_factor() and self._next()[1:] not in _FUNCTIONS:
                raise UnreadableError
            if self._next() in ("^", "!", "/", "_"):
                raise UnreadableError
            return tree
        factors: list[Tree] = []
        while (word := self._next()) != _END and (
            word.isalpha() or word[1:] in _GREEK or word == "\\pi" or (word[0].isdigit() and not factors)
        ):
            factors.append(self._atom())
        if not factors:
            raise UnreadableError
        tree = factors[0]
        for factor in factors[1:]:
            tree = ("mul", tree, factor)
        if self._next() == "^" and name in _TRIGONOMETRIC and self._degrees():
            tree = ("div", ("mul", tree, ("pi",)), ("num", "180"))
        following = self._next()
        if following in ("^", "!", "/", "(", "|", "\\cdot", "\\times", "\\div") or (
            self._starts_factor() and following[1:] not in _FUNCTIONS
        ):
            raise UnreadableError
        return tree

    def _degrees(self) -> bool:
        for sign in (["^", "\\circ"], ["^", "{", "\\circ", "}"]):
            if self._tokens[self._at : self._at + len(sign)] == sign:
                self._at += len(sign)
                return True
        return False


def _symbol(word: str) -> Tree:
    if word == "\\pi":
        return ("pi",)
    return (word,) if word in ("e", "i") else ("var", word)


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    at = 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise UnreadableError
        tokens.append(next(group for group in match.groups() if group))
        at = match.end()
    if len(tokens) > _MAX_TOKENS:
        raise UnreadableError
    return [*tokens, _END, _END]
