"""Packed sequences give what each gives alone, forward and backward, whatever the architecture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vpgea.errors import UsageError
from vpgea.modeling import packing
from vpgea.modeling.packing import ATTENTION, attend, pack, packed_attention
from vpgea.modeling.policy import Policy, checked_policy

V = 203
# Architectures with what differs: grouped heads, norms of queries and keys, windows, caps and scales behind the head.
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "mistral": {"sliding_window": 6},
    "gemma2": {"head_dim": 16, "sliding_window": 6, "final_logit_softcapping": 3.0},
    "gemma3_text": {"head_dim": 16, "sliding_window": 6},
    "cohere": {"logit_scale": 0.3},
    "granite": {"logits_scaling": 3.0},
    "gpt_neox": {},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4},
    "olmo2": {},
}
LENGTHS = (9, 40, 38, 5, 37, 2, 40, 39)
STARTS = (3, 7, 1, 2, 30, 1, 39, 12)


def make(kind: str, **options: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind,
        **{
            "vocab_size": V,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "initializer_range": 0.2,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "pad_token_id": 0,
            **MODELS.get(kind, {}),
            **options,
        },
    )
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()


def sequences() -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(5, V, (length,), generator=generator).tolist() for length in LENGTHS]


def run(model: Any, use: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits of all wanted tokens and the gradient of an uneven sum of their squares."""
    model.zero_grad()
    logits = use()
    (logits.double().square().mean(-1) * torch.arange(1, len(logits) + 1)).sum().backward()
    return logits.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def alone(model: Any) -> Tensor:
    """Each sequence by itself through the model's own forward pass."""
    parts = zip(sequences(), STARTS, strict=True)
    return torch.cat([model(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1] for ids, start in parts])


@pytest.mark.parametrize("kind", MODELS)
def test_packed_sequences_are_computed_as_each_alone(kind: str) -> None:
    model = make(kind)
    expected, gradient = run(model, lambda: alone(model))
    policy = checked_policy(model, packing=True)
    with packed_attention(model):
        found, other = run(model, lambda: policy(sequences(), STARTS, policy.logits))
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    assert gradient.keys() == other.keys()
    for name, one in gradient.items():
        torch.testing.assert_close(other[name], one, atol=1e-5 * float(one.abs().max()) + 1e-7, rtol=1e-3), name
    assert model.config._attn_implementation == "sdpa"


def test_a_window_that_packing_would_lose_is_found_whatever_its_width() -> None:
    moe = {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
    }
    model = make("qwen2_moe", use_sliding_window=True, sliding_window=4096, max_window_layers=2, **moe)
    with pytest.raises(UsageError, match="cannot take packed sequences"):
        checked_policy(model, packing=True)
    assert model.config.sliding_window == 4096
    checked_policy(model, packing=False)
    checked_policy(make("qwen2_moe", use_sliding_window=False, **moe), packing=True)


def test_in_float64_nothing_is_left_of_the_difference() -> None:
    model = make("gpt_neox").double()
    expected, gradient = run(model, lambda: alone(model))
    policy = Policy(model, packing=True)
    with packed_attention(model):
        found, other = run(model, lambda: policy(sequences(), STARTS, policy.logits))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    for name, one in gradient.items():
        torch.testing.assert_close(other[name], one, atol=1e-9, rtol=0)


def test_padded_batches_are_the_same_too() -> None:
    model = make("qwen2")
    policy = checked_policy(model, packing=False)
    found = policy(sequences(), STARTS, policy.logits)
    torch.testing.assert_close(found, alone(model), atol=2e-5, rtol=1e-4)


