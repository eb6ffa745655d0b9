"""What rounds have cost and were worth: prices, learning per cost and the end of training, against figures by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.simulated_run import FILTER_SUMMARY, round_line
from vpgea.config.schema import RunConfig
from vpgea.experiment.ends import BELOW, COLLAPSE, PLATEAU, RISING, UNDECIDED, UNMEASURED, ends_of_training
from vpgea.experiment.grid import Run
from vpgea.experiment.learning import LearningCurve, learning_curves
from vpgea.experiment.pictures import learning_charts, price_chart
from vpgea.experiment.prices import PriceResult, chosen_of, sweep_prices
from vpgea.experiment.rounds import PriorGrades, TrainedRound, costs, graded, rounds_table
from vpgea.report.rounds import Round
from vpgea.runs.records import Measured, RoundLine


def a_run(objective: str, price: float | None, seed: int) -> Run:
    return Run(setting="", objective=objective, price=price, seed=seed, config=RunConfig())


def lines(*e3: float | None, **figures: float | None) -> list[RoundLine]:
    """Of a base and rounds with these figures; None: one that was not measured."""
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
        line = replace(line, **figures)  # type: ignore[arg-type]
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
    assert chosen_of(sweep_prices(runs, found)) == {("", "a"): 1.0, ("", "b"): None}  # (2.5 + 1) / 2 beats 1.5


def test_a_run_that_was_never_measured_loses() -> None:
    runs = [a_run("a", price, 0) for price in (0.1, 1.0)]
    (sweep,) = sweep_prices(runs, {runs[0].name: lines(None), runs[1].name: lines(0.2)})
    assert chosen_of([sweep]) == {("", "a"): 1.0}
    assert [(one.e3, one.unmeasured, one.accuracy is None) for one in sweep.prices] == [(0.0, 1, True), (0.2, 0, False)]


def test_a_price_is_efficient_where_nothing_is_better_in_both() -> None:
    runs = [a_run(name, None, 0) for name in "abcd"]
    base = round_line(None).measured
    places = {
        "a": (base.accuracy + 0.05, base.tokens - 5),
        "b": (base.accuracy + 0.05, base.tokens - 2),  # a is as accurate with fewer
        "c": (base.accuracy - 0.05, base.tokens - 9),  # worse and shorter
        "d": (base.accuracy - 0.01, base.tokens),  # the base is better with as few
    }
    found = {run.name: lines(1.0, accuracy=places[run.objective][0], tokens=places[run.objective][1]) for run in runs}
    (sweep,) = sweep_prices(runs, found)
    assert sweep.base == base
    assert [one.is_efficient for one in sweep.prices] == [True, False, True, False]


def test_costs_add_up_without_the_evaluation() -> None:
    assert costs(lines(1.0, 1.0)) == [(0, 0, 0), (100, 10, 2.0), (200, 20, 4.0)]
    assert costs(lines()) == [(0, 0, 0)]


def test_what_one_round_does_not_say_is_unknown_from_there() -> None:
    base, first, second = lines(1.0, 1.0)
    unknown = replace(first, sampled_tokens=None)
    assert [sampled for sampled, _, _ in costs([base, unknown, second])] == [0, None, None]


def curve_of(*of_seeds: list[RoundLine]) -> LearningCurve:
    runs = [a_run("a", 0.1, seed) for seed in range(len(of_seeds))]
    named = {run.name: found for run, found in zip(runs, of_seeds, strict=True)}
    (curve,) = learning_curves(runs, named, {("", "a"): 0.1})
    return curve


def test_the_mean_is_of_the_rounds_that_all_seeds_have_measured() -> None:
    curve = curve_of(lines(1.0, None, 3.0, 4.0, accuracy=0.5), lines(2.0, 2.0, 5.0, accuracy=0.7))
    assert [[point.round for point in points] for points in curve.of_seeds] == [[None, 0, 2, 3], [None, 0, 1, 2]]
    assert [point.round for point in curve.mean] == [None, 0, 2]
    last = curve.mean[-1]
    assert (last.sampled_tokens, last.trained_tokens, last.seconds) == (300, 30, 6)
    assert (last.accuracy, last.e3) == (pytest.approx(0.6), 4.0)


def test_a_cost_that_no_round_knows_has_no_picture_and_a_seed_is_a_thin_line() -> None:
    runs = [a_run("a", price, seed) for price in (0.1, 1.0) for seed in (0, 1)]
    found = {run.name: lines(2.0 - (run.price or 0), 1.0) for run in runs}
    found = {name: [each[0], *(replace(line, times=None) for line in each[1:])] for name, each in found.items()}
    (sweep,) = sweep_prices(runs, found)
    charts = list(learning_charts(sweep, learning_curves(runs, found, chosen_of([sweep]))))
    named = {chart.name: chart for chart in charts}
    (series,) = named["accuracy-sampled-tokens"].series
    assert [point.x for point in series.points] == [0, 100, 200]
    assert [len(run) for run in series.runs] == [3, 3]
    (unknown,) = named["accuracy-seconds"].series
    assert [point.x for point in unknown.points] == [0], "the base has cost nothing"
    priced, base = price_chart(sweep).series
    assert ([point.beside for point in priced.points], base.name) == (["0.1*", "1"], "base")
    assert [len(run) for run in priced.runs] == [2, 2]


@pytest.mark.parametrize(
    ("e3", "high", "expected", "below"),
    [
        ([1.0, 2.0], [0.1, 0.1], RISING, []),
        ([2.0, 1.0], [0.1, 0.1], PLATEAU, []),
        ([2.0, 2.0], [0.1, 0.1], PLATEAU, []),
        ([2.0, 1.0], [0.1, -0.1], COLLAPSE, [1]),
        ([2.0, 1.0, 1.5], [0.1, -0.1, 0.1], PLATEAU, [1]),  # a dip that the last round no longer shows
        ([1.0, 2.0], [-0.1, 0.1], RISING, [0]),
        ([1.0, 2.0], [0.1, -0.1], BELOW, [1]),
        ([2.0, 1.0], [-0.1, -0.1], BELOW, [0, 1]),  # there was nothing to lose
        ([0.5, 0.8], [0.1, 0.1], PLATEAU, []),  # better than before, and no better than the base
        ([0.8], [-0.1], BELOW, [0]),
        ([0.8], [None], UNDECIDED, []),
        ([1.2], [0.1], RISING, []),
        ([2.0, 1.0], [0.1, None], UNDECIDED, []),
        ([2.0, 1.0], [None, -0.1], UNDECIDED, [1]),
        ([2.0], [None], RISING, []),
        ([None], [0.1], UNMEASURED, []),
    ],
)
def test_the_course_of_a_run(e3: list[float | None], high: list[float | None], expected: str, below: list[int]) -> None:
    run = a_run("a", 0.1, 0)
    base, *rounds = lines(*e3)
    found = [replace(line, accuracy_gain_high=bound) for line, bound in zip(rounds, high, strict=True)]
    (end,) = ends_of_training([run], {run.name: [base, *found]}, {run.name: []}, {("", "a"): 0.1})
    assert end.verdict == expected
    assert end.last_round == (None if e3 == [None] else len(e3) - 1)
    assert end.below_base == below


def test_rows_have_the_counts_of_their_filters_and_a_run_without_a_line_has_none() -> None:
    runs = [a_run("a", None, seed) for seed in (0, 1)]
    found = {runs[0].name: lines(1.0, 2.0), runs[1].name: []}
    counted = replace(FILTER_SUMMARY, counts={"posterior_accepted": 3, "posterior_rejected_wrong": 2})
    first, second = (Round(line=line) for line in found[runs[0].name][1:])
    prior = PriorGrades(k=2, mean_at_k=0.5, pass_at_k=0.75)
    trained = {
        runs[0].name: [
            TrainedRound(seen=replace(first, filtered=counted, entropy=0.5, reflection=(1.0, None)), prior=prior),
            TrainedRound(seen=second, prior=None),  # whose records are not kept
        ],
        runs[1].name: [],
    }
    base, one, other = rounds_table(runs, found, trained, {("", "a"): None}).to_pylist()
    names = ("round", "entropy", "epistemic_prior", "k", "pass_at_k", "posterior_accepted", "posterior_rejected_wrong")
    assert tuple(one[name] for name in names) == (0, 0.5, 1.0, 2, 0.75, 3, 2)
    assert tuple(other[name] for name in names) == (1, *[None] * 6)
    assert tuple(base[name] for name in names) == (None,) * 7


def test_pass_at_k_is_of_questions_with_all_their_samples() -> None:
    assert graded([[1, 0, 0], [0, 0, 0], [1]]) == PriorGrades(k=3, mean_at_k=(1 / 3 + 0 + 1) / 3, pass_at_k=0.5)
    assert graded([]) == PriorGrades(k=0, mean_at_k=None, pass_at_k=None)


def test_measured_figures_are_those_of_the_last_measured_round() -> None:
    run = a_run("a", None, 0)
    (sweep,) = sweep_prices([run], {run.name: lines(1.5, None, accuracy=0.25, tokens=7.0)})
    (price,) = sweep.prices
    assert isinstance(price, PriceResult)
    assert price.of_seeds == [Measured(0.25, 7.0, 1.5)]
