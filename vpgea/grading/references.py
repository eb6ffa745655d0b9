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
_MARK = re.compile(r"\\f?boxed\b|####|</?[a-z_:]{3,20}>|<\||◁|\[/?THINK\]|\banswer\s*(?:[:=]|is\b)", re.IGNORECASE)
_LOST_BACKSLASH = re.compile(
    r"[\x08\x0c]|(?<![A-Za-z\\])(?:b?oxed|[dt]?f?rac|ext|text(?:bf|it|rm)?|b?egin|operatorname)\s?\{"
)
_SENTENCE = re.compile(
    r"\W*(?:so|thus|hence|therefore|then|since|because|we|it|ans|result|solution)\b[^\n]*\d|[^\n]*[a-z]{2}[ \t]*:[ \t]",
    re.IGNORECASE,
)
_OR = re.compile(r",?\s+or\s+")


def final_answer(reference: str, grader: str) -> str:
    r"""The part of a reference that a grader compares, as it is written; never more than the reference.

    math: the content of the last box, else what follows `####`, `answer is` and the like, as in a response; `72` for a
    solution that ends in `#### 72`. choice: the letter. exact and a grader of one's own: the stripped reference.
    """
    if grader == "choice":
        return normalise_choice(reference)
    answer = find_answer(reference) if grader == "math" else None
    return _one_of_equals(answer.text) if answer else reference.strip()


def _one_of_equals(text: str) -> str:
    """`1/2` of `1/2 or 0.5`, which is one value; any other text as it is."""
    ways = _OR.split(text)
    numbers = [read_number(normalise(way)) for way in ways] if 1 < len(ways) <= _MAX_WORDS else []
    same = {(number.value, number.percent) if number else None for number in numbers}
    return ways[0].strip() if len(same) == 1 and None not in same else text


def normalise_reference(reference: str) -> str:
    """The value of a math reference's final answer in normal form, without its unit."""
    return plain_value(normalise(final_answer(reference, "math")))


def is_readable(reference: str, grader: str, options: Sequence[str] = ()) -> bool:
    """False where no right answer could be granted: the final answer is prose, empty, or the letter of no option.

    A grader of one's own reads what it likes: only an empty reference is unreadable to it.
    """
    answer = final_answer(reference, grader)
    if grader == "math" and (_is_prose(answer) or _is_marked_in_vain(reference) or _LOST_BACKSLASH.search(answer)):
        return False
    if grader == "choice":
        return _is_choice(answer, len(options) or len(ascii_uppercase))
    if grader == "math":
        return _is_answer(plain_value(normalise(answer)))
    return bool(fold_whitespace(answer))


def _is_choice(letters: str, count: int) -> bool:
    return bool(letters) and set(letters) <= set(ascii_uppercase[:count])


def _is_marked_in_vain(reference: str) -> bool:
    """A box, a marker or an end of thinking says where the answer stands, and none is there; or a sentence says it."""
    answer = find_answer(reference)
    if answer is None:
        return _MARK.search(reference) is not None
    return answer.source == "whole" and _SENTENCE.match(answer.text) is not None


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
