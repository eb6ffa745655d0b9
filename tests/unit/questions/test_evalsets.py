"""Named evaluation sets, read from copies in the shapes that users have."""

from __future__ import annotations

import csv
import gzip
import json
import os
from pathlib import Path

import pytest

from vpgea.errors import UsageError
from vpgea.questions.benchmarks import EVALSETS, GPQA_CHOICES, load_evalset

SLICES = Path(__file__).parents[2] / "data" / "questions"
GPQA_LETTERS = "CDCBCCCDACADADCBCBAABDCBBDAAAACCCACBDCBA"  # the first 40 of simple-evals, whatever the questions are


def write_gpqa(path: Path, count: int, **changes: str) -> Path:
    """A csv in GPQA's shape with texts of our own: quotes, commas and line breaks inside cells included."""
    names = ["Pre-Revision Question", "Question", *GPQA_CHOICES, "Record ID"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for i in range(count):
            choices = {name: f"choice {j}\nof {i}" for j, name in enumerate(GPQA_CHOICES)}
            row = {"Pre-Revision Question": "old", "Question": f'What is "{i}", then?', "Record ID": f"rec{i}"}
            writer.writerow(row | choices | (changes if i == 2 else {}))
    return path


def test_gpqa_permutes_and_repeats_as_simple_evals_does(tmp_path: Path) -> None:
    questions = load_evalset("gpqa-diamond", str(write_gpqa(tmp_path / "gpqa_diamond.csv", 198))).questions
    assert len(questions) == 792
    assert "".join(question.answer for question in questions[:40]) == GPQA_LETTERS
    assert questions[0].id == "rec0/0"
    assert questions[198].id == "rec0/1"
    for i, question in enumerate(questions):
        assert question.text == f'What is "{i % 198}", then?'
        assert question.options["ABCD".index(question.answer)] == f"choice 0\nof {i % 198}"
        assert len(set(question.options)) == 4
    assert any(a.options != b.options for a, b in zip(questions[:198], questions[198:], strict=False))


def test_gpqa_bad_row_leaves_the_other_permutations_alone(tmp_path: Path) -> None:
    path = str(write_gpqa(tmp_path / "g.csv", 20, **{"Incorrect Answer 2": ""}))
    with pytest.raises(UsageError, match=r"g\.csv, row 3: .*cannot be used"):
        load_evalset("gpqa-diamond", path)
    loaded = load_evalset("gpqa-diamond", path, skip_bad_rows=True)
    letters = "".join(question.answer for question in loaded.questions[:19])
    assert letters == GPQA_LETTERS[:2] + GPQA_LETTERS[3:20]
    assert {row.number for row in loaded.skipped} == {3}
    assert len(load_evalset("gpqa-diamond", path, skip_bad_rows=True, limit=5).questions) == 5


def test_gpqa_other_csv_files_are_errors(tmp_path: Path) -> None:
    for text, expected in (
        ("Question,Answer\na,b\n", "the column 'Record ID' is missing"),
        ('Question,Record ID\n"a', "cannot be read"),
        ("Question\na,b\n", "more cells than the header"),
        ("Question\n", "there are no questions"),
        ("", "the file is empty"),
    ):
        (tmp_path / "g.csv").write_text(text)
        with pytest.raises(UsageError, match=expected):
            load_evalset("gpqa-diamond", str(tmp_path / "g.csv"))
    (tmp_path / "g.csv").write_bytes(b"Question\n\xe9\n")
    with pytest.raises(UsageError, match="cannot be read"):
        load_evalset("gpqa-diamond", str(tmp_path / "g.csv"))
    with pytest.raises(UsageError, match="no such file"):
        load_evalset("gpqa-diamond", str(tmp_path / "none.csv"))


def test_aime_rows_of_the_common_shape() -> None:
    questions = load_evalset("aime24", str(SLICES / "aime_shape.jsonl")).questions
    assert [question.answer for question in questions] == ["36", "32", "25", "0"]
    assert "is inscribed in a circle" in questions[1].text, "question_alt mends the corrupt text"
    assert "[asy]" not in questions[2].text, "question_alt that only adds a drawing is left alone"


def test_gsm8k_takes_the_final_answer_of_the_published_shape(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({"question": "How much?", "answer": "10 * 100 = <<10*100=1000>>1,000\n#### 1,000"}))
    assert [question.answer for question in load_evalset("gsm8k", str(path)).questions] == ["1,000"]
    assert len(load_evalset("gsm8k", str(SLICES / "gsm8k_test_25.jsonl.gz")).questions) == 25


def test_math500_reads_both_column_names(tmp_path: Path) -> None:
    own = load_evalset("math500", str(SLICES / "math500_25.jsonl.gz"))
    with gzip.open(SLICES / "math500_25.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    hub = [{"problem": row["question"], "answer": row["answer"], "unique_id": row["id"]} for row in rows]
    (tmp_path / "hub.json").write_text(json.dumps(hub))
    assert load_evalset("math500", str(tmp_path / "hub.json")).fingerprint == own.fingerprint
    (tmp_path / "none.json").write_text(json.dumps([{"text": "?", "answer": "1"}]))
    with pytest.raises(UsageError, match="'problem' is missing"):
        load_evalset("math500", str(tmp_path / "none.json"))


def test_unknown_name_suggests_one() -> None:
    with pytest.raises(UsageError, match="did you mean gpqa-diamond"):
        load_evalset("gpqa_diamond")


def test_without_a_path_the_hub_copy_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"openai/gsm8k \(main, test\)"):
        load_evalset("gsm8k", offline=True)


@pytest.mark.parametrize(
    ("name", "file", "usable"),
    [
        ("gsm8k", "gsm8k/test", 1319),
        ("math500", "math500/test", 500),
        ("aime24", "aime/aime24", 30),
        ("aime25", "aime/aime25", 30),
        ("mmlu-pro", "mmlu_pro/test", 12031),
    ],
)
def test_full_sets(name: str, file: str, usable: int) -> None:
    folder = os.environ.get("VPGEA_TEST_DATA")
    if not folder:
        pytest.skip("VPGEA_TEST_DATA is not set: the full evaluation sets were not read")
    questions = load_evalset(name, str(Path(folder) / f"{file}.jsonl.gz"), skip_bad_rows=True).questions
    assert len(questions) == usable
    assert all(bool(question.options) == (EVALSETS[name].grader == "choice") for question in questions)
    if name.startswith("aime"):
        assert all(0 <= int(question.answer) <= 999 for question in questions)
    if name == "aime24":
        texts = {question.id: " ".join(question.text.split()) for question in questions}
        assert "internally tangent" in texts["aime24/88"], "2024-II-8 is mended"
        assert "[asy]" not in texts["aime24/70"], "a drawing is no mend"
