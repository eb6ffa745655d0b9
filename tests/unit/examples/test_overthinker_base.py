"""The stored base models: they load in plain transformers and over-think as the README says."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from examples.overthinker.batches import held_out_questions, traces
from examples.overthinker.build import new_model, train
from examples.overthinker.chat import build_tokenizer, completion, prompt_ids
from examples.overthinker.language import sample_question
from examples.overthinker.measure import measure, read
from vpgea.config.schema import ModelConfig, ViewsConfig
from vpgea.modeling.local_model import LocalModel
from vpgea.prompts.views import Views
from vpgea.questions.load import Question as VpgeaQuestion

EXAMPLE = Path(__file__).parents[3] / "examples" / "overthinker"
ASKED = "start with 34 . add 7 . subtract 12 . add 25 . what is the result ?"
DIALS = ["local", "global"]


@pytest.fixture(scope="module", params=DIALS)
def dial(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def figures(dial: str) -> dict[str, float]:
    rows = [json.loads(line) for line in (EXAMPLE / "questions" / "dev.jsonl").read_text(encoding="utf-8").splitlines()]
    return measure(EXAMPLE / f"base-{dial}", rows[:150], samples=2, cap=192, seed=3)


def test_base_folder_is_small_and_loads_in_plain_transformers(dial: str) -> None:
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    folder = EXAMPLE / f"base-{dial}"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), PreTrainedTokenizerFast.from_pretrained(folder)
    assert 100_000 < model.num_parameters() < 500_000
    assert sum(file.stat().st_size for file in folder.iterdir()) < 4 * 2**20
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids("<|end|>")
    assert tokenizer.get_vocab() == build_tokenizer().get_vocab()


def test_vpgea_loads_the_tokenizer_of_the_folder(dial: str) -> None:
    # AutoTokenizer alone gives a qwen2 folder another tokenizer, under which every prompt is nonsense.
    tokenizer = LocalModel.resolve(ModelConfig(path=str(EXAMPLE / f"base-{dial}"))).tokenizer
    text = completion("34 add 7 gives 41 .", 41)
    assert tokenizer.encode(text) == build_tokenizer().encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_prior_over_thinks(dial: str, figures: dict[str, float]) -> None:
    assert figures["prior_accuracy"] > 0.8
    low, high = (36, 50) if dial == "local" else (78, 96)
    assert low < figures["prior_tokens"] < high
    if dial == "global":
        assert figures["prior_correct_near_shortest"] <= 0.015  # 0.005 on the dev questions; 300 samples here


def test_posterior_is_short_right_and_partly_unsound(figures: dict[str, float]) -> None:
    assert figures["posterior_accuracy"] > 0.85
    assert figures["posterior_tokens"] < 28
    assert 0.45 < figures["posterior_sound_share_of_correct"] < 0.75


def test_tokenizer_round_trip() -> None:
    tokenizer = build_tokenizer()
    text = completion("34 add 7 gives 41 . wait , 34 add 7 gives 41 . so 41 .", 41)
    ids = tokenizer.encode(text)
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids, skip_special_tokens=True).endswith("</think> \\boxed{ 41 }")
    assert tokenizer.encode("\\boxed{41}.") == tokenizer.encode("\\boxed{ 41 } .")


def test_chat_template_opens_the_thinking_in_both_views() -> None:
    tokenizer = build_tokenizer()
    prior, posterior = (tokenizer.decode(prompt_ids(tokenizer, view, ASKED, 54)) for view in ("prior", "posterior"))
    assert prior == f"<|user|> {ASKED} <|assistant|> <think>"
    assert posterior == f"<|user|> {ASKED} note : the answer is 54 . keep this private . <|assistant|> <think>"


def test_prompts_are_those_of_vpgea() -> None:
    views = Views(build_tokenizer(), ViewsConfig(template=str(EXAMPLE / "template.yaml")), eos_ids=[2])
    question = VpgeaQuestion(id="q", text=ASKED, answer="54")
    assert views.prior_prompt(question) == prompt_ids(views.tokenizer, "prior", ASKED, 54)
    assert views.posterior_prompt(question) == prompt_ids(views.tokenizer, "posterior", ASKED, 54)
    assert views.tokenizer.decode(views.answer_cue_ids + views.answer_ids("54")) == "\\boxed{ 54 }"
    assert views.tokenizer.decode(views.empty_thinking_ids) == "</think>"


def test_chat_template_drops_the_thinking_of_earlier_turns() -> None:
    messages = [
        {"role": "user", "content": ASKED},
        {"role": "assistant", "content": "so 54 . </think> \\boxed{ 54 }"},
        {"role": "user", "content": ASKED},
    ]
    text = build_tokenizer().apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
    assert "so 54" not in text
    assert "<|assistant|> \\boxed{ 54 } <|end|>" in text


def test_read_takes_a_completion_apart() -> None:
    row = {"question": ASKED, "answer": "54"}
    right = read(row, completion("34 add 7 gives 41 . 41 subtract 12 gives 29 . 29 add 25 gives 54 .", 54), 23)
    assert (right.correct, right.sound, right.near_shortest, right.leaks) == (True, True, True, False)
    leaky = read(row, completion("the note says 54 . so 54 .", 54), 40)
    assert (leaky.correct, leaky.sound, leaky.near_shortest, leaky.leaks) == (True, False, False, True)
    assert not read(row, "34 add 7 gives 41 . \\boxed{ 54 }", 12).correct


def test_training_is_repeatable_and_spares_held_out_questions() -> None:
    import torch

    tokenizer, weights = build_tokenizer(), []
    for _ in range(2):
        model, rng = new_model(tokenizer, seed=1), Random(1)
        check_ids = torch.tensor(tokenizer.convert_tokens_to_ids(["check", "wait"]))
        batches = [[traces(tokenizer, "prior", "local", 4, set(), rng)] for _ in range(2)]
        train(model, check_ids, iter(batches), steps=2)
        weights.append(model.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())

    first = sample_question(Random(5)).text
    kept, spared = (
        tokenizer.batch_decode(traces(tokenizer, "prior", "local", 1, held_out, Random(5))[0])[0]
        for held_out in (set[str](), {first})
    )
    assert first in kept
    assert first not in spared
    assert len(held_out_questions()) == 1700
