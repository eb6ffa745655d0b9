"""The three promises of the data, each under its name, and what a rollout says about itself."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import tiny
from vpgea.config import RunConfig
from vpgea.engines.base import ScoreRequest
from vpgea.engines.select import EngineLease
from vpgea.errors import Stopped, UsageError
from vpgea.progress import NullProgress
from vpgea.questions import Question, load_questions
from vpgea.records import POSTERIOR, PRIOR, SAMPLES, sample_seed
from vpgea.rollout import RolloutPlan, rollout
from vpgea.runs import Shard, chunk_paths, content_fingerprint, open_complete, part_folders
from vpgea.shards import iterate_rows, read_json, read_table, shard_files
from vpgea.stopping import StopRequest

ROOT = Path(__file__).parents[2]
KEY = ("question_id", "view", "sample_index")
MANY = [{**row, "id": f"{row['id']}-{copy}"} for copy in range(5) for row in tiny.QUESTIONS]


def plan_of(config: RunConfig, *, shard: Shard = (0, 1), round_index: int = 0) -> RolloutPlan:
    return RolloutPlan.make(config, load_questions(config.data).questions, shard=shard, round_index=round_index)


def run(config: RunConfig, folder: Path, *, shard: Shard = (0, 1), **options: Any) -> dict[str, Any]:
    return rollout(plan_of(config, shard=shard), folder, **options)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return list(iterate_rows(chunk_paths(folder)))


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in chunk_paths(folder)}


@pytest.fixture(scope="session")
def undisturbed(run_config: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One rollout without any trouble: what the others are compared with."""
    folder = tmp_path_factory.mktemp("undisturbed") / "rollout"
    run(run_config(), folder)
    return folder


class StopAfter(NullProgress):
    """Asks for a stop after so many sampled tokens."""

    def __init__(self, stop: StopRequest, tokens: int) -> None:
        self.stop, self.left = stop, tokens

    def advance(self, steps: int, tokens: int = 0) -> None:
        self.left -= tokens
        if self.left <= 0:
            self.stop.request("a test")


# --- no row lost or twice -------------------------------------------------------------------------------------------


def command(config: RunConfig, folder: Path) -> list[str]:
    options = {
        "--model": config.model.path,
        "--dataset": config.data.dataset,
        "--output-dir": str(folder),
        "--prior-samples": str(config.rollout.prior_samples),
        "--posterior-samples": str(config.rollout.posterior_samples),
    }
    keys = ("max_new_tokens", "questions_per_chunk", "batch_size")
    sets = [f"rollout.{key}={getattr(config.rollout, key)}" for key in keys]
    sets += ["model.threads=1", "model.device=cpu", "views.max_prompt_tokens=1024"]
    arguments = [text for pair in options.items() for text in pair] + [x for text in sets for x in ("--set", text)]
    return [sys.executable, "-m", "vpgea_cli", "rollout", *arguments]


def committed(folder: Path) -> int:
    return len(list(folder.glob("parts/*/chunk-*.arrow")))


def wait_for_chunks(folder: Path, more: int, alive: Callable[[], bool]) -> None:
    """Until a rollout has committed so many more chunks, or ended."""
    goal, deadline = committed(folder) + more, time.monotonic() + 60
    while alive() and committed(folder) < goal and time.monotonic() < deadline:
        time.sleep(0.001)


