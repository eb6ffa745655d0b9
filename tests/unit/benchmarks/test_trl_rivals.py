"""TRL's GRPO and SDFT on the over-thinking testbed: two steps of each, by the same prompts, within their budget."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import overthinker
from tests.support.trained_rivals import require_trained_from
from vpgea.config.schema import ViewsConfig

pytestmark = pytest.mark.trl

ROOT = Path(__file__).parents[3]
RIVALS = ("grpo", "sdft")
SAMPLES, QUESTIONS, CAP = 2, 2, 16  # the base thinks longer than this cap: what a step of SDFT samples is known
SHARED = ("data.limit=8", "rollout.prior_samples=1", "rollout.posterior_samples=1", "distill.questions_per_step=2")
OWN = {
    "grpo": ["--price", "0.3", "--sampled-tokens", "1000000", "--trl", "max_steps=2"],
    "sdft": ["--set", f"rollout.max_new_tokens={CAP}", "--sampled-tokens", str(SAMPLES * QUESTIONS * CAP + 1)],
}
REFUSED = {  # what is said -> output and options, after those above
    "TRL has no setting learning": ("refused", ["grpo", "--trl", "learning=1"]),
    "1 questions are no optimiser step": ("refused", ["sdft", "--set", "data.limit=1"]),
    "the price of length is 1.5": ("refused", ["grpo", "--price", "1.5"]),
    "holds a rival already": ("grpo", ["grpo"]),
}
SCRIPT = "from benchmarks.peers.trl_rivals import main\nfor code, one in {commands!r}: assert main(one) == code, one"


@pytest.fixture(scope="module")
def rivals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what each wrote; one process trains both, since most of their time is TRL's import."""
    python = ROOT / ".venv-trl" / "bin" / "python"
    assert python.is_file(), "these tests need TRL: `make test-trl` installs it"
    folder = tmp_path_factory.mktemp("rivals")
    sets = [word for text in SHARED for word in ("--set", text)]

    def command(name: str, options: list[str], output: str) -> list[str]:
        return [name, str(overthinker.ROOT / "overthinker.yaml"), *sets, *options, "-o", str(folder / output)]

    commands = [(0, command(name, OWN[name], name)) for name in RIVALS]
    for output, (name, *options) in REFUSED.values():
        commands.append((2, command(name, ["--sampled-tokens", "1", *options], output)))
    script = SCRIPT.format(commands=commands)
    done = subprocess.run([python, "-c", script], cwd=ROOT, check=False, timeout=250, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    (folder / "stderr").write_text(done.stderr, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def records(rivals: Path) -> dict[str, dict[str, Any]]:
    return {name: json.loads((rivals / name / "rival.json").read_text(encoding="utf-8")) for name in RIVALS}


def test_a_rival_ends_with_the_step_that_reaches_what_it_may_sample(records: dict[str, dict[str, Any]]) -> None:
    record = records["sdft"]
    assert record["steps"] == 2  # after one step a token was left
    assert record["sampled_tokens"] == record["trained_tokens"] == 2 * SAMPLES * QUESTIONS * CAP


def test_a_record_says_what_was_done(records: dict[str, dict[str, Any]]) -> None:
    record = records["grpo"]
    assert [record[key] for key in ("rival", "charge", "price", "steps")] == ["grpo", "correct", 0.3, 2]
    assert [records["sdft"][key] for key in ("rival", "charge", "price")] == ["sdft", None, None]
    assert 2 * SAMPLES * QUESTIONS * CAP < record["sampled_tokens"] == record["trained_tokens"]
    settings = record["settings"]
    assert (settings["num_generations"], settings["per_device_train_batch_size"]) == (SAMPLES, SAMPLES * QUESTIONS)
    assert (settings["learning_rate"], settings["max_completion_length"], settings["max_steps"]) == (2e-4, 192, 2)
    assert (record["questions"], record["rejected_overlong"]) == (8, 0)
    assert record["versions"].keys() == {"vpgea", "trl", "torch", "transformers", "accelerate"}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_done_is_refused_before_anything_is_drawn(rivals: Path, what: str) -> None:
    assert what in (rivals / "stderr").read_text(encoding="utf-8")
    assert not (rivals / "refused").exists()


@pytest.mark.parametrize("rival", RIVALS)
def test_its_model_has_other_weights_and_the_same_prompts(rivals: Path, rival: str) -> None:
    config = ViewsConfig(template=str(overthinker.ROOT / "template.yaml"))
    require_trained_from(overthinker.ROOT / "base-global", rivals / rival / "model", config)
