"""Figures of samples, and intervals against simulation."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from benchmarks.interval_coverage import World, coverage
from vpgea.metrics.bootstrap import Estimate, SampleTable, evaluate, mean_e3
from vpgea.metrics.estimates import quantile_of
from vpgea.metrics.resampling import drawn_by, question_weights, student_t
from vpgea.metrics.scores import aes, e3_score


def score(a: float, t: float, a0: float, t0: float, n: int = 100) -> float:
    return float(e3_score(a, t, a0, t0, samples=n, base_samples=n))


def value(found: Estimate) -> float:
    assert found.value is not None
    return found.value


def bounds(found: Estimate) -> tuple[float, float]:
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


def width(found: Estimate) -> float:
    low, high = bounds(found)
    return high - low


def table(seed: int, questions: int = 40, k: int = 4, spread: float = 2.0, tokens: int = 100) -> SampleTable:
    """Questions of different difficulty; samples of a question agree more than those of two questions."""
    rng = np.random.default_rng(seed)
    chance = 1 / (1 + np.exp(-spread * rng.standard_normal(questions)))
    question = np.repeat(np.arange(questions), k)
    correct = (rng.random(question.size) < chance[question]).astype(float)
    return SampleTable(
        question=question,
        correct=correct,
        tokens=rng.integers(1, 2 * tokens, question.size),
        truncated=rng.random(question.size) < 0.1,
    )


def test_four_orders_of_a_record_are_one_question() -> None:
    """Forty records in four orders, answered alike: they say what forty questions do, and not what 160 would."""

    def in_orders(one: SampleTable, *, as_records: bool) -> SampleTable:
        return SampleTable(
            question=np.arange(160),
            record=np.arange(160) % 40 if as_records else None,
            correct=np.tile(one.correct, 4),
            tokens=np.tile(one.tokens, 4),
            truncated=np.tile(one.truncated, 4),
        )

    runs = table(1, k=1), table(2, k=1)
    alone, orders, apart = (
        evaluate(*pair, draws=500)
        for pair in (runs, *([in_orders(one, as_records=each) for one in runs] for each in (True, False)))
    )
    for name in ("accuracy", "accuracy_finished", "tokens", "truncation_rate", "mean@1", "token_saving"):
        assert value(orders[name]) == pytest.approx(value(alone[name]))
        assert bounds(orders[name]) == pytest.approx(bounds(alone[name])), name
    for name in ("accuracy_gain", "e3", "tokens_median"):
        one, other = (width(found[name]) for found in (alone, apart))
        assert width(orders[name]) == pytest.approx(one, rel=0.2), name
        assert width(orders[name]) > 1.6 * other, name
    assert orders["accuracy"].n == 160
    assert orders["accuracy"].warning == "160 questions are of 40 records, and every interval counts records"
    assert apart["accuracy"].warning is None


def test_five_records_are_needed_however_often_they_are_asked() -> None:
    few = SampleTable(
        question=range(16),
        record=[n % 4 for n in range(16)],
        correct=[1, 0] * 8,
        tokens=[5] * 16,
        truncated=[0] * 16,
    )
    for name, found in evaluate(few, draws=50).items():
        assert found.low is None, name
        assert "an interval needs 5 questions" in (found.warning or ""), name


def test_a_vote_is_among_the_samples_of_one_order() -> None:
    """Letters of another order are other answers: a vote over both would be three for A."""
    found = evaluate(
        SampleTable(
            question=[0, 0, 0, 1, 1, 1],
            record=[0] * 6,
            correct=[1, 1, 0, 0, 0, 1],
            tokens=[5] * 6,
            truncated=[0] * 6,
            answers=["A", "A", "B", "A", "A", "C"],
        ),
        draws=10,
    )
    assert (found["maj@3"].value, found["maj@3"].n, found["pass@3"].value) == (0.5, 2, 1)


def test_figures_of_a_small_table() -> None:
    found = evaluate(
        SampleTable(
            question=[3, 3, 8, 8],
            correct=[True, False, True, True],
            tokens=[10, 30, 20, 40],
            truncated=[0, 1, 0, 0],
            answers=["1", "2", "5", "5"],
            first_correct=[5, np.nan, 20, np.nan],
            thinking=[8, 30, 12, 30],
        ),
        draws=100,
    )
    assert {name: estimate.value for name, estimate in found.items()} == {
        "accuracy": 0.75,
        "accuracy_finished": 1,
        "tokens": 25,
        "tokens_median": 25,
        "tokens_p95": 30 + 0.85 * 10,
        "tokens_correct": 70 / 3,
        "thinking_tokens": 20,
        "answer_tokens": 5,
        "truncation_rate": 0.25,
        "token_efficiency": 0.75 / 25,
        "ock_score": pytest.approx(75 - 10 * math.log(25 / 10_000 + 1)),
        "mean@2": 0.75,
        "pass@2": 1,
        "maj@2": 0.75,
        "outcome_efficiency": (0.5 + 0 + 1) / 3,  # the correct sample of unknown place leaves the mean
        "outcome_efficiency_correct": 0.75,
    }
    assert found["accuracy"].n == 4
    assert found["pass@2"].n == 2
    assert found["outcome_efficiency"].n == 3
    assert found["outcome_efficiency_correct"].n == 2
    json.dumps({name: estimate.as_dict() for name, estimate in found.items()}, allow_nan=False)


def test_what_is_left_out_or_counted_in_fractions_is_said() -> None:
    """Question 0 has three grades of four, and a tie of a right answer with a wrong one."""
    run = SampleTable(
        question=[0, 0, 0, 0, 1, 1, 1, 1],
        correct=[1, 0, 0, np.nan, 1, 1, 0, 0],
        tokens=[1] * 8,
        truncated=[0] * 8,
        answers=["1", "2", None, None, "5", "5", "6", "7"],
    )
    found = evaluate(run, draws=100)
    assert (found["maj@4"].value, found["pass@4"].value, found["pass@2"].n) == (0.75, 1, 2)
    assert found["pass@4"].n == 1
    assert "1 questions have fewer than 4 graded samples and are not in it" in (found["pass@4"].warning or "")
    assert "1 questions have fewer than 4 graded samples" in (found["mean@4"].warning or "")
    assert "1 questions are ties" in (found["maj@4"].warning or "")


@pytest.mark.parametrize(("questions", "k"), [(30, 1), (30, 8), (200, 4)])
def test_intervals_of_quantiles_cover(questions: int, k: int) -> None:
    """Lognormal lengths that agree within a question; nominal 95 %."""
    repeats, hits = 400, 0
    for repeat in range(repeats):
        rng = np.random.default_rng([7, repeat])
        lengths = np.exp(rng.normal(0, 0.8, questions)[:, None] + rng.normal(0, 0.6, (questions, k)))
        low, high = bounds(quantile_of(lengths.ravel(), np.repeat(np.arange(questions), k), 0.5))
        hits += low <= 1 <= high
    assert 0.93 <= hits / repeats <= 0.99, hits / repeats


def test_comparison_with_a_baseline() -> None:
    run, base = table(0), table(1, tokens=200)
    found = evaluate(run, base, draws=200)
    a, a0, t, t0 = (float(np.mean(np.asarray(c))) for c in (run.correct, base.correct, run.tokens, base.tokens))
    assert value(found["e3"]) == pytest.approx(score(a, t, a0, t0))
    assert value(found["aes"]) == pytest.approx(float(aes(a, t, a0, t0)))
    assert value(found["accuracy_gain"]) == pytest.approx(a - a0)
    assert value(found["token_saving"]) == pytest.approx((t0 - t) / t0)
    for name, estimate in found.items():
        if name != "tokens_p95":  # 40 questions are too few for it
            low, high = bounds(estimate)
            assert low <= value(estimate) <= high


def test_invalid_rows_leave_every_figure() -> None:
    run = SampleTable(
        question=[0, 0, 1, 1],
        correct=[1, 0, 1, 0],
        tokens=[10, 20, 30, 40],
        truncated=[0, 0, 0, 1],
        answers=["1", "2", "1", "3"],
        first_correct=[5, 6, 7, 8],
    )
    polluted = SampleTable(
        question=[0, 9, 0, 1, 1, 0, 1],
        correct=[1, np.nan, 0, 1, 0, np.nan, np.nan],
        tokens=[10, 999, 20, 30, 40, 999, 999],
        truncated=[0, 1, 0, 0, 1, 1, 1],
        answers=["1", "x", "2", "1", "3", "2", "3"],
        first_correct=[5, 1, 6, 7, 8, 1, 1],
    )
    clean, found = evaluate(run, draws=100), evaluate(polluted, draws=100)
    assert {k: (v.value, v.n) for k, v in found.items()} == {k: (v.value, v.n) for k, v in clean.items()}


def test_no_data_gives_no_figures() -> None:
    found = evaluate(SampleTable(question=[0, 1], correct=[np.nan, np.nan], tokens=[5, 5], truncated=[0, 0]), draws=100)
    assert found["accuracy"] == Estimate(value=None, low=None, high=None, n=0)
    assert evaluate(SampleTable(question=[], correct=[], tokens=[], truncated=[]), draws=100)["tokens"] == Estimate(
        value=None, low=None, high=None, n=0
    )


def test_base_that_is_never_right_has_no_aes() -> None:
    base = SampleTable(question=[0, 1], correct=[0, 0], tokens=[10, 10], truncated=[0, 0])
    found = evaluate(SampleTable(question=[0, 1], correct=[1, 0], tokens=[5, 5], truncated=[0, 0]), base, draws=100)
    assert found["aes"] == Estimate(value=None, low=None, high=None, n=2)
    assert value(found["e3"]) == pytest.approx(score(0.5, 5, 0.5 / 3, 10))


@pytest.mark.parametrize(("questions", "has_interval"), [(1, False), (4, False), (5, True)])
def test_fewer_than_five_questions_have_no_interval(questions: int, has_interval: bool) -> None:
    """However many samples each has: an interval over one question would have no width."""
    question = np.repeat(np.arange(questions), 8)
    correct = np.arange(question.size) % 3 == 0
    run, base = (
        SampleTable(question=question, correct=right, tokens=10 + question % 2, truncated=0 * question)
        for right in (correct, ~correct)
    )
    figures = evaluate(run, base, draws=100)
    for name in ("tokens_median", "tokens_p95"):  # at which levels they stand among five cannot be told
        quantile = figures.pop(name)
        assert quantile.low is None
        assert quantile.warning is not None
    for found in (figures, {"mean e3": mean_e3([(run, base)] * 2, draws=100)}):
        for estimate in found.values():
            assert estimate.value is not None
            assert (estimate.low is not None, estimate.high is not None) == (has_interval, has_interval), estimate
            assert has_interval or (estimate.warning or "").startswith("an interval needs 5 questions")


def test_questions_of_the_figure_itself_are_counted() -> None:
    """Ten questions, and three with a right answer: no interval of what only right answers have."""
    question = np.arange(10)
    run = SampleTable(
        question=question,
        correct=question < 3,
        tokens=np.full(10, 9),
        truncated=question < 0,
        first_correct=question + 1,
    )
    found = evaluate(run, draws=100)
    assert found["outcome_efficiency"].low is not None
    assert found["outcome_efficiency_correct"].low is None


@pytest.mark.parametrize("right", [0, 30])
def test_what_never_varied_has_an_interval_of_some_width(right: int) -> None:
    """All of 30 right: 0.9 is not excluded with certainty, 0.7 is (0.7^30 = 2e-5)."""
    run = SampleTable(question=np.arange(30), correct=np.arange(30) < right, tokens=[5] * 30, truncated=[0] * 30)
    low, high = bounds(evaluate(run)["accuracy"])
    low, high = (low, high) if right else (1 - high, 1 - low)
    assert high == 1
    assert 0.8 < low < 0.95


@pytest.mark.parametrize(("right", "base_right"), [(499, 470), (500, 470), (29, 27), (6, 3)])
def test_the_value_lies_in_its_interval(right: int, base_right: int) -> None:
    questions = 500 if base_right > 100 else 30
    question = np.arange(questions)
    run, base = (
        SampleTable(
            question=question, correct=question < count, tokens=np.full(questions, size), truncated=0 * question
        )
        for count, size in ((right, 70), (base_right, 100))
    )
    for name, estimate in evaluate(run, base, draws=400).items():
        if name == "tokens_p95" and questions == 30:  # what is longer than all of 30 cannot be told
            assert estimate.low is None
            continue
        low, high = bounds(estimate)
        assert low <= value(estimate) <= high


def test_seeded_and_independent_of_row_order() -> None:
    run, base = table(2), table(3)
    first = evaluate(run, base, seed=5, draws=300)
    assert first == evaluate(run, base, seed=5, draws=300)
    assert first["accuracy"] != evaluate(run, base, seed=6, draws=300)["accuracy"]
    order = np.random.default_rng(0).permutation(160)
    question, correct, tokens, truncated = (
        np.asarray(column)[order] for column in (run.question, run.correct, run.tokens, run.truncated)
    )
    shuffled = SampleTable(question=question, correct=correct, tokens=tokens, truncated=truncated)
    for name, estimate in evaluate(shuffled, base, seed=5, draws=300).items():
        assert value(estimate) == pytest.approx(value(first[name]))
        assert bounds(estimate) == pytest.approx(bounds(first[name]))


@pytest.mark.skipif(np.__version__ != "2.4.6", reason="another numpy may draw other numbers, and drawn_by says so")
def test_other_draws_of_the_same_rows_and_seed_would_have_another_name() -> None:
    """Whoever changes what is drawn raises the number in `drawn_by`: doctor draws again what has the same name."""
    right, tokens = [1, 0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 1], [9, 4, 7, 5, 6, 8, 5, 5, 9, 7, 4, 6]
    question = np.repeat(np.arange(6), 2)
    found = evaluate(
        SampleTable(question=question, correct=right, tokens=tokens, truncated=[False] * 12), seed=3, draws=200
    )
    assert drawn_by() == "drawing 2, numpy 2.4.6"
    assert bounds(found["accuracy"]) == pytest.approx((0.15062485155022917, 0.8920972588836016))
    assert bounds(found["pass@2"]) == pytest.approx((0.2474645839048281, 0.9930033941425856))


def test_pairing_narrows_the_interval() -> None:
    base = table(4, questions=200, spread=4)
    correct = np.array(base.correct)
    correct[np.flatnonzero(correct == 0)[::30]] = 1
    better = SampleTable(question=base.question, correct=correct, tokens=base.tokens, truncated=base.truncated)
    paired = bounds(evaluate(better, base)["accuracy_gain"])
    apart = SampleTable(
        question=np.asarray(base.question) + 1000, correct=base.correct, tokens=base.tokens, truncated=base.truncated
    )
    found = evaluate(better, apart)["accuracy_gain"]
    unpaired = bounds(found)
    assert paired[0] > 0  # a few mended answers are seen
    assert unpaired[0] < 0 < unpaired[1]
    assert unpaired[1] - unpaired[0] > 3 * (paired[1] - paired[0])
    assert found.warning == "400 questions are in one of the two runs only; those are not paired"


def test_same_run_against_itself_changes_nothing() -> None:
    found = evaluate(table(5), table(5), draws=300)
    assert value(found["accuracy_gain"]) == 0
    assert value(found["e3"]) == pytest.approx(1)
    low, high = bounds(found["accuracy_gain"])
    assert -0.03 < low <= 0 <= high < 0.03
    assert bounds(found["token_saving"]) == pytest.approx((0, 0))


def test_warns_when_the_interval_says_nothing() -> None:
    few = evaluate(table(6, questions=30, k=1), table(7, questions=30, k=1))["e3"]
    assert bounds(few)[1] > 2 * bounds(few)[0]
    assert few.warning is not None
    assert "too wide" in few.warning
    assert evaluate(table(6, questions=800), table(7, questions=800))["e3"].warning is None


def test_intervals_cover_the_truth() -> None:
    """Nominal 95 %. Treating samples as independent would cover far less: a question's samples agree."""
    repeats, questions, k = 200, 60, 4
    difficulty = np.random.default_rng(0).standard_normal(400_000)
    chance = 1 / (1 + np.exp(-2 * difficulty))
    truth, true_gain = chance.mean(), (1 / (1 + np.exp(-2 * difficulty - 0.5))).mean() - chance.mean()
    true_e3 = score(truth + true_gain, 60, truth, 100)
    covered, naive = {"accuracy": 0, "accuracy_gain": 0, "e3": 0}, 0
    for repeat in range(repeats):
        rng = np.random.default_rng([1, repeat])
        logit = np.repeat(2 * rng.standard_normal(questions), k)
        question = np.repeat(np.arange(questions), k)
        runs = [
            SampleTable(
                question=question,
                correct=(rng.random(logit.size) < 1 / (1 + np.exp(-logit - shift))).astype(float),
                tokens=mean * rng.uniform(0.5, 1.5, logit.size),
                truncated=np.zeros(logit.size),
            )
            for shift, mean in ((0, 100), (0.5, 60))
        ]
        found = evaluate(runs[1], runs[0], draws=400, seed=repeat)
        base = evaluate(runs[0], draws=400, seed=repeat)
        for name, target, estimate in (
            ("accuracy", truth, base["accuracy"]),
            ("accuracy_gain", true_gain, found["accuracy_gain"]),
            ("e3", true_e3, found["e3"]),
        ):
            low, high = bounds(estimate)
            covered[name] += low <= target <= high
        half = 1.96 * np.asarray(runs[0].correct).std() / np.sqrt(logit.size)
        naive += abs(value(base["accuracy"]) - truth) <= half
    for name, hits in covered.items():
        assert 0.90 <= hits / repeats <= 0.99, (name, hits / repeats)
    assert naive / repeats < 0.88


