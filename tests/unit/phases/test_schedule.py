"""When the price of length rests: by the tokens of a round, and by its accuracy, as far as chance allows to say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.simulated_run import round_line
from vpgea.config.resolve import resolve
from vpgea.phases.schedule import fell_behind, length_price


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
