"""The growing cache and the attention that reads it: what transformers' own give, without their copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from vpgea.engines.base import Completion, GenerateRequest, Sampling, ScoreRequest
from vpgea.engines.cache import GrowingLayer, GrowingWindowLayer, require_cache, require_same_cached
from vpgea.engines.decoding import ATTENTION, attend
from vpgea.engines.transformers import TransformersEngine
from vpgea.errors import UsageError

WINDOW = 6
SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
# grouped heads; one head for all; every layer with a window; windows in turns, soft caps and heads of a size of their
# own; keys of another size than values
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "multi-query": ("qwen3", {"num_key_value_heads": 1, "head_dim": 12}),
    "mistral": ("mistral", {"sliding_window": WINDOW}),
    "gemma2": ("gemma2", {"sliding_window": WINDOW, "head_dim": 16}),
    "deepseek": ("deepseek_v2", {"num_key_value_heads": 4, "n_routed_experts": 2, "first_k_dense_replace": 2}),
}


def small_model(name: str) -> Any:
    torch.manual_seed(0)
    kind, options = ARCHITECTURES[name]
    config = AutoConfig.for_model(kind, **{**SIZES, **options})
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()


def draw(model: Any, requests: list[GenerateRequest]) -> list[Completion]:
    engine = TransformersEngine(model, batch_size=16)
    drawn = engine.generate([requests], Sampling(max_new_tokens=80, stop_ids=()))
    return [completion for _, _, completion in sorted(drawn, key=lambda found: found[1])]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_samples_are_those_of_transformers_own_cache_and_attention(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of several prompts, which leave at several lengths, some after the buffers have grown."""
    model = small_model(name)
    prompts = [[5, 6, 7], [9, 8, 7, 6, 5, 4, 3, 5, 8], [11]]
    caps = [80, 3, 80, 9, 9, 20, 20, 31, 80]
    requests = [
        GenerateRequest(prompts[index % 3], index * 0x9E3779B97F4A7C15 % 2**64, cap) for index, cap in enumerate(caps)
    ]
    ours = draw(model, requests)
    assert model.config._attn_implementation == ATTENTION
    scored = TransformersEngine(model, batch_size=4).score(
        [
            ScoreRequest([*request.prompt_ids, *completion.ids.tolist()], len(request.prompt_ids))
            for request, completion in zip(requests, ours, strict=True)
        ]
    )
    model.set_attn_implementation("sdpa")
    monkeypatch.setattr("vpgea.engines.transformers.growing_cache", lambda model: DynamicCache(config=model.config))
    monkeypatch.setattr("vpgea.engines.transformers.use_decoding_attention", lambda model: None)
    theirs = draw(model, requests)
    for our, their, scores in zip(ours, theirs, scored, strict=True):
        assert our.ids.tolist() == their.ids.tolist()
        np.testing.assert_allclose(our.logprobs, their.logprobs, atol=1e-5)
        np.testing.assert_allclose(our.logprobs, scores, atol=1e-4)


@pytest.mark.parametrize("window", [None, 3, 90])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_holds_what_transformers_layer_holds(window: int | None, dtype: torch.dtype) -> None:
    """Token by token and several at once, with rows that are repeated and leave."""
    ours: Any = GrowingLayer() if window is None else GrowingWindowLayer(window)
    theirs: Any = DynamicLayer() if window is None else DynamicSlidingWindowLayer(window)
    torch.manual_seed(0)
    rows, total = 2, 0
    for step, tokens in enumerate([7, *[1] * 150, 4, *[1] * 40]):
        keys, values = torch.randn(rows, 3, tokens, 4).to(dtype), torch.randn(rows, 3, tokens, 5).to(dtype)
        for one, other in zip(ours.update(keys, values), theirs.update(keys, values), strict=True):
            assert torch.equal(one, other)
        total += tokens
        assert ours.get_seq_length() == theirs.get_seq_length() == total
        assert ours.get_mask_sizes(1) == theirs.get_mask_sizes(1)
        if step in (0, 60, 120, 121):
            chosen = torch.tensor([0, 1, 1, 0, 1] if step == 0 else list(range(rows))[1:])
            ours.batch_select_indices(chosen)
            theirs.batch_select_indices(chosen)
            rows = len(chosen)
            assert torch.equal(ours.keys, theirs.keys)
            assert torch.equal(ours.values, theirs.values)


