"""Draws of the bootstrap: questions with random weights, and pseudo-questions for what few of them can show (numpy).

A plain bootstrap knows no outcome that never came, and its spread is too narrow for few questions. Here each draw
weights the questions by gamma variates whose spread is that of Student's t, and adds to every share one
pseudo-observation, on average half right and half wrong (Jeffreys' prior, where each question has one sample).
docs/method.md has the coverage.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist

import numpy as np

from vpgea.metrics.scores import FloatArray, ratio

LEVEL = 0.95
MIN_QUESTIONS = 5  # with fewer there is no interval
_DRAWING = 2  # to be raised where other draws are made of the same rows and seed; version 0.1.0 had the first
NORMAL = NormalDist().inv_cdf((1 + LEVEL) / 2)  # standard deviations from the middle to a bound
_CHUNK_CELLS = 2_000_000  # cells of the draws x questions matrix held at once


def drawn_by() -> str:
    """What draws here: where this is the same, the same rows, number of draws and seed give the same intervals."""
    return f"drawing {_DRAWING}, numpy {np.__version__}"


def student_t(freedom: int) -> float:
    """The quantile of Student's t above which lies half of what the level leaves: Cornish and Fisher's expansion."""
    z = NORMAL
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))


def question_weights(questions: int, draws: int, rng: np.random.Generator) -> Iterator[FloatArray]:
    """Weights (<= draws, questions) in blocks of bounded memory; a weighted mean of them has the spread of t."""
    shape = 1.0
    if questions >= MIN_QUESTIONS:
        shape = ((questions - 1) * (NORMAL / student_t(questions - 1)) ** 2 - 1) / questions
    block = max(1, _CHUNK_CELLS // max(questions, 1))
    for start in range(0, draws, block):
        yield rng.standard_gamma(shape, (min(block, draws - start), questions))


def unit(numerator: FloatArray, denominator: FloatArray) -> float:
    """How many questions one independent observation of a share is worth: 1 where a question's samples agree.

    The design effect over the number of samples, drawn towards 1 where few questions show the rarer outcome.

    Args:
        numerator: (questions,) sums of values in [0, 1].
        denominator: (questions,) numbers of values.
    """
    has = denominator > 0
    top, count = numerator[has], denominator[has]
    share = top.sum() / count.sum() if count.size else 0.0
    if count.size < 2 or not 0 < share < 1:
        return 1.0
    variance = ((top - share * count) ** 2).sum() * count.size / (count.size - 1) / count.sum() ** 2
    rarer = count - top if share > 0.5 else top
    return _towards_one(count.size * variance / (share * (1 - share)), count.mean(), int((rarer > 0).sum()))


def paired_unit(run: tuple[FloatArray, FloatArray], base: tuple[FloatArray, FloatArray]) -> float:
    """The same of the disagreements between two runs on the questions of both; each (correct, valid) per question."""
    has = (run[1] > 0) & (base[1] > 0)
    a, a0 = run[0][has] / run[1][has], base[0][has] / base[1][has]
    apart = a * (1 - a0) + a0 * (1 - a)
    if a.size < 2 or apart.sum() == 0:
        return 1.0
    return _towards_one((a - a0).var(ddof=1) / apart.mean(), run[1][has].mean(), int((apart > 0).sum()))


def _towards_one(estimate: float, samples: float, seen: int) -> float:
    return float((seen * np.clip(estimate, 1 / max(samples, 1), 1) + 1) / (seen + 1))


def pseudo(shape: float, draws: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Right ones and all of a pseudo-observation that is worth `shape` questions, (draws,) each."""
    right, wrong = rng.standard_gamma(shape / 2, (2, draws))
    return right, right + wrong


def paired_pseudo(shape: float, apart: float, draws: int, rng: np.random.Generator) -> tuple[FloatArray, ...]:
    """Right ones of the run, right ones of the base, and all; apart: what a disagreement is worth, at most shape."""
    apart = min(apart, shape)
    cells = [(shape - apart / 2) / 2, apart / 4, apart / 4, (shape - apart / 2) / 2]
    both, run_only, base_only, neither = (rng.standard_gamma(cell, draws) for cell in cells)
    return both + run_only, both + base_only, both + run_only + base_only + neither


def log_interval(value: float, influence: FloatArray, *, is_skewed: bool) -> tuple[float, float]:
    """Student's t on the scale of logarithms, for a positive figure.

    Args:
        value: The figure.
        influence: (questions,) of each question on its logarithm; their sum is 0.
        is_skewed: Move the upper bound by the skewness of a mean of positive values, to second order (P. Hall, 1992).
    """
    n = influence.size
    t, spread = student_t(n - 1), math.sqrt((influence**2).sum() * n / (n - 1))
    more = 0.0
    if is_skewed and spread > 0:
        skewness = n**-0.5 * (influence**3).mean() / (influence**2).mean() ** 1.5
        more = max(0.0, skewness * (2 * t * t + 1) / 6 - spread * t * t / 2)
    return value * math.exp(-t * spread), value * math.exp((t + more) * spread)


def share(
    numerator: FloatArray, denominator: FloatArray, each: float, extra: tuple[FloatArray, FloatArray]
) -> FloatArray:
    """A share of draws (draws,) with pseudo-questions of `each` values; NaN where nothing is behind it."""
    right, every = extra
    with_pseudo = ratio(numerator + each * right, denominator + each * every)
    return np.where(denominator > 0, with_pseudo, np.nan)
