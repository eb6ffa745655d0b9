"""Folders and headers that could be read in two ways: each is read in the right one, or refused, or said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vpgea.config.schema import DataConfig
from vpgea.errors import UsageError
from vpgea.questions.features import media_in
from vpgea.questions.load import LoadedQuestions, load_questions

ROW = {"question": "2+3?", "answer": "5"}
OTHER = {"question": "2+4?", "answer": "6"}


def load(path: Path, split: str = "train") -> LoadedQuestions:
    return load_questions(DataConfig(dataset=str(path), split=split), offline=True)


def error_of(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        load(path)
    return str(caught.value)


def write(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("end", [".csv", ".tsv"])
def test_a_column_name_that_stands_twice_is_refused(tmp_path: Path, end: str) -> None:
    path = tmp_path / f"q{end}"
    path.write_text("question,answer,answer\n2+3?,5,9\n".replace(",", "\t" if end == ".tsv" else ","))
    assert "a column name stands twice" in error_of(path)


def test_columns_without_a_name_may_stand_several_times(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text("question,answer,,\n2+3?,5,,\n")
    assert load(path).questions[0].answer == "5"


@pytest.mark.parametrize(
    ("name", "header", "found"),
    [
        ("q.csv", "id;question;answer", "';'"),
        ("q.csv", '"id";"question";"answer"', "';'"),
        ("q.csv", "id\tquestion\tanswer", r"'\t'"),
        ("q.tsv", "id,question,answer", "','"),
    ],
)
def test_another_delimiter_is_named(tmp_path: Path, name: str, header: str, found: str) -> None:
    path = tmp_path / name
    path.write_text(f"{header}\n" + header.replace("question", "2+3?") + "\n")
    assert f"the delimiter is {found}" in error_of(path)


@pytest.mark.parametrize(
    "names", [("Train.jsonl", "Test.jsonl"), ("TRAIN/a.jsonl", "TEST/a.jsonl"), ("sumTrain.jsonl", "sumTest.jsonl")]
)
def test_names_of_splits_have_any_case(tmp_path: Path, names: tuple[str, str]) -> None:
    write(tmp_path / names[0], ROW)
    write(tmp_path / names[1], OTHER)
    assert [question.answer for question in load(tmp_path).questions] == ["5"]
    assert [question.answer for question in load(tmp_path, "test").questions] == ["6"]


@pytest.mark.parametrize(
    "paths", ["data_files: ../*.jsonl", "data_files: /tmp/*.jsonl", "data_dir: ..", "data_files: '**/../*.jsonl'"]
)
def test_a_description_cannot_name_files_outside_its_folder(tmp_path: Path, paths: str) -> None:
    write(tmp_path / "q" / "in.jsonl", ROW)
    write(tmp_path / "out.jsonl", OTHER)
    (tmp_path / "q" / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  {paths}\n---\n")
    assert "leaves the folder" in error_of(tmp_path / "q")


def test_a_description_may_go_up_inside_its_folder(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ROW)
    write(tmp_path / "sub" / "other.txt", ROW)
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_dir: sub\n  data_files: ../*.jsonl\n---\n"
    )
    loaded = load(tmp_path)
    assert ([question.answer for question in loaded.questions], len(loaded.warnings)) == (["5"], 1)


def test_tables_and_lists_are_never_left_out_unsaid(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", ROW)
    write(tmp_path / "noticed.jsonl", OTHER)
    (tmp_path / "config.json").write_text(json.dumps([OTHER]))
    (tmp_path / "dataset_infos.json").write_text(json.dumps(OTHER))
    loaded = load(tmp_path)
    assert sorted(question.answer for question in loaded.questions) == ["5", "6"]
    (warning,) = loaded.warnings
    assert "left out 1: config.json" in warning


def test_files_with_ids_and_files_without_stand_beside_each_other(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", {"id": "one", **ROW})
    write(tmp_path / "b.jsonl", OTHER)
    alone = load(tmp_path / "b.jsonl").questions[0].id
    assert [question.id for question in load(tmp_path).questions] == ["one", alone]
    write(tmp_path / "b.jsonl", OTHER, OTHER)
    assert "the same question with the same answer was already on" in error_of(tmp_path)
    write(tmp_path / "b.jsonl", {"id": "two", **ROW}, OTHER)
    assert "the field 'id' is missing" in error_of(tmp_path), "inside one file it is a slip"


def test_figures_are_images() -> None:
    bitmap = b"BM" + bytes([60, 0, 0, 0]) + bytes(4)
    assert media_in({"figure": "x.png"}) == ("figure", "image")
    assert media_in({"raw": bitmap}) == ("raw", "image")
    assert media_in({"figure": "two circles", "source": "x.png", "text": b"BMW is a maker"}) is None
