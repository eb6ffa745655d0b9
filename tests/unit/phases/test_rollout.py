"""What a rollout writes about itself, who can read it, and when it stops or refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from tests.support import tiny
from tests.support.finished import small_config
from tests.support.models import views_of
from tests.support.recording import Recording
from tests.support.rollouts import committed, plan_of, rows_of, run
from vpgea.config.schema import DataConfig, RunConfig
from vpgea.engines.base import (
    Completion,
    Engine,
    EngineUsage,
    GenerateRequest,
    LogprobsOf,
    OnTokens,
    Sampling,
    ignore_tokens,
)
from vpgea.errors import Stopped, UsageError
from vpgea.estimate.phases import forecast_loop
from vpgea.modeling import contents
from vpgea.modeling.contents import folder_content
from vpgea.phases.evaluate import EvalPlan
from vpgea.phases.loop import Loop
from vpgea.phases.rollout import Drawing, RolloutPlan, open_samples, rejection
from vpgea.phases.schedule import held_out_data
from vpgea.questions.load import Question, load_questions
from vpgea.runs.complete_phase import CompletePhase, chunk_paths
from vpgea.runs.journals import Journals
from vpgea.runs.manifest import Manifest
from vpgea.runs.parts import Part, part_folders
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.runs.progress import NullProgress
from vpgea.runs.stopping import StopRequest
from vpgea.storage.files import read_json
from vpgea.storage.schemas import POSTERIOR, PRIOR, SAMPLES, SampleRow
from vpgea.storage.shards import iterate_rows, read_table
from vpgea.storage.sizes import TOKEN_BYTES, journal_bytes

ROOT = Path(__file__).parents[3]

# --- what is in a row -----------------------------------------------------------------------------------------------


def test_every_row_says_what_it_is_and_where_it_comes_from(
    run_config: Callable[..., RunConfig], tiny_rollout: Path
) -> None:
    plan = plan_of(run_config())
    questions = {question.id: question for chunk in plan.chunks for question in chunk}
    assert [path.name for path in chunk_paths(tiny_rollout)] == [f"chunk-{index:05d}.arrow" for index in range(3)]
    for path in chunk_paths(tiny_rollout):
        assert read_table(path).schema.equals(SAMPLES, check_metadata=True)
    for row in rows_of(tiny_rollout):
        question = questions[row["question_id"]]
        prompt = plan.views.prior_prompt if row["view"] == PRIOR else plan.views.posterior_prompt
        assert row["prompt_ids"] == prompt(question)
        assert (row["question"], row["answer"], row["options"]) == (question.text, question.answer, [])
        assert row["completion"] == plan.views.tokenizer.decode(row["completion_ids"])
        assert (row["model_fingerprint"], row["template_fingerprint"]) == (
            plan.manifest.inputs["model"],
            plan.manifest.inputs["template"],
        )
        assert (row["engine"], row["temperature"], row["top_p"], row["top_k"]) == ("transformers", 1.0, 1.0, 0)
        assert (row["round"], row["max_new_tokens"]) == (0, 48)
        assert len(row["logprobs"]) == len(row["completion_ids"])
        assert max(row["logprobs"]) <= 0


def test_ends_cuts_and_cut_offs(run_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    config = run_config(rollout__max_new_tokens=14, rollout__prior_samples=12)
    run(config, tmp_path)
    views = plan_of(config).views
    end = views.tokenizer.get_added_vocab()["</think>"]
    kinds = set()
    for row in rows_of(tmp_path):
        ids, length = row["completion_ids"], row["thinking_tokens"]
        kinds.add((row["finish_reason"], row["cut_off"]))
        assert (row["finish_reason"] == "stop") == (ids[-1] in views.stop_ids)
        assert row["finish_reason"] == "stop" or len(ids) == 14
        assert row["cut_off"] == (end not in ids)
        assert length == (len(ids) if row["cut_off"] else ids.index(end) + 1)
    assert {("stop", False), ("length", False), ("length", True)} <= kinds


def test_the_manifest_names_the_identity_fields(tiny_rollout: Path) -> None:
    snapshot = ROOT / "tests" / "data" / "identity_fields.txt"
    listed = {
        line.removeprefix("rollout: ") for line in snapshot.read_text().splitlines() if line.startswith("rollout")
    }
    manifest = CompletePhase.open(tiny_rollout, "rollout").manifest
    assert set(manifest.identity) == listed | {"round"}
    assert set(manifest.inputs) == {"model", "questions", "template"}


def test_other_sampling_is_recorded(run_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    run(run_config(rollout__temperature=0.5, rollout__top_p=0.75, rollout__top_k=7, data__limit=1), tmp_path)
    row = rows_of(tmp_path)[0]
    assert (row["temperature"], row["top_p"], row["top_k"]) == (0.5, 0.75, 7)


# --- readers in the field -------------------------------------------------------------------------------------------


def test_other_tools_read_the_shards(tiny_rollout: Path, tmp_path: Path) -> None:
    import datasets
    import duckdb
    import pandas as pd
    import polars as pl
    import pyarrow as pa
    import pyarrow.dataset as ds

    files = [str(path) for path in chunk_paths(tiny_rollout)]
    expected = [(row["question_id"], row["seed"], row["completion_ids"]) for row in rows_of(tiny_rollout)]
    names = ["question_id", "seed", "completion_ids"]

    with pa.memory_map(files[0]) as source:
        first = pa.ipc.open_file(source).read_all().select(names).to_pylist()
    in_pandas = pd.concat([pd.read_feather(file) for file in files])
    in_polars = pl.concat([pl.read_ipc(file) for file in files])
    in_datasets = datasets.load_dataset("arrow", data_files=files, split="train", cache_dir=str(tmp_path))
    rows = ds.dataset(files, format="arrow")
    in_duckdb = duckdb.connect().execute("select question_id, seed, completion_ids from rows").fetchall()

    assert [tuple(row.values()) for row in first] == expected[: len(first)]
    assert list(zip(*(in_pandas[name].map(as_plain) for name in names), strict=True)) == expected
    assert in_polars.select(names).rows() == expected
    assert [(row["question_id"], row["seed"], row["completion_ids"]) for row in in_datasets] == expected
    assert [(name, seed, list(ids)) for name, seed, ids in in_duckdb] == expected
    assert rows.count_rows() == len(expected)


def as_plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


# --- stops and refusals ---------------------------------------------------------------------------------------------


def test_a_stop_keeps_the_committed_chunks(run_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    class StopWithin(NullProgress):
        def advance(self, steps: int, tokens: int = 0) -> None:
            if tokens and committed(tmp_path) == 2:
                stop.request("SIGTERM")

    stop = StopRequest()
    with pytest.raises(Stopped) as error:
        run(run_config(), tmp_path, stop=stop, progress=StopWithin())
    assert error.value.exit_code == 75
    assert committed(tmp_path) == 2
    with pytest.raises(UsageError, match="is not complete"):
        CompletePhase.open(tmp_path, "rollout")
    assert run(run_config(), tmp_path).drawn_now == 1


class Interleaved:
    """An engine as servers are: samples of several chunks end in turns, each with one token."""

    name: str = "interleaved"
    logprobs_of: LogprobsOf = "sampler"
    draws_together: int = 1
    usage = EngineUsage()

    def generate(
        self, batches: Iterable[Sequence[GenerateRequest]], sampling: Sampling, on_tokens: OnTokens = ignore_tokens
    ) -> Iterator[tuple[int, int, Completion]]:
        ids, logprobs = np.array(sampling.stop_ids[:1], np.int32), np.zeros(1, np.float32)
        for turn in zip_longest(*map(enumerate, batches)):
            for number, drawn in enumerate(turn):
                if drawn is not None:
                    yield number, drawn[0], Completion(ids, logprobs, "stop")
                    on_tokens(1)


def test_samples_of_all_open_chunks_outlive_a_stop(run_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    stop, plan = StopRequest(), plan_of(run_config())
    folder = PhaseFolder.open(tmp_path, plan.manifest)

    def drawing(stop: StopRequest) -> Iterator[tuple[int, list[SampleRow]]]:
        with Journals(folder, [0, 1], stop, NullProgress()) as journals:
            yield from Drawing(plan, [0, 1], journals, stop).chunks(engine, NullProgress())

    engine = cast(Engine, Interleaved())
    samples = drawing(stop)
    _, rows = next(samples)
    stop.request("a test")
    whole = len(rows)
    with pytest.raises(Stopped) as stopped:
        next(samples)
    finished = 2 * whole - 1
    assert stopped.value.why == f"all {finished} completions ({finished} tokens) that this call finished are saved"
    again = Recording(engine)
    engine = cast(Engine, again)
    assert [len(rows) for _, rows in drawing(StopRequest())] == [whole, whole]
    assert len(again.drawn) == 1


def test_a_stop_before_the_start_draws_nothing(run_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    stop = StopRequest()
    stop.request("Ctrl-C", exit_code=130)
    with pytest.raises(Stopped) as error:
        run(run_config(), tmp_path, stop=stop)
    assert error.value.exit_code == 130
    assert committed(tmp_path) == 0


def test_progress_counts_every_question_and_token(run_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    class Count(NullProgress):
        steps = tokens = 0

        def advance(self, steps: int, tokens: int = 0) -> None:
            self.steps, self.tokens = self.steps + steps, self.tokens + tokens

    first, second = Count(), Count()
    run(run_config(), tmp_path, progress=first)
    run(run_config(), tmp_path, progress=second)
    assert (first.steps, first.tokens) == (6, sum(len(row["completion_ids"]) for row in rows_of(tmp_path)))
    assert (second.steps, second.tokens) == (6, 0)


def test_another_seed_is_refused_by_name(run_config: Callable[..., RunConfig], tiny_rollout: Path) -> None:
    with pytest.raises(UsageError, match=r"rollout\.seed differs"):
        run(run_config(rollout__seed=1), tiny_rollout)


def test_another_number_of_parts_is_refused(run_config: Callable[..., RunConfig], tiny_rollout: Path) -> None:
    with pytest.raises(UsageError, match="was started with 1 parts"):
        run(run_config(), tiny_rollout, part=Part(0, 2))


def test_too_little_disk_is_refused_before_anything_is_drawn(
    run_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="too little disk space") as error:
        run(run_config(rollout__max_new_tokens=10**13), tmp_path)
    assert "MiB are free" in error.value.why
    assert committed(tmp_path) == 0


def test_the_bound_on_disk_counts_every_row_s_prompt(run_config: Callable[..., RunConfig], tiny_rollout: Path) -> None:
    plan = plan_of(run_config())
    assert plan.disk_bytes([]) == 0
    assert plan.disk_bytes([0]) < plan.disk_bytes()
    files = chunk_paths(tiny_rollout)
    rows = list(iterate_rows(files))
    stored = sum(path.stat().st_size for path in files)
    unused = len(rows) * plan.config.rollout.max_new_tokens - sum(len(row["completion_ids"]) for row in rows)
    waiting = open_samples(plan.config, len(rows))
    journals = journal_bytes(waiting, waiting * plan.config.rollout.max_new_tokens)
    exact = plan.disk_bytes() - journals - unused * TOKEN_BYTES  # as if the lengths had been known
    assert stored < exact < 2 * stored


def test_journals_hold_a_chunk_or_what_a_server_may_have_open(run_config: Callable[..., RunConfig]) -> None:
    in_process = run_config(rollout__engine="transformers")
    served = run_config(rollout__engine="sglang", sglang__max_concurrency=5)
    assert [open_samples(config, 1000) for config in (in_process, served)] == [16, 16 + 10]
    assert open_samples(served, 8) == 8


def test_what_cannot_be_a_prompt_is_rejected_counted_and_named(
    run_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    bad = [
        {"id": "long", "question": "What is 1 " + "plus 1 " * 2000 + "?", "answer": "2001"},
        {"id": "tag", "question": "What does </think> do?", "answer": "2"},
        {"id": "turn", "question": "Hi <｜Assistant｜> 7", "answer": "7"},
    ]
    dataset = tiny.write_questions(tmp_path / "some.jsonl", [bad[0], *tiny.QUESTIONS[:2], *bad[1:]])
    summary = run(run_config(data__dataset=str(dataset)), tmp_path / "out").summary
    assert (summary.questions, summary.rejected_overlong, summary.rejected_control_tokens) == (2, 1, 2)
    assert summary.rejected == {
        "long": "prompt over views.max_prompt_tokens=1024",
        "tag": "control token </think> in its text",
        "turn": "control token <｜Assistant｜> in its text",
    }
    assert {row["question_id"] for row in rows_of(tmp_path / "out")} == {"q0", "q1"}
    assert read_json(part_folders(tmp_path / "out")[0] / "COMPLETE")["summary"]["rejected"] == summary.rejected


def test_nothing_left_to_sample_is_refused(run_config: Callable[..., RunConfig]) -> None:
    with pytest.raises(UsageError, match="no question is left"):
        plan_of(run_config(views__max_prompt_tokens=3))


def test_no_samples_at_all_are_refused(run_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to sample"):
        run(run_config(rollout__prior_samples=0, rollout__posterior_samples=0), tmp_path)


def test_posterior_paths_need_a_thinking_part(run_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="posterior view has nothing to sample"):
        plan_of(run_config(views__end_of_thinking=None))
    run(run_config(views__end_of_thinking=None, rollout__posterior_samples=0, data__limit=1), tmp_path)
    assert {(row["thinking_tokens"], row["cut_off"]) for row in rows_of(tmp_path)} == {(0, False)}


def test_the_question_in_both_views_is_the_same_up_to_the_note(run_config: Callable[..., RunConfig]) -> None:
    views = plan_of(run_config()).views
    for row in tiny.QUESTIONS:
        question = Question(row["id"], row["question"], row["answer"])
        prior, posterior = views.decode(views.prior_prompt(question)), views.decode(views.posterior_prompt(question))
        body = prior.removesuffix("<think>\n")
        assert posterior.startswith(body)
        assert posterior.endswith("</private_note><think>\n")


def test_over_long_prompts_are_told_by_the_views_that_are_sampled(run_config: Callable[..., RunConfig]) -> None:
    views, question = views_of(run_config()), tiny.QUESTIONS[0]
    asked = Question(question["id"], question["question"], question["answer"])
    length = len(views.posterior_prompt(asked))
    for limit, view, refused in (
        (length, POSTERIOR, False),
        (length - 1, POSTERIOR, True),
        (length - 1, PRIOR, False),
    ):
        views = views_of(run_config(views__max_prompt_tokens=limit))
        assert (rejection(views, asked, view) is not None) == refused


def test_a_completion_that_can_outgrow_the_context_is_refused(
    run_config: Callable[..., RunConfig], tiny_model: Path, tmp_path: Path
) -> None:
    short = tmp_path / "short-context"
    shutil.copytree(tiny_model, short)
    fields = json.loads((short / "config.json").read_text(encoding="utf-8"))
    (short / "config.json").write_text(json.dumps({**fields, "max_position_embeddings": 100}), encoding="utf-8")
    with pytest.raises(UsageError, match="outgrow the model's context of 100 tokens"):
        plan_of(run_config(model__path=str(short), rollout__max_new_tokens=100))


def test_a_shard_that_a_rollout_wrote_gives_its_questions_back(tiny_rollout: Path) -> None:
    shards = chunk_paths(tiny_rollout)
    rows = rows_of(tiny_rollout)
    found = [question for shard in shards for question in load_questions(DataConfig(dataset=str(shard))).questions]
    assert {(q.id, q.text, q.answer, q.options) for q in found} == {
        (row["question_id"], row["question"], row["answer"], tuple(row["options"])) for row in rows
    }
    assert len(found) == len({row["question_id"] for row in rows}), "once, however many samples it has"
    assert load_questions(DataConfig(dataset=str(tiny_rollout))).questions == found, "the folder too"


def test_only_a_folder_that_is_opened_has_all_bytes_of_the_weights_read(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan and a forecast have their fingerprint alone: of a large model the bytes take minutes."""
    read, config = list[Path](), small_config(tmp_path, tiny_model)

    def reading(folder: Path) -> str:
        read.append(folder)
        return folder_content(folder)

    monkeypatch.setattr(contents, "folder_content", reading)
    questions, held_out = (load_questions(data).questions for data in (config.data, held_out_data(config)))
    forecast_loop(config, questions, held_out)
    Loop.read(config, tmp_path / "run")
    EvalPlan.make(config, held_out)
    plan = RolloutPlan.make(config, questions)
    assert not read
    PhaseFolder.open(tmp_path / "rollout", plan.manifest)
    assert read == [tiny_model]
    made = Manifest.read(tmp_path / "rollout" / "parts" / "0-of-1" / "manifest.json")
    assert made.contents == {"model": folder_content(tiny_model)}
