"""The clipped surrogate against the formula written out, and its gradient by enumeration."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vpgea.config.filtering import AdvantageConfig
from vpgea.filtering.utility import baseline, prior_advantages
from vpgea.objective.normalisers import Normalisers
from vpgea.objective.policy_gradient import credited, mismatch_weight, surrogate

LOW, HIGH, DUAL = 0.2, 0.28, 3.0


def f64(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def f(logprobs: Tensor, old: Tensor, advantages: Tensor, weights: Tensor) -> Tensor:
    return surrogate(logprobs, old, advantages, weights, clip_low=LOW, clip_high=HIGH, dual_clip=DUAL)


def written_out(rho: float, a: float) -> float:
    value = min(rho * a, min(max(rho, 1 - LOW), 1 + HIGH) * a)
    return max(value, DUAL * a) if a < 0 else value


RATIOS = [0.1, 0.79, 0.81, 1.0, 1.27, 1.3, 2.9, 3.1, 50.0]


@pytest.mark.parametrize("advantage", [-1.5, -0.2, 0.0, 0.7])
def test_values_agree_with_the_formula(advantage: float) -> None:
    old = f64([-1.0] * len(RATIOS))
    weights = torch.linspace(0.5, 2, len(RATIOS), dtype=torch.float64)
    found = f(old + f64(RATIOS).log(), old, torch.full_like(old, advantage), weights)
    torch.testing.assert_close(found, weights * f64([written_out(rho, advantage) for rho in RATIOS]))


@pytest.mark.parametrize("advantage", [-1.5, 0.7])
def test_gradients(advantage: float) -> None:
    old = f64([-1.0] * len(RATIOS))
    logprobs = (old + f64(RATIOS).log()).requires_grad_()
    advantages, weights = torch.full_like(old, advantage), torch.full_like(old, 0.9)
    assert torch.autograd.gradcheck(lambda x: f(x, old, advantages, weights), (logprobs,))
    (gradient,) = torch.autograd.grad(f(logprobs, old, advantages, weights).sum(), logprobs)
    open_range = [rho >= 0.8 and rho < DUAL if advantage < 0 else rho <= 1.28 for rho in RATIOS]
    expected = [0.9 * advantage * rho if inside else 0.0 for rho, inside in zip(RATIOS, open_range, strict=True)]
    torch.testing.assert_close(gradient, f64(expected))


def test_first_step_is_the_plain_policy_gradient() -> None:
    logprobs, advantages = f64([-0.5, -2.0]).requires_grad_(), f64([1.2, -0.4])
    (gradient,) = torch.autograd.grad(f(logprobs, logprobs.detach(), advantages, torch.ones(2)).sum(), logprobs)
    torch.testing.assert_close(gradient, advantages)


def test_equal_utilities_give_exactly_zero_gradient() -> None:
    u = [0.1 * 3] * 4  # a value whose mean is not exact in floating point
    config = AdvantageConfig()
    advantages = torch.from_numpy(prior_advantages(u, [True] * 4, baseline(u, config), config))
    logprobs = f64([-0.5, -2.0, -1.0, -30.0]).requires_grad_()
    loss = -f(logprobs, logprobs.detach() - 0.3, advantages, torch.ones(4)).sum() * Normalisers(1, 0, 0.0, 4).pg_scale
    loss.backward()
    assert loss.item() == 0
    assert logprobs.grad is not None
    assert not logprobs.grad.any()


def test_extreme_ratios_stay_finite() -> None:
    logprobs = f64([0.0, 0.0, -2000.0, -2000.0]).requires_grad_()
    old = f64([-2000.0, -2000.0, 0.0, 0.0])
    value = f(logprobs, old, f64([1, -1, 1, -1]), torch.ones(4))
    torch.testing.assert_close(value.detach(), f64([1.28, -3, 0, -0.8]))
    value.sum().backward()
    assert logprobs.grad is not None
    assert not logprobs.grad.any()


def test_mismatch_weight_is_capped_and_detached() -> None:
    old = f64([-1.0, -1.0, -1.0]).requires_grad_()
    found = mismatch_weight(old, old.detach() + f64([0.5, -0.1, -5.0]), 2.0)
    torch.testing.assert_close(found, f64([math.exp(-0.5), math.exp(0.1), 2.0]))
    assert not found.requires_grad


def test_only_the_policy_carries_a_gradient() -> None:
    inputs = [f64([-1.0, -2.0]).requires_grad_() for _ in range(4)]
    f(*inputs).sum().backward()
    assert [value.grad is not None for value in inputs] == [True, False, False, False]


def test_masked_tokens_and_low_precision() -> None:
    logprobs = torch.tensor([-1.0, -2.0], dtype=torch.bfloat16, requires_grad=True)
    value = f(logprobs, logprobs.detach(), torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0]))
    assert value.dtype == torch.float32
    assert value.tolist() == [1, 0]


def test_loss_does_not_depend_on_how_the_batch_is_cut() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = [3, 9, 1, 5, 5, 2, 7, 4]
    weight = torch.randn(6, 6, generator=generator, dtype=torch.float64).requires_grad_()
    ids = [torch.randint(6, (length + 1,), generator=generator) for length in lengths]
    advantages = torch.randn(8, generator=generator, dtype=torch.float64)
    scale = Normalisers(2, 4, 1.0, sum(lengths)).pg_scale

    def run(size: int) -> tuple[float, Tensor]:
        total = 0.0
        weight.grad = None
        for start in range(0, 8, size):
            rows = range(start, start + size)
            logp = torch.cat([torch.log_softmax(weight, -1)[ids[row][:-1], ids[row][1:]] for row in rows])
            a = torch.cat([advantages[row].expand(lengths[row]) for row in rows])
            loss = -f(logp, logp.detach() - 0.1, a, torch.ones_like(a)).sum() * scale
            loss.backward()
            total += loss.item()
        assert weight.grad is not None
        return total, weight.grad.clone()

    expected, gradient = run(8)
    for size in (4, 2):
        found, other = run(size)
        assert found == pytest.approx(expected, abs=1e-13)
        torch.testing.assert_close(other, gradient, atol=1e-13, rtol=0)


def test_credit_is_the_clipped_ratio_of_the_views_in_the_direction_of_the_advantage() -> None:
    ratios = [0.5, 0.9, 1.0, 1.1, 3.0]
    teacher, old = f64([-1.0] * 5).requires_grad_(), (f64([-1.0] * 5) - f64(ratios).log()).requires_grad_()
    praised = credited(f64([2.0] * 5), teacher, old, 0.2)
    torch.testing.assert_close(praised, f64([2 * 0.8, 2 * 0.9, 2.0, 2 * 1.1, 2 * 1.2]))
    blamed = credited(f64([-0.5] * 5), teacher, old, 0.2)
    torch.testing.assert_close(blamed, f64([-0.5 * 1.2, -0.5 / 0.9, -0.5, -0.5 / 1.1, -0.5 * 0.8]))
    assert credited(f64([0.0] * 5), teacher, old, 0.2).tolist() == [0.0] * 5
    assert not praised.requires_grad, "the direction is the grade's alone"
    never = credited(f64([1.0, -1.0]), f64([-math.inf] * 2), f64([-1.0] * 2), 0.2)
    torch.testing.assert_close(never, f64([0.8, -1.2]))
