"""`--dry-run` of every phase through the real command line: what it says comes true, and it touches nothing."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import tiny
from tests.support.finished import circle, small_config
from vpgea.config.resolve import dump_yaml
from vpgea.runs.complete_phase import chunk_paths
from vpgea.runs.parts import part_folders
from vpgea.storage.files import read_json
from vpgea.storage.shards import iterate_rows

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A finished rollout, filter and distillation, and `run.yaml` that they were made with."""
    path = tmp_path_factory.mktemp("dry-run")
    config = small_config(path, tiny_model)
    (path / "run.yaml").write_text(dump_yaml(config), encoding="utf-8")
    circle(config, path)
    return path


def tree(*roots: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder below, with size and time of change."""
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns) for root in roots for path in [root, *root.rglob("*")]
    }


def dry(here: Cli, folder: Path, cwd: Path, *arguments: str | Path) -> dict[str, Any]:
    """The object that a dry run prints, after checking that no file and no folder has changed."""
    before = tree(folder, cwd)
    done = here(*arguments, "--dry-run", "--json", "--offline", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert tree(folder, cwd) == before
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def stored(folder: Path) -> int:
    """Bytes of a phase's shards."""
    return sum(path.stat().st_size for path in folder.rglob("*.arrow"))


def test_rollout_bounds_what_is_then_drawn(here: Cli, folder: Path, tmp_path: Path) -> None:
    result = dry(here, folder, tmp_path, "rollout", "-c", folder / "run.yaml", "-o", tmp_path / "out")
    assert (result["dry_run"], result["questions"], result["samples"], result["rejected"]) == (True, 4, 32, {})
    (estimate,) = result["estimates"]
    rows = list(iterate_rows(chunk_paths(folder / "rollout")))
    assert estimate["sampled_tokens"] == 32 * 48 >= sum(len(row["completion_ids"]) for row in rows)
    prompts = {(row["question_id"], row["view"]): row["prompt_ids"] for row in rows}
    assert estimate["processed_tokens"] == sum(map(len, prompts.values()))
    shown = {(prompt["question_id"], prompt["view"]): prompt["ids"] for prompt in result["prompts"]}
    assert list(shown) == [("q0", "prior"), ("q0", "posterior"), ("q1", "prior"), ("q1", "posterior")]
    assert all(prompts[key] == ids for key, ids in shown.items())
    assert result["config"]["rollout.max_new_tokens"] == 48
    assert "rollout.temperature" not in result["config"], "it is at its default"
    assert estimate["peak_memory"] == sum(estimate["memory"].values()) > 0
    assert estimate["seconds"] > 0
    assert stored(folder / "rollout") < estimate["disk_bytes"]
    assert result["machine"]["flops"] > 0


def test_rollout_reads_no_weights(here: Cli, folder: Path, tmp_path: Path, tiny_model: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in tiny_model.iterdir():
        content = file.read_bytes()
        if file.suffix == ".safetensors":
            header = end_of_header(tiny_model)
            content = content[:header] + b"\xff" * (len(content) - header)  # not a number, every one of them
        (bare / file.name).write_bytes(content)
    arguments = ("rollout", "-c", folder / "run.yaml", "--model", bare)
    (estimate,) = dry(here, folder, tmp_path, *arguments)["estimates"]
    assert estimate["memory"]["weights"] == (tiny_model / "model.safetensors").stat().st_size - end_of_header(
        tiny_model
    )
    assert here(*arguments, "-o", tmp_path / "out").returncode == 4, "without its weights it cannot be run"


def end_of_header(model: Path) -> int:
    with (model / "model.safetensors").open("rb") as stream:
        return 8 + int.from_bytes(stream.read(8), "little")


def test_rollout_shows_its_part_and_what_is_rejected(here: Cli, folder: Path, tmp_path: Path) -> None:
    rows = [*tiny.QUESTIONS[:3], {"id": "long", "question": "What is 3 times 4? " * 200, "answer": "12"}]
    questions = tiny.write_questions(tmp_path / "questions.jsonl", rows)
    limit = ("--set", "views.max_prompt_tokens=500", "--set", "rollout.questions_per_chunk=2")
    arguments = ("rollout", "-c", folder / "run.yaml", "--dataset", questions, "--shard", "1/2", *limit)
    result = dry(here, folder, tmp_path, *arguments)
    assert (result["questions"], list(result["rejected"]), result["rejected_overlong"]) == (1, ["long"], 1)
    assert "views.max_prompt_tokens=500" in result["rejected"]["long"]
    assert [prompt["question_id"] for prompt in result["prompts"]] == ["q2", "q2"]


def test_text_has_prompts_configuration_and_table(here: Cli, folder: Path, tmp_path: Path) -> None:
    done = here("rollout", "-c", folder / "run.yaml", "--dry-run", "--quiet", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("=== prior prompt") == done.stdout.count("=== posterior prompt") == 2
    assert "'<｜Assistant｜>'" in done.stdout  # among the ids, as a special token
    lines = done.stdout.splitlines()
    assert lines[0] == "--- configuration, where it is not the default ---"
    assert any(line.split() == ["rollout.max_new_tokens", "48"] for line in lines)
    columns = next(line.split() for line in lines if line.startswith("phase"))
    assert columns == ["phase", "sampled", "processed", "trained", "TFLOP", "disk", "peak", "memory", "time"]
    assert next(line.split()[1] for line in lines if line.startswith("rollout ")) == f"{32 * 48:,}"
    assert lines[-1] == "nothing was written"


def test_too_little_memory_is_said_before(here: Cli, folder: Path, tmp_path: Path) -> None:
    arguments = ("--set", "rollout.batch_size=2000000000", "-n", "1000000", "--set", "rollout.max_new_tokens=1000000")
    done = here("rollout", "-c", folder / "run.yaml", *arguments, "--dry-run", "-q", cwd=tmp_path)
    assert done.returncode == 0
    assert "rollout would need" in done.stderr
    assert "rollout.batch_size" in done.stderr


def test_filter_bounds_what_the_checks_then_take(here: Cli, folder: Path, tmp_path: Path) -> None:
    result = dry(here, folder, tmp_path, "filter", folder / "rollout")
    upper, expected = result["estimates"]
    assert (upper["phase"], expected["phase"]) == ("filter", "filter, expected")
    taken = list(iterate_rows(chunk_paths(folder / "filter")))
    assert expected["sampled_tokens"] <= upper["sampled_tokens"]
    assert sum(row["check_tokens"] for row in taken) <= upper["sampled_tokens"]
    assert sum(row["score_tokens"] for row in taken) <= upper["processed_tokens"]
    samples = list(iterate_rows(chunk_paths(folder / "rollout")))
    assert result["samples"] == len(samples) == 32
    assert stored(folder / "filter") < expected["disk_bytes"] <= upper["disk_bytes"]
    assert result["candidates"] == sum(row["view"] == "posterior" and not row["cut_off"] for row in samples)
    assert [prompt["view"] for prompt in result["prompts"]] == ["prior", "posterior"] * 2


def test_distill_counts_the_tokens_that_are_then_trained(here: Cli, folder: Path, tmp_path: Path) -> None:
    result = dry(here, folder, tmp_path, "distill", folder / "filter")
    (estimate,) = result["estimates"]
    summary = read_json(part_folders(folder / "distill")[0] / "COMPLETE")["summary"]
    assert estimate["trained_tokens"] == summary["trained_tokens"]
    assert result["steps"] == summary["steps"]
    assert result["prior_paths"] + result["posterior_paths"] == summary["paths"]
    assert {prompt["view"] for prompt in result["prompts"]} <= {"prior", "posterior"}
    assert len({prompt["question_id"] for prompt in result["prompts"]}) <= 2
    full = dry(here, folder, tmp_path, "distill", folder / "filter", "--full")["estimates"][0]
    assert full["memory"]["gradients and optimiser"] > estimate["memory"]["gradients and optimiser"]


def test_loop_shows_a_round_and_the_whole_run(here: Cli, folder: Path, tmp_path: Path) -> None:
    result = dry(
        here, folder, tmp_path, "loop", "-c", folder / "run.yaml", "--rounds", "3", "--questions-per-round", "2"
    )
    names = [estimate["phase"] for estimate in result["estimates"]]
    assert names == ["rollout", "filter", "distill", "eval", "whole run"]
    *phases, evaluation, whole = result["estimates"]
    assert phases[0]["sampled_tokens"] == 2 * 8 * 48
    one_round = sum(phase["sampled_tokens"] for phase in phases)
    assert whole["sampled_tokens"] == 3 * one_round + 4 * evaluation["sampled_tokens"]
    assert evaluation["sampled_tokens"] == 2 * 2 * 48
    assert (result["questions"], result["questions_of_first_round"]) == (4, 2)
    assert (result["held_out_questions"], result["rounds"]) == (2, 3)


_LOOP = ("loop", "-c", "run.yaml")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("rollout", "--model", "no/such/model/here", "--dataset", "questions.jsonl"), "no/such/model/here"),
        (("filter", "nowhere"), "nowhere"),
        ((*_LOOP, "--set", "loop.eval_dataset="), "held-out"),
        ((*_LOOP, "--set", "rollout.temperature=0.6", "--set", "filter.advantage.gate=plausible"), "log-ratio"),
    ],
)
def test_what_the_run_would_refuse_is_refused(here: Cli, folder: Path, arguments: tuple[str, ...], why: str) -> None:
    refused = here(*arguments, "--dry-run", "--offline", cwd=folder)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert why in refused.stderr