@pytest.mark.parametrize("layer", [GrowingLayer(), GrowingWindowLayer(8)])
def test_a_token_copies_nothing_that_stands_before_it(layer: Any) -> None:
    places = []
    for _ in range(1000):
        keys, _ = layer.update(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2))
        places.append(keys.untyped_storage().data_ptr())
    assert len(set(places)) < 1000 / 64 + 1, "a new buffer has room for 64 tokens at least"


@pytest.mark.parametrize("mask", ["none", "boolean", "additive"])
def test_heads_that_share_keys_attend_as_with_copies_of_them(mask: str) -> None:
    torch.manual_seed(0)
    module = torch.nn.Module()
    module.num_key_value_groups = 3  # type: ignore[assignment]
    query, key, value = torch.randn(4, 6, 1, 8), torch.randn(4, 2, 20, 8), torch.randn(4, 2, 20, 5)
    seen = torch.rand(4, 1, 1, 20) < 0.7
    given = {"none": None, "boolean": seen, "additive": torch.zeros(4, 1, 1, 20).masked_fill(~seen, -torch.inf)}[mask]
    ours, _ = attend(module, query, key, value, given, scaling=0.3, dropout=0.0)
    theirs, _ = sdpa_attention_forward(module, query, key, value, given, scaling=0.3, dropout=0.0)
    assert ours.shape == theirs.shape == (4, 1, 6, 5)
    torch.testing.assert_close(ours, theirs)


# LFM2 with its short convolutions; recurrent blocks; gated linear attention; a recurrent state in the model's own
# modules beside a cache of plain layers; compressed keys
KEEPING_MORE: dict[str, tuple[str, dict[str, Any]]] = {
    "lfm2": ("lfm2", {"layer_types": ["conv", "full_attention"]}),
    "mamba": ("mamba", {}),
    "qwen3_next": ("qwen3_next", {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}),
    "recurrent_gemma": ("recurrent_gemma", {"lru_width": 32, "attention_window_size": 8}),
    "deepseek_v4": ("deepseek_v4", {"head_dim": 16, "moe_intermediate_size": 16}),
}


@pytest.mark.parametrize("name", KEEPING_MORE)
def test_models_that_keep_more_than_keys_and_values_are_refused(name: str) -> None:
    kind, options = KEEPING_MORE[name]
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SIZES, **options}))
    _expect_refused(model)


@pytest.mark.parametrize("kind", ["jamba", "falcon_h1"])
def test_layers_with_a_recurrent_state_are_told_from_their_configuration(kind: str) -> None:
    """FalconH1's layers do have a way to drop rows, which leaves its recurrent state as it is."""
    model = torch.nn.Module()
    model.config = AutoConfig.for_model(kind)
    model.forward = lambda past_key_values: None
    _expect_refused(model)


def _expect_refused(model: Any) -> None:
    with pytest.raises(UsageError, match="rows could not leave a batch") as caught:
        require_cache(model)
    assert len(str(caught.value).splitlines()) == 3


def test_llama4_whose_decoder_is_another_is_refused_in_three_lines() -> None:
    torch.manual_seed(0)
    options = {"attention_chunk_size": 8, "head_dim": 8, "intermediate_size_mlp": 48, "num_local_experts": 2}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama4_text", **{**SIZES, **options}))
    with pytest.raises(UsageError, match="can neither be scored nor trained") as caught:
        TransformersEngine(model, batch_size=4)
    assert len(str(caught.value).splitlines()) == 3


def test_attention_that_chooses_among_equal_keys_is_refused_in_three_lines() -> None:
    """Doge keeps the keys of largest weight: beyond so many a token that comes again ties with itself."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("doge", **SIZES), attn_implementation="sdpa").eval()
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name), std=0.3)
    for refuse in (require_cache, require_same_cached):
        with pytest.raises(UsageError, match="doge do not compute token by token") as caught:
            refuse(model)
        assert len(str(caught.value).splitlines()) == 3
    assert {layer.self_attn.keep_window_size for layer in model.model.layers} == {2048}, "as before"


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_the_same_token_by_token_is_taken(name: str, dtype: torch.dtype) -> None:
    require_same_cached(small_model(name).to(dtype))


def test_a_cache_that_loses_a_token_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GrowingLayer, "update", lambda self, keys, values, *_: (keys, values))
    with pytest.raises(UsageError, match="llama do not compute token by token"):
        require_same_cached(small_model("llama"))


def test_a_layer_that_was_never_used_holds_no_rows() -> None:
    """As those of models whose later layers read an earlier one's keys."""
    for layer in (GrowingLayer(), GrowingWindowLayer(8)):
        layer.batch_select_indices(torch.tensor([0, 0]))
        assert layer.get_seq_length() == 0
