"""ms-swift's RLSD and OPSD on the over-thinking testbed: two steps each, by the same prompts, within their budget."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import overthinker
from tests.support.trained_rivals import require_trained_from
from vpgea.config.resolve import resolve
from vpgea.modeling.local_model import LocalModel
from vpgea.prompts.views import load_views
from vpgea.questions.load import load_questions

pytestmark = pytest.mark.swift

ROOT = Path(__file__).parents[3]
TESTBED, BASE = overthinker.ROOT / "overthinker.yaml", overthinker.ROOT / "base-global"
RIVALS = ("rlsd", "opsd")
SAMPLES, QUESTIONS, CAP = 2, 2, 16  # the base thinks longer than this cap: what a step of OPSD samples is known
SHARED = ["data.limit=8", "rollout.prior_samples=1", "rollout.posterior_samples=1", "distill.questions_per_step=2"]
OWN = {
    "rlsd": ["--price", "0.3", "--sampled-tokens", "1000000", "--swift", "max_steps=2"],
    "opsd": ["--set", f"rollout.max_new_tokens={CAP}", "--sampled-tokens", str(SAMPLES * QUESTIONS * CAP + 1)],
}
REFUSED = {  # what is said -> output and options, after those above
    "ms-swift has no setting learning": ("refused", ["rlsd", "--swift", "learning=1"]),
    "3 questions are no optimiser step": ("refused", ["opsd", "--set", "data.limit=3"]),
    "coded names Python code": ("refused", ["rlsd", "--set", "model.path={coded}"]),
    "id 2 both pads and ends completions": ("refused", ["opsd", "--set", "model.path={padded}"]),
    "holds a rival already": ("rlsd", ["rlsd"]),
}
SCRIPT = """
import functools, json, torch
from pathlib import Path
from transformers import LlamaForCausalLM
from benchmarks.peers.swift_rivals import main

forward = LlamaForCausalLM.forward

@functools.wraps(forward)
def seen(self, *arguments, **inputs):
    ids, mask, cache = (inputs.get(name) for name in ("input_ids", "attention_mask", "past_key_values"))
    if not (cache and cache.get_seq_length()):  # else it is one more token of a completion
        own = torch.ones_like(ids) if mask is None else mask
        sequences.extend(row[here.bool()].tolist() for row, here in zip(ids, own))
    return forward(self, *arguments, **inputs)

LlamaForCausalLM.forward = seen
for code, options in {commands!r}:
    sequences = []
    assert main(options) == code, options
    if code == 0:
        Path(options[-1], "seen.json").write_text(json.dumps(sequences))
