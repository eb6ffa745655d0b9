r"""Who is to blame where the comparison of an answer with its reference uses up its time or memory."""

from __future__ import annotations

import re

from vpgea.grading.answers import find_answer
from vpgea.grading.base import GradeRequest
from vpgea.grading.characters import plain_characters
from vpgea.grading.numbers import read_number
from vpgea.grading.references import normalise_reference

# What has to be worked out before there is a value.
_OPERATOR = re.compile(
    r"\\(?:sum|prod|int|iint|oint|lim|det|Gamma|binom|begin)(?![A-Za-z])|!|\^\s*\{?[^{}\^]*\^|\d{20}|\^\s*\{?\s*-?\d{4}"
)
_MAX_READ = 4000  # characters of the answer: this runs outside the workers, where no deadline ends it


def is_own_fault(request: GradeRequest) -> bool:
    """Whether the answer is to blame, so that it is wrong rather than without a grade.

    It is where the reference is a plain number, which any number can be compared with, and where the answer leaves
    something to be worked out (a sum, an integral, a tower of powers ...) that the reference does not ask for.
    """
    answer = find_answer(request.response)
    gold = normalise_reference(request.reference)
    if answer is None or read_number(gold):
        return True
    asked_for = set(_OPERATOR.findall(gold))
    read = plain_characters(answer.text[:_MAX_READ])
    return any(operator not in asked_for for operator in _OPERATOR.findall(read))
