"""Answers of a server that is another version, somebody else's, or none: one error of the engine, in three lines."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import tiny
from tests.support.fake_sglang import FakeSglang
from vpgea.config.resolve import resolve
from vpgea.engines.base import GenerateRequest, Sampling, ScoreRequest
from vpgea.engines.sglang.traffic.engine import SglangEngine
from vpgea.errors import EngineError, VpgeaError
from vpgea.modeling.local_model import LocalModel
from vpgea.runs.stopping import StopRequest

CALLS = ("/model_info", "/server_info", "/v1/models", "/v1/loads", "/generate")
NOT_JSON = {
    "html": b"<html>502 Bad Gateway</html>",
    "nothing": b"",
    "bytes": b"\xff\xfe{",
    "null": b"null",
    "list": b"[1, 2]",
    "number": b"7",
    "deep": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "cut short": b'{"meta_info": {"finish_reason": ',
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    folder = tiny.make_model(tmp_path_factory.mktemp("model"))
    return LocalModel.resolve(resolve(options={"model.path": str(folder)}).config.model)


@pytest.fixture
def fake(model: LocalModel) -> Iterator[FakeSglang]:
    with FakeSglang(model.fingerprint, stop_id=2).running() as fake:
        yield fake


def opened(fake: FakeSglang, model: LocalModel, tmp_path: Path) -> SglangEngine:
    options = {"model.path": str(model.folder), "sglang.server_url": fake.url}
    times = {"sglang.patience_s": 30.0, "sglang.stall_timeout_s": 30.0, "sglang.request_timeout_s": 60.0}
    return SglangEngine(resolve(options=options | times).config, model, stop=StopRequest())


def used(fake: FakeSglang, model: LocalModel, tmp_path: Path) -> tuple[list[int], list[float], list[int]]:
    """A completion's ids, a sequence's scores and its likeliest tokens."""
    engine = opened(fake, model, tmp_path)
    try:
        sampling = Sampling(max_new_tokens=20, stop_ids=(2,))
        [(_, _, completion)] = engine.generate([[GenerateRequest([4, 5], 1)]], sampling)
        request = ScoreRequest([4, 5, 6, 7], 2)
        return (
            completion.ids.tolist(),
            engine.score([request])[0].tolist(),
            engine.top_logprobs([request], 2)[0].ids[0].tolist(),
        )
    finally:
        engine.close()


def test_an_answer_as_it_should_be(fake: FakeSglang, model: LocalModel, tmp_path: Path) -> None:
    assert used(fake, model, tmp_path) == ([5, 6, 7, 8, 9, 2], [-1.0, -1.0], [5, 6])
    fake.changes["/generate"] = lambda answer: answer | {"a field of the next version": [1]}
    fake.changes["/server_info"] = lambda answer: answer | {"max_lora_rank": None, "new": {}}
    assert used(fake, model, tmp_path)[0] == [5, 6, 7, 8, 9, 2]


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize("content", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_no_answer_is_the_engines_error(
    path: str, content: bytes, fake: FakeSglang, model: LocalModel, tmp_path: Path
) -> None:
    fake.changes[path] = lambda _: content
    with pytest.raises(EngineError) as error:
        used(fake, model, tmp_path)
    assert error.value.what == f"{fake.url} answers {path} as no SGLang server does"
    assert error.value.exit_code == 4
    assert "\n" not in error.value.why


def with_value(answer: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(answer) if isinstance(answer, dict) else list(answer)
    copy[path[0]] = with_value(answer[path[0]], path[1:], value)
    return copy


READ: list[tuple[str, tuple[Any, ...]]] = [  # (call, place of a field that something is made of)
    *(("/v1/loads", ("loads", 0, name)) for name in ("num_running_reqs", "token_usage", "max_total_num_tokens")),
    *(("/v1/loads", place) for place in (("loads",), ("loads", 0), ("version",))),
    *(("/v1/models", place) for place in (("data",), ("data", 0), ("data", 0, "max_model_len"))),
    *(("/model_info", place) for place in (("architectures",), ("model_path",), ("weight_version",))),
]


@pytest.mark.parametrize(("path", "place"), READ)
@pytest.mark.parametrize("odd", [{"a": 1}, "many", [[]], -1.5])
def test_a_field_of_another_kind_is_the_engines_error(
    path: str, place: tuple[Any, ...], odd: Any, fake: FakeSglang, model: LocalModel, tmp_path: Path
) -> None:
    if isinstance(odd, str) and place[-1] in ("version", "model_path", "weight_version"):
        return  # a text is what stands there
    if odd == -1.5 and place[-1] == "token_usage":
        return  # a number is what stands there
    fake.changes[path] = lambda answer: with_value(answer, place, odd)
    with pytest.raises(EngineError):
        used(fake, model, tmp_path)


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no meta_info": lambda a: {"output_ids": a["output_ids"]},
    "meta_info is a list": lambda a: a | {"meta_info": [1]},
    "finish_reason is text": lambda a: changed(a, finish_reason="stop"),
    "finish_reason is null": lambda a: changed(a, finish_reason=None),
    "finish_reason without a type": lambda a: changed(a, finish_reason={}),
    "ended for no known reason": lambda a: changed(a, finish_reason={"type": "error"}),
    "weight_version is a number": lambda a: changed(a, weight_version=3),
    "weight_versions are texts": lambda a: changed(a, weight_versions=["x"]),
    "cached_tokens is text": lambda a: changed(a, cached_tokens="many"),
    "cached_tokens is negative": lambda a: changed(a, cached_tokens=-1),
    "no log-probabilities": lambda a: changed(a, output_token_logprobs=None),
    "entries are numbers": lambda a: changed(a, output_token_logprobs=[-1.0] * 6),
    "entries are short": lambda a: changed(a, output_token_logprobs=[[-1.0]] * 6),
    "a log-probability is text": lambda a: with_entry(a, 0, "a"),
    "a log-probability is null": lambda a: with_entry(a, 0, None),
    "a log-probability is positive": lambda a: with_entry(a, 0, 50.0),
    "a log-probability is infinite": lambda a: with_entry(a, 0, float("-inf")),
    "a log-probability is not a number": lambda a: with_entry(a, 0, float("nan")),
    "an id is text": lambda a: with_entry(a, 1, "x"),
    "an id is broken": lambda a: with_entry(a, 1, 5.5),
    "an id is true": lambda a: with_entry(a, 1, True),
    "an id is negative": lambda a: with_entry(a, 1, -1),
    "an id is beyond the vocabulary": lambda a: with_entry(a, 1, 10**6),
    "an id is beyond 64 bits": lambda a: with_entry(a, 1, 2**70),
    "ids are other than named": lambda a: a | {"output_ids": [5] * 6},
    "nothing was sampled": lambda a: changed(a, output_token_logprobs=[]) | {"output_ids": []},
    "longer than was asked for": lambda a: repeated(a, [5] * 30 + [2]),
    "it goes on after a stop id": lambda a: repeated(a, [5, 2, 6, 2]),
}


def changed(answer: dict[str, Any], **meta: Any) -> dict[str, Any]:
    return answer | {"meta_info": answer["meta_info"] | meta}


def with_entry(answer: dict[str, Any], column: int, value: Any) -> dict[str, Any]:
    """The first token's entry with another log-probability (0) or id (1)."""
    entries = [list(entry) for entry in answer["meta_info"]["output_token_logprobs"]]
    entries[0][column] = value
    return changed(answer, output_token_logprobs=entries) | {"output_ids": [entry[1] for entry in entries]}


