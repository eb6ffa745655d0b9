"""A figure with its interval: shares, means and quantiles from sums per question (numpy)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt

from vpgea.metrics.resampling import (
    LEVEL,
    MIN_QUESTIONS,
    log_interval,
    pseudo,
    question_weights,
    share,
    student_t,
    unit,
)
from vpgea.metrics.scores import FloatArray, ratio

_TOO_FEW = f"an interval needs {MIN_QUESTIONS} questions"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its 95 % interval.

    n: samples behind it (questions for pass@k, mean@k, maj@k). None: not defined on these data; the bounds are None
    too for fewer than 5 questions and where more than 2.5 % of the draws are not defined. warning: why it says little.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    warning: str | None = None

    def as_dict(self) -> dict[str, float | int | str | None]:
        """Plain values for JSON."""
        return asdict(self)

    def also(self, warning: str | None) -> Estimate:
        """The same with one more thing said beside it."""
        said = "; ".join(text for text in (self.warning, warning) if text)
        return replace(self, warning=said or None)

    def with_bounds(self, bounds: tuple[float, float] | None) -> Estimate:
        """Bounds that hold the value: one that a pseudo-observation moved past it is the value."""
        if self.value is None or bounds is None:
            return self
        return replace(self, low=min(bounds[0], self.value), high=max(bounds[1], self.value))


def of_draws(value: float, draws: FloatArray, n: int, questions: int) -> Estimate:
    """The percentile interval of draws (draws,) of a figure with n samples of so many questions behind it."""
    defined = draws[np.isfinite(draws)]
    if not np.isfinite(value):
        return Estimate(value=None, low=None, high=None, n=n)
    if questions < MIN_QUESTIONS:
        return Estimate(value=value, low=None, high=None, n=n, warning=_TOO_FEW)
    if defined.size < draws.size * (1 + LEVEL) / 2:
        return Estimate(value=value, low=None, high=None, n=n)
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value=value, low=None, high=None, n=n).with_bounds((float(low), float(high)))


def share_of(top: FloatArray, bottom: FloatArray, *, draws: int, seed: int) -> Estimate:
    """A share, sum(top) / sum(bottom), of sums per question (questions,) of values in [0, 1] and of their number."""
    has = bottom > 0
    top, bottom = top[has], bottom[has]
    rngs = np.random.default_rng([seed, 3]), np.random.default_rng([seed, 4])
    worth, each = unit(top, bottom), float(bottom.mean()) if bottom.size else 0.0
    drawn = [
        share(weights @ top, weights @ bottom, each, pseudo(worth, len(weights), rngs[1]))
        for weights in question_weights(bottom.size, draws, rngs[0])
    ]
    return of_draws(float(ratio(top.sum(), bottom.sum())), np.concatenate(drawn), int(bottom.sum()), bottom.size)


def mean_bounds(top: FloatArray, bottom: FloatArray) -> tuple[float, float] | None:
    """Bounds of a positive mean, sum(top) / sum(bottom), of sums per question; None with too few, or none above 0."""
    has = bottom > 0
    if has.sum() < MIN_QUESTIONS or top.sum() <= 0:
        return None
    return log_interval(float(top.sum() / bottom.sum()), influence(top, bottom)[has], is_skewed=True)


def mean_of(top: FloatArray, bottom: FloatArray) -> Estimate:
    """A positive mean, sum(top) / sum(bottom), of sums per question (questions,)."""
    value, n, questions = float(ratio(top.sum(), bottom.sum())), int(bottom.sum()), int((bottom > 0).sum())
    if not np.isfinite(value):
        return Estimate(value=None, low=None, high=None, n=n)
    warning = _TOO_FEW if questions < MIN_QUESTIONS else None
    return Estimate(value=value, low=None, high=None, n=n, warning=warning).with_bounds(mean_bounds(top, bottom))


def influence(top: FloatArray, bottom: FloatArray) -> FloatArray:
    """(questions,) of each question on the logarithm of the mean sum(top) / sum(bottom)."""
    mean = top.sum() / bottom.sum()
    return np.asarray((top - mean * bottom) / (mean * bottom.sum()))


def quantile_of(values: npt.ArrayLike, question: npt.ArrayLike, level: float) -> Estimate:
    """A quantile over samples, interpolated, with Woodruff's interval (JASA 1952).

    That is: at which levels the true quantile may stand in the sample, by the spread of the share of values below it
    (a question's samples agree), read off the sample again.

    Args:
        values: (n,) one per sample.
        question: (n,) the question of each.
        level: In (0, 1).
    """
    ordered = np.sort(np.asarray(values, np.float64))
    if not ordered.size or np.isnan(ordered[-1]):  # which sorts last
        return Estimate(value=None, low=None, high=None, n=ordered.size)
    index = np.unique(np.asarray(question), return_inverse=True)[1]
    value, questions = float(np.quantile(ordered, level)), int(index.max()) + 1
    found = Estimate(value=value, low=None, high=None, n=ordered.size)
    if questions < MIN_QUESTIONS:
        return found.also(_TOO_FEW)
    below, every = (np.bincount(index, weights=mask).astype(np.float64) for mask in (np.asarray(values) <= value, None))
    worth = unit(below, every)
    half = student_t(questions - 1) * math.sqrt(level * (1 - level) * worth / questions)
    # what lies beyond the longest sample cannot be told from the samples
    if level - half <= 0 or level + half >= 1:
        return found.also(f"{questions} questions are too few for an interval of this quantile")
    low, high = math.floor((level - half) * ordered.size), math.ceil((level + half) * ordered.size)
    return found.with_bounds((float(ordered[max(low - 1, 0)]), float(ordered[min(high, ordered.size - 1)])))
