"""What may be wrong with questions that are usable each by itself: contradictions, twin options, lost images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from vpgea.questions.question import Question
from vpgea.questions.rows import Place

_PLACEHOLDER = re.compile(r"<\|?(?:image|audio|video)(?:[ _]?\d+)?\|?>|!\[[^\]\n]*\]\([^)\s]+\)", re.IGNORECASE)
_SHOWN = 5


def doubts(questions: Sequence[tuple[Question, Place]], grader: str) -> list[str]:
    """Warnings for the user, one line each, with a count and the first places."""
    found = {
        "questions stand twice with different answers, of which at most one is right": list(
            _contradictions(questions, grader)
        ),
        "questions have their right option twice, under another letter too": [
            f"{place}: {question.answer} is {_right_option(question)!r}"
            for question, place in questions
            if question.options and [*map(_fold, question.options)].count(_fold(_right_option(question))) > 1
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
        key = _fold(question.text), tuple(sorted(map(_fold, question.options)))
        other, there = first.setdefault(key, (question, place))
        if other is not question and _value(other, grader) != _value(question, grader):
            yield f"{there} and {place}: {_shown(other)} and {_shown(question)}"


def _value(question: Question, grader: str) -> object:
    if question.options:
        return _fold(_right_option(question))
    return _fold(question.answer)


def _right_option(question: Question) -> str:
    return question.options["ABCDEFGHIJKLMNOPQRSTUVWXYZ".index(question.answer)]


def _shown(question: Question) -> str:
    return repr(_right_option(question) if question.options else question.answer)


def _fold(text: str) -> str:
    return " ".join(text.split())
