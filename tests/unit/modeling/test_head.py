"""The head in chunks gives the loss and every gradient of the head at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from vpgea.modeling import head as module
from vpgea.modeling.head import chunked_sum, chunks, logit_pieces
from vpgea.modeling.policy import BASE, Policy
from vpgea.objective.vocabulary import vocabulary_sums

T, H, V = 23, 6, 11


@pytest.fixture(params=[(1, 1), (4, 4), (8, 3), (100, 100)], ids=str)
def small_chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a chunk, and rows of it that go through the terms together."""
    rows, together = request.param
    monkeypatch.setattr(module, "CHUNK_LOGITS", rows * V)
    monkeypatch.setattr(module, "SLICE_LOGITS", together * V)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def terms_of(targets: Tensor, weights: Tensor) -> Callable[[Sequence[Tensor], slice], Tensor]:
    """Every kind of sum over the vocabulary, each with a weight of its own per token; two frozen models."""

    def terms(logits: Sequence[Tensor], rows: slice) -> Tensor:
        sums = vocabulary_sums(logits[0], targets[rows], teacher=logits[1], reference=logits[2])
        w = weights[rows]
        return (w[:, 0] * sums.logprobs + w[:, 1] * sums.guided + w[:, 2] * sums.reference_kl).sum()

    return terms


def plain(logits: Tensor, teacher: Tensor, reference: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The same, as the formulas stand, through autograd."""
    log_pi, log_q, log_ref = (one.log_softmax(-1) for one in (logits, teacher, reference))
    logprobs = log_pi[torch.arange(len(targets)), targets]
    sums = (logprobs, (log_q.exp() * log_pi).sum(-1), (log_pi.exp() * (log_pi - log_ref)).sum(-1))
    return (torch.stack(sums, -1) * weights).sum()


@pytest.mark.usefixtures("small_chunks")
def test_value_and_gradients_are_those_of_the_whole() -> None:
    hidden, weight, bias = normal(T, H).requires_grad_(), normal(V, H, seed=1).requires_grad_(), normal(V, seed=2)
    bias.requires_grad_()
    teacher, reference = normal(V, H, seed=3), normal(V, H, seed=4)
    targets, weights = torch.arange(T) % V, normal(T, 3, seed=5)
    weights[5:9] = 0  # tokens without any weight
    scale = 0.37

    states = hidden.detach()  # of the frozen roles
    expected = scale * plain(hidden @ weight.T + bias, states @ teacher.T, states @ reference.T, targets, weights)
    found = scale * chunked_sum(
        terms_of(targets, weights),
        lambda rows: torch.nn.functional.linear(rows, weight, bias),
        hidden,
        [weight, bias],
        [(lambda rows: rows @ teacher.T, states), (lambda rows: rows @ reference.T, states)],
    )
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        torch.autograd.grad(found, (hidden, weight, bias)),
        torch.autograd.grad(expected, (hidden, weight, bias)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-10)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("tie", [True, False])
def test_tied_embeddings_and_an_adapter_on_the_head(tie: bool) -> None:
    """Through a whole model: the embedding gets both gradients, the head's adapter its own, its base none."""
    import peft

    from tests.unit.modeling.test_packing import make

    model = make("gpt_neox", vocab_size=V, tie_word_embeddings=tie).double()
    head = "embed_out" if hasattr(model, "embed_out") else "lm_head"
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=3, target_modules=[head, "query_key_value"])).double()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    model.get_input_embeddings().weight.requires_grad_()  # as in full fine-tuning, together with the adapter
    policy = Policy(adapted, packing=False).eval()
    ids, starts = [[1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 1, 2]], [2, 1]
    targets = torch.tensor([token for one, start in zip(ids, starts, strict=True) for token in one[start:]])
    weights = normal(len(targets), 3, seed=5)
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    assert any(f"{head}.lora" in name for name in trained)

    def loss(chunked: bool) -> Tensor:
        def use(hidden: Tensor) -> Tensor:
            frozen = [(lambda rows: policy.logits(rows, adapter=BASE), hidden.detach())] * 2
            if chunked:
                return chunked_sum(terms_of(targets, weights), policy.logits, hidden, policy.head_weights, frozen)
            with torch.no_grad():
                base = policy.logits(hidden, adapter=BASE)
            return plain(policy.logits(hidden), base, base, targets, weights)

        return policy(ids, starts, use)

    found, expected = loss(True), loss(False)
    torch.testing.assert_close(found, expected)
    pairs = zip(*(torch.autograd.grad(one, list(trained.values())) for one in (found, expected)), strict=True)
    for name, (one, other) in zip(trained, pairs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-8, msg=name)


