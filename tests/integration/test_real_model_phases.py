"""A real model through the phases behind the rollout: filtered, trained, exported, and served with its adapter.

SmolLM2-135M-Instruct as `make test-smollm2` converts it. Two sentences of examples in the prompt bring it to give a
reason and an answer, A or B; its first comma or full stop is no tag, so the thinking ends with `.`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.support.forks import Forks
from tests.support.real_model import (
    CLOSE,
    MODEL,
    ROOT,
    done,
    plain_logprobs,
    plain_model,
    require_converted,
    start,
)
from vpgea.config.resolve import dump_yaml, resolve
from vpgea.config.schema import RunConfig
from vpgea.engines.sglang.server.process import ServerProcess
from vpgea.engines.sglang.traffic.client import ServerClient, open_session
from vpgea.engines.sglang.weights.establish import Evidence, establish
from vpgea.modeling.local_model import LocalModel
from vpgea.runs.complete_phase import chunk_paths
from vpgea.storage.files import file_checksum, read_json
from vpgea.storage.rows import read_rows
from vpgea.storage.schemas import POSTERIOR, GradedRow, SampleRow
from vpgea.storage.shards import iterate_rows

pytestmark = pytest.mark.smollm2
SGLANG = ROOT / ".venv-sglang"
EACH = 4  # samples of a question and view
TEMPLATE = """\
name: choices
prior: |-
  What flies? A. a bird B. a stone
  Because a bird has wings. The answer is A.
  What is 1 + 2? A. 8 B. 3
  Because two and one are 3. The answer is B.
  {{ question }} A. {{ options[0] }} B. {{ options[1] }}
