"""Another question's answer for the note of each question: the control `views.note: other`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from vpgea.errors import UsageError
from vpgea.grading.choice import normalise_choice
from vpgea.grading.references import final_answer
from vpgea.grading.values import answer_value
from vpgea.questions.question import Question


def other_answers(questions: Sequence[Question], grader: str) -> dict[str, str]:
    """Question id → the final answer of another one of these questions, of another value than its own.

    The questions stand in a circle, in an order that is drawn by their ids; each takes the answer of the next one that
    will do. A question with options takes a letter of a question with options, which is one of its own letters.

    Args:
        questions: With distinct ids; their order does not matter.
        grader: Whose reading of references the notes hold.

    Raises:
        UsageError: No other question will do for one of them.
    """
    found = {}
    for has_options in (False, True):
        circle = sorted((one for one in questions if bool(one.options) == has_options), key=_draw)
        values = [normalise_choice(one.answer) if has_options else answer_value(one.answer, grader) for one in circle]
        for place, question in enumerate(circle):
            others = ((place + step) % len(circle) for step in range(1, len(circle)))
            next_one = next((other for other in others if _will_do(question, values[place], values[other])), None)
            if next_one is None:
                raise UsageError(
                    f"no other question has an answer for the note of question {question.id}",
                    why="views.note is other, and the answers of all others like it have its own value, or are letters "
                    "that it has no options for",
                    mend="draw more questions at a time, or use views.note=wrong, which needs no other question",
                )
            found[question.id] = final_answer(circle[next_one].answer, grader)
    return found


def _will_do(question: Question, own: object, other: object) -> bool:
    if own == other:
        return False
    return not question.options or all(ord(letter) - ord("A") < len(question.options) for letter in str(other))


def _draw(question: Question) -> bytes:
    return hashlib.sha256(question.id.encode()).digest()
