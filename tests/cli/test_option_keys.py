"""Every option of the phase commands sets exactly the configuration keys that the table says, which has them all."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_options import surface
from tests.support import tiny
from tests.support.finished import circle, small_config
from vpgea.config.resolve import dump_yaml, flat_config, resolve
from vpgea.config.schema import RunConfig
from vpgea.phases.evaluate import evaluate
from vpgea.questions.load import load_questions

Options = Sequence[tuple[str, dict[str, Any]]]
Here = Callable[..., subprocess.CompletedProcess[str]]

# Options that steer the command and stand in no configuration; --config and --set are the other ways to give keys.
NO_KEY = {
    *("--output-dir -o", "--config -c", "--set", "--shard", "--resume --no-resume", "--overwrite", "--dry-run"),
    *(
        "--until-width",
        "--max-samples",
        "--benchmark",
        "--protocol",
        "--list",
        "--offline",
        "--json",
        "--quiet -q",
        "--verbose -v",
        "--step",
        "--launcher",
        "--site",
    ),
}


@dataclass(frozen=True)
class Given:
    """Words of a command line that are given together, each with the keys that it sets. base: what stood before."""

    command: str
    options: Options
    base: Sequence[str] = ()


SERVER: Options = [
    ("--server-url http://127.0.0.1:9", {"sglang.server_url": "http://127.0.0.1:9"}),
    ("--sglang-python python9", {"sglang.python": "python9"}),
]
OWN_SERVER: Options = [("-- --mem-fraction-static 0.5", {"sglang.options": ["--mem-fraction-static", "0.5"]})]
MODEL: Options = [
    ("--model other-model", {"model.path": "other-model"}),
    ("--adapter other-adapter", {"model.adapter": "other-adapter"}),
    ("--dtype bfloat16", {"model.dtype": "bfloat16"}),
    ("--devices cpu:2", {"model.devices": "cpu:2"}),
]
QUESTIONS: Options = [
    ("--dataset questions-2.jsonl", {"data.dataset": "questions-2.jsonl"}),
    ("--limit 2", {"data.limit": 2}),
]
SKIP: Options = [("--skip-bad-rows", {"data.skip_bad_rows": True})]
TABLE = [
    Given(
        "rollout",
        [
            *(*MODEL, *QUESTIONS, *SKIP, *SERVER),
            ("--prior-samples 3", {"rollout.prior_samples": 3}),
            ("--posterior-samples 5", {"rollout.posterior_samples": 5}),
            ("--seed 7", {"rollout.seed": 7}),
        ],
    ),
    Given("rollout", [("--num-samples 3", {"rollout.prior_samples": 3, "rollout.posterior_samples": 3}), *OWN_SERVER]),
    Given(
        "filter",
        [
            *(*MODEL, *SERVER),
            ("--max-grade-errors 0.5", {"grading.max_grade_errors": 0.5}),
            ("--store-teacher-topk 7", {"filter.teacher_top_k": 7}),
        ],
    ),
    Given("filter", OWN_SERVER),
    Given(
        "distill",
        [
            *MODEL,
            ("--seed 7", {"distill.seed": 7}),
            ("--optimizer adafactor", {"distill.optimizer": "adafactor"}),
            ("--learning-rate 0.25", {"distill.learning_rate": 0.25}),
            ("--schedule cosine", {"distill.schedule": "cosine"}),
            ("--max-tokens-per-batch 2048", {"distill.max_tokens_per_batch": 2048}),
            ("--gradient-checkpointing", {"distill.gradient_checkpointing": True}),
            ("--compile", {"distill.compile": True}),
            ("--log-to tensorboard --log-to wandb", {"distill.log_to": ["tensorboard", "wandb"]}),
        ],
    ),
    Given(
        "distill",  # without an adapter, which has a shape of its own
        [
            ("--full", {"distill.train": "full"}),
            ("--lora-rank 3", {"distill.lora.rank": 3}),
            ("--lora-alpha 5", {"distill.lora.alpha": 5.0}),
            ("--lora-target q_proj --lora-target v_proj", {"distill.lora.targets": ["q_proj", "v_proj"]}),
        ],
    ),
    Given(
        "distill",
        [
            ("--lora", {"distill.train": "lora"}),
            ("--no-gradient-checkpointing", {"distill.gradient_checkpointing": False}),
            ("--no-compile", {"distill.compile": False}),
        ],
        base=("distill.train=full", "distill.gradient_checkpointing=true", "distill.compile=true"),
    ),
    Given(
        "loop",
        [
            *(*MODEL, *QUESTIONS, *SKIP, *SERVER),
            ("--eval-dataset held-out-2.jsonl", {"loop.eval_dataset": "held-out-2.jsonl"}),
            ("--rounds 9", {"loop.rounds": 9}),
            ("--questions-per-round 1", {"loop.questions_per_round": 1}),
            ("--num-samples 3", {"rollout.prior_samples": 3, "rollout.posterior_samples": 3}),
            ("--seed 7", {"rollout.seed": 7, "distill.seed": 7}),
            ("--keep-rounds 6", {"loop.keep_rounds": 6}),
            ("--eval-every 3", {"loop.eval_every": 3}),
            ("--keep-servers", {"sglang.keep_servers": True}),
        ],
    ),
    Given("loop", OWN_SERVER),
    Given(
        "loop",
        [
            (
                "--objective grpo",
                {"objective": "grpo", "rollout.posterior_samples": 0, "filter.utility.length_price": 0.0},
            ),
            ("--num-samples 3", {"rollout.prior_samples": 3}),  # of the views that the objective draws
        ],
    ),
    Given(
        "eval",
        [*MODEL, *QUESTIONS, ("--evalset gsm8k", {"grading.grader": "math"}), *OWN_SERVER],
        base=("grading.grader=exact",),
    ),
    Given(
        "eval",
        [
            *(*QUESTIONS[:1], *SKIP, *SERVER),
            ("--baseline baseline", {"eval.baseline": "baseline"}),
            ("--num-samples 3", {"eval.samples": 3}),
            ("--seed 7", {"eval.seed": 7}),
        ],
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A finished rollout, filter and distillation, `run.yaml` that they were made with, and others of its inputs."""
    path = tmp_path_factory.mktemp("option-keys")
    config = small_config(path, tiny_model)
    (path / "run.yaml").write_text(dump_yaml(config), encoding="utf-8")
    circle(config, path)
    shutil.copytree(tiny_model, path / "other-model")
    tiny.write_questions(path / "questions-2.jsonl", tiny.QUESTIONS[1:4])
    tiny.write_questions(path / "held-out-2.jsonl", tiny.QUESTIONS[4:5])
    shutil.copytree(path / "distill" / "adapter", path / "other-adapter")
    baseline = resolve(file=path / "run.yaml", options={"data.dataset": str(path / "questions-2.jsonl")}).config
    evaluate(baseline, load_questions(baseline.data).questions, path / "baseline")
    return path


