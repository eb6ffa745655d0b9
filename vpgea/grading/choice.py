"""Grading of multiple choice, A to J."""

from __future__ import annotations

import re

from vpgea.grading.answers import Source, after_thinking, last_box
from vpgea.grading.base import Grade, GradeRequest, Status
from vpgea.grading.normalise import normalise

_LEADING_LETTER = re.compile(r"\(?\s*([A-J])\s*(?:\)|[.:](?=\s|$)|$)")
_MARKED = re.compile(
    r"\banswer(?:[*_]{0,3}[ \t]*(?:is|:|=)){1,2}[*_:\s]{0,6}(?:(?:option|choice)\s{1,3})?[$*_(\[{\s\\]{0,6}"
    r"(?:(?:text|boxed|mathrm|mathbf|textbf)\s?\{\(?)?(?-i:([A-J]))(?![\w'’])",
    re.IGNORECASE,
)
# "answer is I think ..." and "Answer: A good ..." are words: a letter that is also a word needs something after it
# that does not go on like a sentence.
_SENTENCE_GOES_ON = re.compile(r"\s+(?!(?:because|since|as|and|with|which|for|is|due)\b)[a-z]")
_LONE_LETTER = re.compile(r"[\s*_$(\[\\]*(?:(?:text|boxed|mathrm|mathbf|textbf)\s?\{\(?)?([A-J])[\s*_$)\]}.:\\]*")


def find_choice(response: str) -> tuple[str, Source] | None:
    r"""The chosen letter and where it stood; None where none is found.

    In this order: the last non-empty box (`\boxed{\text{(C)}}`, `\boxed{C. 15}`); the last `answer is (X)` or
    `Answer: X`; a capital alone on the last line. A letter in running text never counts: it may be the pronoun I or
    the article A.
    """
    text = after_thinking(response)
    box = last_box(text)
    if box is not None and (boxed := _LEADING_LETTER.match(normalise(box))):
        return boxed[1], "box"
    marked = [match[1] for match in _MARKED.finditer(text) if not _is_word(match, text)]
    if marked:
        return marked[-1], "marker"
    lines = text.split("\n")
    last_line = next((line for line in reversed(lines) if line.strip()), "")
    if len(last_line) <= 60 and (lone := _LONE_LETTER.fullmatch(last_line.strip())):
        return lone[1], "whole"
    return None


def _is_word(match: re.Match[str], text: str) -> bool:
    return match[1] in "AI" and _SENTENCE_GOES_ON.match(text, match.end()) is not None


def normalise_choice(reference: str) -> str:
    r"""The letter of a reference such as `C`, `(C)` or `\text{C}`; else the stripped reference."""
    letter = _LEADING_LETTER.match(normalise(reference))
    return letter[1] if letter else reference.strip()


def grade_choice(request: GradeRequest) -> Grade:
    """Correct when the chosen letter is the reference's. No letter found is `wrong` with extracted=None."""
    choice = find_choice(request.response)
    if choice is None:
        return Grade(Status.WRONG)
    letter, source = choice
    correct = letter == normalise_choice(request.reference)
    return Grade(Status.CORRECT if correct else Status.WRONG, extracted=letter, source=source)
