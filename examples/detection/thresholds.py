"""What other thresholds would do: recall and loss of the checks that hold one measured number against one."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from vpgea.config.schema import RunConfig
from vpgea.filtering.checks.base import below
from vpgea.filtering.checks.plausibility import plausibility_limits
from vpgea.filtering.samples import JudgedSample
from vpgea.metrics.scores import FloatArray

Measure = Callable[[JudgedSample], float | None]

SHARES = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)


@dataclass(frozen=True, kw_only=True)
class Dial:
    """A check's threshold.

    Attributes:
        key: Of the configuration.
        table: Thresholds that are shown, rising.
        catches: Whether values are rejected at a threshold.
        is_floor: Whether small values are the suspicious ones.
        measure: Sees all samples of a round; gives what is held against the threshold, None where it was not measured.
    """

    key: str
    table: tuple[float, ...]
    catches: Callable[[FloatArray, float], npt.NDArray[np.bool_]]
    is_floor: bool
    measure: Callable[[RunConfig, Sequence[JudgedSample]], Measure]

    def setting(self, config: RunConfig) -> float:
        """The threshold that a run had."""
        section, name = self.key.split(".")
        return float(getattr(getattr(config.filter, section), name))


def _answerability(config: RunConfig, samples: Sequence[JudgedSample]) -> Measure:
    """The share alone; neither the lift nor continuations that were cut are looked at."""
    least = config.filter.answerability.samples / 2
    return lambda sample: (
        sample.measured["answerability"] if (sample.measured["answerability_valid"] or 0) >= least else None
    )


def _slack_needed(config: RunConfig, samples: Sequence[JudgedSample]) -> Measure:
    """Nats by which the worst of a path's three figures passes its limit without any slack."""
    limits, slack = plausibility_limits(config, samples), config.filter.plausibility.slack

    def measure(sample: JudgedSample) -> float | None:
        stats = sample.stats
        if isinstance(limits, str) or stats is None:
            return None
        over = max(stats.window - limits.window, stats.quantile - limits.quantile, limits.log_pi - stats.log_pi) + slack
        return math.inf if math.isnan(over) else over  # NaN is within nothing

    return measure


_below = np.vectorize(below, otypes=[bool])  # of shares, which take few values

DIALS: Mapping[str, Dial] = {
    "note_dependence": Dial(
        key="note_dependence.threshold",
        table=(0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0),
        catches=operator.ge,
        is_floor=False,
        measure=lambda config, samples: lambda sample: sample.measured["note_dependence"],
    ),
    "derivation": Dial(
        key="derivation.threshold",
        table=SHARES,
        catches=_below,
        is_floor=True,
        measure=lambda config, samples: lambda sample: sample.measured["derivation"],
    ),
    "answerability": Dial(
        key="answerability.threshold",
        table=SHARES,
        catches=_below,
        is_floor=True,
        measure=_answerability,
    ),
    "plausibility": Dial(
        key="plausibility.slack",
        table=(0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0),
        catches=operator.gt,
        is_floor=False,
        measure=_slack_needed,
    ),
}


@dataclass(frozen=True)
class Point:
    """What a threshold takes of the pseudo-efficient paths, and of the sound ones."""

    threshold: float
    recall: float
    loss: float


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A check's thresholds, over the paths that it measured.

    Attributes:
        pseudo_efficient, sound: Number of paths.
        area: Probability that a pseudo-efficient path is more suspicious than a sound one, ties counted half: the area
            under the curve of recall over loss.
        setting: The run's own threshold.
        points: At the other thresholds, where they take other paths than the one before.
        within_loss: The one of the largest recall whose loss keeps to the goal, on these same paths, so that others
            lose more by it; None where none does.
    """

    key: str
    pseudo_efficient: int
    sound: int
    area: float
    setting: Point
    within_loss: Point | None
    points: list[Point]

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)


def sweep(dial: Dial, setting: float, copied: FloatArray, sound: FloatArray, most_loss: float) -> Sweep | None:
    """A check's recall and loss at other thresholds than its own; None where it measured no path of one of the kinds.

    Args:
        dial: The check's.
        setting: Its threshold.
        copied: (n,) values of pseudo-efficient paths.
        sound: (m,) values of sound ones.
        most_loss: The largest share of sound paths that may be lost.
    """
    if not copied.size or not sound.size:
        return None

    def point(threshold: float) -> Point:
        taken = (float(dial.catches(values, threshold).mean()) for values in (copied, sound))
        return Point(threshold, *taken)

    candidates = map(point, np.unique(np.concatenate([copied, sound, dial.table])).tolist())
    kept = [one for one in candidates if one.loss <= most_loss and math.isfinite(one.threshold)]
    return Sweep(
        key=dial.key,
        pseudo_efficient=copied.size,
        sound=sound.size,
        area=_area(copied, sound) if not dial.is_floor else _area(-copied, -sound),
        setting=point(setting),
        within_loss=max(kept, key=lambda one: (one.recall, -one.loss), default=None),
        points=_changes([point(threshold) for threshold in dial.table]),
    )


def _changes(points: Sequence[Point]) -> list[Point]:
    """Those that take other paths than the one before."""
    return [
        one
        for before, one in zip([None, *points], points, strict=False)
        if before is None or (one.recall, one.loss) != (before.recall, before.loss)
    ]


def _area(copied: FloatArray, sound: FloatArray) -> float:
    """P(copied > sound) + P(copied = sound) / 2, Mann and Whitney's U over its largest value."""
    ordered = np.sort(sound)
    below_, up_to = (np.searchsorted(ordered, copied, side=side) for side in ("left", "right"))
    return float((below_ + up_to).sum() / 2 / (copied.size * sound.size))