note: " (It is {{ answer }}.)"
assistant_prefix: "Because"
answer_cue: " The answer is "
answer_close: "."
leak_phrases: ['\\bnote\\b']
"""
QUESTIONS = [
    {"id": "fish", "question": "Which animal lives in water?", "options": ["a cat", "a fish"], "answer": "B"},
    {"id": "sum", "question": "What is 2 + 2?", "options": ["4", "9"], "answer": "A"},
    {"id": "ice", "question": "What is cold?", "options": ["fire", "ice"], "answer": "B"},
]
OPTIONS: dict[str, Any] = {
    "model.path": str(MODEL),
    "model.device": "cpu",
    "views.end_of_thinking": ".",
    "views.max_prompt_tokens": 256,
    "grading.grader": "choice",
    "grading.workers": 1,
    "rollout.engine": "transformers",
    "rollout.prior_samples": EACH,
    "rollout.posterior_samples": EACH,
    "rollout.max_new_tokens": 32,
    "filter.answerability.samples": 2,
    "filter.answerability.threshold": 0.0,
    "filter.answerability.max_new_tokens": 16,
    "filter.derivation.enabled": False,
    "filter.plausibility.enabled": False,
    "distill.learning_rate": 1e-3,
    "distill.questions_per_step": len(QUESTIONS),
    "distill.lora.rank": 4,
    "eval.max_new_tokens": 24,
    "eval.bootstrap": 100,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with questions, template and configuration, where all commands of this module run."""
    require_converted()
    folder = tmp_path_factory.mktemp("phases")
    (folder / "questions.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in QUESTIONS), encoding="utf-8")
    (folder / "template.yaml").write_text(TEMPLATE, encoding="utf-8")
    files = {"data.dataset": str(folder / "questions.jsonl"), "views.template": str(folder / "template.yaml")}
    config = resolve(options={**OPTIONS, **files}).config
    (folder / "run.yaml").write_text(dump_yaml(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def config(place: Path) -> RunConfig:
    return resolve(file=place / "run.yaml").config


@pytest.fixture(scope="module")
def base() -> Any:
    return plain_model(MODEL)


@pytest.fixture(scope="module")
def drawn(forks: Forks, place: Path) -> Path:
    done(start(forks, place, "rollout", "rollout", "-o", place / "rollout"))
    return place / "rollout"


@pytest.fixture(scope="module")
def filtered(forks: Forks, place: Path, drawn: Path) -> Path:
    done(start(forks, place, "filter", "filter", drawn, "-o", place / "filter"))
    return place / "filter"


@pytest.fixture(scope="module")
def trained(forks: Forks, place: Path, filtered: Path) -> Path:
    before = file_checksum(MODEL / "model.safetensors")
    done(start(forks, place, "distill", "distill", filtered, "-o", place / "distill"))
    assert file_checksum(MODEL / "model.safetensors") == before, "the base is left alone"
    return place / "distill"


def test_paths_are_scored_under_the_other_view_as_a_forward_pass_of_their_own_does(
    drawn: Path, filtered: Path, base: Any
) -> None:
    """And under their own view, which is that of the engine at temperature 1."""
    samples = {row.key: row for path in chunk_paths(drawn) for row in read_rows(path, SampleRow)}
    plain = {row.key.question_id: row.prompt_ids.tolist() for row in samples.values() if row.key.view != POSTERIOR}
    scored = 0
    for measured in iterate_rows(sorted(filtered.glob("parts/*/*.arrow"))):
        if measured["other_view_logprobs"] is None or measured["view"] != POSTERIOR:
            continue
        (row,) = (one for key, one in samples.items() if _names(key) == _names_of(measured))
        prompt, thinking = plain[row.key.question_id], row.completion_ids[: row.thinking_tokens].tolist()
        expected = plain_logprobs(base, prompt + thinking, len(prompt))
        np.testing.assert_allclose(measured["other_view_logprobs"], expected, atol=CLOSE)
        scored += 1
    assert scored == EACH * len(QUESTIONS)


def _names(key: Any) -> tuple[Any, ...]:
    return key.question_id, key.view, key.sample_index


def _names_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["question_id"], row["view"], row["sample_index"]


def test_some_paths_are_right_and_accepted_and_none_is_without_a_verdict(filtered: Path) -> None:
    counts = read_json(filtered / "summary.json")["counts"]
    assert counts["posterior_sampled"] == counts["prior_sampled"] == EACH * len(QUESTIONS)
    assert counts["posterior_accepted"] >= 1
    rejected = sum(count for name, count in counts.items() if name.startswith("posterior_rejected"))
    assert counts["posterior_accepted"] + rejected == counts["posterior_sampled"]


def test_a_step_has_a_finite_gradient_and_moves_the_adapter_alone(trained: Path) -> None:
    (step,) = [json.loads(line) for line in (trained / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert np.isfinite(step["gradient_norm"])
    assert step["gradient_norm"] > 0
    summary = read_json(trained / "summary.json")
    assert (summary["steps"], summary["skipped_steps"], summary["output"]) == (1, 0, "adapter")
    assert summary["reload_difference"] < 1e-4
    assert summary["engine_mismatch"]["largest"] < CLOSE
    weights = load_file(trained / "adapter" / "adapter_model.safetensors")
    outs = {name: tensor for name, tensor in weights.items() if "lora_B" in name}
    assert len(outs) == len(weights) / 2 == 30 * 7, "every matrix of 30 layers has its pair"
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    assert all(tensor.abs().max() > 0 for tensor in outs.values()), "they begin at zero"
    assert not (trained / "model").exists()


def test_exports_give_the_logits_of_base_and_adapter_in_plain_libraries(
    forks: Forks, place: Path, trained: Path, base: Any
) -> None:
    done(start(forks, place, "export", "export", trained, "-o", place / "adapter"))
    done(start(forks, place, "merge", "export", trained, "-o", place / "merged", "--merge"))
    path = read_json(trained / "adapter" / "vpgea_canary.json")["paths"][0]
    adapted, merged = plain_model(MODEL, place / "adapter"), plain_model(place / "merged")
    with torch.inference_mode():
        plain, on_base, whole = (model(torch.tensor([path["ids"]])).logits for model in (base, adapted, merged))
    torch.testing.assert_close(whole, on_base, atol=1e-3, rtol=1e-4)
    assert (plain - on_base).abs().max() > 1e-2, "the base itself would not pass"
    assert np.abs(plain_logprobs(adapted, path["ids"], path["start"]) - path["logprobs"]).max() < CLOSE


@pytest.fixture(scope="module")
def served(config: RunConfig, trained: Path, place: Path) -> Iterator[ServerProcess]:
    """SGLang on the CPU with the base, and room for an adapter."""
    if not (SGLANG / ".installed").exists():
        pytest.skip("SGLang did not serve the real model: `make sglang` installs it")
    sglang = config.sglang.model_copy(update={"python": str(SGLANG / "bin" / "python")})
    process = ServerProcess.start(config.model_copy(update={"sglang": sglang}), place / "server")
    try:
        process.wait_ready(lambda: None)
        process.endpoint.write(place / "server.json")
        yield process
    finally:
        process.close()


def test_sglang_serves_the_adapter_and_the_canary_says_so(
    forks: Forks, place: Path, config: RunConfig, trained: Path, served: ServerProcess
) -> None:
    adapter = trained / "adapter"
    model = config.model.model_copy(update={"adapter": str(adapter)})

    async def verified() -> Evidence:
        async with open_session() as session:
            client = ServerClient(served.endpoint, session)
            return (await establish(client, model, replaceable=(), timeout_s=120))[1]

    evidence = asyncio.run(verified())
    assert evidence.version == LocalModel.resolve(config.model).fingerprint
    assert evidence.checksums_compared == 30 * 6 + 2, "as a server holds them: 6 of each layer, the embedding, the norm"
    assert evidence.canary_difference is not None
    assert evidence.canary_difference < CLOSE
    words = ["--adapter", str(adapter), "--server-url", str(place / "server.json"), "--set", "rollout.engine=sglang"]
    done(start(forks, place, "eval", "eval", *words, "-o", place / "eval"))
    rows = [row.sample for path in chunk_paths(place / "eval") for row in read_rows(path, GradedRow)]
    assert len(rows) == len(QUESTIONS)
    assert all(row.origin.engine.startswith("sglang") for row in rows)
    adapted = plain_model(MODEL, adapter)
    for sample in rows:
        ids, begin = [*sample.prompt_ids.tolist(), *sample.completion_ids.tolist()], len(sample.prompt_ids)
        np.testing.assert_allclose(sample.logprobs, plain_logprobs(adapted, ids, begin), atol=CLOSE)


def test_a_model_without_thinking_goes_through_every_phase(forks: Forks, place: Path) -> None:
    """Only the prior view can be drawn from it; its answers are graded, and its right ones are learnt from."""
    words = ["--set", "views.end_of_thinking=null", "--set", "rollout.posterior_samples=0"]
    drawn, filtered, trained = (place / f"plain-{name}" for name in ("rollout", "filter", "distill"))
    done(start(forks, place, "plain-rollout", "rollout", "-o", drawn, *words))
    rows = [row for path in chunk_paths(drawn) for row in read_rows(path, SampleRow)]
    assert len(rows) == EACH * len(QUESTIONS)
    assert {(row.thinking_tokens, row.cut_off) for row in rows if row.finish_reason == "stop"} == {(0, False)}
    summary = done(start(forks, place, "plain-filter", "filter", drawn, "-o", filtered, *words))
    assert summary["counts"]["prior_sampled"] == len(rows)
    done(start(forks, place, "plain-distill", "distill", filtered, "-o", trained, *words))
    (step,) = [json.loads(line) for line in (trained / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert 0 < step["gradient_norm"] < np.inf
    words += ["--adapter", str(trained / "adapter")]
    measured = done(start(forks, place, "plain-eval", "eval", "-o", place / "plain-eval", *words))
    assert measured["metrics"]["thinking_tokens"]["value"] == 0 < measured["metrics"]["tokens"]["value"]


def test_what_never_ends_its_thinking_is_told_at_the_rollout(forks: Forks, place: Path) -> None:
    words = ["--set", "views.end_of_thinking=</think>", "--set", "rollout.posterior_samples=0"]
    process = start(forks, place, "told", "rollout", "-o", place / "told", *words)
    summary = done(process)
    told = process.err.read_text(encoding="utf-8")
    ended = summary["samples"] - summary["at_cap"]
    assert summary["no_end_of_thinking"] == ended > 0
    assert f"none of {ended} responses" in told
    assert "Set views.end_of_thinking" in told
