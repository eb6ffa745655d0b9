"""Which column is which: known names, paths to nested ones, and mends that work when they are followed."""

from __future__ import annotations

import itertools
import json
import shlex
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vpgea.config.resolve import resolve
from vpgea.config.schema import DataConfig, FieldMapping
from vpgea.errors import UsageError
from vpgea.questions.benchmarks import load_evalset
from vpgea.questions.load import LoadedQuestions, load_questions


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def load(path: Path, *sets: str) -> LoadedQuestions:
    """Load with options as the command line takes them."""
    return load_questions(resolve(sets=[f"data.dataset={path}", *sets]).config.data)


def error_of(path: Path, *sets: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        load(path, *sets)
    return caught.value


def offered(error: UsageError) -> list[str]:
    """The --set options of an error's mend."""
    words = shlex.split(str(error.mend))
    return [after for word, after in itertools.pairwise(words) if word == "--set"]


SHAPES: dict[str, dict[str, Any]] = {
    "problem beside solution": {"problem": "2^5?", "solution": r"It is \boxed{32}.", "answer": "32"},
    "prompt and ground truth": {"prompt": "2^5?", "ground_truth": "32"},
    "a question_alt beside the problem": {"problem": "2^5?", "question_alt": "2 to the 5?", "answer": "32"},
    "capitals": {"ID": "x", "Problem": "2^5?", "Solution": "so 32", "Answer": 32},
    "a chat and a group": {
        "data_source": "m",
        "prompt": [{"role": "user", "content": "2^5?"}],
        "reward_model": {"style": "rule", "ground_truth": "32"},
    },
    "a chat with a system turn": {
        "prompt": [{"role": "system", "content": "Be good."}, {"role": "user", "content": "2^5?"}],
        "extra_info": {"answer": 32},
    },
    "a list of one answer": {"question": "2^5?", "final_answer": ["32"]},
    "a text of one's own": {"query": "2^5?", "target": 32},
}


@pytest.mark.parametrize(
    ("shape", "table"),  # a table's types do not say where the system's turn is
    [(shape, table) for table in (False, True) for shape in SHAPES if not (table and "system" in shape)],
)
def test_the_mend_of_a_missing_column_works_when_it_is_followed(tmp_path: Path, shape: str, table: bool) -> None:
    row = SHAPES[shape]
    path = write(tmp_path / "q.jsonl", row)
    if table:
        pq.write_table(pa.Table.from_pylist([row]), path := tmp_path / "q.parquet")
    error = error_of(path)
    assert "is missing in every row" in error.what
    (question,) = load(path, *offered(error)).questions
    assert (question.text, question.answer) == ("2^5?", "32")


def test_a_worked_solution_is_never_offered_as_question_or_answer(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", {"problem": "2^5?", "solution": r"It is \boxed{32}."})
    error = error_of(path)
    assert offered(error) == ["data.fields.question=problem", "data.fields.answer=COLUMN"]
    assert "'solution' sounds like worked solutions" in str(error)
    assert "did you mean 'solution'" not in str(error_of(write(tmp_path / "r.jsonl", {"solution": "?", "answer": "1"})))


def test_a_column_of_just_that_name_goes_before_a_path(tmp_path: Path) -> None:
    row = {"question": "?", "meta.answer": "1", "meta": {"answer": "2", "all": [{"x": "3"}, {"x": "4"}]}}
    path = write(tmp_path / "q.jsonl", row)
    assert load(path, "data.fields.answer=meta.answer").questions[0].answer == "1"
    assert load(path, "data.fields.answer=meta.all[-1].x").questions[0].answer == "4"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("meta.anser", "the field 'meta.anser' is missing; did you mean 'answer'?"),
        ("meta.all[3]", "the field 'meta.all[3]' is missing: [3] of a list of 1"),
        ("meta.answer.deep", "the field 'meta.answer.deep' is missing: it leads into str"),
        ("meta.null.deep", "the answer is null"),
    ],
)
def test_a_path_that_leads_nowhere_says_where_it_ends(tmp_path: Path, name: str, reason: str) -> None:
    path = write(tmp_path / "q.jsonl", {"question": "?", "meta": {"answer": "2", "all": [1], "null": None}})
    assert reason in str(error_of(path, f"data.fields.answer={name}"))


