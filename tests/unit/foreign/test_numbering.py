"""Which sample of which question a row is, what repeats, and what a recorded score says."""

from __future__ import annotations

import pytest

from vpgea.foreign.numbering import KnownQuestions, Survey, numbered, repeats
from vpgea.foreign.sample import ForeignSample, Found, Unreadable
from vpgea.foreign.verdicts import recorded_verdict
from vpgea.questions.load import content_id
from vpgea.questions.question import Question


def sample(question_id: str | None, text: str, index: int | None = None, question: str | None = None) -> Found:
    return "here", ForeignSample(question_id=question_id, completion=text, index=index, question=question)


def test_samples_without_an_index_are_counted_as_they_come() -> None:
    survey = Survey()
    rows = numbered([sample("a", "x"), sample("b", "x"), sample("a", "x")], survey)
    assert [(row.question_id, row.index) for row in rows] == [("a", 0), ("b", 0), ("a", 1)]
    assert (survey.samples, survey.repeated, repeats(survey.per_question)) == (3, 0, (1, 2))


def test_a_sample_that_is_told_twice_is_left_out_and_one_told_otherwise_is_an_error() -> None:
    survey = Survey()
    kept = list(numbered([sample("a", "x", 1), sample("a", "x", 1), sample("a", "y", 1), sample("a", "y", 0)], survey))
    assert [(row.index, row.sample.completion) for row in kept] == [(1, "x"), (0, "y")]
    assert (survey.rows, survey.repeated, survey.unreadable) == (4, 1, 1)
    assert survey.listed[0].reason == "sample 1 of a stood before, with another text"


def test_one_id_of_two_questions_is_an_error() -> None:
    survey = Survey()
    kept = list(numbered([sample("a", "x", question="1?"), sample("a", "x", question="2?")], survey))
    assert len(kept) == 1
    assert "with another text or reference" in survey.listed[0].reason


def test_the_questions_have_one_fingerprint_whatever_the_order_of_their_samples() -> None:
    rows = [sample("a", "x", question="1?"), sample("b", "y", question="2?")]
    surveys = Survey(), Survey(), Survey()
    for survey, own in zip(surveys, (rows, [rows[1], rows[0], rows[1]], rows[:1]), strict=True):
        assert list(numbered(own, survey))
    first, second, fewer = (survey.questions_fingerprint for survey in surveys)
    assert first == second != fewer


def test_questions_without_ids_are_named_as_question_files_name_them() -> None:
    (row,) = numbered([sample(None, "x", question="1 + 1?")], Survey())
    assert row.question_id == content_id("1 + 1?", "", ())


def test_rows_that_name_no_question_are_counted_and_told_with_their_place() -> None:
    survey = Survey()
    rows: list[Found] = [
        sample(None, "x"),
        sample("a\x1b", "x"),
        sample(" ", "x"),
        sample("a", "x", -1),
        sample("\ud800", "x"),
    ]
    assert not list(numbered([*rows, Unreadable("line 7", "no JSON: \udfff")], survey))
    assert (survey.rows, survey.unreadable, survey.unreadable_share) == (6, 6, 1.0)
    assert survey.listed[-1] == Unreadable("line 7", "no JSON: \\udfff")


def test_known_questions_are_found_by_id_else_by_text_that_is_theirs_alone() -> None:
    known = KnownQuestions([Question("a", "1 + 1?", "2"), Question("b", "twice", "3"), Question("c", "twice", "4")])
    rows = [sample("a", "x"), sample("t/0", "x", question=" 1 +\n1? "), sample(None, "x", question="twice")]
    survey = Survey()
    kept = list(numbered(rows, survey, known))
    assert [(row.question_id, row.index, row.sample.reference) for row in kept] == [("a", 0, "2"), ("a", 1, "2")]
    assert survey.listed[0].reason == "its question is none of those in --questions"


@pytest.mark.parametrize(
    ("value", "status"),
    [
        *(
            (1, "correct"),
            (0.0, "wrong"),
            (True, "correct"),
            ("C", "correct"),
            ("I", "wrong"),
            ("N", "wrong"),
            ("0", "wrong"),
        ),
        *((0.5, None), (-1.0, None), ("P", None), (None, None), ({"a": 1}, None), (float("nan"), None)),
    ],
)
def test_only_right_and_wrong_are_verdicts(value: object, status: str | None) -> None:
    found = recorded_verdict(ForeignSample(question_id="a", completion="", scores={"m": value}), "m")
    assert found.status == status
    assert (found.why is None) == (status is not None)


def test_a_sample_without_the_score_has_no_verdict() -> None:
    assert recorded_verdict(ForeignSample(question_id="a", completion=""), "m").why == "no grade is recorded"
