r"""The final answer of a reference: what a grade compares, however long the worked solution around it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

from vpgea.grading.answers import find_answer
from vpgea.grading.choice import normalise_choice
from vpgea.grading.containers import read_container
from vpgea.grading.exact import fold_whitespace
from vpgea.grading.measures import plain_value
from vpgea.grading.normalise import normalise
from vpgea.grading.numbers import read_number
from vpgea.grading.wording import join_parts, read_label

_MAX_WORDS, _MAX_WORDS_BESIDE_DIGITS = 6, 2  # an answer in words, `3 hours 20 minutes`; more are prose
_COMMAND = re.compile(r"\\(?:begin|end)\s*\{\w+\*?\}|\\(?:[A-Za-z]+|.)")
_SEPARATOR = re.compile(r"[,;]|\b(?:and|or)\b")
_WORD = re.compile(r"[^\W\d_]{2,}")


def final_answer(reference: str, grader: str) -> str:
    r"""The part of a reference that a grader compares, as it is written; never more than the reference.

    math: the content of the last box, else what follows `####`, `answer is` and the like, as in a response; `72` for a
    solution that ends in `#### 72`. choice: the letter. exact and a grader of one's own: the stripped reference.
    """
    if grader == "choice":
        return normalise_choice(reference)
    answer = find_answer(reference) if grader == "math" else None
    return answer.text if answer else reference.strip()


def normalise_reference(reference: str) -> str:
    """The value of a math reference's final answer in normal form, without its unit."""
    return plain_value(normalise(final_answer(reference, "math")))


def is_readable(reference: str, grader: str, options: Sequence[str] = ()) -> bool:
    """False where no right answer could be granted: the final answer is prose, empty, or the letter of no option.

    A grader of one's own reads what it likes: only an empty reference is unreadable to it.
    """
    answer = final_answer(reference, grader)
    if grader == "math" and _is_prose(answer):
        return False
    if grader == "choice":
        return _is_choice(answer, len(options) or len(ascii_uppercase))
    if grader == "math":
        return _is_answer(plain_value(normalise(answer)))
    return bool(fold_whitespace(answer))


def _is_choice(letters: str, count: int) -> bool:
    return bool(letters) and set(letters) <= set(ascii_uppercase[:count])


def _is_prose(text: str) -> bool:
    """More words than an answer has, be it a list of names."""
    plain = _COMMAND.sub(" ", text)
    return len(_WORD.findall(plain)) > max(_MAX_WORDS, 3 * len(_SEPARATOR.split(plain)))


def _is_answer(normal: str) -> bool:
    normal = plain_value(read_label(join_parts(normal)).value)
    if not normal or read_number(normal):
        return bool(normal)
    if (container := read_container(normal)) and len(container.elements) > 1:
        return all(_is_answer(element) for element in container.elements)
    plain = _COMMAND.sub(" ", normal)
    digits = any(character.isdigit() for character in plain)
    return len(_WORD.findall(plain)) <= (_MAX_WORDS_BESIDE_DIGITS if digits else _MAX_WORDS)
