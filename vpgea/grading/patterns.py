"""Graders of published protocols: patterns that read one place of a response, as a benchmark's own scripts do.

They read what stands behind the thinking. The scripts that they are named after have no notion of a thinking, and some
take the first match of the whole output: of a response that thinks aloud, this would be a guess on the way.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from vpgea.grading.answers import after_thinking
from vpgea.grading.base import Grade, Grader, GradeRequest, Status
from vpgea.grading.references import final_answer

_LETTER = re.compile(r"Answer[ \t]*:[ \t]*\$?([A-D])\$?", re.IGNORECASE)
_SAID = re.compile(r"answer is \(?([A-J])\)?")
_LABELLED = re.compile(r"[aA]nswer:\s*([A-J])")
_LONE = re.compile(r"\b[A-J]\b")
_STRICT = re.compile(r"#### (-?[0-9.,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")


def last_letter(text: str) -> str | None:
    """The letter of the last `Answer: X`, as simple-evals writes it: A to D."""
    found = _LETTER.findall(text)
    return found[-1].upper() if found else None


def mmlu_pro_letter(text: str) -> str | None:
    """MMLU-Pro's chain: the first `answer is (X)`; else the last `answer: X` of the first line that has one; else the
    last capital A to J that stands alone, which may be the pronoun I."""
    if said := _SAID.search(text):
        return said[1]
    if labelled := list(_LABELLED.finditer(text)):
        end_of_line = text.find("\n", labelled[0].start())
        in_line = [match for match in labelled if end_of_line < 0 or match.start() < end_of_line]
        return in_line[-1][1]
    lone = _LONE.findall(text)
    return lone[-1] if lone else None


def strict_number(text: str) -> str | None:
    """What follows the first `#### `, as lm-eval's filter strict-match of GSM8K takes it."""
    match = _STRICT.search(text)
    return match[1] if match else None


def flexible_number(text: str) -> str | None:
    """The last number anywhere, as lm-eval's filter flexible-extract of GSM8K takes it."""
    found = [one or other for one, other in _FLEXIBLE.findall(text)]
    return found[-1] if found else None


def _same_letter(found: str, reference: str) -> bool:
    return found == reference.strip()


def _same_number(found: str, reference: str) -> bool:
    """As strings, without commas, dollar signs and a full stop at the end."""
    return _bare(found) == _bare(final_answer(reference, "math"))


def _bare(number: str) -> str:
    return number.replace(",", "").replace("$", "").removesuffix(".").strip().lower()


def _grader(extract: Callable[[str], str | None], same: Callable[[str, str], bool]) -> Grader:
    def grade(request: GradeRequest) -> Grade:
        found = extract(after_thinking(request.response))
        if found is None:
            return Grade(Status.WRONG)
        right = same(found, request.reference)
        return Grade(Status.CORRECT if right else Status.WRONG, extracted=found, source="marker")

    return grade


LETTERS = ("answer-letter", "mmlu-pro")  # those that read a letter
PATTERNS: dict[str, Grader] = {
    "answer-letter": _grader(last_letter, _same_letter),
    "mmlu-pro": _grader(mmlu_pro_letter, _same_letter),
    "gsm8k-strict": _grader(strict_number, _same_number),
    "gsm8k-flexible": _grader(flexible_number, _same_number),
}
