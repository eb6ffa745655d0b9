"""Grading of mathematical answers: exact arithmetic first, our own view of lists and tuples, then math-verify."""

from __future__ import annotations

import logging
import re
from collections import Counter
from fractions import Fraction
from functools import lru_cache
from typing import Any

from vpgea.grading.answers import find_answer
from vpgea.grading.base import Grade, GradeRequest, Status
from vpgea.grading.containers import Container, read_container
from vpgea.grading.normalise import Number, balanced, drop_letter_unit, normalise, read_number
from vpgea.grading.numeric import clearly_different
from vpgea.grading.references import normalise_reference
from vpgea.grading.sizes import is_out_of_bounds, spelling

_BASE = re.compile(r"(-?[0-9A-Z]+(?:\.[0-9A-Z]+)?)\s*_\s*(?:\{\s*(?:\\text\s*\{\s*)?(\w+)\s*\}{1,2}|(\d))")
_NAMED = re.compile(
    r"(?P<name>\\?[A-Za-z]\w*(?:_\{\w+\})?(?:\([\w, ]+\))?)\s*(?:=|\\in\b)\s*(?P<value>[^=<>]+)", re.DOTALL
)
_RELATION = re.compile(r"[=<>]|\\(?:le|ge|ne|in)\b")
_WORDS = re.compile(r"[A-Za-z]{2,}(?:[ -][A-Za-z]+)*")


def grade_math(request: GradeRequest, relative_tolerance: float) -> Grade:
    """Grade the final answer of a response (see `find_answer`) by mathematical equivalence with the reference.

    Calls math-verify without its own time-out: run it in a worker that may be killed.

    Args:
        request: What to grade.
        relative_tolerance: A number written as a decimal equals another when they differ by at most this share of the
            reference.

    Returns:
        The grade; no answer found is `wrong` with extracted=None.

    Raises:
        MemoryError: It says nothing about the answer.
        RecursionError: Neither does this.
    """
    answer = find_answer(request.response)
    if answer is None:
        return Grade(Status.WRONG)
    found = normalise(answer.text)
    comparison = Comparison(request.question, Fraction(str(relative_tolerance)))
    equal = bool(found) and comparison.equal(normalise_reference(request.reference), found)
    return Grade(Status.CORRECT if equal else Status.WRONG, extracted=found or None, source=answer.source)


class Comparison:
    """Equivalence of normalised answers, for one question.

    The question decides what a missing sign means: `10` may stand for `10%` only where it asks for a percentage (or
    is not known), `52` for `52_8` only where it names a base.
    """

    def __init__(self, question: str, relative_tolerance: Fraction) -> None:
        lowered = question.lower()
        self._percent_implied = not question or "percent" in lowered or "%" in lowered
        self._base_implied = bool(re.search(r"\bbase|_\{?\d", lowered))
        self._tolerance = relative_tolerance

    def equal(self, gold: str, found: str) -> bool:
        """True when the two normalised answers are the same; an empty one equals nothing."""
        if (same := spelling(gold) == spelling(found)) or is_out_of_bounds(gold, found):
            return same and bool(gold)
        for compare in (self._as_numbers, self._as_based_numerals, self._as_containers, self._as_words):
            if (verdict := compare(gold, found)) is not None:
                return verdict
        if (named := _NAMED.fullmatch(gold)) and not _RELATION.search(found):  # `x = 5` and `5`
            return self.equal(normalise(named["value"]), found)
        if (named := _NAMED.fullmatch(found)) and not _RELATION.search(gold):  # `[0, 1]` and `x \in [0, 1]`
            return self.equal(gold, normalise(named["value"]))
        if not balanced(found) or clearly_different(gold, found, float(self._tolerance)):
            return False
        return symbolically_equal(gold, found, float(self._tolerance))

    def _as_numbers(self, gold: str, found: str) -> bool | None:
        gold_number, found_number = read_number(gold), read_number(found)
        if gold_number and found_number:
            return self._numbers_equal(gold_number, found_number)
        if gold_number and (plain := drop_letter_unit(found)) != found:
            return self.equal(gold, plain)
        return None

    def _numbers_equal(self, gold: Number, found: Number) -> bool:
        if gold.percent == found.percent:
            return self._close(gold, found.value)
        readings = [found.value / 100 if found.percent else found.value * 100]
        if self._percent_implied:
            readings.append(found.value)
        return any(self._close(gold, value, found.decimal or bool(found.percent)) for value in readings)

    def _close(self, gold: Number, found: Fraction, found_decimal: bool = True) -> bool:
        if gold.value == found:
            return True
        inexact = gold.value.denominator > 1 or found.denominator > 1
        return inexact and found_decimal and abs(gold.value - found) <= self._tolerance * abs(gold.value)

    def _as_based_numerals(self, gold: str, found: str) -> bool | None:
        """Numerals with a base subscript: the digits and the base must agree; None where there is no base."""
        gold_base, found_base = _BASE.fullmatch(gold), _BASE.fullmatch(found)
        if gold_base and found_base:
            return _numeral(gold_base) == _numeral(found_base)
        if gold_base:
            return self._base_implied and gold_base[1] == found.replace(",", "")
        if found_base:
            return self._base_implied and found_base[1] == gold.replace(",", "")
        return None

    def _as_containers(self, gold: str, found: str) -> bool | None:
        gold_list, found_list = read_container(gold), read_container(found)
        if gold_list and found_list:
            if len(gold_list.elements) != len(found_list.elements) and "=" in gold + found:
                return None  # `p=5,q=2;p=7,q=2` and `(5,2),(7,2)`: math-verify reads assignments
            return self._containers_equal(gold_list, found_list)
        if (gold_list and read_number(found)) or (found_list and read_number(gold)):
            return False
        return None

    def _as_words(self, gold: str, found: str) -> bool | None:
        """`east` and `East`. Different words are left to math-verify: they may be products of variables."""
        words = _WORDS.fullmatch(gold) and _WORDS.fullmatch(found)
        return True if words and gold.lower() == found.lower() else None

    def _containers_equal(self, gold: Container, found: Container) -> bool:
        if not gold.ordered and not found.ordered:
            return self._same_elements(_distinct(gold.elements), _distinct(found.elements))
        if len(gold.elements) != len(found.elements):
            return False
        if gold.ordered and found.delimiters not in ("", gold.delimiters):
            return False
        return all(self.equal(a, b) for a, b in zip(gold.elements, found.elements, strict=True))

    def _same_elements(self, gold: list[str], found: list[str]) -> bool:
        if len(gold) != len(found):
            return False
        left = _without_twins(found, gold)
        tolerance = float(self._tolerance)
        for element in _without_twins(gold, found):
            match = next(
                (
                    i
                    for i, candidate in enumerate(left)
                    if not clearly_different(element, candidate, tolerance) and self.equal(element, candidate)
                ),
                None,
            )
            if match is None:
                return False
            del left[match]
        return True


