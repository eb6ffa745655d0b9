"""`vpgea config` through the real command line."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.forks import Forks, struck
from vpgea.config.resolve import load
from vpgea.config.schema import RunConfig

Cli = Callable[..., subprocess.CompletedProcess[str]]


def test_init_writes_the_defaults_and_never_overwrites_unasked(here: Cli, tmp_path: Path) -> None:
    assert here("config", "init").stdout == "vpgea.yaml\n"
    file = tmp_path / "vpgea.yaml"
    assert load(file) == RunConfig()
    assert "# sampling temperature; 0 is greedy" in file.read_text()
    file.write_text("mine")
    refused = here("config", "init")
    assert (refused.returncode, refused.stdout, file.read_text()) == (2, "", "mine")
    assert "--overwrite" in refused.stderr
    done = here("config", "init", "--overwrite", "--json", "vpgea.yaml")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"path": "vpgea.yaml"})
    assert load(file) == RunConfig()


def test_an_init_that_is_killed_leaves_no_half_file(forks: Forks, tmp_path: Path) -> None:
    for name, options, place in (
        ("mine", ["--overwrite"], "pathlib.Path.replace"),
        ("none", [], "vpgea.storage.files.os.link"),
    ):
        (tmp_path / "mine").write_text("mine")
        script = struck(place, 1, signal.SIGKILL)
        assert forks.start(["config", "init", str(tmp_path / name), *options], tmp_path, "said", script=script).wait(60)
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("path", ["no/such/folder/x.yaml", ".", "/sys/x.yaml"])
def test_init_says_where_it_cannot_write(here: Cli, path: str) -> None:
    refused = here("config", "init", "--overwrite", path)
    assert refused.returncode == 2
    assert f"cannot write {path}" in refused.stderr


def test_show_resolves_every_layer_and_names_origins(here: Cli, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("model:\n  path: from-file\nrollout:\n  temperature: 0.1\n  top_p: 0.2\n  top_k: 3\n")
    env = {"VPGEA_ROLLOUT__TOP_P": "0.5", "VPGEA_ROLLOUT__TOP_K": "5", "VPGEA_MODEL__PATH": "from-env"}
    arguments = ["--config", file, "--set", "rollout.top_k=7", "--set", "model.path=from-set", "--model", "from-option"]
    shown = here("config", "show", *arguments, "--json", env=env)
    assert shown.returncode == 0, shown.stderr
    result = json.loads(shown.stdout)
    assert result["rollout.temperature"] == {"value": 0.1, "origin": f"{file}:4"}
    assert result["rollout.top_p"] == {"value": 0.5, "origin": "environment VPGEA_ROLLOUT__TOP_P"}
    assert result["rollout.top_k"] == {"value": 7, "origin": "--set"}
    assert result["model.path"] == {"value": "from-option", "origin": "option"}
    assert result["rollout.seed"] == {"value": 0, "origin": "default"}


def test_show_as_text_has_one_line_per_key(here: Cli) -> None:
    shown = here("config", "show", "--dataset", "questions.jsonl")
    lines = dict(line.split(maxsplit=1) for line in shown.stdout.splitlines())
    assert lines["data.dataset"].split() == ['"questions.jsonl"', "#", "option"]
    assert lines["rollout.temperature"].split() == ["1.0", "#", "default"]


@pytest.mark.parametrize(
    ("arguments", "env", "suggestion"),
    [
        (["--set", "rollout.temprature=1"], {}, "rollout.temperature"),
        (["--set", "temperature=1", "--set", "rollout.top_k=1"], {}, "did you mean"),
        ([], {"VPGEA_ROLLOUT_TEMPERATURE": "1"}, "VPGEA_ROLLOUT__TEMPERATURE"),
        ([], {"VPGEA_DEBG": "1"}, "VPGEA_DEBUG"),
        (["--modle", "x"], {}, "--model"),
        (["--adapter", "x"], {}, "--set model.adapter=VALUE"),
        (["--temperature", "1"], {}, "--set rollout.temperature=VALUE or --set eval.temperature=VALUE"),
        (["--set", "objective=other-note"], {}, "did you mean vpg-ea/other-note? give one of vpg-ea, "),
    ],
)
def test_misspelt_names_get_a_suggestion(here: Cli, arguments: list[str], env: dict[str, str], suggestion: str) -> None:
    refused = here("config", "show", *arguments, env=env)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert suggestion in refused.stderr.splitlines()[2]


def test_what_a_site_names_after_the_tool_is_said_and_does_no_harm(here: Cli) -> None:
    shown = here("config", "show", env={"VPGEA_HOME": "/opt/vpgea/1.0"})
    assert shown.returncode == 0
    assert "warning: passed over VPGEA_HOME of the environment" in shown.stderr


def test_validate_lists_all_errors_at_once(here: Cli, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("rollout:\n  temperature: hot\n  top_p: 2\ndistil:\n  epochs: 1\n")
    refused = here("config", "validate", "-c", file, "--set", "filter.early_exits=perhaps")
    assert refused.returncode == 2
    for expected in (
        "4 things are wrong",
        "rollout.temperature cannot be 'hot'",
        f"{file}:2",
        "a number, >= 0",
        "rollout.top_p cannot be 2",
        "unknown configuration key distil",
        "did you mean distill?",
        "filter.early_exits cannot be 'perhaps'",
        "true or false",
    ):
        assert expected in refused.stderr


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("rollout:\n\ttemperature: 1\n", "run.yaml:2:1"),
        ("rollout:\n  seed: 1\n  seed: 2\n", "the key 'seed' stands twice"),
        ("model:\n  path: !!python/object/apply:os.system ['touch pwned']\n", "python/object"),
        ("- 1\n", "is not a configuration"),
        ("rollout: 3\n", "rollout is a section"),
        ("a: 1\n---\nb: 1\n", "another document"),
    ],
)
def test_bad_yaml_is_refused(here: Cli, tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    refused = here("config", "validate", "-c", file)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert why in refused.stderr
    assert not (tmp_path / "pwned").exists()


def test_unreadable_files_are_refused(here: Cli, tmp_path: Path) -> None:
    assert "No such file" in here("config", "validate", "-c", "missing.yaml").stderr
    assert "Is a directory" in here("config", "validate", "-c", tmp_path).stderr
    (tmp_path / "latin.yaml").write_bytes("model:\n  path: caf\xe9\n".encode("latin-1"))
    assert "is not UTF-8" in here("config", "validate", "-c", "latin.yaml").stderr


def test_what_is_experimental_is_said_once_and_left_out_of_the_short_help(here: Cli) -> None:
    done = here("config", "show", "--set", "distill.optimizer=adafactor", "--set", "filter.early_exits=true", "--json")
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("experimental: filter.early_exits=True, distill.optimizer=adafactor; ")
    assert "adafactor" not in here("distill", "--help").stdout


def test_validate_without_a_model_says_what_it_left_out(here: Cli) -> None:
    done = here("config", "validate")
    assert (done.returncode, done.stdout) == (0, "the configuration is valid\n")
    assert "no model.path" in done.stderr
    assert "no data.dataset" in here("config", "validate", "--model", "x").stderr
    assert here("config", "validate", "--quiet").stderr == ""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with a real tokenizer that has a chat template, and a configuration."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|end|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|assistant|>"]})
    tokenizer.chat_template = (
        "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    folder = tmp_path / "model"
    tokenizer.save_pretrained(folder)
    Qwen2Config(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id).save_pretrained(folder)
    return folder


def test_validate_shows_two_prompts_of_each_view(here: Cli, tmp_path: Path, model: Path) -> None:
    rows = [
        {"id": f"q{number}", "question": f"What is {number} + 1?", "answer": str(number + 1)} for number in (4, 5, 6)
    ]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["config", "validate", "--model", model, "--dataset", "questions.jsonl", "--offline"]
    done = here(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("=== prior prompt") == done.stdout.count("=== posterior prompt") == 2
    assert "q6" not in done.stdout
    assert "'<|assistant|>'" in done.stdout  # among the ids, as a special token
    prompts = json.loads(here(*arguments, "--json").stdout)["prompts"]
    assert [(prompt["view"], prompt["question_id"]) for prompt in prompts] == [
        ("prior", "q4"),
        ("posterior", "q4"),
        ("prior", "q5"),
        ("posterior", "q5"),
    ]
    assert all(len(prompt["ids"]) == len(prompt["tokens"]) for prompt in prompts)


def test_paths_beside_the_file_are_found_from_anywhere(here: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "questions.jsonl").write_text("")
    (folder / "run.yaml").write_text("data:\n  dataset: questions.jsonl\nmodel:\n  path: owner/name\n")
    result = json.loads(here("config", "show", "-c", "recipes/run.yaml", "--json").stdout)
    assert result["data.dataset"]["value"] == str(folder / "questions.jsonl")
    assert result["model.path"]["value"] == "owner/name"
