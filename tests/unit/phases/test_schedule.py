"""When the price of length rests, by tokens and by accuracy as far as chance allows, and how it follows a target."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from benchmarks.simulated_run import round_line
from vpgea.config.resolve import resolve
from vpgea.phases.schedule import fell_behind, followed_price, length_price


@pytest.mark.parametrize(
    ("accuracy", "tokens", "target", "price"),
    [
        (0.90, 80.0, None, 0.1),
        (0.88, 80.0, None, 0.1),  # lower, within delta
        (0.87, 80.0, None, 0.0),
        (0.90, 50.0, 50.0, 0.0),
        (0.90, 50.5, 50.0, 0.1),
        (0.87, 80.0, 50.0, 0.0),
    ],
)
def test_the_price_of_length_rests(accuracy: float, tokens: float, target: float | None, price: float) -> None:
    config = resolve(options={"loop.accuracy_margin": 0.025, "loop.token_target": target}).config
    lines = [round_line(None, accuracy=0.9, tokens=90.0), round_line(0, accuracy=accuracy, tokens=tokens)]
    assert length_price(config, lines) == price


@pytest.mark.parametrize(("high", "rests"), [(0.02, False), (0.0, False), (-0.001, True), (None, True)])
def test_a_loss_that_may_be_chance_is_none(high: float | None, rests: bool) -> None:
    """Ten points lower on a few questions; the interval of the difference says whether that is chance."""
    config = resolve(options={"loop.accuracy_margin": 0.025}).config
    base, line = round_line(None, accuracy=0.9), round_line(0, accuracy=0.8)
    line = replace(line, accuracy_gain=-0.1, accuracy_gain_low=-0.2, accuracy_gain_high=high)
    assert fell_behind(config, base, line) == rests
    assert (length_price(config, [base, line]) == 0) == rests
    assert not fell_behind(config, base, replace(line, accuracy=0.88)), "within the margin"


# --- a price that follows the target -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "exponent"),
    [
        ([], 0.0),
        ([60.0], 0.1),  # 0.5 (60 / 50 - 1)
        ([50.0], 0.0),
        ([40.0], -0.1),
        ([100.0], 0.5),
        ([900.0], 0.5),  # not more than a step at once
        ([60.0, 40.0, 75.0], 0.25),
    ],
)
def test_the_price_follows_the_target_by_the_formula(tokens: list[float], exponent: float) -> None:
    assert followed_price(0.2, tokens, 50.0, 0.5) == pytest.approx(0.2 * math.exp(exponent), rel=1e-14)


def test_the_price_stays_within_its_bounds_and_comes_back_from_them() -> None:
    assert followed_price(0.2, [500.0] * 40, 50.0, 0.5) == 2.0
    assert followed_price(0.2, [1.0] * 40, 50.0, 0.5) == 0.02
    assert followed_price(0.2, [*[500.0] * 40, 40.0], 50.0, 0.5) == pytest.approx(2 * math.exp(-0.1), rel=1e-14)


def test_it_rests_while_accuracy_is_behind_and_goes_on_from_where_it_was() -> None:
    config = resolve(options={"loop.token_target": 50.0, "loop.price_step": 0.5}).config
    base = round_line(None, accuracy=0.9, tokens=90.0)
    long, worse, short = (
        round_line(index, accuracy=accuracy, tokens=tokens)
        for index, (accuracy, tokens) in enumerate([(0.9, 60.0), (0.7, 100.0), (0.9, 45.0)])
    )
    assert length_price(config, [base]) == 0.1, "what the base says is no doing of a price"
    assert length_price(config, [base, long]) == pytest.approx(0.1 * math.exp(0.1), rel=1e-14)
    assert length_price(config, [base, long, worse]) == 0
    assert length_price(config, [base, long, worse, short]) == pytest.approx(0.1 * math.exp(0.1 - 0.05), rel=1e-14)


def test_it_follows_rounds_that_are_measured_in_their_turn() -> None:
    options = {"loop.token_target": 50.0, "loop.price_step": 0.5, "loop.eval_every": 2}
    config = resolve(options=options).config
    lines = [round_line(index, accuracy=0.9, tokens=60.0) for index in (None, 0, 1, 2)]
    assert length_price(config, lines[:2]) == 0.1
    moved = pytest.approx(0.1 * math.exp(0.1), rel=1e-14)
    assert length_price(config, lines[:3]) == moved == length_price(config, lines)