def test_a_chat_in_place_of_a_text_is_mended_by_a_path(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be good."}, {"role": "user", "content": "2^5?"}]
    path = write(tmp_path / "q.jsonl", {"question": turns, "answer": "32"})
    error = error_of(path)
    assert "the question is list, not text" in str(error)
    assert load(path, *offered(error)).questions[0].text == "2^5?"


def test_ids_that_restart_for_other_questions_have_a_mend_that_keeps_them(tmp_path: Path) -> None:
    rows = [{"id": 1, "question": "2+2?", "answer": "4"}, {"id": 1, "question": "3+5?", "answer": "8"}]
    error = error_of(write(tmp_path / "q.jsonl", *rows))
    assert "the id '1' was already on line 1" in error.what
    assert len(load(tmp_path / "q.jsonl", *offered(error)).questions) == 2
    assert "--skip-bad-rows" in str(error_of(write(tmp_path / "r.jsonl", rows[0], rows[0])).mend), "the same question"


def test_an_evaluation_set_takes_the_columns_and_split_that_it_is_told(tmp_path: Path) -> None:
    row = {"ID": "2031-1", "Problem": "Add 65 to 8.", "Solution": "65+8=73", "Answer": "073"}
    path = write(tmp_path / "q.jsonl", row)
    with pytest.raises(UsageError) as caught:
        load_evalset("aime24", str(path))
    assert offered(caught.value) == ["data.fields.question=Problem", "data.fields.answer=Answer"]
    fields = resolve(sets=offered(caught.value)).config.data.fields
    (question,) = load_evalset("aime24", str(path), fields=fields).questions
    assert (question.text, question.answer) == ("Add 65 to 8.", "73"), "leading zeros go, whatever the column's name"
    with pytest.raises(UsageError, match="'Nr' is missing"):
        load_evalset("aime24", str(path), fields=fields.model_copy(update={"id": "Nr"}))


def test_an_evaluation_set_in_a_folder_of_one_split_is_that_split(tmp_path: Path) -> None:
    row = {"question": "?", "answer": "#### 1,000"}
    write(tmp_path / "rows.jsonl", row)
    assert load_evalset("gsm8k", str(tmp_path)).questions[0].answer == "1,000"
    (tmp_path / "rows.jsonl").rename(tmp_path / "train.jsonl")
    write(tmp_path / "validation.jsonl", {"question": "?", "answer": "2"})
    with pytest.raises(UsageError, match="no split 'test'"):
        load_evalset("gsm8k", str(tmp_path))
    assert load_evalset("gsm8k", str(tmp_path), split="validation").questions[0].answer == "2"


def test_options_may_be_a_list_inside_a_group(tmp_path: Path) -> None:
    row = {"question": "?", "choices": {"text": ["red", "blue"], "label": ["A", "B"]}, "answerKey": "b"}
    data = DataConfig(
        dataset=str(write(tmp_path / "q.jsonl", row)), fields=FieldMapping(answer="answerKey", options="choices.text")
    )
    (question,) = load_questions(data).questions
    assert (question.answer, question.options) == ("B", ("red", "blue"))


@pytest.mark.parametrize(
    ("more", "warned"),
    [
        ({"context": "Ann has 3 apples."}, "the column 'context' is not shown"),
        ({"input": "3, 4"}, "the column 'input' is not shown"),
        ({"choices": ["x", "y"]}, "--set data.fields.options=choices"),
        ({"choices": {"label": ["A", "B"], "text": ["x", "y"]}}, "--set data.fields.options=choices.text"),
        ({"Body": "Ann has 3 apples."}, "the column 'Body' is not shown"),
        ({"opa": "w", "opb": "x", "opc": "y", "opd": "z"}, "the columns opa, opb, opc, opd are not shown"),
        ({f"option{i}": "w" for i in range(1, 5)}, "option1, option2, option3, option4 are not shown"),
        ({"A": "w", "B": "x", "C": "y", "D": "z"}, "the columns A, B, C, D are not shown"),
    ],
)
@pytest.mark.parametrize("table", [False, True])
def test_columns_that_change_what_a_question_means_are_named(
    tmp_path: Path, more: dict[str, Any], warned: str, table: bool
) -> None:
    row = {"question": "How many?", "answer": "B", **more}
    path = write(tmp_path / "q.jsonl", row)
    if table:
        pq.write_table(pa.Table.from_pylist([row]), path := tmp_path / "q.parquet")
        warned = warned.removesuffix(".text")  # of a column that was not read only the name is known
    (warning,) = load(path).warnings
    assert warned in warning


def test_columns_without_content_and_columns_of_no_consequence_are_not(tmp_path: Path) -> None:
    row = {"question": "?", "answer": "1", "context": "", "input": None, "level": 5, "a": "x", "solution": "long"}
    assert load(write(tmp_path / "q.jsonl", row)).warnings == []


def test_turns_of_a_chat_beside_the_named_one_are_said(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be good."}, {"role": "user", "content": "2^5?"}]
    path = write(tmp_path / "q.jsonl", {"question": turns, "answer": "32"}, {"question": turns[:1], "answer": "x"})
    (warning,) = load(path, "data.fields.question=question[-1].content").warnings
    assert warning.startswith("1 questions are one turn of a chat that has more")