def test_no_row_lost_or_twice_when_killed_at_any_moment(run_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    """SIGKILL: once to the command, then to forks of this process, which need no second start-up."""
    dataset = tiny.write_questions(tmp_path / "many.jsonl", MANY)
    config = run_config(data__dataset=str(dataset), rollout__questions_per_chunk=1, rollout__batch_size=4)
    out, rng = tmp_path / "out", random.Random(0)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VPGEA_")}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (tmp_path / "stderr").open("w") as log:
        started = subprocess.Popen(command(config, out), env=environment, stdout=subprocess.DEVNULL, stderr=log)
    wait_for_chunks(out, 2, lambda: started.poll() is None)
    started.kill()
    assert started.wait(timeout=30) == -signal.SIGKILL, (tmp_path / "stderr").read_text()
    for _ in range(6):
        fork = multiprocessing.get_context("fork").Process(target=run, args=(config, out))
        fork.start()
        wait_for_chunks(out, rng.randrange(1, 4), fork.is_alive)
        time.sleep(rng.random() * 0.03)
        fork.kill()
        fork.join(timeout=30)
        assert fork.exitcode == -signal.SIGKILL
    assert 8 <= committed(out) < len(MANY)
    assert not (out / "COMPLETE").exists()
    run(config, out)
    identities = Counter(tuple(row[name] for name in KEY) for row in rows_of(out))
    assert identities == Counter(itertools.product((row["id"] for row in MANY), (PRIOR, POSTERIOR), range(4)))
    assert not list(out.rglob("*.tmp"))
    run(config, tmp_path / "straight")
    assert bytes_of(out) == bytes_of(tmp_path / "straight")


def test_no_row_lost_or_twice_over_parts(run_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    for index in range(5):  # more parts than the three chunks
        run(run_config(), tmp_path, shard=(index, 5))
    identities = Counter(tuple(row[name] for name in KEY) for row in rows_of(tmp_path))
    assert identities == Counter(itertools.product((row["id"] for row in tiny.QUESTIONS), (PRIOR, POSTERIOR), range(4)))
    assert open_complete(tmp_path, "rollout")


def test_a_shard_that_is_lost_after_completion_is_drawn_again_the_same(
    run_config: Callable[..., RunConfig], undisturbed: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(undisturbed, tmp_path / "copy"))
    for path in (chunk_paths(copy)[1], chunk_paths(copy)[1].with_suffix(".json")):
        path.unlink()
    with pytest.raises(UsageError, match=r"chunk-00001\.arrow"):
        chunk_paths(copy)
    assert run(run_config(), copy)["drawn_now"] == 1
    assert bytes_of(copy) == bytes_of(undisturbed)


# --- bitwise the same -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [1, 300, 600])
def test_bitwise_the_same_when_stopped_and_resumed(
    run_config: Callable[..., RunConfig], undisturbed: Path, tmp_path: Path, tokens: int
) -> None:
    stop = StopRequest()
    with pytest.raises(Stopped):
        run(run_config(), tmp_path, stop=stop, progress=StopAfter(stop, tokens))
    assert committed(tmp_path) < 3
    run(run_config(), tmp_path)
    assert bytes_of(tmp_path) == bytes_of(undisturbed)
    assert content_fingerprint(tmp_path) == content_fingerprint(undisturbed)


def test_bitwise_the_same_in_parts(run_config: Callable[..., RunConfig], undisturbed: Path, tmp_path: Path) -> None:
    for index in (1, 0):
        run(run_config(), tmp_path, shard=(index, 2))
    assert [len(shard_files(part)) for part in part_folders(tmp_path)] == [2, 1]
    assert bytes_of(tmp_path) == bytes_of(undisturbed)
    assert content_fingerprint(tmp_path) == content_fingerprint(undisturbed)


def test_a_finished_rollout_has_nothing_left_to_do(run_config: Callable[..., RunConfig], undisturbed: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.is_file()}
    assert run(run_config(), undisturbed)["drawn_now"] == 0
    assert {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.is_file()} == before


# --- the same distribution ------------------------------------------------------------------------------------------


def test_the_same_distribution_with_another_batch_size(
    run_config: Callable[..., RunConfig], undisturbed: Path, tmp_path: Path
) -> None:
    run(run_config(rollout__batch_size=5), tmp_path)
    pairs = list(zip(rows_of(undisturbed), rows_of(tmp_path), strict=True))
    for one, other in pairs:
        assert all(one[name] == other[name] for name in (*KEY, "seed", "prompt_ids"))
        if one["completion_ids"] == other["completion_ids"]:
            np.testing.assert_allclose(one["logprobs"], other["logprobs"], atol=1e-4)
    assert sum(one["completion_ids"] == other["completion_ids"] for one, other in pairs) >= 0.95 * len(pairs)


def test_stored_log_probabilities_are_those_of_the_model_under_the_sampling_view(
    run_config: Callable[..., RunConfig], undisturbed: Path
) -> None:
    rows = rows_of(undisturbed)
    with EngineLease(run_config()) as lease:
        scored = lease.get().score(
            [ScoreRequest([*row["prompt_ids"], *row["completion_ids"]], len(row["prompt_ids"])) for row in rows]
        )
    for row, logprobs in zip(rows, scored, strict=True):
        np.testing.assert_allclose(row["logprobs"], logprobs, atol=1e-4)


def test_seeds_come_from_the_identity_alone(
    run_config: Callable[..., RunConfig], undisturbed: Path, tmp_path: Path
) -> None:
    dataset = tiny.write_questions(tmp_path / "reversed.jsonl", tiny.QUESTIONS[::-1])
    run(run_config(data__dataset=str(dataset), rollout__questions_per_chunk=3), tmp_path / "out")
    seeds = {tuple(row[name] for name in KEY): row["seed"] for row in rows_of(undisturbed)}
    assert {tuple(row[name] for name in KEY): row["seed"] for row in rows_of(tmp_path / "out")} == seeds
    assert len(set(seeds.values())) == len(seeds)
    assert seeds["q3", "posterior", 2] == sample_seed(0, 0, "q3", "posterior", 2)


def test_rounds_run_seeds_and_uses_have_seeds_of_their_own() -> None:
    base = sample_seed(0, 0, "q", PRIOR, 0)
    others = [
        sample_seed(1, 0, "q", PRIOR, 0),
        sample_seed(0, 1, "q", PRIOR, 0),
        sample_seed(0, 0, "r", PRIOR, 0),
        sample_seed(0, 0, "q", POSTERIOR, 0),
        sample_seed(0, 0, "q", PRIOR, 1),
        sample_seed(0, 0, "q", PRIOR, 0, use="answerability/0"),
    ]
    assert len({base, *others}) == 7
    assert all(0 <= seed < 2**64 for seed in (base, *others))


# --- what is in a row -----------------------------------------------------------------------------------------------


def test_every_row_says_what_it_is_and_where_it_comes_from(
    run_config: Callable[..., RunConfig], undisturbed: Path
) -> None:
    plan = plan_of(run_config())
    questions = {question.id: question for chunk in plan.chunks for question in chunk}
    assert [path.name for path in chunk_paths(undisturbed)] == [f"chunk-{index:05d}.arrow" for index in range(3)]
    for path in chunk_paths(undisturbed):
        assert read_table(path).schema.equals(SAMPLES, check_metadata=True)
    for row in rows_of(undisturbed):
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


def test_the_manifest_names_the_identity_fields(undisturbed: Path) -> None:
    snapshot = ROOT / "tests" / "data" / "identity_fields.txt"
    listed = {
        line.removeprefix("rollout: ") for line in snapshot.read_text().splitlines() if line.startswith("rollout")
    }
    manifest = open_complete(undisturbed, "rollout")
    assert set(manifest.identity) == listed | {"round"}
    assert set(manifest.inputs) == {"model", "questions", "template"}


def test_other_sampling_is_recorded(run_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    run(run_config(rollout__temperature=0.5, rollout__top_p=0.75, rollout__top_k=7, data__limit=1), tmp_path)
    row = rows_of(tmp_path)[0]
    assert (row["temperature"], row["top_p"], row["top_k"]) == (0.5, 0.75, 7)


# --- readers in the field -------------------------------------------------------------------------------------------


def test_other_tools_read_the_shards(undisturbed: Path, tmp_path: Path) -> None:
    import datasets
    import duckdb
    import pandas as pd
    import polars as pl
    import pyarrow as pa
    import pyarrow.dataset as ds

    files = [str(path) for path in chunk_paths(undisturbed)]
    expected = [(row["question_id"], row["seed"], row["completion_ids"]) for row in rows_of(undisturbed)]
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
        open_complete(tmp_path, "rollout")
    assert run(run_config(), tmp_path)["drawn_now"] == 1


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


def test_another_seed_is_refused_by_name(run_config: Callable[..., RunConfig], undisturbed: Path) -> None:
    with pytest.raises(UsageError, match=r"rollout\.seed differs"):
        run(run_config(rollout__seed=1), undisturbed)


def test_another_number_of_parts_is_refused(run_config: Callable[..., RunConfig], undisturbed: Path) -> None:
    with pytest.raises(UsageError, match="was started with 1 parts"):
        run(run_config(), undisturbed, shard=(0, 2))


def test_too_little_disk_is_refused_before_anything_is_drawn(
    run_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="too little disk space") as error:
        run(run_config(rollout__max_new_tokens=10**13), tmp_path)
    assert "MiB are free" in error.value.why
    assert committed(tmp_path) == 0


def test_a_finished_rollout_asks_for_no_disk(run_config: Callable[..., RunConfig], undisturbed: Path) -> None:
    plan = plan_of(run_config())
    assert plan.estimate([]).disk_bytes == 0
    assert plan.estimate([0]).disk_bytes < plan.estimate().disk_bytes
    assert plan.estimate().samples == 48
    whole = sum(path.stat().st_size for path in chunk_paths(undisturbed))
    assert whole < 4 * plan.estimate().disk_bytes


def test_what_cannot_be_a_prompt_is_rejected_counted_and_named(
    run_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    bad = [
        {"id": "long", "question": "What is 1 " + "plus 1 " * 2000 + "?", "answer": "2001"},
        {"id": "tag", "question": "What does </think> do?", "answer": "2"},
        {"id": "turn", "question": "Hi <｜Assistant｜> 7", "answer": "7"},
    ]
    dataset = tiny.write_questions(tmp_path / "some.jsonl", [bad[0], *tiny.QUESTIONS[:2], *bad[1:]])
    summary = run(run_config(data__dataset=str(dataset)), tmp_path / "out")
    assert (summary["questions"], summary["rejected_overlong"], summary["rejected_control_tokens"]) == (2, 1, 2)
    assert summary["rejected"] == {
        "long": "prompt over views.max_prompt_tokens=1024",
        "tag": "control token </think> in its text",
        "turn": "control token <｜Assistant｜> in its text",
    }
    assert {row["question_id"] for row in rows_of(tmp_path / "out")} == {"q0", "q1"}
    assert read_json(part_folders(tmp_path / "out")[0] / "COMPLETE")["summary"]["rejected"] == summary["rejected"]


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
