"""KL to the reference: exact from logits, k2 as a loss, k3 for the log only."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vpgea.objective import reference_kl
from vpgea.objective.vocabulary import vocabulary_sums

V = 6


def exact(logits: Tensor, reference: Tensor) -> Tensor:
    """As a function of logits, as a model gives them."""
    targets = torch.zeros(len(logits), dtype=torch.long)
    return vocabulary_sums(logits, targets, reference=reference).reference_kl


@pytest.fixture
def logits() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    policy, reference = (torch.randn(4, V, generator=generator, dtype=torch.float64) for _ in range(2))
    return policy.requires_grad_(), reference


def written_out(policy: Tensor, reference: Tensor) -> list[float]:
    rows = []
    for p_row, r_row in zip(policy.tolist(), reference.tolist(), strict=True):
        p_total, r_total = (sum(math.exp(value) for value in row) for row in (p_row, r_row))
        pairs = [(math.exp(p) / p_total, math.exp(r) / r_total) for p, r in zip(p_row, r_row, strict=True)]
        rows.append(sum(p * math.log(p / r) for p, r in pairs))
    return rows


def test_exact_value_and_gradient(logits: tuple[Tensor, Tensor]) -> None:
    policy, reference = logits
    found = exact(policy, reference)
    torch.testing.assert_close(found, torch.tensor(written_out(*logits), dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda x: exact(x, reference), (policy,))
    assert not exact(policy, policy.detach()).any()


def test_exact_leaves_the_reference_alone_and_survives_masked_entries(logits: tuple[Tensor, Tensor]) -> None:
    policy, reference = logits
    expected = exact(policy, reference)
    pad = torch.full((4, 2), float("-inf"), dtype=torch.float64)
    wide, wide_reference = (
        torch.cat([policy.detach(), pad], -1).requires_grad_(),
        torch.cat([reference, pad], -1).requires_grad_(),
    )
    found = exact(wide, wide_reference)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert wide_reference.grad is None
    assert wide.grad is not None
    assert wide.grad.isfinite().all()


def all_tokens(logits: Tensor) -> Tensor:
    """Log-probability of every token of one position: a sum weighted by probability is an exact mean."""
    return torch.log_softmax(logits, -1)


def test_k2_and_k3_have_the_right_and_the_wrong_gradient(logits: tuple[Tensor, Tensor]) -> None:
    policy, reference = logits[0][:1].detach().requires_grad_(), logits[1][:1]
    log_ref = all_tokens(reference)[0]

    def mean_gradient(loss: Tensor, log_pi: Tensor) -> Tensor:
        return torch.autograd.grad((log_pi.detach().exp() * loss).sum(), policy)[0]

    log_pi = all_tokens(policy)[0]
    (true,) = torch.autograd.grad(exact(policy, reference).sum(), policy)
    k2 = reference_kl.k2(log_pi, log_ref, log_pi.detach(), cap=2.0)
    torch.testing.assert_close(mean_gradient(k2, log_pi), true)

    log_pi = all_tokens(policy)[0]
    d = log_ref - log_pi
    as_a_loss = d.exp() - d - 1
    logged = reference_kl.k3(log_pi, log_ref)
    torch.testing.assert_close(logged, as_a_loss.detach())
    kl = exact(policy, reference).item()
    assert (log_pi.detach().exp() * logged).sum().item() == pytest.approx(kl, abs=1e-12)  # the right value
    wrong = mean_gradient(as_a_loss, log_pi)
    assert (wrong - true).abs().max() > 0.05
    (reverse,) = torch.autograd.grad((log_ref.exp() * (log_ref - all_tokens(policy)[0])).sum(), policy)
    torch.testing.assert_close(wrong, reverse)  # it is the other direction's
    assert not logged.requires_grad


def test_k2_value_weights_and_gradient() -> None:
    current = torch.tensor([-1.0, -0.5, -3.0], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([-1.5, -0.5, -1.0], dtype=torch.float64)
    sampler = torch.tensor([-1.2, -4.0, -2.5], dtype=torch.float64)
    weights = [math.exp(0.2), 2.0, math.exp(-0.5)]
    found = reference_kl.k2(current, reference, sampler, cap=2.0)
    expected = [w * 0.5 * d**2 for w, d in zip(weights, [0.5, 0.0, -2.0], strict=True)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(found.sum(), current)
    expected = [w * d for w, d in zip(weights, [0.5, 0.0, -2.0], strict=True)]  # none through the weight
    torch.testing.assert_close(gradient, torch.tensor(expected, dtype=torch.float64))


def test_old_samples_are_corrected_by_the_weights(logits: tuple[Tensor, Tensor]) -> None:
    """Tokens from another sampler: with a cap that never binds, k2's mean gradient is still that of the KL."""
    policy, reference = logits[0][:1].detach().requires_grad_(), logits[1][:1]
    log_pi, log_ref, log_sampler = all_tokens(policy)[0], all_tokens(reference)[0], all_tokens(logits[0][1:2])[0]
    loss = reference_kl.k2(log_pi, log_ref, log_sampler, cap=1e9)
    (found,) = torch.autograd.grad((log_sampler.detach().exp() * loss).sum(), policy)
    (true,) = torch.autograd.grad(exact(policy, reference).sum(), policy)
    torch.testing.assert_close(found, true)


def test_low_precision_is_reduced_in_float32(logits: tuple[Tensor, Tensor]) -> None:
    low = [value.detach().bfloat16() for value in logits]
    assert exact(low[0], low[1]).dtype == torch.float32
    assert reference_kl.k2(low[0][:, 0], low[1][:, 0], low[0][:, 0], cap=2.0).dtype == torch.float32
