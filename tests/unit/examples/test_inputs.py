"""What the examples' scripts are given and is not theirs is refused in words, never with a traceback or zeros."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples.detection.__main__ import main as detection
from examples.inputs import filtered_rounds, rows_of
from examples.overthinker import before_after, build, experiment, measure
from examples.overthinker_families import base
from examples.overthinker_families import measure as measure_families
from examples.smollm2 import convert, look, questions
from tests.support import overthinker
from tests.support.measured_rows import posterior, prior, select_from, write_pair
from vpgea.config.schema import RunConfig
from vpgea.errors import UsageError
from vpgea_cli.main import told

STEPS = {"id": "a", "question": "?", "answer": "5", "steps": ["2 + 3 = 5"]}


@pytest.fixture
def other_round(tmp_path: Path) -> Path:
    """A round whose questions are of none of the testbeds; no path of it is right."""
    folder = tmp_path / "round-000"
    select_from(RunConfig(), *write_pair(folder, [prior("a", 0), posterior("a", 0, status="wrong")]))
    return folder


@pytest.fixture
def questions_file(tmp_path: Path) -> Path:
    file = tmp_path / "questions.jsonl"
    file.write_text(json.dumps(STEPS) + "\n")
    return file


def test_a_run_of_other_questions_than_those_of_the_file_is_refused(other_round: Path, questions_file: Path) -> None:
    (other_round / "filter" / "selected").rename(other_round / "elsewhere")
    arguments = [str(other_round), "--questions", str(questions_file)]
    with pytest.raises(UsageError, match="selected is not what stands there"):
        detection(arguments)
    (other_round / "elsewhere").rename(other_round / "filter" / "selected")
    questions_file.write_text(json.dumps(STEPS | {"id": "b"}) + "\n")
    with pytest.raises(UsageError, match="is of other questions"):
        detection(arguments)


def test_rounds_whose_filter_is_not_finished_are_left_out_and_named(
    other_round: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "round-001" / "filter").mkdir(parents=True)
    assert filtered_rounds(tmp_path) == [other_round] == filtered_rounds(other_round)
    assert "round-001, whose filter is not finished" in capsys.readouterr().err
    for folder, why in (
        (tmp_path / "nowhere", "there is nothing there"),
        (other_round / "filter" / "summary.json", "it is a file"),
        (other_round / "filter", "it has neither rounds nor a filter"),
        (tmp_path / "round-001", "none of its filters is finished"),
    ):
        with pytest.raises(UsageError) as refused:
            filtered_rounds(folder)
        assert refused.value.why == why


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "No such file"),
        ("", "it is empty"),
        ("{", "not JSON"),
        ("[1]", "has no id"),
        ('{"id": 1}', "has no answer"),
    ],
)
def test_what_is_no_question_file_is_refused(text: str | None, why: str, tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError) as refused:
        rows_of(file, "id", "answer")
    assert why in refused.value.why


def test_every_script_tells_a_wrong_input_in_words(
    tiny_model: Path, questions_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, testbed = str(questions_file), str(overthinker.ROOT / "base-global")
    made = tmp_path / "made"
    (made / "questions").mkdir(parents=True)
    (made / "made.json").write_text('{"bottleneck": 0.01}')
    (made / "questions" / "dev.jsonl").write_text(json.dumps(STEPS) + "\n")
    for work, words in (
        (lambda: measure.main([str(tmp_path)]), "is no folder of a model"),
        (lambda: measure.main([str(tiny_model), "--limit", "1"]), "is of another testbed"),
        (lambda: measure.main([testbed, "--questions", file]), "is of another testbed"),
        (lambda: measure_families.main([str(made)]), "is of another testbed"),
        (lambda: before_after.main([str(tmp_path)]), "is no folder of a loop"),
        (lambda: build.main(["--dial", "local", "--output", file]), f"cannot write {file}"),
        (lambda: base.main(["-o", file]), f"cannot write {file}"),
        (lambda: look.main(["--model", str(tmp_path / "nowhere")]), "model not found"),
        (lambda: questions.main([file]), f"cannot write {file}"),
        (lambda: convert.convert(questions_file, made), "is no wheel"),
    ):
        assert told(work) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert words in captured.err.splitlines()[0]


@pytest.mark.parametrize("share", ["1.5", "-0.1", "nan"])
def test_a_share_of_more_than_all_is_refused(share: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        experiment.main(["--output-dir", str(tmp_path / "runs"), "--exempt", share])
    assert f"--exempt: {share} is not from 0 to 1" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
