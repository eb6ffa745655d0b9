"""One file, its folder and what `datasets` makes of it give the same questions; what is left out is said."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vpgea.config.schema import DataConfig, FieldMapping
from vpgea.errors import UsageError
from vpgea.questions.load import LoadedQuestions, load_questions

PNG = b"\x89PNG\r\n\x1a\n"


def load(path: Path, **options: Any) -> LoadedQuestions:
    return load_questions(DataConfig(dataset=str(path), **options), offline=True)


def answers(path: Path, **options: Any) -> list[str]:
    return [question.answer for question in load(path, **options).questions]


def error_of(path: Path, **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        load(path, **options)
    assert len(str(caught.value).splitlines()) == 3
    return str(caught.value)


def lines(path: Path, *given: object) -> Path:
    """One row per answer, or the rows themselves."""
    rows = [row if isinstance(row, dict) else {"question": f"No. {i}?", "answer": row} for i, row in enumerate(given)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([7, "Oslo", r"\frac{1}{2}", 2.5], ["7", "Oslo", r"\frac{1}{2}", "2.5"]),
        (["2021-03-04", "1999-12-31"], ["2021-03-04", "1999-12-31"]),
        (["032", "NA", "True", "1e5"], ["032", "NA", "True", "1e5"]),
        ([123456789012345678901234567890, 1], ["123456789012345678901234567890", "1"]),
    ],
)
def test_a_file_and_its_folder_give_the_same_references(
    tmp_path: Path, given: list[object], expected: list[str]
) -> None:
    path = lines(tmp_path / "data" / "rows.jsonl", *given)
    assert answers(path) == expected
    assert answers(path.parent) == expected
    assert load(path.parent).fingerprint == load(path).fingerprint


def test_every_text_format_gives_the_same_references_packed_or_not(tmp_path: Path) -> None:
    given = ["032", "NA", "True", "2020-02-29", "1,234", 'say "no"']
    rows = [{"id": f"r{i}", "question": f"No. {i},\nwhich?", "answer": answer} for i, answer in enumerate(given)]
    quoted = [
        [json.dumps(cell)[1:-1].replace("\\n", "\n").replace('\\"', '""') for cell in row.values()] for row in rows
    ]
    texts = {
        "a.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "b.json": json.dumps(rows, indent=1),
        "c.json": "".join(json.dumps(row) + "\n" for row in rows),
        "d.csv": "".join(",".join(f'"{c}"' for c in row) + "\n" for row in [["id", "question", "answer"], *quoted]),
        "e.tsv": "".join("\t".join(f'"{c}"' for c in row) + "\n" for row in [["id", "question", "answer"], *quoted]),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    found = {path.name: load(path).questions for path in sorted(tmp_path.iterdir())}
    assert len(found) == 10
    assert [question.answer for question in found["a.jsonl"]] == given
    assert all(questions == found["a.jsonl"] for questions in found.values())


def test_cells_of_a_csv_file_that_are_empty_missing_or_too_many(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text("question,answer,options\n1+1?,2,\n2+2?,4\n3+3?,6,,\n4+4?,,\n")
    text = error_of(path)
    assert "3 of 4 rows cannot be used" in text
    assert "row 2: it has fewer cells than the header; row 3: it has more cells" in text
    assert "row 4: the answer is null" in text
    assert load(path, skip_bad_rows=True).questions[0].options == ()


def test_files_of_a_folder_are_read_in_their_order_whatever_their_format(tmp_path: Path) -> None:
    lines(tmp_path / "b" / "two.jsonl", {"question": "b?", "answer": 2})
    (tmp_path / "a.csv").write_text("question,answer\na?,01\n")
    pq.write_table(pa.table({"question": ["c?"], "answer": ["3"]}), tmp_path / "c.parquet")
    loaded = load(tmp_path)
    assert [question.answer for question in loaded.questions] == ["01", "2", "3"]
    assert loaded.warnings == []
    lines(tmp_path / "d.jsonl", {"question": "d?", "answer": " "})
    assert "d.jsonl:1: the answer is empty" in error_of(tmp_path), "the file is named, not the folder"


def test_no_file_of_a_folder_is_left_out_unsaid(tmp_path: Path) -> None:
    lines(tmp_path / "train.jsonl", "1")
    lines(tmp_path / "test" / "more.jsonl", "2")
    for name in ("README.md", "LICENSE", ".hidden.jsonl", "dataset_infos.json"):
        (tmp_path / name).write_text("[]")
    (tmp_path / "answers.xlsx").write_bytes(b"x")
    loaded = load(tmp_path, split="test")
    assert [question.answer for question in loaded.questions] == ["2"]
    assert len(loaded.warnings) == 2
    assert "left out 1: answers.xlsx: no question file by its name" in loaded.warnings[0]
    assert "left out 1: train.jsonl: its name says no split, and other names do" in loaded.warnings[1]
    assert "the folder has test" in error_of(tmp_path, split="train")


def test_splits_by_name_by_shard_and_by_the_head_of_the_readme(tmp_path: Path) -> None:
    named, sharded, described = (tmp_path / name for name in ("named", "sharded", "described"))
    lines(named / "math_train.jsonl", "1"), lines(named / "dev-2.jsonl", "2"), lines(named / "eval.jsonl", "3")
    found = {split: answers(named, split=split) for split in ("train", "validation", "test")}
    assert found == {"train": ["1"], "validation": ["2"], "test": ["3"]}
    assert answers(named, split="train+test[:1]") == ["1", "3"]
    assert "the folder has" in error_of(named, split="train+other")
    lines(sharded / "data" / "extra-00001-of-00002.jsonl", {"question": "b", "answer": "2"})
    lines(sharded / "data" / "extra-00000-of-00002.jsonl", {"question": "a", "answer": "1"})
    assert answers(sharded, split="extra") == ["1", "2"]
    lines(described / "one.jsonl", "1"), lines(described / "two.jsonl", "2"), lines(described / "rest.jsonl", "3")
    head = "configs:\n- config_name: small\n  data_files:\n  - split: train\n    path: one.*\n- config_name: large\n"
    (described / "README.md").write_text(f"---\nlicense: mit\n{head}  data_files: t*.jsonl\n---\n# Text\n")
    assert answers(described, subset="small") == ["1"]
    assert answers(described, subset="large") == ["2"]
    assert "rest.jsonl" in load(described, subset="large").warnings[0]
    assert "its README.md has small, large" in error_of(described)
    assert "no subset 'small'" in error_of(named, subset="small")


@pytest.mark.parametrize("name", ["set [v2]", "a*b", "what?"])
def test_a_path_is_never_a_pattern(tmp_path: Path, name: str) -> None:
    assert answers(lines(tmp_path / name / "q [1].jsonl", "1").parent) == ["1"]
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list([{"question": "?", "answer": "2"}]).save_to_disk(str(tmp_path / name / "saved"))
    assert answers(tmp_path / name / "saved") == ["2"]


def test_features_of_datasets_arrive_as_values_in_every_container(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    letters = datasets.ClassLabel(names=["A", "B", "C"])
    features = datasets.Features(
        {
            "question": datasets.Value("string"),
            "answer": letters,
            "options": datasets.List(datasets.ClassLabel(names=["red", "green", "blue"])),
            "meta": {"nested": datasets.List({"label": letters, "day": datasets.Value("date32")})},
            "json": datasets.Json(),
        }
    )
    rows = [
        {
            "question": f"Colour {i}?",
            "answer": i,
            "options": [2, 1, 0],
            "meta": {"nested": [{"label": i, "day": "2020-01-0" + str(i + 1)}]},
            "json": [7, "Oslo", {"deep": 2.5}][i],
        }
        for i in range(3)
    ]
    data = datasets.Dataset.from_list(rows, features=features)
    data.save_to_disk(str(tmp_path / "saved"))
    data.to_parquet(str(tmp_path / "q.parquet"))
    shard = next((tmp_path / "saved").glob("*.arrow"))
    for source in (tmp_path / "saved", tmp_path / "q.parquet", shard):
        loaded = load(source)
        assert [question.answer for question in loaded.questions] == ["A", "B", "C"], source
        assert loaded.questions[0].options == ("blue", "green", "red")
        named = {"fields": {"answer": "meta.nested[0].label", "options": None}}
        assert answers(source, **named) == ["A", "B", "C"]
        assert answers(source, fields={"answer": "meta.nested[0].day", "options": None})[1] == "2020-01-02"
        assert answers(source, fields={"answer": "json", "options": None}, limit=2, skip_bad_rows=True) == ["7", "Oslo"]


@pytest.mark.parametrize("stored", [pa.float16(), pa.float32(), pa.float64()])
def test_numbers_are_as_they_were_written_whatever_their_precision(tmp_path: Path, stored: pa.DataType) -> None:
    given = [0.1, 2.5, 1000.0]
    table = pa.table(
        {
            "question": ["a?", "b?", "c?"],
            "answer": pa.array(given, pa.float64()).cast(stored),
            "deep": [{"x": [value]} for value in pa.array(given, pa.float64()).cast(stored).to_pylist()],
        }
    )
    deep = pa.array(table["deep"].to_pylist(), pa.struct([("x", pa.list_(stored))]))
    pq.write_table(table.set_column(2, "deep", deep), tmp_path / "q.parquet")
    assert answers(tmp_path / "q.parquet") == ["0.1", "2.5", "1000.0"]
    assert answers(tmp_path / "q.parquet", fields=FieldMapping(answer="deep.x[0]")) == ["0.1", "2.5", "1000.0"]


def test_a_row_with_an_image_is_a_bad_row_and_one_without_is_none(tmp_path: Path) -> None:
    table = pa.table(
        {
            "question": ["<image> How many?", "1+1?", "2+2?"],
            "answer": ["3", "2", "4"],
            "scan": pa.array(
                [[{"bytes": PNG, "path": "a.png"}], [], None],
                pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ),
        }
    )
    pq.write_table(table, tmp_path / "q.parquet")
    assert "row 1: the column 'scan' holds an image" in error_of(tmp_path / "q.parquet")
    assert answers(tmp_path / "q.parquet", skip_bad_rows=True) == ["2", "4"]


@pytest.mark.parametrize(
    "more",
    [
        {"image": "figures/7.png"},
        {"images": ["a.jpg"]},
        {"image_1": {"bytes": None, "path": "x.png"}},
        {"extra": "data:image/png;base64,AAAA"},
        {"audio": {"array": [0.0], "sampling_rate": 8000}},
        {"turns": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
    ],
)
def test_images_and_sounds_are_seen_under_any_name(tmp_path: Path, more: dict[str, object]) -> None:
    column = next(iter(more))
    rows = [{"question": "1?", "answer": "1", **more}, {"question": "2?", "answer": "2", column: None}]
    path = lines(tmp_path / "q.jsonl", *rows)
    assert f"q.jsonl:1: the column {column!r} holds a" in error_of(path)
    assert answers(path, skip_bad_rows=True) == ["2"]


def test_columns_that_only_sound_like_images_are_none(tmp_path: Path) -> None:
    row = {"question": "1?", "answer": "1", "has_image": False, "image_count": 0, "image": "", "image_caption": "a cat"}
    assert answers(lines(tmp_path / "q.jsonl", row)) == ["1"]


def test_image_features_of_datasets_are_seen(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"question": datasets.Value("string"), "answer": datasets.Value("string"), "view": datasets.Image(decode=False)}
    )
    row = {"question": "?", "answer": "1", "view": {"bytes": b"anything", "path": None}}
    datasets.Dataset.from_list([row, {**row, "view": None}], features=features).save_to_disk(str(tmp_path / "saved"))
    assert "row 1: the column 'view' holds an image" in error_of(tmp_path / "saved")


def test_a_description_of_columns_that_is_none_is_an_error(tmp_path: Path) -> None:
    table = pa.table({"question": ["?"], "answer": [0]}).replace_schema_metadata({"huggingface": "{not json"})
    pq.write_table(table, tmp_path / "q.parquet")
    assert "the description of its columns cannot be read" in error_of(tmp_path / "q.parquet")
    labels = {"info": {"features": {"answer": {"_type": "ClassLabel", "names": ["no"]}}}}
    table = pa.table({"question": ["a?", "b?", "c?"], "answer": [0, -1, 5]})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(labels)}), tmp_path / "q.parquet")
    text = error_of(tmp_path / "q.parquet")
    assert "row 2: the answer is null; row 3: a value that cannot be read: the label 5 is none of the 1" in text
