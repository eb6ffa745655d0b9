"""Choosing prices, pooling seeds, and what learning has cost, against figures by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.simulated_run import round_line
from vpgea.config.schema import RunConfig
from vpgea.experiment.grid import Run
from vpgea.experiment.results import Against, ObjectiveResult, SettingResult, choose, corrected, costs, pooled
from vpgea.metrics.bootstrap import Estimate, SampleTable, evaluate
from vpgea.metrics.paired import Gain
from vpgea.runs.records import RoundLine


def a_run(objective: str, price: float | None, seed: int) -> Run:
    return Run(setting="", objective=objective, price=price, seed=seed, config=RunConfig())


def lines(*e3: float | None) -> list[RoundLine]:
    """Of a base and rounds; None: one that was not measured."""
    base = round_line(None)
    unmeasured = dict.fromkeys(("accuracy", "tokens", "truncated", "e3"))
    bounds = {f"{name}_{side}": None for name in unmeasured for side in ("low", "high")}
    rounds = []
    for index, value in enumerate(e3):
        line = replace(
            round_line(index),
            sampled_tokens=100,
            trained_tokens=10,
            times={"rollout": {"sampling": 2.0}, "eval": {"sampling": 9.0}},
        )
        rounds.append(replace(line, **(unmeasured | bounds)) if value is None else replace(line, e3=value))
    return [base, *rounds]


def test_the_price_is_that_of_the_highest_mean_over_seeds_at_the_end() -> None:
    runs = [a_run("a", price, seed) for price in (0.1, 1.0) for seed in (0, 1)] + [a_run("b", None, 0)]
    found = {
        runs[0].name: lines(9.0, 1.5),  # what it once was does not count
        runs[1].name: lines(1.5),
        runs[2].name: lines(1.0, 2.5, None),  # the last that was measured
        runs[3].name: lines(1.0),
        runs[4].name: lines(),
    }
    assert choose(runs, found) == {("", "a"): 1.0, ("", "b"): None}  # (2.5 + 1) / 2 beats 1.5


def test_a_run_that_was_never_measured_loses() -> None:
    runs = [a_run("a", price, 0) for price in (0.1, 1.0)]
    assert choose(runs, {runs[0].name: lines(None), runs[1].name: lines(0.2)}) == {("", "a"): 1.0}


def test_costs_add_up_without_the_evaluation() -> None:
    assert costs(lines(1.0, 1.0)) == [(0, 0, 0), (100, 10, 2.0), (200, 20, 4.0)]
    assert costs(lines()) == [(0, 0, 0)]


def test_what_one_round_does_not_say_is_unknown_from_there() -> None:
    base, first, second = lines(1.0, 1.0)
    unknown = replace(first, sampled_tokens=None)
    assert [sampled for sampled, _, _ in costs([base, unknown, second])] == [0, None, None]


def test_seeds_are_samples_of_the_same_questions() -> None:
    """Ten questions that two seeds answer alike say no more than one seed does: intervals are as wide."""
    rng = np.random.default_rng(0)
    correct = (rng.random(40) < 0.7).astype(float)
    one = SampleTable(question=np.arange(40), correct=correct, tokens=np.full(40, 9.0), truncated=np.zeros(40))
    both = pooled([one, one])
    alone, together = (evaluate(table)["accuracy"] for table in (one, both))
    assert together.n == 2 * alone.n
    assert together.value == alone.value == correct.mean()
    assert together.low is not None
    assert alone.low is not None
    assert abs(together.low - alone.low) < 0.02


def test_e3_is_claimed_at_five_per_cent_of_all_comparisons_like_accuracy_and_tokens() -> None:
    """An interval that just leaves 1 out is a claim where it is the only one, and none among many."""
    none = Gain(estimate=Estimate(value=0.0, low=-0.1, high=0.1, n=9), p=1.0)
    against = Against(accuracy=none, tokens=none, e3=Estimate(value=1.5, low=1.01, high=2.2, n=9))
    clear = replace(against, e3=Estimate(value=3.0, low=2.5, high=3.6, n=9))

    def said(*each: Against) -> list[str]:
        objectives = [
            ObjectiveResult(
                objective=str(number), price=None, seeds=[0], sampled_tokens=1, rounds=1, metrics={}, e3_of_seeds=[1.0],
                against=one,
            )
            for number, one in enumerate(each)
        ]  # fmt: skip
        setting = SettingResult(name="", questions=9, base={}, objectives=objectives, without_round=[])
        (found,) = corrected([setting])
        return [one.against.verdict.split("ε³ ")[1] for one in found.objectives if one.against]

    assert said(clear) == ["better"]
    assert said(replace(clear, e3=Estimate(value=0.3, low=0.25, high=0.36, n=9))) == ["worse"]
    assert said(*[against] * 5, clear) == ["undecided"] * 5 + ["better"]
    assert said(replace(clear, e3=Estimate(value=1.5, low=None, high=None, n=9))) == [
        "undecided (no interval: too few questions)"
    ]
