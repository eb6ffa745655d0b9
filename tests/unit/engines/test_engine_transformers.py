"""The in-process engine: exact log-probabilities, seeds that hold in any batch, exact distributions, dropped rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import tiny
from tests.support.models import causal_model, views_of
from vpgea.config.schema import ModelConfig, RunConfig
from vpgea.engines.base import Completion, GenerateRequest, Sampling, ScoreRequest
from vpgea.engines.lease import EngineLease
from vpgea.engines.transformers import LONG_BEGINNING, TransformersEngine, truncate
from vpgea.modeling.local_model import LocalModel
from vpgea.runs.stopping import StopRequest

CLOSE = 1e-4


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    return causal_model(ModelConfig(path=str(tiny_model), device="cpu", threads=1))


@pytest.fixture(scope="module")
def prompts(tiny_model: Path) -> list[list[int]]:
    """Prompts of several lengths."""
    tokenizer = LocalModel.resolve(ModelConfig(path=str(tiny_model))).tokenizer
    texts = ["What is 3 times 4?", "7 plus 8", "x", "Please reason step by step. What is 5 plus 7?\n\n<think>\n"]
    return [tokenizer(text)["input_ids"] for text in texts]


@pytest.fixture(scope="module")
def stop_ids(tiny_model: Path) -> tuple[int, ...]:
    return (LocalModel.resolve(ModelConfig(path=str(tiny_model))).tokenizer.eos_token_id,)


def requests_for(prompts: list[list[int]], per_prompt: int = 8, first_seed: int = 1) -> list[GenerateRequest]:
    return [
        GenerateRequest(prompt, (first_seed + index * per_prompt + copy) * 0x9E3779B97F4A7C15 % 2**64)
        for index, prompt in enumerate(prompts)
        for copy in range(per_prompt)
    ]


def draw(model: Any, requests: list[GenerateRequest], sampling: Sampling, *, batch_size: int = 64) -> list[Completion]:
    """Completions in the order of the requests; each request must come exactly once."""
    engine = TransformersEngine(model, batch_size=batch_size)
    drawn = list(engine.generate([requests], sampling))
    assert sorted(index for _, index, _ in drawn) == list(range(len(requests)))
    assert engine.usage.sampled_tokens == sum(len(completion.ids) for _, _, completion in drawn)
    return [completion for _, _, completion in sorted(drawn, key=lambda found: found[1])]


def exact_logits(model: Any, ids: list[int]) -> torch.Tensor:
    """Float64 logits of the next token after ids, one sequence, no cache, no padding."""
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0, -1].double()


# --- log-probabilities ----------------------------------------------------------------------------------------------


def test_generated_log_probabilities_are_those_of_scoring(
    model: Any, prompts: list[list[int]], stop_ids: tuple[int, ...]
) -> None:
    requests = requests_for(prompts)
    completions = draw(model, requests, Sampling(max_new_tokens=16, stop_ids=stop_ids), batch_size=12)
    scored = TransformersEngine(model, batch_size=5).score(
        [
            ScoreRequest([*request.prompt_ids, *completion.ids.tolist()], len(request.prompt_ids))
            for request, completion in zip(requests, completions, strict=True)
        ]
    )
    assert len({len(completion.ids) for completion in completions}) > 5
    assert {completion.finish_reason for completion in completions} == {"stop", "length"}
    for completion, logprobs in zip(completions, scored, strict=True):
        assert completion.ids.dtype == np.int32
        assert completion.logprobs.dtype == logprobs.dtype == np.float32
        np.testing.assert_allclose(completion.logprobs, logprobs, atol=CLOSE)


@pytest.mark.parametrize(
    "sampling", [{"temperature": 0.6}, {"temperature": 1.7}, {"top_p": 0.8, "temperature": 0.9}, {"top_k": 5}]
)
def test_generated_log_probabilities_are_those_of_the_sampler(
    model: Any, prompts: list[list[int]], stop_ids: tuple[int, ...], sampling: dict[str, Any]
) -> None:
    options = Sampling(max_new_tokens=12, stop_ids=stop_ids, **sampling)
    assert options.truncated
    requests = requests_for(prompts, 2)
    for request, completion in zip(requests, draw(model, requests, options), strict=True):
        ids = list(request.prompt_ids)
        for token, logprob in zip(completion.ids.tolist(), completion.logprobs.tolist(), strict=True):
            logits = exact_logits(model, ids) / options.temperature
            expected = truncate(logits[None], options)[0].log_softmax(-1)[token].item()
            assert logprob == pytest.approx(expected, abs=CLOSE)
            ids.append(token)


def test_greedy_takes_the_likeliest_token_and_says_its_own_log_probability(
    model: Any, prompts: list[list[int]], stop_ids: tuple[int, ...]
) -> None:
    completions = draw(model, requests_for(prompts, 2), Sampling(max_new_tokens=10, stop_ids=stop_ids, temperature=0))
    for index, prompt in enumerate(prompts):
        first, second = completions[2 * index : 2 * index + 2]
        assert first.ids.tolist() == second.ids.tolist()
        ids = list(prompt)
        for token, logprob in zip(first.ids.tolist(), first.logprobs.tolist(), strict=True):
            logprobs = exact_logits(model, ids).log_softmax(-1)
            assert token == int(logprobs.argmax())
            assert logprob == pytest.approx(logprobs[token].item(), abs=CLOSE)
            ids.append(token)


def test_the_likeliest_tokens_are_those_of_the_model(model: Any) -> None:
    rng = np.random.default_rng(1)
    requests = [
        ScoreRequest(rng.integers(0, model.config.vocab_size, length).tolist(), start)
        for length, start in ((2, 1), (9, 9), (30, 4), (31, 30))
    ]
    found = TransformersEngine(model, batch_size=3).top_logprobs(requests, 5)
    for request, top in zip(requests, found, strict=True):
        assert (top.ids.dtype, top.logprobs.dtype) == (np.int32, np.float32)
        assert top.ids.shape == top.logprobs.shape == (len(request.ids) - request.start, 5)
        for place, ids, logprobs in zip(range(request.start, len(request.ids)), top.ids, top.logprobs, strict=True):
            values, tokens = exact_logits(model, list(request.ids[:place])).log_softmax(-1).topk(5)
            assert ids.tolist() == tokens.tolist()
            np.testing.assert_allclose(logprobs, values, atol=CLOSE)


def test_scores_do_not_depend_on_padding_or_order(model: Any, prompts: list[list[int]]) -> None:
    rng = np.random.default_rng(0)
    requests = []
    for length in (2, 3, 9, 30, 31, 80):
        ids = rng.integers(0, model.config.vocab_size, length).tolist()
        requests += [ScoreRequest(ids, 1), ScoreRequest(ids, length), ScoreRequest(ids, length - 1)]
    alone = TransformersEngine(model, batch_size=1).score(requests)
    for batch_size in (4, 100):
        for one, other in zip(alone, TransformersEngine(model, batch_size=batch_size).score(requests), strict=True):
            np.testing.assert_allclose(one, other, atol=CLOSE)
    for request, logprobs in zip(requests, alone, strict=True):
        expected = [
            exact_logits(model, list(request.ids[:place])).log_softmax(-1)[request.ids[place]].item()
            for place in range(request.start, len(request.ids))
        ]
        np.testing.assert_allclose(logprobs, expected, atol=CLOSE)


# --- seeds ----------------------------------------------------------------------------------------------------------


def test_a_seed_gives_its_completion_alone_and_in_any_batch(
    model: Any, prompts: list[list[int]], stop_ids: tuple[int, ...]
) -> None:
    requests = requests_for(prompts, 4)
    sampling = Sampling(max_new_tokens=24, stop_ids=stop_ids)
    together = draw(model, requests, sampling)
    shuffled = np.random.default_rng(0).permutation(len(requests)).tolist()
    mixed = draw(model, [requests[index] for index in shuffled], sampling, batch_size=7)
    for place, index in enumerate(shuffled):
        assert mixed[place].ids.tolist() == together[index].ids.tolist()
    for index in (0, 5, 15):
        assert draw(model, [requests[index]], sampling)[0].ids.tolist() == together[index].ids.tolist()


def test_other_seeds_give_other_completions(model: Any, prompts: list[list[int]], stop_ids: tuple[int, ...]) -> None:
    completions = draw(model, requests_for(prompts[2:3], 32), Sampling(max_new_tokens=24, stop_ids=stop_ids))
    assert len({tuple(completion.ids.tolist()) for completion in completions}) > 24


# --- distributions --------------------------------------------------------------------------------------------------


def chi_square_limit(degrees: int) -> float:
    """The 99.9 % quantile, by Wilson and Hilferty's cube."""
    return float(degrees * (1 - 2 / (9 * degrees) + 3.09 * np.sqrt(2 / (9 * degrees))) ** 3)