def test_one_sequence_does_not_see_another() -> None:
    model = make("llama")
    policy, own = Policy(model, packing=True), sequences()
    changed = [[7] * len(ids) if index != 2 else ids for index, ids in enumerate(own)]
    with packed_attention(model), torch.no_grad():
        hidden = [policy(ids, STARTS, lambda hidden: hidden) for ids in (own, changed)]
    lengths = [length - start for length, start in zip(LENGTHS, STARTS, strict=True)]
    before, after = (one.split(lengths)[2] for one in hidden)
    torch.testing.assert_close(before, after, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(hidden[0].split(lengths)[1], hidden[1].split(lengths)[1], atol=1e-3)


def test_similar_lengths_share_a_call_and_long_ones_do_not() -> None:
    packed = pack([[1] * length for length in (100, 6000, 80, 10, 5000, 90)], [1] * 6, torch.device("cpu"))
    assert packed.groups == ((6000,), (5000,), (100, 90, 80), (10,))
    assert packed.ids.shape == (1, sum(map(sum, packed.groups)))
    assert packed.position_ids[0, :6000].equal(torch.arange(6000))


@pytest.mark.parametrize("window", [None, 3, 1])
@pytest.mark.parametrize("groups", [((5, 4, 4), (2,)), ((4, 4),), ((9,),)])
def test_attention_and_its_gradient_in_float64(
    groups: tuple[tuple[int, ...], ...], window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "WINDOW_QUERIES", 2)  # long sequences are attended to piece by piece

    class Layer:
        num_key_value_groups = 2
        is_causal = True

    length = sum(map(sum, groups))
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, heads, length, 4, generator=generator, dtype=torch.float64).requires_grad_()
        for heads in (4, 2, 2)
    )
    mask, start = torch.zeros(length, length, dtype=torch.bool), 0
    for size in (size for group in groups for size in group):
        seen = torch.ones(size, size, dtype=torch.bool).tril()
        mask[start : start + size, start : start + size] = seen if window is None else seen.triu(1 - window)
        start += size
    wide_key, wide_value = (one.repeat_interleave(2, 1) for one in (key, value))
    expected = torch.nn.functional.scaled_dot_product_attention(query, wide_key, wide_value, attn_mask=mask)
    expected = expected.transpose(1, 2)
    found = attend(Layer(), query, key, value, None, packed=groups, sliding_window=window)[0]
    torch.testing.assert_close(found, expected)
    weights = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    for one, other in zip(
        torch.autograd.grad((found * weights).sum(), (query, key, value)),
        torch.autograd.grad((expected * weights).sum(), (query, key, value)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_a_window_needs_memory_for_its_own_width_and_not_for_the_square_of_the_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    masks = []

    def attended(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **_: Any) -> tuple[Tensor, None]:
        masks.append(mask.numel())
        return query.transpose(1, 2), None

    monkeypatch.setattr(packing, "sdpa_attention_forward", attended)
    rows = torch.zeros(1, 1, 32768, 1)
    attend(None, rows, rows, rows, None, packed=((32768,),), sliding_window=4096)
    assert len(masks) == 32
    assert max(masks) <= 1024 * (1024 + 4096)


def test_a_model_with_state_between_tokens_is_refused_with_the_way_out() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    config = MambaConfig(
        vocab_size=V, hidden_size=16, num_hidden_layers=1, initializer_range=0.5, bos_token_id=0, eos_token_id=0
    )
    model = MambaForCausalLM(config).eval()
    with pytest.raises(UsageError, match="cannot take packed sequences") as error:
        checked_policy(model, packing=True)
    assert "distill.packing=false" in error.value.mend
    assert checked_policy(model, packing=False).vocabulary == V


def test_a_head_that_does_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("llama", tie_word_embeddings=False)
    forward = type(model).forward

    def shifted(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = forward(self, *args, **kwargs)
        output.logits = output.logits + 1.5 * output.logits.roll(1, -1)
        return output

    monkeypatch.setattr(type(model), "forward", shifted)
    with pytest.raises(UsageError, match="cannot be trained"):
        checked_policy(model, packing=False)


def test_the_attention_is_known_to_transformers_by_its_name() -> None:
    from transformers import AttentionInterface

    assert AttentionInterface()[ATTENTION] is attend
