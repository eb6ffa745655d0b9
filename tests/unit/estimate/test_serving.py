"""What an estimate says where an SGLang server samples and scores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from vpgea.config.resolve import resolve
from vpgea.config.schema import RunConfig
from vpgea.engines.sglang.server.command import cpu_pool_tokens
from vpgea.estimate.estimator import Estimator
from vpgea.estimate.hardware import NAMED
from vpgea.estimate.phases import memory_warning
from vpgea.estimate.serving import SERVER_PASS_S, STATIC_SHARE
from vpgea.filtering.cost import Paths
from vpgea.modeling.shape import ModelShape, published_shape

CARD = NAMED["1x H100 80GB"]
SHAPE: ModelShape = published_shape(
    {
        "model_type": "qwen2",
        "vocab_size": 1000,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
    },
    dtype_bytes=2,
)
KV = 2 * 4 * 2 * 32 * 2  # bytes of a token


def config_of(**dotted: Any) -> RunConfig:
    options = {"model.dtype": "bfloat16", "model.device": "cpu", "rollout.engine": "sglang"}
    return resolve(options=options | {key.replace("__", "."): value for key, value in dotted.items()}).config


def test_a_server_takes_its_share_of_a_card_for_weights_and_cache_and_leaves_the_rest() -> None:
    serving = Estimator(config_of(), SHAPE, CARD).serving
    assert serving is not None
    weights = 2 * SHAPE.parameters
    assert (serving.weights, serving.kv) == (weights, KV)
    assert serving.pool == int(STATIC_SHARE * 80e9) - weights
    memory = serving.memory(4096)
    assert memory["weights"] + memory["KV pool"] == pytest.approx(STATIC_SHARE * 80e9, rel=1e-6)
    assert sum(memory.values()) == pytest.approx(80e9, rel=1e-6)
    assert sum(memory.values()) <= CARD.memory_bytes


def test_what_a_server_holds_that_stays_counts_for_training() -> None:
    kept = {"sglang__keep_servers": True, "sglang__options": ["--mem-fraction-static", "0.25"]}
    prior, posterior = Paths(np.array([100]), np.array([900])), Paths(np.array([120]), np.array([300]))
    alone, beside = (
        Estimator(config_of(**options), SHAPE, CARD).distill(prior, posterior, posterior.end).memory
        for options in ({}, kept)
    )
    assert beside.pop("server that stays") == pytest.approx((0.25 + 1 - STATIC_SHARE) * 80e9, rel=1e-6)
    assert beside == alone


@pytest.mark.parametrize("options", [["--mem-fraction-static", "0.5"], ["--mem-fraction-static=0.5"]])
def test_a_share_that_is_given_to_the_server_counts(options: list[str]) -> None:
    serving = Estimator(config_of(sglang__options=options), SHAPE, CARD).serving
    assert serving is not None
    assert serving.pool + serving.weights == 40 * 10**9


def test_devices_of_one_server_share_weights_and_cache() -> None:
    serving = Estimator(config_of(sglang__options=["--tp", "2"]), SHAPE, CARD).serving
    assert serving is not None
    assert (serving.weights, serving.kv) == (SHAPE.parameters, KV // 2)


def test_a_sequence_that_finds_no_room_is_warned_of() -> None:
    prompts = np.full(4, 100)
    roomy, narrow = (
        Estimator(config_of(rollout__max_new_tokens=1000), SHAPE, replace(CARD, memory_bytes=memory)).rollout(
            prompts, prompts
        )
        for memory in (10**9, 7 * 10**6)
    )
    assert memory_warning(roomy, replace(CARD, memory_bytes=10**9)) is None
    warning = memory_warning(narrow, replace(CARD, memory_bytes=7 * 10**6))
    assert warning is not None
    assert "--tp 2" in warning


def test_time_is_that_of_as_many_sequences_as_fit() -> None:
    """Nothing but passes counts on a machine that multiplies and moves at once."""
    machine = replace(CARD, flops=1e30, bandwidth=1e30)
    prompts = np.full(400, 24)
    config = config_of(rollout__max_new_tokens=1000, rollout__prior_samples=1, rollout__posterior_samples=0)
    all_at_once = Estimator(config, SHAPE, machine)
    assert all_at_once.serving is not None
    assert all_at_once.serving.together(1024) == 1024, "no more than it is sent"
    steps = 1000 + -(-400 // config.rollout.batch_size)
    assert all_at_once.rollout(prompts, prompts).seconds == pytest.approx(steps * SERVER_PASS_S)
    hundred = replace(machine, memory_bytes=int((2 * SHAPE.parameters + 100.5 * 1024 * KV) / STATIC_SHARE))
    by_hundreds = Estimator(config, SHAPE, hundred).rollout(prompts, prompts)
    assert by_hundreds.seconds == pytest.approx((steps + 3000) * SERVER_PASS_S)


def test_on_a_cpu_the_pool_is_the_one_that_the_server_is_started_with() -> None:
    machine = replace(CARD, on_gpu=False, memory_bytes=16 << 30)
    serving = Estimator(config_of(), SHAPE, machine).serving
    assert serving is not None
    assert serving.pool == cpu_pool_tokens(config_of(), KV, 16 << 30) * KV <= 4 << 30
    assert serving.memory(100)["program"] > 0


def test_servers_behind_urls_and_transformers_are_estimated_as_before() -> None:
    assert Estimator(config_of(sglang__server_url="http://there:1"), SHAPE, CARD).serving is None
    assert Estimator(config_of(rollout__engine="transformers"), SHAPE, CARD).serving is None
