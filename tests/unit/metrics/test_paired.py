"""Paired comparisons, budget curves and bins of difficulty: by hand, by symmetry and by simulation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.interval_coverage import World, coverage, grown
from vpgea.metrics.bootstrap import SampleTable
from vpgea.metrics.curves import budget_curve, budgets_below, difficulty_bins
from vpgea.metrics.paired import flips, gains, holm, p_value, question_changes


def table(seed: int, questions: int = 60, k: int = 4, gain: float = 0.0, length: int = 100) -> SampleTable:
    """Questions of the same difficulties for every seed."""
    logits = 2 * np.random.default_rng(0).standard_normal(questions)
    rng = np.random.default_rng([1, seed])
    question = np.repeat(np.arange(questions), k)
    correct = rng.random(question.size) < 1 / (1 + np.exp(-logits[question] - gain))
    return SampleTable(
        question=question,
        correct=correct.astype(float),
        tokens=rng.integers(1, 2 * length, question.size),
        truncated=rng.random(question.size) < 0.1,
    )


def small(correct: list[float], tokens: list[int], truncated: list[int] | None = None) -> SampleTable:
    """Two questions of two samples."""
    return SampleTable(question=[0, 0, 1, 1], correct=correct, tokens=tokens, truncated=truncated or [0, 0, 0, 0])


def test_holm_by_hand() -> None:
    """0.01 x 4, 0.02 x 3, 0.03 x 2 but not below the one before, 0.04 x 1 likewise; what has no p is no test."""
    assert holm([0.03, 0.01, None, 0.04, 0.02]) == pytest.approx([0.06, 0.04, None, 0.06, 0.06])
    assert holm([0.7, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_claims_too_much_in_one_family_of_twenty() -> None:
    rng = np.random.default_rng(0)
    families = rng.random((2000, 6))
    claimed = np.mean([any(p is not None and p < 0.05 for p in holm(list(family))) for family in families])
    assert 0.03 < claimed < 0.065
    assert np.mean((families < 0.05).any(axis=1)) > 0.2


def test_p_is_below_a_twentieth_where_the_interval_leaves_nothing_out() -> None:
    assert p_value(2.0, 0.0, 5.0) == pytest.approx(0.05)
    assert p_value(-2.0, -5.0, 0.0) == pytest.approx(0.05)
    assert (p_value(2.0, 0.1, 5.0) or 1) < 0.05 < (p_value(2.0, -0.1, 5.0) or 0)
    assert p_value(0.0, -1.0, 1.0) == pytest.approx(1)
    assert p_value(1.0, None, None) is None


def test_gains_by_hand() -> None:
    accuracy, tokens = gains(small([1, 1, 1, 0], [10, 20, 30, 40]), small([1, 0, 0, 0], [50, 50, 50, 50]), draws=100)
    assert accuracy.estimate.value == pytest.approx(0.5)
    assert tokens.estimate.value == pytest.approx(100 / 200 - 1)
    assert (accuracy.estimate.low, accuracy.p, accuracy.sign) == (None, None, 0), "two questions decide nothing"


def test_exchanged_runs_give_the_opposite() -> None:
    run, base = table(1, gain=0.5, length=60), table(2)
    (gain, change), (back, longer) = gains(run, base, draws=300), gains(base, run, draws=300)
    assert gain.estimate.value == -(back.estimate.value or 0)
    assert (gain.estimate.low, gain.estimate.high) == (-(back.estimate.high or 0), -(back.estimate.low or 0))
    assert gain.p == back.p
    own, other = change.estimate, longer.estimate
    assert 1 + (own.value or 0) == pytest.approx(1 / (1 + (other.value or 0)))
    assert (own.low, own.high) == pytest.approx((1 / (1 + (other.high or 0)) - 1, 1 / (1 + (other.low or 0)) - 1))
    assert change.sign == -1
    assert change.p is not None
    assert change.p < 1e-6
    one, same = small([1, 0, 1, 0], [9, 9, 9, 9]), small([0, 1, 0, 1], [8, 8, 8, 8])
    assert [str(gains(*pair, draws=10)[0].estimate.value) for pair in ((one, same), (same, one))] == ["0.0", "0.0"]


def test_the_order_of_rows_says_nothing() -> None:
    run, base = table(1, gain=0.5), table(2)
    order = np.random.default_rng(3).permutation(240)
    columns = [np.asarray(one)[order] for one in (run.question, run.correct, run.tokens, run.truncated)]
    shuffled = SampleTable(question=columns[0], correct=columns[1], tokens=columns[2], truncated=columns[3])
    for one, other in zip(gains(run, base, draws=200), gains(shuffled, base, draws=200), strict=True):
        assert one.estimate.low == pytest.approx(other.estimate.low)
        assert one.p == pytest.approx(other.p)
    assert flips(run, base, None) == flips(shuffled, base, None)


def test_two_runs_of_the_same_weights_are_rarely_told_apart() -> None:
    decided = 0
    for seed in range(150):
        accuracy, tokens = gains(table(2 * seed, k=2), table(2 * seed + 1, k=2), draws=200)
        decided += (accuracy.sign != 0) + (tokens.sign != 0)
    assert 0.01 < decided / 300 < 0.09


def test_flips_by_sample_and_by_question() -> None:
    """Question 0: the right answer moved to the other sample. Question 1: one was mended."""
    run, base = small([0, 1, 1, 0], [1, 1, 1, 1]), small([1, 0, 0, 0], [1, 1, 1, 1])
    keys = [(0, 0), (0, 1), (1, 0), (1, 1)]
    found = flips(run, base, (keys, keys))
    assert found.by_sample
    cells = (found.both_right, found.right_to_wrong, found.wrong_to_right, found.both_wrong)
    assert cells == (0, 0.25, 0.5, 0.25)
    apart = flips(run, base, None)
    assert not apart.by_sample
    cells = (apart.both_right, apart.right_to_wrong, apart.wrong_to_right, apart.both_wrong)
    assert cells == pytest.approx((0.125, 0.125, 0.375, 0.375))
    back = flips(base, run, (keys, keys))
    assert (back.right_to_wrong, back.wrong_to_right) == (found.wrong_to_right, found.right_to_wrong)


def test_a_sample_without_a_grade_is_in_no_flip() -> None:
    run, base = small([math.nan, 1, 1, 1], [1] * 4), small([1, 1, 0, 0], [1] * 4)
    keys = [(0, 0), (0, 1), (1, 0), (1, 1)]
    found = flips(run, base, (keys, keys))
    assert (found.both_right, found.wrong_to_right) == (0.5, 0.5)


def test_questions_are_ordered_by_their_change() -> None:
    changes = question_changes(small([1, 0, 1, 1], [10, 10, 4, 4]), small([1, 0, 0, 0], [80, 80, 4, 4]))
    assert [change.question for change in changes] == [1, 0]
    assert changes[0].accuracy == (0, 1)
    assert changes[1].tokens == (80, 10)


def test_budget_curve_by_hand() -> None:
    """The sample at the cap of 40 is right, but had not ended."""
    run = small([1, 1, 1, 0], [10, 40, 20, 30], [0, 1, 0, 0])
    curve = budget_curve(run, [5, 10, 20, 40], draws=50)
    assert [point.accuracy.value for point in curve] == [0, 0.25, 0.5, 0.5]
    assert [point.tokens.value for point in curve] == [5, 10, (10 + 20 * 3) / 4, 25]
    assert budgets_below(1000) == [31, 62, 125, 250, 500, 1000]
    assert budgets_below(2) == [1, 2]


def test_budget_curve_never_falls() -> None:
    values = [point.accuracy.value or 0 for point in budget_curve(table(4), [10, 50, 100, 200], draws=50)]
    assert values == sorted(values)


def test_bins_show_no_loss_where_there_is_none() -> None:
    """The same weights twice. Bins by the samples that are compared would show the easy ones falling."""
    base, again = table(5, questions=600, k=4), table(6, questions=600, k=4)
    for one in difficulty_bins(base, [again], draws=50):
        (before, _), (after, _) = one.runs
        assert abs((after.value or 0) - (before.value or 0)) < 0.12, one.name
    right = np.asarray(base.correct).reshape(600, 4).mean(axis=1)
    all_right = np.asarray(again.correct).reshape(600, 4)[right == 1].mean()
    assert all_right < 0.95, "which binned by the same samples would be a loss from 1"
    assert sum(one.questions for one in difficulty_bins(base, [again], draws=50)) == 600


def test_bins_show_no_gain_where_seeds_are_shared() -> None:
    """A run of the base's seeds, most samples of which come out the same: its luck is the base's."""
    base, other = table(5, questions=2000), table(6, questions=2000)
    is_same = np.random.default_rng(7).random(8000) < 0.8
    again = replace(base, correct=np.where(is_same, base.correct, other.correct))
    for one in difficulty_bins(base, [again, base], draws=50):
        (before, _), (after, _), (twin, _) = one.runs
        assert abs((after.value or 0) - (before.value or 0)) < 0.03, one.name
        assert twin == before


def test_bins_find_a_sample_of_a_run_that_has_but_one() -> None:
    base, once = small([1, 0, 1, 1], [10, 10, 10, 10]), replace(table(1, questions=2, k=1), correct=[1.0, 0.0])
    assert [(one.name, one.questions, one.runs[1][0].value) for one in difficulty_bins(base, [once], draws=50)] == [
        ("none right", 1, 1.0),
        ("all right", 1, 0.0),
    ]


def test_orders_of_a_record_are_one_question_in_curves_and_bins() -> None:
    """One sample of each order: half of the orders tell the bin, the others have the figures."""
    alone = table(5, questions=200, k=1)
    orders = SampleTable(
        question=np.arange(800),
        record=np.arange(800) % 200,
        correct=np.tile(alone.correct, 4),
        tokens=np.tile(alone.tokens, 4),
        truncated=np.tile(alone.truncated, 4),
    )
    for one, other in zip(budget_curve(orders, [50, 200]), budget_curve(alone, [50, 200]), strict=True):
        for mine, theirs in ((one.accuracy, other.accuracy), (one.tokens, other.tokens)):
            assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high))
    bins = difficulty_bins(orders, [orders], draws=50)
    right = int(np.asarray(alone.correct).sum())
    assert [(one.name, one.questions) for one in bins] == [("none right", 200 - right), ("all right", right)]
    assert all(before == after for before, after in (one.runs for one in bins))


def test_bins_of_orders_show_no_gain_where_seeds_are_shared() -> None:
    """A run of the same weights that has a second sample of each order; the first is the base's."""
    rng = np.random.default_rng(0)
    record = np.arange(8000) // 4
    right = rng.random((8000, 2)) < rng.random(2000)[record][:, None]
    base, run = (
        SampleTable(
            question=np.repeat(np.arange(8000), one.shape[1]),
            record=np.repeat(record, one.shape[1]),
            correct=one.ravel().astype(float),
            tokens=np.ones(one.size),
            truncated=np.zeros(one.size),
        )
        for one in (right[:, :1], right)
    )
    found = difficulty_bins(base, [run], draws=50)
    assert sum(one.questions for one in found) == 2000
    for one in found:
        (before, _), (after, _) = one.runs
        assert abs((after.value or 0) - (before.value or 0)) < 0.05, one.name


def test_a_question_of_one_sample_is_in_no_bin() -> None:
    assert difficulty_bins(table(1, k=1), [table(2, k=1)], draws=50) == []


@pytest.mark.parametrize("questions", [30, 200])
def test_intervals_of_few_questions_cover_for_every_number_of_samples(questions: int) -> None:
    """Of 390 intervals of each figure, at a base accuracy of 0.9; nominal 95 %, and 1.1 % is the error of the count."""
    shares = [coverage(World(0.9, 2, 0.3), questions, k, repeats=130, draws=150) for k in (1, 4, 32)]
    for name in shares[0]:
        assert 0.92 <= np.mean([share[name] for share in shares]) <= 0.98, name


@pytest.mark.parametrize("concentration", [2, 50])
def test_intervals_whose_width_ended_the_sampling_cover_as_well(concentration: float) -> None:
    """Nominal 95 %; 1 % is the error of the count. A narrow one comes sooner far from one half, which shifts little."""
    covered, error, samples = grown(World(0.9, concentration, 0), 60, 2, 64, 0.13, repeats=400, draws=200)
    assert 0.92 <= covered <= 0.985
    assert abs(error) < 0.3
    assert 2 < samples < 64