def test_samples_have_the_exact_probabilities_of_the_model(
    model: Any, prompts: list[list[int]], stop_ids: tuple[int, ...]
) -> None:
    """Pairs of first tokens against their enumerated probabilities; rare pairs share one cell."""
    count, prompt = 4000, prompts[1]
    completions = draw(
        model,
        requests_for([prompt], count, first_seed=77),
        Sampling(max_new_tokens=2, stop_ids=stop_ids),
        batch_size=1000,
    )
    drawn = Counter(tuple(completion.ids.tolist()) for completion in completions)
    first = exact_logits(model, prompt).softmax(-1)
    cells: dict[tuple[int, ...], float] = {}
    for token in torch.nonzero(first * count > 5).flatten().tolist():
        if token in stop_ids:
            cells[(token,)] = first[token].item()
            continue
        both = first[token] * exact_logits(model, [*prompt, token]).softmax(-1)
        cells |= {(token, int(other)): both[other].item() for other in torch.nonzero(both * count > 5).flatten()}
    assert len(cells) > 20
    expected = np.array([*cells.values(), 1 - sum(cells.values())]) * count
    observed = np.array([drawn[cell] for cell in cells])
    observed = np.append(observed, count - observed.sum())
    assert ((observed - expected) ** 2 / expected).sum() < chi_square_limit(len(expected) - 1)


