"""Where a reference's value stands in a text, and the strings by which an answer may be written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

from vpgea.grading.choice import normalise_choice
from vpgea.grading.containers import read_container
from vpgea.grading.exact import fold_whitespace
from vpgea.grading.lexemes import Lexeme, read_lexemes
from vpgea.grading.numbers import Number, read_number
from vpgea.grading.quantities import Quantity
from vpgea.grading.references import final_answer, normalise_reference

# Symbols that make what stands beside them a part of something longer, and those that do so with an expression only.
_PARTS = ("^", "_", "!", r"\frac", r"\sqrt")
_OPERATORS = ("+", "-", "/")
_SEPARATORS = (",", ";", "and", "or", "{", "}")
_MARKS = ("option", "choice", "letter", "answer", "is", ":", "(")  # after which `A` is no article

_MAX_DECIMALS = 6  # a fraction such as 1/3 has no decimal form; one such as 1/128 has, of too many places


def canonical_answers(reference: str, grader: str) -> list[str]:
    """Distinct strings by which the reference answer may be written.

    math: its final answer, its normal form and, for a number, the plain and comma-grouped integer or the exact
    fraction and decimal. choice: the stripped reference, and the letter alone. exact: also with whitespace folded. A
    grader of one's own: only the stripped reference.
    """
    forms = [final_answer(reference, grader) if grader == "math" else reference.strip()]
    if grader == "math":
        forms += _math_forms(reference)
    elif grader == "choice":
        forms.append(normalise_choice(reference))
    elif grader == "exact":
        forms.append(fold_whitespace(reference))
    return list(dict.fromkeys(form for form in forms if form))


def _math_forms(reference: str) -> list[str]:
    normal = normalise_reference(reference)
    number = read_number(normal)
    return [normal, *(_number_forms(number) if number and not number.percent else [])]


def _number_forms(number: Number) -> list[str]:
    value = number.value
    if value.denominator == 1:
        return [str(value.numerator), f"{value.numerator:,}"]
    sign, top = ("-" if value < 0 else ""), abs(value.numerator)
    forms = [f"{sign}\\frac{{{top}}}{{{value.denominator}}}", f"{sign}{top}/{value.denominator}"]
    decimal = _decimal(value)
    if decimal is None:
        return forms
    return [decimal, *forms] if number.decimal else [*forms, decimal]


def _decimal(value: Fraction) -> str | None:
    scaled = value * 10**_MAX_DECIMALS
    if scaled.denominator != 1:
        return None
    return format(Decimal(scaled.numerator).scaleb(-_MAX_DECIMALS).normalize(), "f")


def find_value(text: str, reference: str, *, question: str = "", options: Sequence[str] = ()) -> int | None:
    r"""Offset of the first character of the first place where the reference's value stands by itself; else None.

    It is found by value, not by spelling: 12000 in `12{,}000`, 12.5 in `$12.50`, `\frac{3}{4}` in `0.75`, 1024 in
    `2^{10}`. It is not found as a part of another value: 18 is not in `180`, `18%`, `-18`, `\sqrt{18}`, `18:30`,
    `a_{18}`. A division or root that comes out whole (`36/2`) is a computation, no value. What is no number counts as
    whole words and symbols, words in any case; a bare list (of roots, say) in any order.

    Args:
        text: Any text, trusted or not; the time is linear in its length.
        reference: The reference answer.
        question: Where it asks for a percentage, 18 is found in `18%` too, as the grader sees it.
        options: The choices of a multiple-choice question, whose reference is a letter: the text of that option
            counts as well as the letter. `A` and `I` count with a mark only (`(A)`, `option A`): they are words.
    """
    sought = _sought(reference, "percent" in question.lower() or "%" in question, tuple(options))
    lexemes = read_lexemes(text)
    return min((place for value in sought for place in [value.first_place(lexemes)] if place is not None), default=None)


def value_of(reference: str) -> object:
    r"""What math references have in common when they are the same by value, however written; hashable.

    `1/2`, `0.5` and `\dfrac12`; `2^{10}` and `1024`; `\frac{\pi}{2}` and `\pi/2`; `x = 5` and `5`; lists in any order.
    A percent sign is left out, as a grader may: `50%` and `50`.
    """
    (sought, *_) = _sought(reference, False, ())
    contents = [part.casefold() if isinstance(part, str) else part._replace(percent=False) for part in sought.contents]
    if not contents:
        return fold_whitespace(reference).casefold()
    return frozenset(Counter(contents).items()) if sought.unordered else tuple(contents)


def answer_value(answer: str, grader: str) -> object:
    """What two answers have in common when they are the same by value: 0.5 and 1/2, (B) and B, spacing and case."""
    if grader == "choice":
        return normalise_choice(answer)
    if grader == "exact":
        return fold_whitespace(answer)
    return value_of(answer)


def value_is_distinct(reference: str, question: str, *, options: Sequence[str] = ()) -> bool:
    """True when the value is longer than one digit or letter and stands neither in the question nor in its options."""
    (value, *_) = _sought(reference, False, ())
    asked = "\n".join([question, *options])
    return value.length > 1 and not options and find_value(asked, reference, question=question) is None


@dataclass(frozen=True)
class _Sought:
    """What is looked for. contents: of its lexemes. unordered: they are the items of a list in any order.

    percent_implied: a percent sign makes no other value. letter: the answer of a multiple-choice question.
    """

    contents: tuple[Quantity | str, ...]
    unordered: bool = False
    percent_implied: bool = False
    letter: bool = False

    @property
    def length(self) -> int:
        """Digits and letters; of a number that is not whole at least 2."""
        return sum(_length(content) for content in self.contents)

    def first_place(self, lexemes: Sequence[Lexeme]) -> int | None:
        """Offset of the first place among the lexemes of a text."""
        if not self.contents:
            return None
        stands = self._list_stands if self.unordered else self._stands
        return next((lexeme.start for index, lexeme in enumerate(lexemes) if stands(lexemes, index)), None)

    def _stands(self, lexemes: Sequence[Lexeme], index: int) -> bool:
        if not self._same(self.contents[0], lexemes[index].content):
            return False
        if len(self.contents) == 1 and isinstance(self.contents[0], Quantity):
            return lexemes[index].alone
        end = index + len(self.contents)
        found = lexemes[index:end]
        if len(found) < len(self.contents) or not all(map(self._same, self.contents, (one.content for one in found))):
            return False
        before = lexemes[index - 1] if index else None
        after = lexemes[end] if end < len(lexemes) else None
        if self.letter:
            return _is_choice(before, found[0], after)
        return not (before and self._extends(before, found[0])) and not (after and self._extends(after, found[-1]))

    def _extends(self, neighbour: Lexeme, edge: Lexeme) -> bool:
        """True when a neighbour makes what was found a part of a longer expression."""
        if neighbour.content in _PARTS:
            return True
        touching = neighbour.end == edge.start or edge.end == neighbour.start
        if isinstance(neighbour.content, Quantity):
            return touching and len(self.contents) > 1
        expression = any(isinstance(content, Quantity) or content in _OPERATORS for content in self.contents)
        return expression and (neighbour.content in _OPERATORS or (touching and neighbour.content.isalnum()))

    def _list_stands(self, lexemes: Sequence[Lexeme], index: int) -> bool:
        """True when the items of the list begin here, in any order, with commas, "and" or "or" between them."""
        if index and _continues_list(lexemes, index - 1, -1):
            return False
        left = list(self.contents)
        while True:
            match = next((one for one in left if self._same(one, lexemes[index].content)), None)
            if match is None:
                return False
            left.remove(match)
            end = index + 1
            while end < len(lexemes) and lexemes[end].content in _SEPARATORS:
                end += 1
            if not left:
                return not _continues_list(lexemes, index + 1, 1)
            if end == index + 1 or end == len(lexemes):
                return False
            index = end

    def _same(self, sought: Quantity | str, found: Quantity | str) -> bool:
        if not isinstance(sought, Quantity) or not isinstance(found, Quantity):
            return sought == found
        if sought.percent == found.percent or self.percent_implied:
            return sought[:3] == found[:3]
        if not sought.percent and sought.coefficient.denominator == 1:
            return False  # 18% is not 0.18 of something that is 18
        return _applied(sought) == _applied(found)


@lru_cache(maxsize=1024)
def _sought(reference: str, percent_implied: bool, options: tuple[str, ...]) -> tuple[_Sought, ...]:
    """The value of a reference; of multiple choice the letter and the value of its option."""
    if options:
        letter = normalise_choice(reference)
        number = ord(letter) - ord("A") if len(letter) == 1 else -1
        if 0 <= number < len(options):
            return _Sought((letter,), letter=True), *_sought(options[number], percent_implied, ())
    normal = normalise_reference(reference)
    container = read_container(normal)
    if container and not container.ordered:
        items = [read_lexemes(element) for element in container.elements]
        if all(len(item) == 1 for item in items):
            return (_Sought(tuple(item[0].content for item in items), unordered=True),)
    contents = [lexeme.content for lexeme in read_lexemes(normal)]
    if len(contents) > 2 and contents[1] in ("=", r"\in") and _length(contents[0]) == 1:
        contents = contents[2:]  # `x = 15`
    return (_Sought(tuple(contents), percent_implied=percent_implied),)


def _length(content: Quantity | str) -> int:
    if isinstance(content, Quantity):
        whole = content.coefficient.denominator == 1 and content.root == 1 and content.pi == 0 and not content.percent
        return len(str(abs(content.coefficient.numerator))) if whole else 2
    return len(content) if content.isalnum() else int(content.startswith("\\"))


def _applied(quantity: Quantity) -> Quantity:
    if not quantity.percent:
        return quantity
    return quantity._replace(coefficient=quantity.coefficient / 100, percent=False)


def _continues_list(lexemes: Sequence[Lexeme], index: int, step: int) -> bool:
    """True when a comma and one more number follow in this direction."""
    return (
        0 <= index + step < len(lexemes)
        and lexemes[index].content == ","
        and index >= 0
        and isinstance(lexemes[index + step].content, Quantity)
    )


def _is_choice(before: Lexeme | None, letter: Lexeme, after: Lexeme | None) -> bool:
    """True when a capital is a choice: any that stands by itself, and `A` and `I` with a mark before or behind."""
    if letter.content not in ("A", "I"):
        return True
    return (before is not None and before.content in _MARKS) or (after is not None and after.content in (")", "}"))
