"""A real model is sampled, killed and stopped: 30 layers, 49,152 byte-pair tokens, a chat template of its own.

SmolLM2-135M-Instruct as `make test-smollm2` converts it. It puts no tags around its thinking, so its first sentence is
taken for that: an end that is no token of its own everywhere.
"""

from __future__ import annotations

import gzip
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import servers
from tests.support.forks import COMMAND_LINE, Forks
from tests.support.models import causal_model, views_of
from tests.support.real_model import CLOSE, MODEL, ROOT, done, require_converted, start
from tests.support.whole_logits import next_token_logits
from vpgea.config.resolve import dump_yaml, resolve
from vpgea.config.schema import RunConfig
from vpgea.modeling.logprobs import token_logprobs
from vpgea.runs.complete_phase import chunk_paths
from vpgea.storage.files import read_json
from vpgea.storage.journal import read_journal
from vpgea.storage.rows import read_rows
from vpgea.storage.schemas import SampleRow

pytestmark = pytest.mark.smollm2
QUESTIONS, PRIORS, POSTERIORS = 10, 2, 1
TOGETHER = 8
END_OF_THINKING = "."
OPTIONS: dict[str, Any] = {
    "model.path": str(MODEL),
    "model.device": "cpu",
    "views.end_of_thinking": END_OF_THINKING,
    "rollout.engine": "transformers",
    "rollout.prior_samples": PRIORS,
    "rollout.posterior_samples": POSTERIORS,
    "rollout.max_new_tokens": 64,
    "rollout.questions_per_chunk": QUESTIONS,
    "rollout.batch_size": TOGETHER,
}
# The command line, which also notes in a file every completion that the engine hands over, before anything else has it.
_WATCHED = (
    """
import json, os
from vpgea.engines.transformers import TransformersEngine
generate = TransformersEngine.generate
def watched(self, *arguments, **options):
    for found in generate(self, *arguments, **options):
        with open(os.environ["DRAWN"], "a") as file:
            file.write(json.dumps(found[2].ids.tolist()) + "\\n")
        yield found
TransformersEngine.generate = watched
"""
    + COMMAND_LINE
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the questions and the configuration, where all commands of this module run."""
    require_converted()
    folder = tmp_path_factory.mktemp("smollm2")
    with gzip.open(ROOT / "tests/data/questions/gsm8k_test_25.jsonl.gz", "rt", encoding="utf-8") as lines:
        (folder / "questions.jsonl").write_text("".join(line for line, _ in zip(lines, range(QUESTIONS), strict=False)))
    options = {**OPTIONS, "data.dataset": str(folder / "questions.jsonl")}
    (folder / "run.yaml").write_text(dump_yaml(resolve(options=options).config), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def config(place: Path) -> RunConfig:
    return resolve(file=place / "run.yaml").config


@pytest.fixture(scope="module")
def trainer(config: RunConfig) -> Any:
    """The model as a training step runs it: whole sequences, no cache."""
    return causal_model(config.model)


def kept(folder: Path) -> dict[str, list[int]]:
    """Samples that a stopped rollout has on disk, in shards and journals: their ids by their request."""
    journals = [read_journal(path) for path in folder.glob("parts/*/*.journal")]
    return {row.request: row.completion_ids.tolist() for journal in journals for row in journal.rows}


def handed_over(notes: Path) -> list[list[int]]:
    """Ids of every completion that the engine of the watched command has handed over."""
    lines = notes.read_text(encoding="utf-8").splitlines(keepends=True) if notes.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


@pytest.fixture(scope="module")
def drawn(forks: Forks, place: Path) -> Path:
    """A rollout of one chunk that was killed in its midst, then stopped by SIGTERM, and then went on to its end."""
    folder, notes = place / "rollout", place / "drawn.txt"
    killed = start(forks, place, "killed", "rollout", "-o", folder)
    servers.until(lambda: len(kept(folder)) >= 2 or killed.poll() is not None, 240, "samples are in a journal")
    killed.kill()
    assert killed.wait(30) == -signal.SIGKILL
    after_kill = kept(folder)

    stopped = start(forks, place, "stopped", "rollout", "-o", folder, script=_WATCHED)
    enough = len(after_kill) + 2
    servers.until(lambda: len(handed_over(notes)) >= enough or stopped.poll() is not None, 600, "samples are drawn")
    stopped.send_signal(signal.SIGTERM)
    done(stopped, 75)
    drawn_now, at_stop = handed_over(notes), kept(folder)
    assert after_kill.items() <= at_stop.items()
    assert not list(folder.rglob("*.arrow"))

    summary = done(start(forks, place, "resumed", "rollout", "-o", folder))
    ids = [row.completion_ids.tolist() for path in chunk_paths(folder) for row in read_rows(path, SampleRow)]
    (place / "kept.json").write_text(
        json.dumps(
            {
                "samples": len(ids),
                "kept at kill": len(after_kill),
                "drawn between kill and stop": len(drawn_now),
                "of these lost at the stop": sum(one not in at_stop.values() for one in drawn_now),
                "kept at stop": len(at_stop),
                "of these lost at the end": sum(one not in ids for one in at_stop.values()),
            }
        )
    )
    assert summary["samples"] == len(ids)
    return folder


@pytest.fixture(scope="module")
def samples(drawn: Path) -> list[SampleRow]:
    return [row for path in chunk_paths(drawn) for row in read_rows(path, SampleRow)]


def by_the_trainer(model: Any, sequences: Sequence[list[int]], starts: Sequence[int]) -> list[np.ndarray]:
    """Log-probabilities of sequences[i][starts[i]:] by whole forward passes, four rows at a time."""
    found: list[np.ndarray] = []
    for first in range(0, len(sequences), 4):
        rows, begins = sequences[first : first + 4], starts[first : first + 4]
        targets = torch.tensor([token for ids, begin in zip(rows, begins, strict=True) for token in ids[begin:]])
        with torch.inference_mode():
            logits = next_token_logits(model, rows, begins, torch.device("cpu"))
            flat = token_logprobs(logits, targets)
        lengths = [len(ids) - begin for ids, begin in zip(rows, begins, strict=True)]
        found += [part.numpy() for part in flat.split(lengths)]
    return found


def sequences_of(rows: Sequence[SampleRow]) -> tuple[list[list[int]], list[int]]:
    sequences = [[*row.prompt_ids.tolist(), *row.completion_ids.tolist()] for row in rows]
    return sequences, [len(row.prompt_ids) for row in rows]


def test_the_converted_folder_is_the_published_model(config: RunConfig, trainer: Any) -> None:
    assert (trainer.config.vocab_size, trainer.config.num_hidden_layers) == (49_152, 30)
    assert sum(parameter.numel() for parameter in trainer.parameters()) == 134_515_008
    views = views_of(config)
    assert views.tokenizer.convert_ids_to_tokens(list(views.stop_ids)) == ["<|im_end|>"]
    assert [views.decode([token]) for token in views.encode("12 + 345")] == ["1", "2", " +", " ", "3", "4", "5"]
    assert views.remarks == []
    assert views.decode(views.encode(views.chat.render("Q")), special=True) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
    )


def test_no_finished_sample_is_lost_by_kill_or_stop(drawn: Path, place: Path) -> None:
    told = read_json(place / "kept.json")
    sys.stderr.write(f"{told}\n")
    assert told["samples"] == (PRIORS + POSTERIORS) * QUESTIONS
    assert told["drawn between kill and stop"] > told["kept at kill"]
    assert told["of these lost at the stop"] == told["of these lost at the end"] == 0
    assert told["kept at kill"] >= 2


def test_both_views_are_sampled_and_their_thinking_ends(samples: list[SampleRow]) -> None:
    assert {row.key.view for row in samples} == {"prior", "posterior"}
    for row in samples:
        assert row.thinking_tokens == len(row.completion_ids) if row.cut_off else END_OF_THINKING in row.completion
    assert any(not row.cut_off for row in samples), "some first sentences end below the cap"


def test_the_engine_gives_what_the_training_forward_gives(samples: list[SampleRow], trainer: Any) -> None:
    expected = by_the_trainer(trainer, *sequences_of(samples))
    for row, logprobs in zip(samples, expected, strict=True):
        np.testing.assert_allclose(row.logprobs, logprobs, atol=CLOSE)