def test_top_k_and_the_nucleus_bound_the_support(model: Any, prompts: list[list[int]]) -> None:
    probabilities = exact_logits(model, prompts[2]).softmax(-1)
    order = probabilities.argsort(descending=True)
    requests = requests_for([prompts[2]], 600)
    drawn = {
        int(completion.ids[0])
        for completion in draw(model, requests, Sampling(max_new_tokens=1, stop_ids=(), top_k=3), batch_size=600)
    }
    assert drawn == set(order[:3].tolist())
    size = int((probabilities[order].cumsum(-1) < 0.5).sum()) + 1
    completions = draw(model, requests, Sampling(max_new_tokens=1, stop_ids=(), top_p=0.5), batch_size=600)
    assert {int(completion.ids[0]) for completion in completions} <= set(order[:size].tolist())
    shares = sum(np.exp(logprob) for logprob in {float(completion.logprobs[0]) for completion in completions})
    assert shares == pytest.approx(1, abs=0.2)


# --- ends, caps and batches -----------------------------------------------------------------------------------------


def test_every_stop_id_ends_and_is_the_last(model: Any, prompts: list[list[int]]) -> None:
    frequent = exact_logits(model, prompts[0]).argsort(descending=True)[:40].tolist()
    sampling = Sampling(max_new_tokens=30, stop_ids=tuple(frequent[::2]))
    completions = draw(model, requests_for(prompts, 8), sampling)
    ended = [completion for completion in completions if completion.finish_reason == "stop"]
    assert len({int(completion.ids[-1]) for completion in ended}) > 1
    for completion in completions:
        inside = set(completion.ids.tolist()[:-1])
        assert not inside & set(sampling.stop_ids)
        assert (int(completion.ids[-1]) in sampling.stop_ids) == (completion.finish_reason == "stop")
        assert len(completion.ids) == 30 or completion.finish_reason == "stop"


