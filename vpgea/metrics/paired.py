"""Two runs on the same questions: paired differences, flips, and what several tests together may claim (numpy)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from vpgea.metrics.bootstrap import SampleTable, evaluate
from vpgea.metrics.estimates import Estimate
from vpgea.metrics.resampling import NORMAL
from vpgea.metrics.scores import FloatArray


@dataclass(frozen=True, kw_only=True)
class Flips:
    """Shares of pairs of samples of one question, each question the same weight; their sum is 1.

    by_sample: whether the pairs are samples of the same seed; else every sample of one run with every one of the other.
    """

    both_right: float
    right_to_wrong: float
    wrong_to_right: float
    both_wrong: float
    by_sample: bool


@dataclass(frozen=True, kw_only=True)
class Change:
    """A question's share of right answers and mean tokens, before and after."""

    question: int
    accuracy: tuple[float, float]
    tokens: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Gain:
    """A difference from the base, its paired interval, and its two-sided p value; p is None without an interval."""

    estimate: Estimate
    p: float | None

    @property
    def sign(self) -> int:
        """+1 or -1 where the interval leaves 0 out; 0: undecided."""
        low, high = self.estimate.low, self.estimate.high
        if low is None or high is None:
            return 0
        return int(low > 0) - int(high < 0)


def gains(run: SampleTable, base: SampleTable, *, draws: int = 2000, seed: int = 0) -> tuple[Gain, Gain]:
    """The gain in accuracy, A - A0, and the relative change in tokens, T / T0 - 1; both paired by question.

    Exchanging the runs negates the gain and its bounds, and inverts T / T0 and its bounds: draws are made with the two
    in an order that does not depend on which is called the base.
    """
    swap = _rank(run) < _rank(base)
    found = evaluate(*((base, run) if swap else (run, base)), draws=draws, seed=seed)["accuracy_gain"]
    accuracy = _negated(found) if swap else found
    saving = evaluate(run, base, draws=1, seed=seed)["token_saving"]
    tokens = _negated(saving)
    logs = [None if one is None else math.log1p(one) for one in (tokens.value, tokens.low, tokens.high)]
    return (
        Gain(estimate=accuracy, p=p_value(accuracy.value, accuracy.low, accuracy.high)),
        Gain(estimate=tokens, p=p_value(*logs)),
    )


def p_value(value: float | None, low: float | None, high: float | None) -> float | None:
    """Two-sided, of no difference, from a 95 % interval (Altman and Bland, BMJ 2011): below 0.05 where it leaves 0 out.

    The spread is that of the side on which 0 lies.
    """
    if value is None or low is None or high is None:
        return None
    width = value - low if value > 0 else high - value
    if width <= 0:
        return 1.0 if value == 0 else 0.0
    return 2 * (1 - NormalDist().cdf(abs(value) * NORMAL / width))


def holm(p: Sequence[float | None]) -> list[float | None]:
    """p values adjusted for all that are tested together (Holm, 1979): each below 0.05 may be claimed at 5 % for all.

    None where there is none; those are not counted as tests.
    """
    known = sorted((value, place) for place, value in enumerate(p) if value is not None)
    adjusted: list[float | None] = [None] * len(p)
    largest = 0.0
    for rank, (value, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * value))
        adjusted[place] = largest
    return adjusted


def flips(run: SampleTable, base: SampleTable, keys: tuple[Sequence[object], Sequence[object]] | None) -> Flips:
    """How right and wrong answers of the base (first) became those of the run.

    Args:
        run: After.
        base: Before.
        keys: What the samples of the run and of the base are paired by, (n,) each; None: by question alone.
    """
    if keys is not None:
        places = {key: row for row, key in enumerate(keys[1])}
        pairs = [(row, places[key]) for row, key in enumerate(keys[0]) if key in places]
        after, before = (np.asarray(one.correct, np.float64) for one in (run, base))
        known = [(row, other) for row, other in pairs if not math.isnan(after[row] + before[other])]
        question = np.asarray(run.question)[[row for row, _ in known]]
        now, then = after[[row for row, _ in known]], before[[other for _, other in known]]
        index = np.unique(question, return_inverse=True)[1]
        cells = [_mean_of_questions(cell, index) for cell in _cells(now, then)]
    else:
        changes = question_changes(run, base)
        now, then = (np.array([change.accuracy[place] for change in changes]) for place in (1, 0))
        cells = [float(cell.mean()) if cell.size else math.nan for cell in _cells(now, then)]
    return Flips(
        both_right=cells[0],
        right_to_wrong=cells[1],
        wrong_to_right=cells[2],
        both_wrong=cells[3],
        by_sample=keys is not None,
    )


def _cells(now: FloatArray, then: FloatArray) -> list[FloatArray]:
    return [now * then, (1 - now) * then, now * (1 - then), (1 - now) * (1 - then)]


def _mean_of_questions(values: FloatArray, index: npt.NDArray[np.int64]) -> float:
    if not values.size:
        return math.nan
    return float((np.bincount(index, values) / np.bincount(index)).mean())


def question_changes(run: SampleTable, base: SampleTable) -> list[Change]:
    """Of each question with valid samples in both, the largest change of accuracy first, then of tokens."""
    after, before = _per_question(run), _per_question(base)
    changes = [
        Change(
            question=question,
            accuracy=(before[question][0], after[question][0]),
            tokens=(before[question][1], after[question][1]),
        )
        for question in sorted(after.keys() & before.keys())
    ]
    return sorted(changes, key=_size, reverse=True)


def _size(change: Change) -> tuple[float, float]:
    accuracy, (before, after) = change.accuracy, change.tokens
    is_known = before > 0 and after > 0  # NaN is not
    return abs(accuracy[1] - accuracy[0]), abs(math.log(after / before)) if is_known else 0.0


def _per_question(table: SampleTable) -> dict[int, tuple[float, float]]:
    correct, tokens = np.asarray(table.correct, np.float64), np.asarray(table.tokens, np.float64)
    valid = ~np.isnan(correct)
    labels, index = np.unique(np.asarray(table.question)[valid], return_inverse=True)
    count = np.bincount(index)
    means = (np.bincount(index, one[valid]) / count for one in (correct, tokens))
    right, length = means
    return {int(label): (float(right[i]), float(length[i])) for i, label in enumerate(labels)}


def _rank(table: SampleTable) -> tuple[float, ...]:
    """By which two runs have an order: any that does not depend on that of their rows."""
    right, tokens = (np.nan_to_num(np.asarray(one, np.float64)) for one in (table.correct, table.tokens))
    question = np.asarray(table.question, np.float64)
    return float(right.sum()), float(tokens.sum()), float((question * right).sum()), float((question * tokens).sum())


def _negated(found: Estimate) -> Estimate:
    value, low, high = (None if one is None else 0.0 - one for one in (found.value, found.high, found.low))
    return Estimate(value=value, low=low, high=high, n=found.n, warning=found.warning)
