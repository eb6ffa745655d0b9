"""The control's notes of other questions: another value, of a question of the same kind, always the same."""

from __future__ import annotations

from string import ascii_uppercase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpgea.errors import UsageError
from vpgea.grading.values import answer_value
from vpgea.prompts.other_answers import other_answers
from vpgea.questions.question import Question


def questions_of(answers: list[int]) -> list[Question]:
    return [Question(f"q{place}", "?", f"So it is. #### {answer}") for place, answer in enumerate(answers)]


@settings(max_examples=40)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=20).filter(lambda answers: len(set(answers)) > 1), st.data())
def test_every_question_has_the_answer_of_another_one(answers: list[int], data: st.DataObject) -> None:
    questions = questions_of(answers)
    found = other_answers(questions, "math")
    for question in questions:
        assert answer_value(found[question.id], "math") != answer_value(question.answer, "math")
        assert int(found[question.id]) in answers
    assert other_answers(data.draw(st.permutations(questions)), "math") == found


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(2, 6)), min_size=1, max_size=12))
def test_a_letter_is_one_of_the_question_s_own(drawn: list[tuple[int, int]]) -> None:
    drawn = [*drawn, (0, 2), (1, 2)]
    asked = [
        Question(f"q{place}", "?", ascii_uppercase[letter], tuple("abcdef"[:options]))
        for place, (letter, options) in enumerate(drawn)
    ]
    found = other_answers([Question("n1", "?", "1"), Question("n2", "?", "2"), *asked], "math")
    assert (found["n1"], found["n2"]) == ("2", "1")
    for question in asked:
        assert found[question.id] != question.answer
        assert found[question.id] in ascii_uppercase[: len(question.options)]


@pytest.mark.parametrize(
    "questions",
    [
        [Question("alone", "?", "1")],
        [Question("alone", "?", "1/2"), Question("q", "?", "0.5")],
        [Question("alone", "?", "A", ("x", "y")), Question("q", "?", "1"), Question("r", "?", "2")],
        [Question("alone", "?", "A", ("x", "y")), Question("r", "?", "C", ("x", "y", "z"))],
    ],
)
def test_a_question_for_which_no_other_will_do_is_refused(questions: list[Question]) -> None:
    with pytest.raises(UsageError, match="no other question has an answer for the note of question"):
        other_answers(questions, "math")