"""


@pytest.fixture(scope="module")
def rivals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what each wrote; one process trains both, since most of their time is ms-swift's import."""
    python = ROOT / ".venv-swift" / "bin" / "python"
    if not python.is_file():
        pytest.skip("ms-swift is not installed: `make test-swift` installs it")
    folder = tmp_path_factory.mktemp("rivals")
    others = {
        "coded": altered_base(folder / "coded", "config.json", auto_map={"AutoConfig": "code.Config"}),
        "padded": altered_base(folder / "padded", "tokenizer_config.json", pad_token="<|end|>"),
    }
    sets = [word for text in SHARED for word in ("--set", text)]

    def command(name: str, options: list[str], output: str) -> list[str]:
        filled = [option.format(**others) for option in options]
        return [name, str(TESTBED), *sets, *filled, "-o", str(folder / output)]

    commands = [(0, command(name, OWN[name], name)) for name in RIVALS]
    for output, (name, *options) in REFUSED.values():
        commands.append((2, command(name, ["--sampled-tokens", "1", *options], output)))
    script = SCRIPT.format(commands=commands)
    done = subprocess.run([python, "-c", script], cwd=ROOT, check=False, timeout=280, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    (folder / "stderr").write_text(done.stderr, encoding="utf-8")
    return folder


def altered_base(folder: Path, file: str, **fields: Any) -> Path:
    """A copy of the base with other fields in one of its files."""
    shutil.copytree(BASE, folder)
    old = json.loads((folder / file).read_text(encoding="utf-8"))
    (folder / file).write_text(json.dumps(old | fields), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def records(rivals: Path) -> dict[str, dict[str, Any]]:
    return {name: json.loads((rivals / name / "rival.json").read_text(encoding="utf-8")) for name in RIVALS}


@pytest.fixture(scope="module")
def prompts() -> tuple[dict[tuple[int, ...], str], dict[tuple[int, ...], str]]:
    """Of our prior and of our posterior: ids -> the question."""
    config = resolve(file=TESTBED, sets=SHARED).config
    questions = load_questions(config.data, grader=config.grading.grader, offline=True).questions
    views = load_views(LocalModel.resolve(config.model), config.views, config.grading.grader)
    prior = {tuple(views.prior_prompt(question)): question.id for question in questions}
    posterior = {tuple(views.posterior_prompt(question)): question.id for question in questions}
    assert len(prior) == len(posterior) == 8
    return prior, posterior


@pytest.mark.parametrize("rival", RIVALS)
def test_the_models_see_our_prompts_and_nothing_else(rivals: Path, rival: str, prompts: Any) -> None:
    """What is sampled behind the prior's prompt is scored behind it and, by the teacher, behind the posterior's."""
    seen = [tuple(ids) for ids in json.loads((rivals / rival / "seen.json").read_text(encoding="utf-8"))]
    prior, posterior = prompts
    asked = [ids for ids in seen if ids in prior]
    assert len(asked) == 2 * SAMPLES * QUESTIONS
    per_question = SAMPLES if rival == "rlsd" else 1
    assert len(set(asked)) >= SAMPLES * QUESTIONS / per_question
    scored = {name: set(completions(seen, own)) for name, own in (("prior", prior), ("posterior", posterior))}
    assert scored["prior"] == scored["posterior"]
    assert {question for question, _ in scored["prior"]} == {prior[ids] for ids in asked}
    found = sum(len(completions(seen, own)) for own in prompts)
    assert found + len(asked) == len(seen)


def completions(seen: list[tuple[int, ...]], prompts: dict[tuple[int, ...], str]) -> list[tuple[str, tuple[int, ...]]]:
    """Of every sequence that goes on behind one of the prompts: the question and how it goes on."""
    found = [(ids, prompt) for ids in seen for prompt in prompts if ids != prompt and ids[: len(prompt)] == prompt]
    return [(prompts[prompt], ids[len(prompt) :]) for ids, prompt in found]


def test_a_rival_ends_with_the_step_that_reaches_what_it_may_sample(records: dict[str, dict[str, Any]]) -> None:
    record = records["opsd"]
    assert record["steps"] == 2  # after one step a token was left
    assert record["sampled_tokens"] == record["trained_tokens"] == 2 * SAMPLES * QUESTIONS * CAP


def test_a_record_says_what_was_done(records: dict[str, dict[str, Any]]) -> None:
    record = records["rlsd"]
    assert [record[key] for key in ("rival", "charge", "price", "steps")] == ["rlsd", "correct", 0.3, 2]
    assert [records["opsd"][key] for key in ("rival", "charge", "price")] == ["opsd", None, None]
    assert 2 * SAMPLES * QUESTIONS * CAP < record["sampled_tokens"] == record["trained_tokens"]
    settings = record["settings"]
    assert (settings["num_generations"], settings["per_device_train_batch_size"]) == (SAMPLES, SAMPLES * QUESTIONS)
    assert (settings["learning_rate"], settings["max_completion_length"], settings["max_steps"]) == (2e-4, 192, 2)
    assert (settings["advantage_reweight"], records["opsd"]["settings"]["teacher_model"]) == ("rlsd", str(BASE))
    assert (record["questions"], record["rejected_overlong"]) == (8, 0)
    assert record["versions"].keys() == {"vpgea", "ms-swift", "torch", "transformers", "accelerate"}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_done_is_refused_before_anything_is_drawn(rivals: Path, what: str) -> None:
    assert what in (rivals / "stderr").read_text(encoding="utf-8")
    assert not (rivals / "refused").exists()


@pytest.mark.parametrize("rival", RIVALS)
def test_its_model_has_other_weights_and_the_same_prompts(rivals: Path, rival: str) -> None:
    require_trained_from(BASE, rivals / rival / "model", resolve(file=TESTBED).config.views)
