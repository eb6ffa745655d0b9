"""What gates are multiplied with, against values by hand in float64, and through selection."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.measured_rows import Row, posterior, prior, select_rows
from vpgea.filtering.gate_factors import (
    contrast_factors,
    importance_factors,
    plausible_factors,
    tempering_power,
)

exactly = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)
stored = partial(np.testing.assert_allclose, rtol=1e-6)  # gates are kept as float32


def test_the_plausible_factor_shrinks_with_the_log_ratio() -> None:
    exactly(plausible_factors([0.3, -0.05, -0.6, np.nan], 0.1), [1, 1, math.exp(-0.5), 0])


def test_the_contrast_factor_shrinks_with_note_dependence() -> None:
    exactly(contrast_factors([-3.0, 0.0, 0.25, 1.5, np.nan], 2.0), [1, 1, math.exp(-0.5), math.exp(-3), 0])
    exactly(contrast_factors([0.25, 1.5], 0.0), [1, 1])


def test_the_power_of_two_weights_by_hand() -> None:
    """The share of weights 1 and x = w^alpha is (1 + x)^2 / (2 (1 + x^2)): 0.8 at x = 1/3."""
    log_weight = np.array([0.0, -2.0])
    assert tempering_power(log_weight, 0.8) == pytest.approx(math.log(3) / 2, rel=1e-12)
    exactly(importance_factors(log_weight, 0.8), [1.5, 0.5])
    exactly(importance_factors(log_weight - 5000, 0.8), [1.5, 0.5])


def test_weights_that_are_even_enough_are_not_tempered() -> None:
    log_weight = np.log([1.0, 0.5])  # a share of 1.5^2 / (2 * 1.25) = 0.9
    assert tempering_power(log_weight, 0.9 - 1e-12) == 1
    exactly(importance_factors(log_weight, 0.5), [4 / 3, 2 / 3])
    exactly(importance_factors([-700.0], 0.5), [1])


def test_the_bounds_of_the_share() -> None:
    log_weight = np.array([-3.0, -400.0, -10.0])
    np.testing.assert_allclose(importance_factors(log_weight, 1.0), [1, 1, 1], atol=1e-6)
    weights = np.exp(log_weight + 3)
    exactly(importance_factors(log_weight, 0.0), 3 * weights / weights.sum())


def test_the_effective_sample_size_is_kept_by_the_largest_power_that_does() -> None:
    rng = np.random.default_rng(0)
    for size, spread in ((2, 1.0), (4, 3.0), (8, 40.0), (8, 4000.0)):
        log_weight = rng.normal(0, spread, size)
        factors = importance_factors(log_weight, 0.6)
        assert factors.mean() == pytest.approx(1, rel=1e-12)
        share = factors.sum() ** 2 / (size * (factors**2).sum())
        power = tempering_power(log_weight, 0.6)
        assert share == pytest.approx(0.6, abs=1e-6) if power < 1 else share >= 0.6
        assert factors.max() <= math.sqrt(size / 0.6)
        assert (np.argsort(factors) == np.argsort(log_weight)).all()


def test_only_paths_with_a_finite_weight_share_it() -> None:
    exactly(importance_factors([0.0, -np.inf, np.nan, -2.0], 0.8), [1.5, 0, 0, 0.5])
    exactly(importance_factors([-np.inf, np.nan], 0.8), [0, 0])


# --- through selection ---------------------------------------------------------------------------------------------


def rows() -> list[Row]:
    """Two accepted paths of |z| = 4 that differ in log w and in D, one rejected, and a prior that is right half the
    time: u of both paths is exp(-0.1 * 6 / 32), b half of u of the prior's."""
    return [
        prior("a", 0, thinking=30),
        prior("a", 1, status="wrong"),
        posterior("a", 0, other_view_logprobs=[-1.0] * 4, note_dependence=-0.5),
        posterior("a", 1, other_view_logprobs=[-1.5] * 4, note_dependence=0.5),
        posterior("a", 2, status="wrong", other_view_logprobs=[0.0] * 4, note_dependence=None),
    ]


def gates_of(folder: Path, own: list[Row], **dotted: Any) -> list[float]:
    _, found = select_rows(folder, own, filter__advantage__std_min=0.5, **dotted)
    return [found["a", "posterior", index]["gate"] for index in range(3)]


def test_gates_of_each_kind_by_hand(tmp_path: Path) -> None:
    gates = partial(gates_of, tmp_path, rows())
    even = (math.exp(-0.1 * 6 / 32) - math.exp(-0.1) / 2) / 0.5
    stored(gates(), [even, even, 0])
    options = {"filter__advantage__gate": "importance", "filter__advantage__ess_min": 0.8}
    stored(gates(**options), [1.5 * even, 0.5 * even, 0])
    options = {"filter__advantage__gate": "contrast", "filter__advantage__contrast_rate": 3.0}
    stored(gates(**options), [even, math.exp(-1.5) * even, 0])


def test_the_summary_has_the_mean_power_of_the_importance_gate(tmp_path: Path) -> None:
    single = [prior("b", 0), posterior("b", 0, other_view_logprobs=[-9.0] * 4)]  # alone it says nothing of tempering
    options = {"filter__advantage__gate": "importance", "filter__advantage__ess_min": 0.8}
    summary, _ = select_rows(tmp_path, [*rows(), *single], **options)
    assert summary.tempering_power == pytest.approx(math.log(3) / 2, rel=1e-9)
    assert select_rows(tmp_path, rows())[0].tempering_power is None
    assert select_rows(tmp_path, single, **options)[0].tempering_power is None


@pytest.mark.parametrize(("gate", "column"), [("importance", "other_view_logprobs"), ("contrast", "note_dependence")])
def test_a_path_of_which_the_gate_knows_nothing_is_not_learnt(gate: str, column: str, tmp_path: Path) -> None:
    own = rows()
    own[3][column] = None
    first, second, _ = gates_of(tmp_path, own, filter__advantage__gate=gate)
    assert first > 0 == second