def _without_twins(elements: list[str], others: list[str]) -> list[str]:
    """The elements without those that are spelled as one of the others each."""
    twins = Counter(map(spelling, elements)) & Counter(map(spelling, others))
    left = []
    for element in elements:
        key = spelling(element)
        if twins[key]:
            twins[key] -= 1
        else:
            left.append(element)
    return left


def _distinct(elements: list[str]) -> list[str]:
    return list({spelling(element): element for element in elements}.values())


_BASE_NAMES = {
    name: str(base)
    for base, name in enumerate(["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"], 2)
}


def _numeral(match: re.Match[str]) -> tuple[str, str]:
    base = match[2] or match[3]
    return match[1], _BASE_NAMES.get(base.lower(), base)


def symbolically_equal(gold: str, found: str, relative_tolerance: float) -> bool:
    """math-verify's verdict on two normalised answers; constants are compared by relative difference instead.

    math-verify rounds to 6 decimals, so that 4.6e-24 equals 4.57e-23, and takes differences below 1e-15 for zero.
    """
    from math_verify import verify

    parsed_gold, parsed_found = _parse(gold), _parse(found)
    if not parsed_gold or not parsed_found:
        return False
    if (constant := _constants_equal(parsed_gold[0], parsed_found[0], relative_tolerance)) is not None:
        return constant
    try:
        return bool(
            verify(
                list(parsed_gold),
                list(parsed_found),
                timeout_seconds=None,
                allow_set_relation_comp=True,
                raise_on_error=True,
            )
        )
    except (MemoryError, RecursionError):
        raise
    except Exception:  # sympy meets untrusted text: whatever it raises, the two were not shown to be equal
        return False


@lru_cache(maxsize=256)
def _parse(text: str) -> tuple[Any, ...]:
    """math-verify's reading of a normalised answer: (sympy expression, text), or less. Cached for the references."""
    from math_verify import LatexExtractionConfig, parse

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns at every start that time-outs are off
    config = [LatexExtractionConfig(boxed_match_priority=0)]
    return tuple(parse(f"\\boxed{{{text}}}", extraction_config=config, parsing_timeout=None))


def _constants_equal(gold: Any, found: Any, relative_tolerance: float) -> bool | None:
    """Numeric comparison of two closed scalar expressions; None where either is something else."""
    import sympy

    if not all(isinstance(side, sympy.Expr) and side.is_number for side in (gold, found)):
        return None
    inexact = gold.has(sympy.Float) or found.has(sympy.Float)
    gold_value, found_value = (sympy.N(side.doit(), 30) for side in (gold, found))
    if not all(value.is_number and value.is_finite for value in (gold_value, found_value)):
        return None
    scale = abs(gold_value)
    if scale == 0:
        return bool(found_value == 0)
    return bool(abs(gold_value - found_value) <= (relative_tolerance if inexact else 1e-20) * scale)