def test_each_request_keeps_its_own_cap(model: Any, prompts: list[list[int]], stop_ids: tuple[int, ...]) -> None:
    whole = draw(model, requests_for(prompts, 4), Sampling(max_new_tokens=20, stop_ids=stop_ids))
    caps = [1, 3, 7, 20, 50]
    requests = [
        GenerateRequest(request.prompt_ids, request.seed, caps[index % len(caps)])
        for index, request in enumerate(requests_for(prompts, 4))
    ]
    for request, capped, full in zip(
        requests, draw(model, requests, Sampling(max_new_tokens=20, stop_ids=stop_ids)), whole, strict=True
    ):
        assert request.max_new_tokens is not None
        assert capped.ids.tolist() == full.ids.tolist()[: request.max_new_tokens]
        assert capped.finish_reason == ("stop" if capped.ids[-1] in stop_ids else "length")


@pytest.fixture
def rows_forwarded(model: Any) -> Iterator[list[int]]:
    """Rows times positions of every forward pass of the model."""
    sizes: list[int] = []
    handle = model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    yield sizes
    handle.remove()


def test_finished_rows_leave_the_batch(model: Any, prompts: list[list[int]], rows_forwarded: list[int]) -> None:
    requests = [
        GenerateRequest(prompts[0], seed, 40 if seed == 0 else 1 + seed % 4) for seed in range(32)
    ]  # a long tail: one row goes on alone
    engine = TransformersEngine(model, batch_size=64)
    rows_forwarded.clear()  # its probes of the model
    drawn = engine.generate([requests], Sampling(max_new_tokens=40, stop_ids=()))
    completions = [completion for _, _, completion in drawn]
    steps = rows_forwarded[1:]
    assert len(steps) == 39
    assert steps[4:] == [1] * 35
    assert all(later <= earlier for earlier, later in pairwise(steps))
    sampled = sum(len(completion.ids) for completion in completions)
    assert sum(steps) <= 1.15 * (sampled - 32)


def test_a_prompt_that_many_rows_share_is_read_once(
    model: Any, prompts: list[list[int]], rows_forwarded: list[int]
) -> None:
    engine = TransformersEngine(model, batch_size=64)
    rows_forwarded.clear()  # its probes of the model
    assert len(list(engine.generate([requests_for(prompts[:2], 16)], Sampling(max_new_tokens=1, stop_ids=())))) == 32
    assert rows_forwarded == [2 * max(len(prompt) for prompt in prompts[:2])]
    assert engine.usage.prompt_tokens == sum(len(prompt) for prompt in prompts[:2])
    assert engine.usage.seconds > 0


def test_completions_come_as_they_finish(model: Any, prompts: list[list[int]]) -> None:
    requests = [GenerateRequest(prompts[0], seed, cap) for seed, cap in enumerate([9, 2, 5])]
    drawn = TransformersEngine(model, batch_size=8).generate([requests], Sampling(max_new_tokens=40, stop_ids=()))
    assert [index for _, index, _ in drawn] == [1, 2, 0]


