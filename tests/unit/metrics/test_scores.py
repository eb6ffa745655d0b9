"""Scores against the formulas written out."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from vpgea.metrics.scores import aes, e3_score, is_tied, majority_share, ock_score, pass_at_k, smoothed


def score(a: float, t: float, a0: float, t0: float, n: int = 100) -> float:
    return float(e3_score(a, t, a0, t0, samples=n, base_samples=n))


def test_e3_score_of_a_hand_made_case() -> None:
    r_acc, r_tok = (0.8 / 0.2) / (0.5 / 0.5), 400 / 100
    assert score(0.8, 100, 0.5, 400) == pytest.approx(1 / (0.5 / r_acc + 0.5 / r_tok))
    assert score(0.8, 100, 0.5, 400) == pytest.approx(4)
    assert score(0.37, 123, 0.37, 123) == pytest.approx(1)
    assert score(0.5, 200, 0.5, 400) == pytest.approx(1 / (0.5 + 0.25))


def test_e3_score_rises_with_accuracy_and_falls_with_tokens() -> None:
    accuracies = [score(a, 100, 0.6, 100) for a in (0, 0.2, 0.6, 0.9, 1)]
    assert accuracies == sorted(accuracies)
    assert score(0.6, 90, 0.6, 100) > 1 > score(0.6, 110, 0.6, 100)


def test_e3_boundary_rule() -> None:
    full = (10 + 0.5) / 11
    assert smoothed(1.0, 10) == pytest.approx(full)
    assert smoothed(0.3, 10) == pytest.approx(3.5 / 11)
    assert score(1.0, 50, 0.5, 100, n=10) == pytest.approx(score(full, 50, 0.5, 100))
    assert score(0.5, 50, 0.0, 100, n=10) == pytest.approx(score(0.5, 50, 0.5 / 11, 100))
    assert score(0.3, 50, 0.4, 100, n=10) == pytest.approx(score(0.3, 50, 0.4, 100, n=999))  # untouched inside
    assert math.isfinite(score(1, 50, 1, 100, n=1))


def test_aes_and_ock_score() -> None:
    assert aes(0.6, 75, 0.5, 100) == pytest.approx(0.25 + 3 * 0.2)
    assert aes(0.4, 75, 0.5, 100) == pytest.approx(0.25 - 5 * 0.2)
    assert np.isnan(aes(0.4, 75, 0.0, 100))
    assert ock_score(0.7, 5000) == pytest.approx(70 - 10 * math.log(1.5))


def test_pass_at_k_counts_subsets() -> None:
    n = 6
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        subsets = list(itertools.combinations(range(n), k))
        hit = sum(any(member < c for member in subset) for subset in subsets)
        assert pass_at_k(n, c, k) == pytest.approx(hit / len(subsets), abs=1e-12)
    np.testing.assert_array_equal(np.isnan(pass_at_k([1, 2, 3], [1, 0, 0], 3)), [True, True, False])


def test_majority_vote() -> None:
    ones = np.array([1.0, 1, 0, 0, 0])
    assert majority_share(ones, ["7", "7", "3", "4", None]) == 1
    assert majority_share(ones, ["7", "7", "3", "3", None]) == 0.5  # a tie, broken at random
    assert majority_share(ones, ["7", "7", "3", "3", "3"]) == 0
    assert majority_share(np.zeros(2), [None, None]) == 0
    assert majority_share(ones, ["0.5", "1/2", "3", "3", None]) == 0.5  # right answers are one, however written
    assert majority_share(np.zeros(3), [("3", 4), ("3", 4), None]) == 0
    assert is_tied(ones, ["7", "7", "3", "3", None])
    assert not is_tied(ones, ["7", "7", "3", "4", None])
    assert not is_tied(np.zeros(2), ["7", "3"])  # wrong in any case