@pytest.mark.usefixtures("small_chunks")
def test_bfloat16_weights_are_reduced_in_float32() -> None:
    """Sums over vocabulary and chunks keep float32's precision: only logits and gradients are rounded."""
    hidden, weight = normal(T, H).bfloat16().requires_grad_(), normal(V, H, seed=1).bfloat16().requires_grad_()
    teacher, targets, weights = normal(V, H, seed=3).bfloat16(), torch.arange(T) % V, normal(T, 3, seed=5).float()
    states = hidden.detach()
    found = chunked_sum(
        terms_of(targets, weights),
        lambda rows: rows @ weight.T,
        hidden,
        [weight],
        [(lambda rows: rows @ teacher.T, states)] * 2,
    )
    assert found.dtype == torch.float32
    rounded = (states @ weight.detach().T).double(), (states @ teacher.T).double()
    expected = plain(rounded[0], rounded[1], rounded[1], targets, weights.double())
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-5)
    gradient = torch.autograd.grad(found, (hidden, weight))
    assert [one.dtype for one in gradient] == [torch.bfloat16] * 2
    wide = hidden.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    exact = plain(wide[0] @ wide[1].T, rounded[1], rounded[1], targets, weights.double())
    for one, other in zip(gradient, torch.autograd.grad(exact, wide), strict=True):
        torch.testing.assert_close(one.double(), other, atol=0.03 * float(other.abs().max()), rtol=0.05)


def test_gradients_of_the_vocabulary_sums_in_closed_form() -> None:
    logits, targets = normal(5, V).requires_grad_(), torch.arange(5)
    teacher, reference = normal(5, V, seed=1), normal(5, V, seed=2)

    def all_sums(values: Tensor) -> Tensor:
        sums = vocabulary_sums(values, targets, teacher, reference)
        return torch.stack([sums.logprobs, sums.guided, sums.reference_kl])

    assert torch.autograd.gradcheck(all_sums, (logits,))
    sums = vocabulary_sums(logits, targets, teacher, reference, with_entropy=True)
    log_pi, log_q, log_ref = (one.detach().log_softmax(-1) for one in (logits, teacher, reference))
    torch.testing.assert_close(sums.entropy, -(log_pi.exp() * log_pi).sum(-1))
    torch.testing.assert_close(sums.teacher, (log_q.exp() * log_q).sum(-1))
    torch.testing.assert_close(sums.reference_logprobs, log_ref[torch.arange(5), targets])
    assert not any(one.requires_grad for one in (sums.entropy, sums.teacher, sums.reference_logprobs))


def test_masked_entries_count_nothing() -> None:
    mask = torch.full((5, 3), float("-inf"), dtype=torch.float64)
    narrow = [normal(5, V, seed=seed) for seed in range(3)]
    wide = [torch.cat([one, mask], -1) for one in narrow]
    wide[0].requires_grad_()
    expected = vocabulary_sums(narrow[0], torch.arange(5), *narrow[1:], with_entropy=True)
    found = vocabulary_sums(wide[0], torch.arange(5), *wide[1:], with_entropy=True)
    for name in ("logprobs", "guided", "reference_kl", "teacher", "reference_logprobs", "entropy"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))
    (gradient,) = torch.autograd.grad((found.logprobs + found.guided + found.reference_kl).sum(), wide[0])
    assert gradient.isfinite().all()
    assert not gradient[:, V:].any()


def test_only_a_chunk_of_logits_exists_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_LOGITS", 4 * V)
    seen: list[int] = []

    def head(rows: Tensor) -> Tensor:
        seen.append(len(rows))
        return rows @ normal(V, H).T

    def terms(logits: Sequence[Tensor], rows: slice) -> Tensor:
        return logits[0].square().sum()

    chunked_sum(terms, head, normal(T, H).requires_grad_(), [])
    list(logit_pieces(head, normal(T, H)))
    assert max(seen) == 4
    assert sum(seen) == 2 * (T + 1)  # one row each to see the size of the vocabulary


def test_chunks_cover_all_rows_and_one_row_always_fits() -> None:
    def sizes(*arguments: Any) -> list[int]:
        return [part.stop - part.start for part in chunks(*arguments)]

    assert sizes(10, 100, 300) == [3, 3, 3, 1]
    assert sizes(3, 100, 1) == [1, 1, 1]
    assert sizes(0, 100, 300) == [0]
