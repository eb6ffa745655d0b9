"""An experiment's pictures: learning per cost, and the price of length, on the held-out questions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vpgea.experiment.learning import LearningCurve, LearningPoint
from vpgea.experiment.prices import PriceResult, PriceSweep
from vpgea.report.model import Point, Points, Series
from vpgea.runs.records import Measured

_COSTS = (
    ("sampled_tokens", "sampled tokens"),
    ("trained_tokens", "trained tokens"),
    ("seconds", "seconds, without evaluations"),
)
_WORTH = (("accuracy", "held-out accuracy"), ("tokens", "held-out tokens, mean"))
_PRICES = "prices"
BASE = "base"


def is_picture(name: str) -> bool:
    """Whether a picture of some setting of some experiment has this name."""
    own = [f"{worth}-{_written(cost)}" for cost, _ in _COSTS for worth, _ in _WORTH]
    return any(name == one or name.endswith(f"-{one}") for one in (*own, _PRICES))


def learning_charts(sweep: PriceSweep, curves: Sequence[LearningCurve]) -> Iterator[Points]:
    """Accuracy and tokens against each cost under one setting; of a cost that no round knows the base alone."""
    own = [curve for curve in curves if curve.setting == sweep.setting]
    for cost, cost_label in _COSTS:
        for worth, worth_label in _WORTH:
            series = [
                Series(
                    _name(curve.objective, curve.price),
                    _line(curve.mean, cost, worth),
                    tuple(_line(points, cost, worth) for points in curve.of_seeds) if len(curve.seeds) > 1 else (),
                )
                for curve in own
            ]
            yield Points(
                name=_file(sweep.setting, f"{worth}-{_written(cost)}"),
                title=_title(sweep.setting, f"{worth_label}, against {cost_label}"),
                x_label=cost_label,
                y_label=worth_label,
                series=series,
                joined=True,
                percent_y=worth == "accuracy",
                level=None if sweep.base is None else getattr(sweep.base, worth),
            )


def price_chart(sweep: PriceSweep) -> Points:
    """Accuracy against tokens of every price of every objective, and the base."""
    series = [_prices(name, [one for one in sweep.prices if one.objective == name]) for name in _objectives(sweep)]
    if sweep.base is not None:
        series.append(Series(BASE, [_point(sweep.base, BASE)]))
    return Points(
        name=_file(sweep.setting, _PRICES),
        title=_title(sweep.setting, "held-out accuracy against tokens, at every price of length"),
        x_label="held-out tokens, mean",
        y_label="held-out accuracy",
        series=series,
        joined=True,
        percent_y=True,
    )


def _objectives(sweep: PriceSweep) -> list[str]:
    return list(dict.fromkeys(one.objective for one in sweep.prices))


def _prices(objective: str, prices: Sequence[PriceResult]) -> Series:
    """A line through the prices, from the lowest on, and thin ones of the seeds."""
    ordered = sorted(prices, key=lambda one: (one.price is not None, one.price or 0.0))
    points = []
    for one in ordered:
        if one.accuracy is not None and one.tokens is not None:
            mark = "" if one.price is None else f"{one.price:g}{'*' if one.is_chosen else ''}"
            points.append(_point(Measured(one.accuracy, one.tokens, one.e3), _name(objective, one.price), mark))
    of_seeds = list(zip(*(one.of_seeds for one in ordered), strict=True)) if len(ordered[0].seeds) > 1 else []
    runs = [[_point(end, "") for end in ends if end is not None] for ends in of_seeds]
    return Series(objective, points, [run for run in runs if run])


def _point(found: Measured, name: str, mark: str = "") -> Point:
    label = f"{name}: accuracy {found.accuracy:.4g}, {found.tokens:.4g} tokens"
    return Point(x=found.tokens, y=found.accuracy, label=label, beside=mark)


def _line(points: Sequence[LearningPoint], cost: str, worth: str) -> list[Point]:
    """Of the points whose cost is known."""
    return [
        Point(x=x, y=getattr(point, worth), label=f"{_round(point)}: {getattr(point, worth):.4g} at {x:,.0f}")
        for point in points
        if (x := getattr(point, cost)) is not None
    ]


def _round(point: LearningPoint) -> str:
    return BASE if point.round is None else f"round {point.round}"


def _name(objective: str, price: float | None) -> str:
    return objective if price is None else f"{objective}, λ {price:g}"


def _title(setting: str, text: str) -> str:
    return f"{setting}: {text}" if setting else text


def _written(cost: str) -> str:
    return cost.replace("_", "-")


def _file(setting: str, text: str) -> str:
    return f"{setting}-{text}" if setting else text
