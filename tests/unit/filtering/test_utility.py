"""Utilities, baselines, advantages and gates against the formulas written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpgea.config.filtering import AdvantageConfig, UtilityConfig
from vpgea.filtering.utility import (
    advantages_and_gates,
    baseline,
    mean_correct_length,
    posterior_gates,
    prior_advantages,
    relative_length,
    target_lengths,
    utility,
)

CONFIG = AdvantageConfig()
ALL = np.ones(4, bool)


def test_mean_correct_length_and_relative_length() -> None:
    assert mean_correct_length([10, 30, 90, 50], [1, 1, 0, np.nan]) == 20
    assert mean_correct_length([10, 30], [0, np.nan]) is None
    np.testing.assert_array_equal(relative_length([16, 40], 16.0), [1, 2.5])


def test_exponential_and_linear_utility() -> None:
    r, length = np.array([1, 0, 0.75, np.nan]), np.array([50, 50, 200, 10])
    exponential = utility(UtilityConfig(length_price=0.2), r, length, 100.0)
    np.testing.assert_allclose(exponential, [np.exp(-0.1), 0, 0.75 * np.exp(-0.4), np.nan])
    linear = utility(UtilityConfig(kind="linear", length_price=0.2, c_max=1.5), r, length, 100.0)
    np.testing.assert_allclose(linear, [1 - 0.2 * 0.5, 0, 0.75 - 0.2 * 0.75 * 1.5, np.nan])


def test_sigmoid_utility_compares_with_correct_samples() -> None:
    config = UtilityConfig(kind="sigmoid", length_price=0.4)
    correct = np.array([80.0, 120.0])  # mean 100, population std 20
    found = utility(config, [1, 1, 0.5], [100, 140, 60], 999.0, correct)

    def sigma(z: float) -> float:
        return 1 / (1 + math.exp(-z))

    np.testing.assert_allclose(found, [1 - 0.4 * 0.5, 1 - 0.4 * sigma(2), 0.5 * (1 - 0.4 * sigma(-2))])
    assert utility(config, 1, 10, 1.0) == pytest.approx(0.8)  # nothing to compare with: the middle
    assert utility(config, 1, 90, 1.0, [100, 100]) == pytest.approx(1 - 0.4 * sigma(-10))  # spread floored at a token
    assert utility(config, 1, 1e9, 1.0, [100, 100]) == pytest.approx(0.6)  # no overflow


def test_prior_advantages_leave_one_out() -> None:
    u = np.array([0.9, 0.0, 0.5, 123.0])
    valid = np.array([True, True, True, False])
    found = prior_advantages(u, valid, baseline(u[valid], CONFIG), CONFIG)
    sigma = float(np.std([0.9, 0.0, 0.5]))
    np.testing.assert_allclose(found, [(0.9 - 0.25) / sigma, -0.7 / sigma, 0.05 / sigma, 0])
    assert found[3] == 0


def test_invalid_samples_change_nothing_and_may_be_nan() -> None:
    few, _ = advantages_and_gates([0.9, 0.2], [True, True], [], [], config=CONFIG)
    more, _ = advantages_and_gates([0.9, np.nan, 0.2], [True, False, True], [], [], config=CONFIG)
    np.testing.assert_array_equal(more, [few[0], 0, few[1]])


def test_fewer_than_two_valid_give_no_advantage() -> None:
    for valid in ([True, False], [False, False]):
        advantages, _ = advantages_and_gates([0.9, 0.1], valid, [], [], config=CONFIG)
        np.testing.assert_array_equal(advantages, [0, 0])


@given(st.floats(0, 1), st.integers(2, 16))
def test_equal_utilities_give_exactly_zero(u: float, size: int) -> None:
    for group in ("prior", "joint"):
        config = AdvantageConfig(group=group)
        advantages, gates = advantages_and_gates(
            np.full(size, u), np.ones(size, bool), np.full(3, u), np.ones(3, bool), config=config
        )
        assert not advantages.any()
        assert not gates.any()


def test_spread_has_a_floor_and_can_be_left_out() -> None:
    u = np.array([0.50, 0.52, 0.50, 0.52])
    assert baseline(u, CONFIG).std == 0.1
    assert baseline(u, AdvantageConfig(std_min=0.001)).std == pytest.approx(0.01)
    assert baseline(u, AdvantageConfig(normalise="none")).std == 1
    np.testing.assert_allclose(
        prior_advantages(u, ALL, baseline(u, CONFIG), CONFIG), np.array([-1, 1, -1, 1]) * 0.01 * (4 / 3) / 0.1
    )


def test_doubling_the_price_changes_advantages_where_all_are_correct() -> None:
    length = np.array([40, 60, 80, 100])
    found = []
    for price in (0.1, 0.2):
        u = utility(UtilityConfig(length_price=price), np.ones(4), length, 50.0)
        found.append(prior_advantages(u, ALL, baseline(u, CONFIG), CONFIG))
    assert found[0][0] > 0 > found[0][3]  # shorter is better
    assert np.abs(found[1] - found[0]).max() > 0.1
    free = utility(UtilityConfig(length_price=0.0), np.ones(4), length, 50.0)
    assert not prior_advantages(free, ALL, baseline(free, CONFIG), CONFIG).any()


def test_gates_are_one_sided_and_capped() -> None:
    group = baseline([0.2, 0.6], CONFIG)  # b = 0.4, sigma = 0.2
    accepted = np.array([True, True, True, False, False])
    found = posterior_gates([0.3, 0.6, 0.95, 0.95, np.nan], accepted, group, CONFIG)
    np.testing.assert_allclose(found, [0, 1, 2, 0, 0])


def test_gates_without_a_valid_prior_sample() -> None:
    advantages, gates = advantages_and_gates([0.3, np.nan], [False, False], [0.7, 0.9], [True, False], config=CONFIG)
    np.testing.assert_array_equal(advantages, [0, 0])
    np.testing.assert_allclose(gates, [0.7, 0])


def test_factors_multiply_capped_gates_and_the_product_is_capped_again() -> None:
    group = baseline([0.2, 0.6], CONFIG)  # b = 0.4, sigma = 0.2
    accepted = np.array([True, True, True, True, False])
    found = posterior_gates([0.6, 0.6, 0.95, 0.6, 0.6], accepted, group, CONFIG, [0.5, 1.5, 0.5, 3.0, 1.0])
    np.testing.assert_allclose(found, [0.5, 1.5, 1, 2, 0], rtol=1e-12)


def test_joint_group_pushes_right_prior_paths_down() -> None:
    prior, posterior = np.array([0.8, 0.8]), np.array([0.95, 0.95, 0.1])
    accepted = np.array([True, True, False])
    alone, _ = advantages_and_gates(prior, [True, True], posterior, accepted, config=CONFIG)
    joint, gates = advantages_and_gates(prior, [True, True], posterior, accepted, config=AdvantageConfig(group="joint"))
    np.testing.assert_array_equal(alone, [0, 0])
    members = np.array([0.8, 0.8, 0.95, 0.95])
    sigma = max(members.std(), 0.1)
    np.testing.assert_allclose(joint, np.full(2, 0.8 - np.mean([0.8, 0.95, 0.95])) / sigma)
    np.testing.assert_allclose(gates, [(0.95 - members.mean()) / sigma] * 2 + [0])


def test_an_accepted_path_without_utility_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="has a utility"):
        posterior_gates([np.nan], [True], baseline([0.5], CONFIG), CONFIG)


def test_the_step_form_pays_a_bonus_within_the_target() -> None:
    config = UtilityConfig(kind="step", length_price=0.5)
    found = utility(config, [1, 1, 0, np.nan], [40, 41, 10, 10], 50.0, target=40)
    np.testing.assert_allclose(found, [1.5, 1, 0, np.nan])


def test_target_lengths_are_those_of_questions_of_like_difficulty() -> None:
    """Of each bin the shortest length within which a question has one correct sample in the mean."""
    found = target_lengths(
        {
            "easy": ([1, 1, 1, 1], [10, 20, 30, 40]),
            "easy too": ([1, 1, 1, 0], [25, 35, 45, 5]),
            "middle": ([1, 1, 0, 0], [70, 90, 10, 10]),
            "hard": ([1, 0, 0, 0, 0, 0, 0], [200, 10, 10, 10, 10, 10, 10]),
            "hard too": ([1, 0, 0, 0, 0], [300, 10, 10, 10, 10]),
            "nothing valid": ([], []),
        }
    )
    assert found == {
        "easy": 20,  # of 10, 20, 25, 30, ... the second: two questions
        "easy too": 20,
        "middle": 70,
        "hard": 300,
        "hard too": 300,
        "nothing valid": np.inf,  # and no third question beside the hard ones
    }
    assert target_lengths({"hard": ([1, 0, 0, 0], [20] * 4), "none right": ([0, 0], [5, 5])})["hard"] == np.inf


def test_the_distance_form_compares_with_the_shortest_correct_sample() -> None:
    config = UtilityConfig(kind="distance", length_price=0.2)
    found = utility(config, [1, 1, 0, np.nan], [60, 40, 20, 1], 50.0, correct_lengths=[60, 40])
    np.testing.assert_allclose(found, [1 - 0.2 * 20 / 50, 1, -0.2 * 20 / 50, np.nan])
    none_right = utility(config, [0, 0, np.nan], [10, 30, 500], 50.0)
    np.testing.assert_allclose(none_right, [-0.2 * 10 / 50, -0.2 * 10 / 50, np.nan])


def test_advantages_that_are_positive_the_utility_itself_or_one() -> None:
    u, valid = np.array([0.2, 0.6, 0.0, 9.0]), np.array([True, True, True, False])
    plain = prior_advantages(u, valid, baseline(u[valid], CONFIG), CONFIG)
    positive = AdvantageConfig(kind="positive")
    np.testing.assert_allclose(prior_advantages(u, valid, baseline(u[valid], positive), positive), plain.clip(0))
    itself = AdvantageConfig(kind="utility")
    np.testing.assert_allclose(prior_advantages(u, valid, baseline(u[valid], itself), itself), [0.2, 0.6, 0, 0])
    assert prior_advantages([0.7], [True], baseline([0.7], itself), itself) == [0.7]  # needs no group
    one = AdvantageConfig(kind="one")
    np.testing.assert_array_equal(prior_advantages(u, valid, baseline(u[valid], one), one), [1, 1, 1, 0])


def test_a_gate_of_one_opens_for_every_accepted_path() -> None:
    config = AdvantageConfig(gate="one")
    group = baseline([0.2, 0.6], config)
    np.testing.assert_array_equal(posterior_gates([0.1, 0.9, np.nan], [True, True, False], group, config), [1, 1, 0])