def test_the_table_has_every_option_of_the_phase_commands() -> None:
    listed: dict[str, set[str]] = {given.command: set() for given in TABLE}
    for given in TABLE:
        listed[given.command] |= {word for words, _ in given.options for word in words.split()}
    missing = [
        f"{command}: {form}"
        for command, options in surface()
        if command in listed
        for names in options
        if names not in NO_KEY
        for form in ([names] if " -n" in names else names.split())
        if not listed[command] & set(form.split())
    ]
    assert missing == []


@pytest.mark.parametrize("row", range(len(TABLE)))
def test_options_set_exactly_their_keys(row: int, here: Here, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")  # a plan with wandb asks for its key otherwise
    given = TABLE[row]
    start = {"filter": "rollout", "distill": "filter"}.get(given.command, "-c run.yaml")
    done = here(given.command, *start.split(), *words_of(given, "--dry-run --json --offline"), cwd=folder)
    assert done.returncode == 0, done.stderr
    config = {**flat_config(RunConfig()), **json.loads(done.stdout)["config"]}
    before = flat_config(resolve(file=folder / "run.yaml", sets=given.base).config)
    assert {key: value for key, value in config.items() if value != before[key]} == keys_of(given)


def words_of(given: Given, fixed: str) -> list[str]:
    """What follows the command; a server's own options stand last."""
    sets = [word for text in given.base for word in ("--set", text)]
    return [*sets, *fixed.split(), *(word for option, _ in given.options for word in option.split())]


def keys_of(given: Given) -> dict[str, Any]:
    return {key: value for _, keys in given.options for key, value in keys.items()}
