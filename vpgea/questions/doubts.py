"""What may be wrong with questions that are usable each by itself: contradictions, twin options, lost images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from string import ascii_uppercase

from vpgea.grading.answers import MAX_WHOLE
from vpgea.grading.references import final_answer, is_readable
from vpgea.grading.values import answer_value
from vpgea.questions.question import Question, folded, record_of
from vpgea.questions.rows import Place

_PLACEHOLDER = re.compile(r"<\|?(?:image|audio|video)(?:[ _]?\d+)?\|?>|!\[[^\]\n]*\]\([^)\s]+\)", re.IGNORECASE)
_SHOWN, _SHOWN_TEXT = 5, 60


def doubts(questions: Sequence[tuple[Question, Place]], grader: str) -> list[str]:
    """Warnings for the user, one line each, with a count and the first places."""
    found = {
        "references are prose, which no answer equals but one in the same words": [
            f"{place}: {_cut(question)}" for question, place in questions if not is_readable(question.answer, grader)
        ],
        "references are longer than an answer, and the private note holds the whole of them": [
            f"{place}: {_cut(question)}"
            for question, place in questions
            if grader not in ("math", "choice") and len(final_answer(question.answer, grader)) > MAX_WHOLE
        ],
        "questions stand twice with different answers, of which at most one is right": list(
            _contradictions(questions, grader)
        ),
        "questions have their right option twice, under another letter too": [
            f"{place}: {question.answer} is {_right(question)[0]!r}"
            for question, place in questions
            if question.options and any(one in _wrong(question) for one in _right(question))
        ],
        "questions name an image or the like, which no prompt shows": [
            f"{place}: {named[0]}"
            for question, place in questions
            for named in [_PLACEHOLDER.search("\n".join((question.text, *question.options)))]
            if named
        ],
    }
    return [f"{len(places)} {what}: {_listed(places)}" for what, places in found.items() if places]


def _listed(places: Sequence[str]) -> str:
    return "; ".join(places[:_SHOWN]) + ("; ..." if len(places) > _SHOWN else "")


def _contradictions(questions: Sequence[tuple[Question, Place]], grader: str) -> Iterator[str]:
    """Equal up to white space and the order of their options, but not in the answer's value."""
    first: dict[tuple[str, tuple[str, ...]], tuple[Question, Place]] = {}
    for question, place in questions:
        other, there = first.setdefault(record_of(question.text, question.options), (question, place))
        if other is not question and _value(other, grader) != _value(question, grader):
            yield f"{there} and {place}: {_shown(other)} and {_shown(question)}"


def _value(question: Question, grader: str) -> object:
    return _right(question) if question.options else answer_value(question.answer, grader)


def _right(question: Question) -> list[str]:
    """The texts of the right options, sorted."""
    return sorted(folded(option) for letter, option in _lettered(question) if letter in question.answer)


def _wrong(question: Question) -> list[str]:
    return [folded(option) for letter, option in _lettered(question) if letter not in question.answer]


def _lettered(question: Question) -> Iterator[tuple[str, str]]:
    return zip(ascii_uppercase, question.options, strict=False)


def _shown(question: Question) -> str:
    return repr(", ".join(_right(question)) if question.options else question.answer)


def _cut(question: Question) -> str:
    text = folded(question.answer)
    return repr(text if len(text) <= _SHOWN_TEXT else f"{text[:_SHOWN_TEXT]} ...")