def test_what_on_tokens_raises_abandons_the_rest(model: Any, prompts: list[list[int]]) -> None:
    told: list[int] = []

    def on_tokens(count: int) -> None:
        told.append(count)
        if len(told) == 3:
            raise KeyboardInterrupt

    engine = TransformersEngine(model, batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        list(engine.generate([requests_for(prompts, 2)], Sampling(max_new_tokens=40, stop_ids=()), on_tokens))
    assert told == [2, 2, 2]
    again = list(engine.generate([requests_for(prompts, 1)], Sampling(max_new_tokens=3, stop_ids=())))
    assert len(again) == len(prompts)


def test_nothing_asked_nothing_done(model: Any) -> None:
    engine = TransformersEngine(model, batch_size=2)
    assert (
        list(engine.generate([[]], Sampling(max_new_tokens=3, stop_ids=())))
        == list(engine.generate([], Sampling(max_new_tokens=3, stop_ids=())))
        == []
    )
    assert engine.score([]) == []


def test_a_model_with_tied_weights_and_no_thinking_tags(tmp_path: Path) -> None:
    folder = tiny.make_model(tmp_path, tie=True, thinking_tags=False, chat_template="qwen3", seed=3)
    model = causal_model(ModelConfig(path=str(folder), device="cpu", threads=1))
    completion = draw(model, [GenerateRequest([5, 6, 7], 1)], Sampling(max_new_tokens=8, stop_ids=()))[0]
    scored = TransformersEngine(model, batch_size=1).score([ScoreRequest([5, 6, 7, *completion.ids.tolist()], 3)])
    np.testing.assert_allclose(completion.logprobs, scored[0], atol=CLOSE)


def test_ends_of_one_beginning_share_what_is_computed_of_it(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four ways to write an answer behind a long path: one pass over the path, and the scores of four passes."""
    rng = np.random.default_rng(0)
    path, *answers = (
        rng.integers(3, model.config.vocab_size, length).tolist() for length in (LONG_BEGINNING, 1, 4, 9, 4)
    )
    requests = [
        ScoreRequest(path, LONG_BEGINNING - 40),
        *(ScoreRequest(path + answer, len(path)) for answer in answers),
    ]
    apart = [TransformersEngine(model, batch_size=1).score([request])[0] for request in requests]
    seen: list[int] = []
    forward = model.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["input_ids"].numel())
        return forward(*args, **kwargs)

    engine = TransformersEngine(model, batch_size=8)
    monkeypatch.setattr(model, "forward", counted)
    for one, other in zip(engine.score(requests), apart, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, atol=CLOSE)
    assert seen[:2] == [LONG_BEGINNING, 4 * 8], "behind them comes the policy's probe"
    assert engine.usage.scored_tokens == 40 + 1 + 4 + 9 + 4


def test_an_adapter_samples_and_scores_alike(
    model: Any, prompts: list[list[int]], tmp_path: Path, tiny_model: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    base = causal_model(ModelConfig(path=str(tiny_model), device="cpu", threads=1))
    lora = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(base, lora).save_pretrained(tmp_path)
    adapted = causal_model(ModelConfig(path=str(tiny_model), adapter=str(tmp_path), device="cpu", threads=1))
    request = requests_for(prompts, 1)[0]
    completion = draw(adapted, [request], Sampling(max_new_tokens=8, stop_ids=()))[0]
    asked = [ScoreRequest([*request.prompt_ids, *completion.ids.tolist()], len(request.prompt_ids))]
    np.testing.assert_allclose(
        completion.logprobs, TransformersEngine(adapted, batch_size=1).score(asked)[0], atol=CLOSE
    )
    plain = TransformersEngine(model, batch_size=1).score(asked)[0]
    assert np.abs(plain - completion.logprobs).max() > 1e-2


def test_a_lease_opens_at_first_use_and_closes_at_the_end(run_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    config = run_config(rollout__batch_size=3)
    with EngineLease(tmp_path / "logs", StopRequest()) as lease:
        model = LocalModel.resolve(config.model)
        engine = lease.get(config, model)
        assert lease.get(config, model) is engine
        assert engine.name == "transformers"
        prompt = views_of(config).encode("x")
        assert len(list(engine.generate([[GenerateRequest(prompt, 1)]], Sampling(max_new_tokens=2, stop_ids=())))) == 1
    assert not hasattr(engine, "model")
