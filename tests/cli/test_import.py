"""`vpgea import`: what other tools wrote becomes an evaluation that the other commands look at."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.evaluations import Sample, write_evaluation
from vpgea.config.schema import RunConfig
from vpgea.errors import Stopped, UsageError
from vpgea.phases.import_log import ImportPlan, import_log
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.stopping import StopRequest
from vpgea.storage.rows import iterate_rows
from vpgea.storage.schemas import ImportedRow

Cli = Callable[..., subprocess.CompletedProcess[str]]
DATA = Path(__file__).parents[1] / "data" / "foreign"
LOGS = {
    "lm-eval": ["--metric", "exact_match,strict-match"],
    "inspect/arithmetic.eval": [],
    "inspect/arithmetic.json": [],
    "lighteval": ["--metric", "em"],
    "evalscope": [],
}


def imported(here: Cli, source: Path, folder: Path, *options: str | Path) -> dict[str, Any]:
    done = here("import", source, "-o", folder, "--json", *options)
    assert done.returncode == 0, done.stderr
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def rows_of(folder: Path) -> list[ImportedRow]:
    return list(iterate_rows(CompletePhase.open(folder, "eval").chunks(), ImportedRow))


def table(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """Twelve samples of six questions: graded, counted and ended, two of each question."""
    rows = [
        {
            "id": f"q{number // 2}",
            "question": f"What is {number // 2} + 1?",
            "reference": str(number // 2 + 1),
            "response": f"<think>one more</think>\\boxed{{{number // 2 + 1 + (number == 3)}}}",
            "correct": number != 3,
            "tokens": 10 + number,
            "finish_reason": "stop",
        }
        for number in range(12)
    ]
    return table(tmp_path / "answers.jsonl", *rows)


@pytest.mark.parametrize("source", LOGS)
def test_what_a_tool_wrote_is_a_whole_evaluation(here: Cli, tmp_path: Path, source: str) -> None:
    found = imported(here, DATA / source, tmp_path / "out", *LOGS[source])
    assert found["import"]["protocol"] == "foreign"
    assert found["samples"] == len(rows_of(tmp_path / "out"))
    assert here("doctor", tmp_path / "out").returncode == 0
    shown = here("inspect", tmp_path / "out")
    assert shown.returncode == 0, shown.stderr
    assert found["import"]["tool"] in shown.stdout
    row = rows_of(tmp_path / "out")[0]
    one = here("inspect", tmp_path / "out", "--sample", f"{row.key.question_id}/prior/{row.key.sample_index}")
    assert one.returncode == 0, one.stderr
    assert row.place in one.stdout
    assert here("inspect", tmp_path / "out", "--stats").returncode == 0


def test_figures_are_those_of_the_recorded_grades_and_counts(here: Cli, answers: Path, tmp_path: Path) -> None:
    metrics = imported(here, answers, tmp_path / "out")["metrics"]
    assert metrics["accuracy"]["value"] == pytest.approx(11 / 12)
    assert metrics["tokens"]["value"] == pytest.approx(15.5)
    assert metrics["pass@2"]["value"] == 1
    assert metrics["truncation_rate"]["value"] == 0
    assert metrics["thinking_tokens"]["value"] is None  # nobody counted them


def test_a_count_that_is_not_recorded_makes_no_figure_and_a_tokenizer_makes_all(
    here: Cli, tmp_path: Path, tiny_model: Path
) -> None:
    log = DATA / "lm-eval"
    done = here("import", log, "-o", tmp_path / "without", "--metric", "exact_match,strict-match", "--json")
    metrics = json.loads(done.stdout)["metrics"]
    assert [metrics[name]["value"] for name in ("tokens", "tokens_p95", "token_efficiency")] == [None] * 3
    assert metrics["accuracy"]["value"] == pytest.approx(1 / 3)
    assert "3 of 3 samples have no count of tokens" in done.stderr
    assert {row.completion_ids for row in rows_of(tmp_path / "without")} == {None}
    options = ("--metric", "exact_match,strict-match", "--tokenizer", tiny_model)
    counted = imported(here, log, tmp_path / "with", *options)
    assert counted["import"]["without_tokens"] == 0
    rows = rows_of(tmp_path / "with")
    lengths = [0 if row.completion_ids is None else len(row.completion_ids) for row in rows]
    assert counted["metrics"]["tokens"]["value"] == pytest.approx(sum(lengths) / 3)
    thinking = [row.thinking_tokens or 0 for row in rows]
    assert 0 < thinking[0] < lengths[0]
    assert (rows[2].cut_off, thinking[2]) == (True, lengths[2])


def test_more_thinking_than_tokens_makes_no_figure_of_thinking(here: Cli, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"id": f"q{number}", "response": "<think>x</think>1", "correct": 1, "tokens": 10, "thinking_tokens": thinking}
        for number, thinking in enumerate([9, 10, 99, 4, 5, 6])
    ]
    log = table(tmp_path / "log.jsonl", *rows)
    done = here("import", log, "-o", tmp_path / "out", "--json")
    assert "of 1 of 6 samples more thinking than tokens is recorded" in done.stderr
    metrics = json.loads(done.stdout)["metrics"]
    assert [metrics[name]["value"] for name in ("tokens", "thinking_tokens", "answer_tokens")] == [10, None, None]
    assert [row.thinking_tokens for row in rows_of(tmp_path / "out")] == [9, 10, None, 4, 5, 6]


def test_our_grades_stand_beside_the_recorded_ones(here: Cli, tmp_path: Path) -> None:
    log = table(
        tmp_path / "log.jsonl",
        {"id": "a", "reference": "1/2", "response": "x</think>It is \\boxed{0.5}", "correct": 0},
        {"id": "b", "reference": "3", "response": "it may be \\boxed{3}", "correct": 1},
        {"id": "c", "response": "y</think>5", "correct": 1},
    )
    found = imported(here, log, tmp_path / "out", "--regrade")
    assert found["import"]["graded_by"] == {"vpgea": 2, "recorded": 1, "nobody": 0}
    assert found["import"]["regraded_otherwise"] == 2
    first, unended, without = rows_of(tmp_path / "out")
    assert (first.status, first.recorded_status, first.extracted) == ("correct", "wrong", "0.5")
    # the others began their thinking in the prompt: this one never ended it, so that there is no answer
    assert (unended.status, unended.cut_off, unended.graded_by) == ("wrong", True, "vpgea")
    assert (without.status, without.graded_by) == ("correct", "recorded")


def test_where_a_log_does_not_say_what_was_answered_there_is_no_vote(here: Cli, tmp_path: Path) -> None:
    log = table(
        tmp_path / "log.jsonl",
        *({"id": f"q{n // 2}", "question": "?", "response": f"r{n}", "correct": n % 2} for n in range(12)),
    )
    found = imported(here, log, tmp_path / "out")["metrics"]
    assert found["accuracy"]["value"] == 0.5
    assert not [name for name in found if name.startswith("maj@")]
    told = imported(here, DATA / "lm-eval", tmp_path / "told", "--metric", "exact_match,flexible-extract")["metrics"]
    assert told["maj@1"]["value"] == told["mean@1"]["value"]


def test_a_sample_without_a_grade_is_no_zero(here: Cli, tmp_path: Path) -> None:
    found = imported(here, DATA / "lighteval", tmp_path / "out", "--metric", "em")
    assert found["not_graded"] == 6
    assert found["metrics"]["accuracy"]["value"] is None
    assert found["import"]["graded_by"] == {"vpgea": 0, "recorded": 0, "nobody": 6}


def test_questions_of_ours_lend_their_ids_and_references(here: Cli, tmp_path: Path) -> None:
    questions = table(
        tmp_path / "q.jsonl",
        {"id": "apples", "question": "Tom has 3 apples and buys 4 more. How many apples has he?", "answer": "7"},
        {"id": "eggs", "question": "A box holds 12 eggs. How many eggs are in 5 boxes?", "answer": "60"},
        {"id": "coins", "question": "Ann had 20 coins and lost 6. How many are left?", "answer": "14"},
    )
    imported(here, DATA / "lm-eval", tmp_path / "out", "--regrade", "--questions", questions)
    assert [(row.key.question_id, row.status) for row in rows_of(tmp_path / "out")] == [
        ("apples", "correct"),
        ("eggs", "wrong"),
        ("coins", "wrong"),
    ]


def test_too_many_rows_that_are_no_samples_end_with_3_and_write_nothing(
    here: Cli, answers: Path, tmp_path: Path
) -> None:
    answers.write_text(answers.read_text() + '{"id": "q9"\n')
    done = here("import", answers, "-o", tmp_path / "out")
    assert done.returncode == 3
    assert "1 of 13 rows" in done.stderr
    assert "answers.jsonl, line 13" in done.stderr
    assert not (tmp_path / "out").exists()
    found = imported(here, answers, tmp_path / "out", "--max-unreadable", "0.1")
    assert found["import"]["unreadable"] == 1
    assert list(found["import"]["listed"]) == ["answers.jsonl, line 13"]


def test_a_dry_run_writes_nothing_and_shows_the_identity(here: Cli, tmp_path: Path) -> None:
    done = here("import", DATA / "evalscope", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["identity"]["foreign.version"] == "1.14.1"
    assert (shown["samples"], shown["questions"]) == (6, 3)
    assert not list(tmp_path.iterdir())


def test_the_same_log_goes_on_and_another_needs_overwrite(here: Cli, answers: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    imported(here, answers, out)
    before = {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (out / "results.json").unlink()
    (out / "COMPLETE").unlink()
    imported(here, answers, out)
    assert {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    answers.write_text("\n".join(answers.read_text().splitlines()[:10]) + "\n")
    refused = here("import", answers, "-o", out)
    assert refused.returncode == 2
    assert "the log differs" in refused.stderr
    assert imported(here, answers, out, "--overwrite")["samples"] == 10


def test_what_was_written_before_a_stop_is_kept(tmp_path: Path) -> None:
    log = table(tmp_path / "log.jsonl", *({"id": f"q{n}", "response": "x", "correct": n % 2} for n in range(1200)))
    plan, stop = ImportPlan.make(RunConfig(), log), StopRequest()
    stop.request("a test")
    with pytest.raises(Stopped):
        import_log(plan, tmp_path / "out", stop=stop)
    (first,) = (tmp_path / "out").glob("parts/*/*.arrow")
    before = first.stat().st_mtime_ns
    summary, found = import_log(plan, tmp_path / "out")
    assert (summary.samples, found.samples, found.metrics["accuracy"].value) == (1200, 1200, 0.5)
    assert first.stat().st_mtime_ns == before
    assert len(rows_of(tmp_path / "out")) == 1200


def test_a_log_that_grows_meanwhile_is_no_evaluation(tmp_path: Path) -> None:
    log = table(tmp_path / "log.jsonl", {"id": "a", "response": "x", "correct": 1})
    plan = ImportPlan.make(RunConfig(), log)
    table(log, {"id": "a", "response": "y", "correct": 0})
    with pytest.raises(UsageError, match="was changed while it was read"):
        import_log(plan, tmp_path / "out")
    assert not (tmp_path / "out" / "COMPLETE").exists()


def test_a_lost_shard_is_set_aside_and_only_the_log_gives_it_again(here: Cli, answers: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    imported(here, answers, out)
    (shard,) = out.glob("parts/*/chunk-00000.arrow")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-9])
    refused = here("doctor", out, "--repair")
    assert refused.returncode == 2
    assert "run the same `vpgea import` again" in refused.stderr
    imported(here, answers, out)
    assert shard.read_bytes() == whole
    assert here("doctor", out).returncode == 0


def test_an_import_is_no_baseline_for_an_evaluation_of_ours(
    here: Cli, answers: Path, tmp_path: Path, tiny_model: Path
) -> None:
    imported(here, answers, tmp_path / "out")
    questions = table(tmp_path / "q.jsonl", {"id": "q0", "question": "What is 0 + 1?", "answer": "1"})
    options = ("--model", tiny_model, "--dataset", questions, "--baseline", tmp_path / "out")
    done = here("eval", *options, "-o", tmp_path / "eval", "--set", "eval.max_new_tokens=4")
    assert done.returncode == 2
    assert "whose protocol is foreign" in done.stderr


def test_imports_of_one_tool_are_compared_as_foreign_ones_and_never_with_ours(
    here: Cli, answers: Path, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    other = table(tmp_path / "other.jsonl", *({**row, "correct": False, "tokens": 5} for row in rows))
    ours = write_evaluation(tmp_path / "ours", [Sample(question="q0", correct=True, tokens=9, seed=1)])
    imported(here, answers, tmp_path / "a")
    imported(here, other, tmp_path / "b")
    done = here("compare", tmp_path / "a", tmp_path / "b", "--json")
    assert done.returncode == 0, done.stderr
    (pair,) = json.loads(done.stdout)["sets"][0]["pairs"]
    assert pair["accuracy"]["estimate"]["value"] == pytest.approx(-11 / 12)
    assert pair["verdict"].startswith("foreign protocol, alike as far as the logs state it: ")
    assert (pair["same_weights"], pair["flips"]["by_sample"]) == (False, False)
    for runs in (("a", "ours"), ("ours", "a")):
        refused = here("compare", *(tmp_path / run for run in runs))
        assert refused.returncode == 2
        assert "whose protocol is foreign" in refused.stderr
    assert ours.is_dir()
    imported(here, DATA / "evalscope", tmp_path / "c")
    refused = here("compare", tmp_path / "a", tmp_path / "c")
    assert "foreign.tool is 'table' in the base and 'evalscope' in" in refused.stderr


def test_an_import_without_counts_is_compared_by_accuracy_alone(here: Cli, tmp_path: Path) -> None:
    for name in ("a", "b"):
        imported(here, DATA / "lm-eval", tmp_path / name, "--metric", "exact_match,strict-match")
    done = here("compare", tmp_path / "a", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    found = json.loads(here("compare", tmp_path / "a", tmp_path / "b", "--json").stdout)
    assert found["sets"][0]["runs"][0]["budget_curve"] == []
    assert found["sets"][0]["pairs"][0]["tokens"]["estimate"]["value"] is None


def test_an_import_is_graded_anew_from_its_log(here: Cli, answers: Path, tmp_path: Path) -> None:
    imported(here, answers, tmp_path / "out")
    refused = here("regrade", tmp_path / "out", "-o", tmp_path / "new", "--grader", "exact")
    assert refused.returncode == 2
    assert "vpgea import LOG --regrade" in refused.stderr


def test_control_characters_of_a_response_never_reach_the_terminal(here: Cli, tmp_path: Path) -> None:
    log = table(tmp_path / "log.jsonl", {"id": "a", "response": "\x1b[2J\ud800<script>", "correct": 1})
    imported(here, log, tmp_path / "out")
    for options in ((), ("--sample", "a/prior/0")):
        shown = here("inspect", tmp_path / "out", *options)
        assert shown.returncode == 0, shown.stderr
        assert "\x1b" not in shown.stdout


def test_two_imports_of_one_tool_are_compared_and_none_with_ours(here: Cli, tmp_path: Path) -> None:
    """Six questions, two samples each; the second log has more right answers, and half of the first's tokens."""
    for name, right, tokens in (("base", 0, 100), ("tuned", 1, 50), ("uncounted", 1, None)):
        rows: list[dict[str, object]] = [
            {
                "id": f"q{number // 2}",
                "question": f"What is {number // 2}?",
                "response": "\\boxed{1}",
                "correct": bool(number % 2 or right),
                **({} if tokens is None else {"tokens": tokens}),
            }
            for number in range(12)
        ]
        imported(here, table(tmp_path / f"{name}.jsonl", *rows), tmp_path / name)
    done = here("compare", tmp_path / "base", tmp_path / "tuned", "--json")
    assert done.returncode == 0, done.stderr
    (pair,) = json.loads(done.stdout)["sets"][0]["pairs"]
    assert (pair["accuracy"]["estimate"]["value"], pair["tokens"]["estimate"]["value"]) == (0.5, -0.5)
    assert (pair["same_weights"], pair["flips"]["by_sample"]) == (False, False)
    uncounted = here("compare", tmp_path / "base", tmp_path / "uncounted")
    assert uncounted.returncode == 0, uncounted.stderr
    assert "tokens -: not defined; accuracy +50.0 points" in uncounted.stdout
    assert "q0        0.50 -> 1.00  100 -> -" in uncounted.stderr
    ours = write_evaluation(tmp_path / "ours", [Sample(question=f"q{number}", correct=True) for number in range(6)])
    refused = here("compare", ours, tmp_path / "tuned")
    assert refused.returncode == 2
    assert "an import from table" in refused.stderr
    other = table(tmp_path / "other.jsonl", {"id": "q0", "question": "What?", "response": "1", "correct": True})
    imported(here, other, tmp_path / "other")
    assert "on the same questions" in here("compare", tmp_path / "base", tmp_path / "other").stderr
    assert "import LOG --regrade" in here("regrade", tmp_path / "base", "-o", tmp_path / "x").stderr
