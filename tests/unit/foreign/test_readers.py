"""Each tool's log as it wrote it, read back: responses, scores, counts of tokens, and what it does not say."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from vpgea.errors import UsageError
from vpgea.foreign.recognise import TOOLS, read_log
from vpgea.foreign.sample import ForeignLog, ForeignSample, Sampling, Unreadable

DATA = Path(__file__).parents[2] / "data" / "foreign"
STRICT = "exact_match,strict-match"


def samples(log: ForeignLog, metric: str | None = None) -> list[ForeignSample]:
    found = list(log.samples(metric))
    assert not [row for row in found if isinstance(row, Unreadable)]
    return [row[1] for row in found if not isinstance(row, Unreadable)]


def written(path: Path, *rows: Mapping[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    "tool", ["lm-eval", "inspect/arithmetic.eval", "inspect/arithmetic.json", "lighteval", "evalscope"]
)
def test_a_tool_is_recognised_by_what_it_wrote(tool: str) -> None:
    assert read_log(DATA / tool).tool == tool.partition("/")[0]
    assert tool.partition("/")[0] in TOOLS


def test_lm_eval_gives_the_rows_of_one_filter_and_the_protocol_of_its_results() -> None:
    log = read_log(DATA / "lm-eval")
    assert (log.version, log.model) == ("0.4.13", "mock")
    assert log.metrics == (STRICT, "exact_match,flexible-extract")
    assert log.sampling == Sampling(temperature=0.0)
    rows = samples(log, STRICT)
    assert [row.question_id for row in rows] == ["sums/0", "sums/1", "sums/2"]
    assert [row.scores[STRICT] for row in rows] == [1.0, 0.0, 0.0]
    assert rows[0].completion == "<think>3 + 4 = 7</think>\n#### 7 so \\boxed{7}"
    assert (rows[0].extracted, rows[0].tokens, rows[0].finish_reason) == ("7", None, None)


def test_lm_eval_says_which_score_is_missing_when_several_are_recorded() -> None:
    log = read_log(DATA / "lm-eval")
    with pytest.raises(UsageError, match="several scores are recorded"):
        log.verdict_metric(None, is_needed=True)
    with pytest.raises(UsageError, match="no score is called 'acc'"):
        log.verdict_metric("acc", is_needed=True)
    assert log.verdict_metric(None, is_needed=False) is None


def test_repeated_responses_share_no_single_score() -> None:
    rows = samples(read_log(DATA / "lm-eval-repeats"), STRICT)
    assert [(row.question_id, row.index) for row in rows][:3] == [("sums2/0", 0), ("sums2/0", 1), ("sums2/1", 0)]
    assert all(row.scores == {} for row in rows)


def test_two_runs_of_a_task_in_one_folder_are_refused(tmp_path: Path) -> None:
    (file,) = (DATA / "lm-eval").glob("samples_*")
    shutil.copy(file, tmp_path / file.name)
    shutil.copy(file, tmp_path / file.name.replace("2026-11-27", "2026-11-28"))
    with pytest.raises(UsageError, match="several runs of one task"):
        read_log(tmp_path)


@pytest.mark.parametrize("name", ["arithmetic.eval", "arithmetic.json"])
def test_inspect_gives_epochs_reasoning_and_its_own_counts(name: str) -> None:
    log = read_log(DATA / "inspect" / name)
    assert (log.version, log.model, log.metrics) == ("0.3.285", "mockllm/model", ("match",))
    assert log.sampling == Sampling(temperature=0.6, top_p=0.95, cap=64)
    rows = {(row.question_id, row.index): row for row in samples(log)}
    assert len(rows) == 8
    first, wrong = rows["arithmetic/add-1", 0], rows["arithmetic/add-2", 1]
    cut = rows["arithmetic/div-1", 0]
    assert first.completion == "<think>\n17 + 25 is 42.\n</think>\n\nANSWER: 42"
    assert (first.tokens, first.thinking_tokens, first.finish_reason) == (24, 15, "stop")
    assert (wrong.scores, wrong.extracted) == ({"match": "I"}, "71")
    assert (cut.finish_reason, cut.thinking_tokens) == ("length", None)


def test_a_damaged_entry_of_a_zip_is_one_unreadable_row(tmp_path: Path) -> None:
    content = bytearray((DATA / "inspect" / "arithmetic.eval").read_bytes())
    with zipfile.ZipFile(DATA / "inspect" / "arithmetic.eval") as archive:
        entry = archive.getinfo("samples/add-2_epoch_1.json")
    content[entry.header_offset + 200] ^= 0xFF
    path = tmp_path / "damaged.eval"
    path.write_bytes(content)
    found = list(read_log(path).samples(None))
    (bad,) = [row for row in found if isinstance(row, Unreadable)]
    assert "add-2_epoch_1" in bad.place
    assert "cannot be unpacked" in bad.reason
    assert len(found) == 8


def test_an_unfinished_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "begun.eval"
    path.write_bytes((DATA / "inspect" / "arithmetic.eval").read_bytes()[:5000])
    with pytest.raises(UsageError, match="no finished log"):
        read_log(path)


def test_lighteval_gives_each_response_its_tokens_and_none_of_them_the_score_of_all() -> None:
    log = read_log(DATA / "lighteval")
    assert log.metrics == ("em", "extractive_match", "avg@n:n=2")
    assert log.sampling == Sampling(temperature=0.7, cap=24)
    rows = samples(log)
    assert len(rows) == 6
    assert [(row.question_id, row.index) for row in rows[:2]] == [("sums|0/1", 0), ("sums|0/1", 1)]
    assert (rows[0].completion, rows[0].tokens, rows[0].reference) == ("the", 2, "60")
    assert all(row.scores == {} for row in rows)


def test_evalscope_joins_reviews_with_how_responses_ended() -> None:
    log = read_log(DATA / "evalscope")
    assert (log.version, log.main_metric) == ("1.14.1", "accuracy")
    assert log.sampling == Sampling(temperature=0.6, top_p=0.95, cap=256)
    rows = {(row.question_id, row.index): row for row in samples(log)}
    assert sorted(rows) == [(f"gsm8k_main/{group}", index) for group in range(3) for index in range(2)]
    cut, right = rows["gsm8k_main/2", 1], rows["gsm8k_main/0", 0]
    assert (cut.completion, cut.finish_reason, cut.tokens) == ("<think>20 - 6", "length", 3)
    assert (right.scores, right.reference, right.finish_reason) == ({"accuracy": 1.0}, "7", "stop")


def test_predictions_alone_have_no_scores(tmp_path: Path) -> None:
    shutil.copytree(DATA / "evalscope" / "predictions", tmp_path / "predictions")
    log = read_log(tmp_path)
    assert log.metrics == ()
    assert {row.finish_reason for row in samples(log)} == {"stop", "length"}


def test_verl_takes_acc_before_a_score_that_may_be_minus_one(tmp_path: Path) -> None:
    row = {
        "input": "user\n1 + 1?",
        "output": "\\boxed{2}",
        "gts": "2",
        "score": -1.0,
        "step": 5,
        "acc": True,
        "pred": "2",
    }
    log = read_log(written(tmp_path / "5.jsonl", row))
    assert (log.tool, log.main_metric, log.model) == ("verl", "acc", "step 5")
    (sample,) = samples(log)
    assert (sample.question_id, sample.reference, sample.extracted) == (None, "2", "2")
    written(tmp_path / "6.jsonl", row)
    with pytest.raises(UsageError, match="dumps of 2 steps"):
        read_log(tmp_path)


def test_answers_of_the_chat_api_and_of_its_batches(tmp_path: Path) -> None:
    body = {
        "model": "m",
        "choices": [
            {"message": {"role": "assistant", "content": "2", "reasoning_content": "1+1"}, "finish_reason": "stop"}
        ],
        "usage": {"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 6}},
    }
    failed = {"custom_id": "b", "response": None, "error": {"message": "too many requests"}}
    batch = written(
        tmp_path / "batch.jsonl", {"custom_id": "a", "response": {"status_code": 200, "body": body}}, failed
    )
    good, bad = read_log(batch).samples(None)
    assert not isinstance(good, Unreadable)
    assert (good[1].completion, good[1].tokens, good[1].thinking_tokens) == ("<think>\n1+1\n</think>\n\n2", 9, 6)
    assert isinstance(bad, Unreadable)
    assert "too many requests" in bad.reason
    turns = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]
    (chat,) = samples(read_log(written(tmp_path / "chat.jsonl", {"messages": turns})))
    assert (chat.question, chat.completion, chat.tokens) == ("1 + 1?", "2", None)


def test_choices_of_one_request_share_its_count_so_that_none_has_it(tmp_path: Path) -> None:
    choice = {"message": {"role": "assistant", "content": "2"}, "finish_reason": "length"}
    row = {"question_id": "q", "choices": [choice, choice], "usage": {"completion_tokens": 20}}
    assert [one.tokens for one in samples(read_log(written(tmp_path / "n.jsonl", row)))] == [None, None]


def test_a_csv_is_a_table_and_empty_fields_say_nothing(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        'id,question,response,is_correct,tokens\na,"1, 2?","x\ny",true,7\na,"1, 2?",z,,\nb,q,r,0,x\nc,q,r,0,1,2\n'
    )
    log = read_log(path)
    assert log.metrics == ("is_correct",)
    first, second, *bad = log.samples("is_correct")
    assert not isinstance(first, Unreadable)
    assert not isinstance(second, Unreadable)
    assert (first[1].completion, first[1].tokens, first[1].scores) == ("x\ny", 7, {"is_correct": "true"})
    assert (second[1].tokens, second[1].scores) == (None, {})
    assert [row.reason for row in bad if isinstance(row, Unreadable)] == [
        "'x' is no whole number",
        "it has more fields than the table has columns",
    ]


def test_lines_that_are_no_json_are_rows_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"id": "a", "response": "x"}\n{"id": "b"\n\xff\n[1]\n' + b"[" * 100_000 + b"\n\n")
    found = list(read_log(path).samples(None))
    assert [row.place for row in found if isinstance(row, Unreadable)] == [f"t.jsonl, line {n}" for n in (2, 3, 4, 5)]


def test_logs_of_two_tools_and_of_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no log that is known"):
        read_log(tmp_path)
    written(tmp_path / "t.jsonl", {"id": "a", "response": "x"})
    shutil.copytree(DATA / "lm-eval", tmp_path / "lm")
    with pytest.raises(UsageError, match="logs of lm-eval and table"):
        read_log(tmp_path)
    assert read_log(tmp_path, "table").tool == "table"
    with pytest.raises(UsageError, match="--from knows no 'helm'"):
        read_log(tmp_path, "helm")


def test_where_nothing_is_found_it_is_said_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").touch()
    with pytest.raises(UsageError, match="holds no log") as refused:
        read_log(tmp_path / "log.jsonl")
    assert refused.value.why.startswith("the file is empty; what is read are logs of lm-eval, ")
    (tmp_path / "log.jsonl").rename(tmp_path / "log.txt")
    with pytest.raises(UsageError, match="holds no log") as refused:
        read_log(tmp_path)
    assert refused.value.why.startswith("no file in it ends in .eval, .json, ")
