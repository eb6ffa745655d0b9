"""Where a reference's value stands in a text, and the strings by which an answer may be written."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

from vpgea.grading.choice import normalise_choice
from vpgea.grading.exact import fold_whitespace
from vpgea.grading.math import normalise_reference
from vpgea.grading.normalise import Number, read_number

_MAX_DECIMALS = 6  # a fraction such as 1/3 has no decimal form; one such as 1/128 has, of too many places


def canonical_answers(reference: str, grader: str) -> list[str]:
    """Distinct strings by which the reference answer may be written, the stripped reference first.

    math: also its normal form and, for a number, the plain and comma-grouped integer or the exact fraction and
    decimal. choice: also the letter alone. exact: also with whitespace folded. A grader of one's own: only the first.
    """
    forms = [reference.strip()]
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


def find_value(text: str, reference: str) -> int | None:
    """Offset of the first character of the first place where the reference's value stands by itself; else None.

    A number counts plain, comma-grouped, with a trailing `.0`, as fraction or as exact decimal, but not as part of a
    longer number, word or, for a positive one, behind a minus sign: 18 is found in `$18.`, not in `180`, `3.18`,
    `18,000`, `-18`. Other answers count as whole tokens, whatever their case and spacing.
    """
    offsets = [match.start() for form in canonical_answers(reference, "math") for match in _places(text, form)]
    return min(offsets, default=None)


def _places(text: str, form: str) -> list[re.Match[str]]:
    """The first place of one written form, as a list of at most one."""
    number = re.fullmatch(r"(-?)((?:\d|\.\d)[\d.,]*(?:/\d+)?)", form)
    if number:
        sign = r"(?<![\w)\]}])[-−]\s?\$?" if number[1] else r"(?<![\d.])(?<!\d,)"
        tail = r"(?:\.0+)?" if re.fullmatch(r"[\d,]+", number[2]) else ""
        pattern = rf"{sign}{re.escape(number[2])}{tail}(?![\w/]|[.,]\d)"
    else:
        pattern = r"\s*".join(re.escape(token) for token in re.findall(r"\w+|[^\w\s]", form))
        pattern = rf"(?<!\w){pattern}(?!\w)" if form[-1:].isalnum() else rf"(?<!\w){pattern}"
    for match in re.finditer(pattern, text, re.IGNORECASE):
        if number is None or _stands_alone(text, match.start(), signed=bool(number[1])):
            return [match]
    return []


def _stands_alone(text: str, start: int, *, signed: bool) -> bool:
    """False inside a word (`x18`, but not behind a command: `\\cdot18`), a fraction or behind a sign."""
    before = text[:start][-24:]
    if re.search(r"\w$", before) and not re.search(r"\\[A-Za-z]+$", before):
        return False
    if re.search(r"\d\s?/$", before):
        return False
    return signed or re.search(r"(?:^|[^\w)\]}\s])\s*[-−]$", before) is None


def value_is_distinct(reference: str, question: str) -> bool:
    """True when the value is longer than one digit or letter and the question does not contain it."""
    value = normalise_reference(reference)
    return sum(character.isalnum() for character in value) > 1 and find_value(question, reference) is None
