"""The engine against the real server: the same tokens and log-probabilities as the trainer's own model."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import rollouts, servers
from tests.support.models import causal_model
from tests.support.rollouts import rows_of
from vpgea.config.schema import RunConfig
from vpgea.engines.base import Completion, GenerateRequest, Sampling, ScoreRequest
from vpgea.engines.sglang.server.process import ServerProcess
from vpgea.engines.sglang.traffic.engine import SglangEngine
from vpgea.engines.transformers import TransformersEngine
from vpgea.errors import UsageError
from vpgea.modeling.local_model import LocalModel
from vpgea.runs.stopping import StopRequest

pytestmark = pytest.mark.sglang
CLOSE = 1e-4  # float32 on a CPU
PROMPT = [5, 6, 7, 8, 9, 10]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with servers.serving(tmp_path_factory.mktemp("server")) as process:
        yield process


@pytest.fixture(scope="module")
def config(server: ServerProcess) -> RunConfig:
    return servers.config(sglang__server_url=str(server.log.parent / "server.json"))


@pytest.fixture(scope="module")
def engine(config: RunConfig) -> Iterator[SglangEngine]:
    engine = SglangEngine(config, LocalModel.resolve(config.model), stop=StopRequest())
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def model(config: RunConfig) -> Any:
    return causal_model(config.model)


@pytest.fixture(scope="module")
def transformers(model: Any) -> TransformersEngine:
    return TransformersEngine(model, batch_size=32)


def draw(engine: Any, requests: list[GenerateRequest], sampling: Sampling) -> list[Completion]:
    """Completions in the order of the requests, each of which must come once."""
    drawn = {index: completion for _, index, completion in engine.generate([requests], sampling)}
    assert len(drawn) == len(requests)
    return [drawn[index] for index in range(len(requests))]


def requests_for(count: int, cap: int | None = None) -> list[GenerateRequest]:
    """Seeds over all 64 bits; prompts of several lengths, some shared."""
    return [
        GenerateRequest(PROMPT[: 2 + number % 4], number * 0x9E3779B97F4A7C15 % 2**64, cap, group=str(number % 4))
        for number in range(count)
    ]


def exact(model: Any, ids: list[int], temperature: float) -> np.ndarray:
    """log softmax(logits / temperature) at every next token, (len(ids) - 1,), float64, one sequence and no cache."""
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0, :-1].double() / temperature
    return logits.log_softmax(-1).gather(-1, torch.tensor(ids[1:])[:, None])[:, 0].numpy()


def test_both_engines_draw_the_same_tokens_from_the_same_seeds(
    engine: SglangEngine, transformers: TransformersEngine
) -> None:
    sampling = Sampling(max_new_tokens=40, stop_ids=(2,))
    ours, theirs = (draw(one, requests_for(64), sampling) for one in (engine, transformers))
    different = [
        (number, one.ids.tolist(), other.ids.tolist(), one.logprobs.tolist())
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True))
        if one.ids.tolist() != other.ids.tolist()
    ]
    assert not different
    assert [one.finish_reason for one in ours] == [one.finish_reason for one in theirs]
    assert {"stop", "length"} == {one.finish_reason for one in ours}
    assert max(np.abs(one.logprobs - other.logprobs).max() for one, other in zip(ours, theirs, strict=True)) < CLOSE
    assert engine.name == "sglang 0.5.23"


@pytest.mark.parametrize(
    ("sampling", "temperature"),
    [
        (Sampling(max_new_tokens=24, stop_ids=(2,)), 1.0),
        (Sampling(max_new_tokens=24, stop_ids=(2,), temperature=0.6), 0.6),
        (Sampling(max_new_tokens=24, stop_ids=(2,), temperature=1.3, top_p=0.8, top_k=7), 1.3),
        (Sampling(max_new_tokens=24, stop_ids=(2,), temperature=0.0), 1.0),  # greedy: of the untempered model
    ],
)
def test_log_probabilities_are_those_after_temperature_and_before_truncation(
    engine: SglangEngine, model: Any, sampling: Sampling, temperature: float
) -> None:
    requests = requests_for(16)
    for request, completion in zip(requests, draw(engine, requests, sampling), strict=True):
        ids = [*request.prompt_ids, *completion.ids.tolist()]
        expected = exact(model, ids, temperature)[len(request.prompt_ids) - 1 :]
        np.testing.assert_allclose(completion.logprobs, expected, atol=CLOSE)


def test_a_seed_gives_the_same_completion_alone_and_in_company(engine: SglangEngine) -> None:
    requests, sampling = requests_for(12), Sampling(max_new_tokens=30, stop_ids=(2,))
    together = draw(engine, requests, sampling)
    for request, completion in list(zip(requests, together, strict=True))[::4]:
        assert draw(engine, [request], sampling)[0].ids.tolist() == completion.ids.tolist()


@pytest.mark.parametrize(
    "other",
    [
        Sampling(max_new_tokens=400, stop_ids=(), temperature=0.0),
        Sampling(max_new_tokens=400, stop_ids=(), top_p=0.9, top_k=5),
    ],
)
def test_nor_does_the_company_of_greedy_and_truncated_requests_change_it(
    engine: SglangEngine, config: RunConfig, server: ServerProcess, tmp_path: Path, other: Sampling
) -> None:
    requests, sampling = requests_for(64), Sampling(max_new_tokens=40, stop_ids=(2,))
    alone = draw(engine, requests, sampling)
    second, enough = (
        SglangEngine(config, LocalModel.resolve(config.model), stop=StopRequest()),
        threading.Event(),
    )

    def keep_company() -> None:
        while not enough.is_set():
            draw(second, requests_for(8), other)

    company = threading.Thread(target=keep_company)
    company.start()
    try:
        servers.until(lambda: servers.load(server) >= 8, 60, "the others run")
        together = draw(engine, requests, sampling)
    finally:
        enough.set()
        company.join()
        second.close()
    assert [one.ids.tolist() for one in together] == [one.ids.tolist() for one in alone]


def test_a_request_has_its_own_cap(engine: SglangEngine) -> None:
    drawn = draw(
        engine, [GenerateRequest(PROMPT, 1, cap) for cap in (1, 3, 90)], Sampling(max_new_tokens=9, stop_ids=())
    )
    assert [len(one.ids) for one in drawn] == [1, 3, 9]


def test_scores_are_those_of_the_trainers_model(
    engine: SglangEngine, transformers: TransformersEngine, model: Any
) -> None:
    rng = np.random.default_rng(7)
    last = model.config.vocab_size - 1
    shared = rng.integers(0, last, 40).tolist()
    requests = [ScoreRequest(shared[:cut] + rng.integers(0, last, 30).tolist(), cut) for cut in (1, 2, 17, 40, 40, 40)]
    requests += [ScoreRequest([last, last, 3, last, last], 1), ScoreRequest(PROMPT, len(PROMPT)), ScoreRequest([3], 1)]
    before = engine.usage.cached_tokens
    scores = engine.score(requests)
    for request, ours, theirs in zip(requests, scores, transformers.score(requests), strict=True):
        assert ours.dtype == np.float32
        assert ours.shape == (len(request.ids) - request.start,)
        np.testing.assert_allclose(ours, theirs, atol=CLOSE)
    again = engine.score(requests)
    assert max(np.abs(one - two).max(initial=0) for one, two in zip(scores, again, strict=True)) < 1e-5
    assert engine.usage.cached_tokens - before >= sum(request.start - 1 for request in requests[:6])
    assert 0 < (engine.usage.prefix_cache_hit_rate or 0) < 1


def test_the_likeliest_tokens_are_those_of_the_trainers_model(
    engine: SglangEngine, transformers: TransformersEngine, model: Any
) -> None:
    rng = np.random.default_rng(8)
    requests = [
        ScoreRequest(rng.integers(0, model.config.vocab_size, length).tolist(), start)
        for length, start in ((2, 1), (9, 9), (40, 7), (40, 39), (120, 50))
    ]
    for k in (1, 16, model.config.vocab_size - 1):
        ours, theirs = engine.top_logprobs(requests, k), transformers.top_logprobs(requests, k)
        for request, one, other in zip(requests, ours, theirs, strict=True):
            assert (one.ids.dtype, one.logprobs.dtype) == (np.int32, np.float32)
            assert one.ids.shape == one.logprobs.shape == (len(request.ids) - request.start, k)
            np.testing.assert_allclose(one.logprobs, other.logprobs, atol=CLOSE)
            apart = (np.diff(other.logprobs, axis=-1) < -1e-3).all(-1)  # no two tokens could change places
            assert (one.ids[apart] == other.ids[apart]).all()
            assert k > 16 or apart.any() or not apart.size


def test_what_would_kill_the_server_never_reaches_it(engine: SglangEngine, model: Any) -> None:
    for ids in ([model.config.vocab_size], [-1], []):
        with pytest.raises(UsageError, match="vocabulary"):
            draw(engine, [GenerateRequest(ids, 1)], Sampling(max_new_tokens=4, stop_ids=()))
    limit = model.config.max_position_embeddings
    with pytest.raises(UsageError, match="does not fit the server"):
        draw(engine, [GenerateRequest([5] * limit, 1)], Sampling(max_new_tokens=8, stop_ids=()))
    with pytest.raises(UsageError, match="does not fit the server"):
        engine.score([ScoreRequest([5] * (limit + 8), 1)])
    assert len(draw(engine, [GenerateRequest(PROMPT, 1)], Sampling(max_new_tokens=4, stop_ids=()))[0].ids) == 4


@pytest.mark.parametrize("new_tokens", [1, 5, 500])
def test_the_models_whole_context_can_be_used(
    engine: SglangEngine, transformers: TransformersEngine, model: Any, new_tokens: int
) -> None:
    """SGLang keeps some positions of its context for itself; `vpgea serve` gives it a few more."""
    prompt = [5] * (model.config.max_position_embeddings - new_tokens)
    completion = draw(engine, [GenerateRequest(prompt, 1)], Sampling(max_new_tokens=new_tokens, stop_ids=()))[0]
    assert len(completion.ids) == new_tokens
    request = ScoreRequest([*prompt, *completion.ids.tolist()], len(prompt))
    np.testing.assert_allclose(engine.score([request])[0], transformers.score([request])[0], atol=CLOSE)


def test_what_on_tokens_raises_stops_the_server_too(engine: SglangEngine, server: ServerProcess) -> None:
    told: list[int] = []

    def on_tokens(count: int) -> None:
        told.append(count)
        if sum(told) > 20:
            raise KeyboardInterrupt

    requests = [GenerateRequest(PROMPT, seed, cap) for seed, cap in enumerate([4] * 8 + [400] * 60)]
    with pytest.raises(KeyboardInterrupt):
        list(engine.generate([requests], Sampling(max_new_tokens=400, stop_ids=()), on_tokens))
    servers.until(lambda: servers.load(server) == 0, 20, "the server has stopped what was abandoned")
    assert len(draw(engine, [GenerateRequest(PROMPT, 1)], Sampling(max_new_tokens=4, stop_ids=()))[0].ids) == 4


def test_batches_are_taken_as_there_is_room(engine: SglangEngine) -> None:
    taken: list[int] = []

    def batches() -> Iterator[list[GenerateRequest]]:
        for number in range(150):
            taken.append(number)
            yield requests_for(16)

    finished = 0
    for _ in engine.generate(batches(), Sampling(max_new_tokens=2, stop_ids=())):
        finished += 1
        if finished == 1:
            assert len(taken) < 150
    assert finished == 150 * 16


def test_rollouts_of_both_engines_hold_the_same_paths(config: RunConfig, engine: SglangEngine, tmp_path: Path) -> None:
    rollouts.run(config, tmp_path / "sglang")
    plain = config.model_copy(update={"sglang": config.sglang.model_copy(update={"server_url": None, "python": None})})
    rollouts.run(plain, tmp_path / "transformers")
    ours, theirs = rows_of(tmp_path / "sglang"), rows_of(tmp_path / "transformers")
    for name in ("question_id", "view", "sample_index", "seed", "prompt_ids", "completion_ids", "finish_reason"):
        assert [row[name] for row in ours] == [row[name] for row in theirs]
    assert {row["engine"] for row in ours} == {"sglang 0.5.23"}
    assert ({row["logprobs_of"] for row in ours}, {row["logprobs_of"] for row in theirs}) == (
        {"temperature"},
        {"sampler"},
    )
