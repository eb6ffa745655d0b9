"""Questions that are fine each by itself and doubtful together; options and the letters that name them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vpgea.config.schema import DataConfig
from vpgea.errors import UsageError
from vpgea.questions.load import LoadedQuestions, load_questions

COLOURS = ["red", "green", "blue"]


def load(path: Path, *rows: dict[str, Any], **options: Any) -> LoadedQuestions:
    (path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_questions(DataConfig(dataset=str(path / "q.jsonl"), **options))


def test_a_question_with_two_answers_is_said_with_both_places(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": 1, "question": "23 and 9?", "answer": "32"},
        {"id": 2, "question": "1 and 1?", "answer": "2"},
        {"id": 3, "question": "23  and\n9?", "answer": "33"},
        {"id": 4, "question": "1 and 1?", "answer": "2 "},
    ]
    (warning,) = load(tmp_path, *rows).warnings
    assert warning.startswith("1 questions stand twice with different answers")
    assert "q.jsonl:1 and" in warning
    assert "q.jsonl:3: '32' and '33'" in warning


def test_options_in_another_order_are_the_same_question(tmp_path: Path) -> None:
    row = {"question": "Sky?", "options": COLOURS, "answer": "C"}
    turned = {**row, "options": COLOURS[::-1]}
    assert load(tmp_path, row, {**turned, "answer": "A"}).warnings == []
    (warning,) = load(tmp_path, row, turned).warnings
    assert "'blue' and 'red'" in warning


def test_a_right_option_that_stands_twice_and_a_lost_image_are_said(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"question": "Half of 8?", "options": ["3", "4", " 4"], "answer": "B"},
        {"question": "<image 1> How many?", "answer": "3"},
        {"question": "See ![](a.png). How many?", "answer": "4"},
        {"question": "Is x<image of y?", "answer": "5"},
    ]
    twice, lost = load(tmp_path, *rows).warnings
    assert twice.startswith("1 questions have their right option twice")
    assert lost.startswith("2 questions name an image")


@pytest.mark.parametrize("none", [[], None])
def test_no_options_is_an_empty_list_null_or_no_column(tmp_path: Path, none: object) -> None:
    rows: list[dict[str, Any]] = [
        {"question": "Even?", "options": ["3", 4], "answer": "B"},
        {"question": "2+2?", "options": none, "answer": "4"},
    ]
    choice, plain = load(tmp_path, *rows).questions
    assert (choice.options, plain.options) == (("3", "4"), ())


@pytest.mark.parametrize(("count", "letter"), [(2, "B"), (11, "K"), (12, "l"), (26, "(Z)")])
def test_the_letters_are_those_of_the_options(tmp_path: Path, count: int, letter: str) -> None:
    row = {"question": "Which?", "options": [f"option {i}" for i in range(count)], "answer": letter}
    (question,) = load(tmp_path, row).questions
    assert question.answer == letter.strip("()").upper()


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        ("D", "none of the letters A-C of its 3 options"),
        ("blue", "it is the text of option C: write that letter"),
        (1, "an index may count from 0 or from 1"),
        ("AD", "none of the letters"),
        ("B) red", "none of the letters"),
        ("red, blue", "none of the letters"),
    ],
)
def test_what_is_not_certainly_a_letter_is_refused_with_what_it_may_mean(
    tmp_path: Path, answer: object, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, {"question": "Which?", "options": COLOURS, "answer": answer})
    assert hint in str(caught.value)


def test_a_small_letter_that_is_also_an_options_text_is_refused(tmp_path: Path) -> None:
    row = {"question": "Which comes first?", "options": ["b", "a"], "answer": "b"}
    with pytest.raises(UsageError, match="it is the text of option A"):
        load(tmp_path, row)
    assert load(tmp_path, {**row, "answer": "B"}).questions[0].answer == "B"


@pytest.mark.parametrize(
    "answer",
    [
        "B",
        "b.",
        r"\text{(B)}",
        "B) green",
        "(B) green",
        r"\textbf{(B)}\ green",
        "It grows.\n#### B",
        "The answer is (B).",
        r"\boxed{B}",
    ],
)
def test_a_letter_is_read_in_every_way_that_names_one_option(tmp_path: Path, answer: str) -> None:
    assert load(tmp_path, {"question": "Leaf?", "options": COLOURS, "answer": answer}).questions[0].answer == "B"


@pytest.mark.parametrize("answer", ["BD", "B, D", "D and B", "D/B"])
def test_several_letters_are_the_letters_of_several_options(tmp_path: Path, answer: str) -> None:
    row = {"question": "Which are even?", "options": ["1", "2", "3", "4"], "answer": answer}
    loaded = load(tmp_path, row)
    assert loaded.questions[0].answer == "BD"
    assert loaded.warnings == []


PROSE = "We add the crates and the single jars, as the drawing shows.\nThis gives the number that was asked for."


def test_a_worked_solution_without_a_final_answer_is_a_bad_row(tmp_path: Path) -> None:
    rows = [{"question": f"{i}?", "answer": answer} for i, answer in enumerate(["1", PROSE, f"{PROSE}\n#### 3"])]
    with pytest.raises(UsageError) as caught:
        load(tmp_path, *rows)
    assert f"q.jsonl:2: the answer is a text of {len(PROSE)} characters in which no final answer" in str(caught.value)
    assert "#### ANSWER" in str(caught.value.mend)
    loaded = load(tmp_path, *rows, skip_bad_rows=True)
    assert [question.answer for question in loaded.questions] == ["1", f"{PROSE}\n#### 3"], "kept as the file has it"
    assert loaded.warnings == []


def test_prose_is_counted_and_named_before_anything_is_sampled(tmp_path: Path) -> None:
    rows = [
        {"question": "1?", "answer": "north-east"},
        {"question": "2?", "answer": "See the worked example of chapter 4"},
        {"question": "3?", "answer": r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"},
        {"question": "4?", "answer": "every prime that leaves one when divided by four"},
    ]
    (warning,) = load(tmp_path, *rows).warnings
    assert warning.startswith("2 references are prose")
    assert "q.jsonl:2: 'See the worked example of chapter 4'" in warning


def test_a_reference_that_multiple_choice_can_never_grant_is_a_bad_row(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "a?", "answer": "(B)"}\n{"question": "b?", "answer": "fifteen"}\n')
    data = DataConfig(dataset=str(tmp_path / "q.jsonl"))
    with pytest.raises(UsageError, match=r"q\.jsonl:2: the answer 'fifteen' is no letter"):
        load_questions(data, grader="choice")
    assert load_questions(data, grader="math").warnings == []


def test_a_long_reference_to_a_grader_that_compares_all_of_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text(json.dumps({"question": "a?", "answer": "word " * 50}) + "\n")
    (warning,) = load_questions(DataConfig(dataset=str(tmp_path / "q.jsonl")), grader="exact").warnings
    assert warning.startswith("1 references are longer than an answer, and the private note holds the whole of them")


def test_the_same_value_written_otherwise_is_no_contradiction(tmp_path: Path) -> None:
    rows = [{"id": i, "question": "Half?", "answer": answer} for i, answer in enumerate(["1/2", "0.5", r"\frac12"])]
    assert load(tmp_path, *rows).warnings == []
