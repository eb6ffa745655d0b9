"""Learning per cost: what the held-out questions say of an objective at its price, round by round, and its mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vpgea.experiment.grid import Run
from vpgea.experiment.rounds import Chosen, Lines, costs
from vpgea.runs.records import RoundLine

_COSTS = ("sampled_tokens", "trained_tokens", "seconds")
_WORTH = ("accuracy", "tokens", "e3")


@dataclass(frozen=True, kw_only=True)
class LearningPoint:
    """The figures of a measured round with what had been spent up to its end; None where that is not known.

    round: None: the base model. seconds: without evaluations.
    """

    round: int | None
    sampled_tokens: float | None
    trained_tokens: float | None
    seconds: float | None
    accuracy: float
    tokens: float
    e3: float


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """An objective at its price.

    Attributes:
        seeds: Of its runs; of_seeds: the points of each.
        mean: Of cost and figures over the seeds, of each round that was measured in all of them.
    """

    setting: str
    objective: str
    price: float | None
    seeds: list[int]
    mean: list[LearningPoint]
    of_seeds: list[list[LearningPoint]]


def learning_curves(runs: Sequence[Run], lines: Lines, chosen: Chosen) -> list[LearningCurve]:
    """Of every setting and objective, in the order of the runs."""
    return [
        _curve([run for run in runs if (run.setting, run.objective, run.price) == (*key, price)], lines)
        for key, price in chosen.items()
    ]


def _curve(runs: Sequence[Run], lines: Lines) -> LearningCurve:
    of_seeds = [_points(lines[run.name]) for run in runs]
    by_round = [{point.round: point for point in points} for points in of_seeds]
    shared = [index for index in by_round[0] if all(index in points for points in by_round)]
    return LearningCurve(
        setting=runs[0].setting,
        objective=runs[0].objective,
        price=runs[0].price,
        seeds=[run.seed for run in runs],
        mean=[_mean(index, [points[index] for points in by_round]) for index in shared],
        of_seeds=of_seeds,
    )


def _points(lines: Sequence[RoundLine]) -> list[LearningPoint]:
    spent = zip(lines, costs(lines), strict=False)  # a run without a line has spent nothing
    return [
        LearningPoint(
            round=line.round, sampled_tokens=sampled, trained_tokens=trained, seconds=seconds, **vars(line.measured)
        )
        for line, (sampled, trained, seconds) in spent
        if line.is_measured
    ]


def _mean(index: int | None, points: Sequence[LearningPoint]) -> LearningPoint:
    accuracy, tokens, e3 = (float(np.mean([getattr(one, name) for one in points])) for name in _WORTH)
    sampled, trained, seconds = (_mean_of([getattr(one, name) for one in points]) for name in _COSTS)
    return LearningPoint(
        round=index,
        sampled_tokens=sampled,
        trained_tokens=trained,
        seconds=seconds,
        accuracy=accuracy,
        tokens=tokens,
        e3=e3,
    )


def _mean_of(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None