def repeated(answer: dict[str, Any], ids: list[int]) -> dict[str, Any]:
    return changed(answer, output_token_logprobs=[[-0.5, token, None] for token in ids]) | {"output_ids": ids}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_completion_that_cannot_be_right_is_the_engines_error(
    change: Callable[[dict[str, Any]], Any], fake: FakeSglang, model: LocalModel, tmp_path: Path
) -> None:
    fake.changes["/generate"] = change
    with pytest.raises(EngineError) as error:
        used(fake, model, tmp_path)
    assert "\n" not in f"{error.value.what}{error.value.why}"


@pytest.mark.parametrize("value", [None, "a", 3.0, float("nan")])
def test_a_score_that_cannot_be_right_is_the_engines_error(
    value: Any, fake: FakeSglang, model: LocalModel, tmp_path: Path
) -> None:
    def change(answer: dict[str, Any]) -> Any:
        meta = answer["meta_info"]
        if "input_token_logprobs" not in meta:
            return answer
        entries = [list(entry) for entry in meta["input_token_logprobs"]]
        entries[-1][0] = value
        return changed(answer, input_token_logprobs=entries)

    fake.changes["/generate"] = change
    with pytest.raises(EngineError):
        used(fake, model, tmp_path)


def test_a_limit_of_ones_own_is_no_fault_of_the_server(
    fake: FakeSglang, model: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The soft limit is raised as far as it goes; what then fits is sent at a time; with too little it is said."""
    limits = [(64, 4096)]

    def set_limit(_: int, new: tuple[int, int]) -> None:
        limits.append(new)

    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    opened(fake, model, tmp_path).close()
    assert limits[-1] == (3072, 4096)
    limits.append((8, 8))
    with pytest.raises(VpgeaError, match="too few files may be open") as error:
        opened(fake, model, tmp_path)
    assert "ulimit -n" in error.value.mend


@pytest.mark.parametrize("most", [3, 1])  # fewer than a request and a call to each server: one request all the same
def test_more_requests_than_descriptors_are_sent_in_turns(
    most: int, fake: FakeSglang, model: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vpgea.engines.sglang.traffic.engine.descriptors", lambda wanted: most)
    engine = opened(fake, model, tmp_path)
    try:
        requests = [GenerateRequest([4, 5], seed, group="one") for seed in range(40)]
        drawn = list(engine.generate([requests], Sampling(max_new_tokens=20, stop_ids=(2,))))
    finally:
        engine.close()
    assert len(drawn) == 40
    assert all(np.isfinite(completion.logprobs).all() for _, _, completion in drawn)
    assert fake.most_at_once <= most
