"""`vpgea regrade` on the testbed's samples: new grades beside stored ones, never in place, nothing sampled."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import overthinker, rollouts
from vpgea.grading.plain import grade_box, grade_math_verify, last_box
from vpgea.inspection.verify import verify
from vpgea.phases.evaluate import evaluate
from vpgea.questions.load import load_questions
from vpgea.storage.files import read_json

Cli = Callable[..., subprocess.CompletedProcess[str]]
PLAIN = ("math-verify, last box", "last box, as a string")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight questions, two samples each, graded letter by letter."""
    folder = tmp_path_factory.mktemp("regrade") / "eval"
    config = overthinker.config(eval__samples=2)
    evaluate(config, load_questions(config.data).questions, folder)
    return folder


def test_the_same_grader_gives_the_same_bytes(here: Cli, source: Path, tmp_path: Path) -> None:
    """And the folder is what an evaluation would have written: whole, and to be compared."""
    before = rollouts.bytes_of(source)
    done = here("regrade", source, "-o", tmp_path / "again", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert rollouts.bytes_of(tmp_path / "again") == before == rollouts.bytes_of(source)
    assert found["metrics"] == read_json(source / "results.json")["metrics"]
    regraded = found["regraded"]
    assert list(regraded["accuracy"]) == ["as stored", "exact", *PLAIN]
    assert regraded["accuracy"]["as stored"] == regraded["accuracy"]["exact"]
    assert regraded["accuracy"]["exact"]["value"] == pytest.approx(found["metrics"]["accuracy"]["value"])
    assert verify(tmp_path / "again").findings == []
    assert here("compare", source, tmp_path / "again").stdout.startswith("the same samples graded twice")


def test_another_grader_changes_grades_and_no_sample(here: Cli, source: Path, tmp_path: Path) -> None:
    """One that grants everything: every sample that it grants and another does not is listed."""
    (tmp_path / "kind.py").write_text("def grade(*, response, reference, question):\n    return True\n")
    env = {"PYTHONPATH": f"{overthinker.ROOT.parents[1]}:{tmp_path}"}
    done = here("regrade", source, "-o", "new", "--grader", "kind:grade", "--json", env=env)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    rows, stored = rollouts.rows_of(tmp_path / "new"), rollouts.rows_of(source)
    assert [row["completion_ids"] for row in rows] == [row["completion_ids"] for row in stored]
    assert all((row["status"] == "correct") != row["cut_off"] for row in rows), "cut off has no answer"
    differing = {(one["question_id"], one["sample_index"]) for one in found["regraded"]["disagreements"]}
    wrong = {
        (row["question_id"], row["sample_index"]) for row in stored if row["status"] != "correct" and not row["cut_off"]
    }
    assert wrong
    assert wrong <= differing
    assert read_json(tmp_path / "new" / "manifest.json")["identity"]["grading.grader"] == "kind:grade"
    refused = here("compare", source, "new")
    assert refused.returncode == 2
    assert "vpgea regrade FOLDER --grader exact" in refused.stderr
    shown = here("regrade", source, "-o", "new", "--grader", "kind:grade", env=env).stderr
    for line in ("accuracy by grader", *PLAIN, "samples on which they differ"):
        assert line in shown
    (tmp_path / "kind.py").write_text("def grade(*, response, reference, question):\n    return False\n")
    assert here("regrade", "new", "-o", "newer", "--grader", "kind:grade", "-q", env=env).returncode == 0
    first, second = (read_json(tmp_path / name / "manifest.json")["inputs"]["regraded"] for name in ("new", "newer"))
    assert first == second == read_json(source / "manifest.json")["content_fingerprint"]
    assert here("compare", "new", "newer").stdout.startswith("the same samples graded twice")


def test_a_damaged_one_is_graded_again_and_never_sampled(here: Cli, source: Path, tmp_path: Path) -> None:
    """From the samples that it was made of: the repair knows of none."""
    again = tmp_path / "again"
    assert here("regrade", source, "-o", again, "-q").returncode == 0
    whole, results = rollouts.bytes_of(again), read_json(again / "results.json")
    shard = min(again.rglob("chunk-*.arrow"))
    shard.write_bytes(shard.read_bytes()[:-9])
    done = here("doctor", again, "--repair")
    assert done.returncode == 2
    assert "run the same `vpgea regrade` again" in done.stderr
    assert here("regrade", source, "-o", again, "-q").returncode == 0
    assert rollouts.bytes_of(again) == whole
    assert read_json(again / "results.json") == results
    assert here("doctor", again).returncode == 0


def test_what_is_refused(here: Cli, source: Path, tmp_path: Path) -> None:
    for target in (source, source / "inside", source.parent):
        done = here("regrade", source, "-o", target)
        assert done.returncode == 2
        assert "never replaced in place" in done.stderr
    sampled = here("regrade", source, "-o", tmp_path / "x", "--set", "eval.temperature=0.5")
    assert sampled.returncode == 2
    assert "only the grading of samples that are stored" in sampled.stderr
    other = shutil.copytree(overthinker.OPTIONS["model.path"], tmp_path / "other")
    template = other / "chat_template.jinja"
    settings = json.loads((other / "tokenizer_config.json").read_text())
    text = settings.get("chat_template") or template.read_text()
    settings["chat_template"] = text + " "
    template.unlink(missing_ok=True)
    (other / "tokenizer_config.json").write_text(json.dumps(settings))
    foreign = here("regrade", source, "-o", tmp_path / "x", "--model", other)
    assert foreign.returncode == 2
    assert "has not the tokenizer and template" in foreign.stderr
    assert not (tmp_path / "x").exists()


def test_plain_graders_read_the_last_box_alone() -> None:
    assert last_box(r"\boxed{1} then \boxed{\frac{1}{2}}.") == r"\frac{1}{2}"
    assert last_box(r"no box, and \boxed{never closed") == ""
    half = {"reference": r"\frac{1}{2}", "question": ""}
    assert grade_math_verify(response=r"It is \boxed{0.5}.", **half)
    assert not grade_box(response=r"It is \boxed{0.5}.", **half)
    assert grade_box(response=r"\boxed{3} or rather \boxed{\frac{1}{2} }", **half)
    assert not grade_box(response="The answer is 1/2.", **half)
    assert not grade_math_verify(response=r"\boxed{\frac{1}{3}}", **half)
    assert not grade_box(response=r"\boxed{}", reference="", question="")
