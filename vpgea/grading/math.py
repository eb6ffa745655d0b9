"""Grading of mathematical answers."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

from vpgea.grading.answers import find_answer
from vpgea.grading.base import Grade, GradeRequest, Status
from vpgea.grading.comparison import Comparison
from vpgea.grading.copies import is_copied, is_unconverted, is_unfinished
from vpgea.grading.normalise import normalise
from vpgea.grading.numbers import read_number
from vpgea.grading.references import final_answer
from vpgea.grading.signs import spell_signs
from vpgea.grading.wording import Labelled, join_parts, quoted_word, read_label, same_word


def grade_math(request: GradeRequest, relative_tolerance: float) -> Grade:
    """Grade the final answer of a response (see `find_answer`) by mathematical equivalence with the reference.

    Uses sympy without a time-out: run it in a worker that may be killed.

    Args:
        request: What to grade.
        relative_tolerance: A number written as a decimal equals another when they differ by at most this share of the
            reference; see `numbers_close` for where that counts.

    Returns:
        The grade; no answer found is `wrong` with extracted=None.

    Raises:
        MemoryError: It says nothing about the answer.
        RecursionError: Neither does this.
    """
    answer = find_answer(request.response)
    if answer is None or answer.is_one_of_several(request.question):
        return Grade(Status.WRONG)
    found = normalise(answer.text)
    gold, word = _read_reference(request.reference)
    comparison = Comparison(request.question, _as_fraction(relative_tolerance))
    readings = [normalise(spell_signs(answer.text)), *([normalise(answer.repeated)] if answer.repeated else [])]
    if word is not None and found.isalpha():
        equal = same_word(word, found)
    else:
        equal = any(_is_answer(comparison, gold, reading, request.question) for reading in readings)
    return Grade(Status.CORRECT if equal else Status.WRONG, extracted=found or None, source=answer.source)


@lru_cache(maxsize=8)
def _as_fraction(tolerance: float) -> Fraction:
    """1/10 of 0.1, as it is written."""
    return Fraction(str(tolerance))


@lru_cache(maxsize=256)
def _read_reference(text: str) -> tuple[str, str | None]:
    """The normal form of a reference, and the word that it quotes. All samples of a question ask for the same."""
    reference = final_answer(text, "math")
    return normalise(spell_signs(reference)), quoted_word(reference)


def _is_answer(comparison: Comparison, gold: str, found: str, question: str) -> bool:
    """Whether an answer is the reference, and neither the question's own words nor left half done."""
    if gold == found:
        return bool(gold)
    if read_number(gold) and read_number(found) and not comparison.equal(gold, found):
        return False  # before the question is read, which takes longer
    refusals = (is_copied, is_unconverted, is_unfinished)
    if not gold or not found or any(refused(found, gold, question) for refused in refusals):
        return False
    return _same_choice_and_value(comparison, read_label(join_parts(gold)), read_label(join_parts(found)))


def _same_choice_and_value(comparison: Comparison, wanted: Labelled, given: Labelled) -> bool:
    """Of a choice the letter and the value, each where both have it."""
    if wanted.letter and given.letter and wanted.letter != given.letter:
        return False
    if wanted.value == wanted.letter or given.value == given.letter:  # one of them is a letter alone
        return wanted.letter == given.letter or comparison.equal(wanted.value, given.value)
    return comparison.equal(wanted.value, given.value)