@pytest.mark.parametrize(
    ("world", "questions", "k"),
    [(World(0.97, 1.5, 0.3), 30, 1), (World(0.97, 50, 0.0), 200, 1), (World(0.9, 2, 0.3), 30, 4)],
)
def test_few_and_easy_questions_are_covered_too(world: World, questions: int, k: int) -> None:
    """Nominal 95 %; a plain bootstrap covers 46 to 61 % of the first, 88 to 91 % of the others."""
    for name, covered in coverage(world, questions, k, repeats=150, draws=250).items():
        assert covered > 0.9, (name, covered)


def test_mean_over_sets() -> None:
    runs = [(table(seed, tokens=80), table(seed + 10)) for seed in (20, 21, 22)]
    found = mean_e3(runs, draws=500)
    assert value(found) == pytest.approx(np.mean([value(evaluate(*pair, draws=500)["e3"]) for pair in runs]))
    assert found.n == 480


def test_sets_are_resampled_independently() -> None:
    pair = (table(20, tokens=80), table(30))
    one, three = bounds(mean_e3([pair], draws=2000)), bounds(mean_e3([pair] * 3, draws=2000))
    assert three[1] - three[0] == pytest.approx((one[1] - one[0]) / math.sqrt(3), rel=0.1)


def test_blocks_of_draws_are_consecutive_draws_of_one_generator() -> None:
    """More draws than are held at once (2,000,000 cells)."""
    questions, draws = 1000, 4500
    blocks = list(question_weights(questions, draws, np.random.default_rng(0)))
    assert [len(block) for block in blocks] == [2000, 2000, 500]
    (whole,) = question_weights(questions, 2000, np.random.default_rng(0))
    np.testing.assert_array_equal(blocks[0], whole)


def test_weights_have_the_spread_of_students_t() -> None:
    """The half-width of a mean of n values is t s / sqrt(n); t: the 0.975 quantile with n - 1 degrees of freedom."""
    for questions, t in ((10, 2.262), (30, 2.045), (200, 1.972)):
        assert student_t(questions - 1) == pytest.approx(t, abs=1e-3)
        values = np.random.default_rng(1).standard_normal(questions)
        (weights,) = question_weights(questions, 20_000 if questions < 100 else 10_000, np.random.default_rng(0))
        means = weights @ values / weights.sum(axis=1)
        half = t * values.std(ddof=1) / math.sqrt(questions)
        assert 1.96 * means.std() == pytest.approx(half, rel=0.03)
