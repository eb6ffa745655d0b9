"""A wrong answer for the note of a question, made of the question alone: the control `views.note: wrong`."""

from __future__ import annotations

import hashlib
from string import ascii_uppercase

from vpgea.grading.choice import normalise_choice
from vpgea.grading.normalise import normalise
from vpgea.grading.numbers import read_number
from vpgea.grading.references import final_answer
from vpgea.grading.values import answer_value
from vpgea.questions.question import Question

_FARTHEST = 9  # a wrong number is off by at most so much, so that its size gives nothing away


def wrong_answer(question: Question, grader: str) -> str:
    """Another value of the same kind, always the same for a question.

    The letter of another option; a number that is off by 1 to 9, of the same sign where that is possible; `0` for words
    and formulas, or `1` where 0 is their value.
    """
    drawn = int.from_bytes(hashlib.sha256(f"{question.id}\n{question.text}".encode()).digest()[:8], "big")
    if question.options:
        own = normalise_choice(question.answer)
        others = [letter for letter in ascii_uppercase[: len(question.options)] if letter not in own]
        if others:
            return others[drawn % len(others)]
    text = final_answer(question.answer, grader)
    number = read_number(normalise(text))
    if number is None or number.percent:
        return "1" if answer_value(text, grader) == answer_value("0", grader) else "0"
    size, up = 1 + drawn % _FARTHEST, drawn // _FARTHEST % 2 == 1
    goes_up = up or 0 < number.value <= size  # 3 - 5 would be negative where 3 is not
    value = number.value + (size if goes_up else -size)
    if value.denominator == 1:
        return str(value.numerator)
    if number.decimal and number.finite:
        return f"{float(value):.{len(text.rpartition('.')[2])}f}"
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
