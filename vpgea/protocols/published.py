"""What others have measured of models that people start from, and whether an evaluation here agrees with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field

from vpgea.config import strict_yaml
from vpgea.config.fields import Section, Share
from vpgea.metrics.estimates import Estimate

_FILE = Path(__file__).parent / "published.yaml"
UNATTRIBUTED = "other protocol; model and sampling not stated"  # what is said of such a figure wherever it is shown
Verdict = Literal["inside", "outside", "undecided", "not comparable"]


class Band(Section):
    """The range in which independent evaluators find a model; published.yaml explains the keys."""

    benchmark: str
    rows: int
    low: Share
    high: Share
    min_samples: int
    protocols: list[str]
    evaluators: int


class Stated(Section):
    """One figure of one evaluator. protocol: ours that asks as it was asked; None: none does, as far as is known."""

    benchmark: str
    value: Share
    who: str
    source: str
    protocol: str | None = None


class PublishedModel(Section):
    """A model by its name and its dimensions."""

    name: str
    hidden_size: int
    layers: int
    figures: list[Band]
    stated: list[Stated]


class Values(Section):
    """What one evaluator states of a benchmark; of several values nobody knows which is of which model."""

    benchmark: str
    values: list[Share] = Field(min_length=1)


class Unattributed(Section):
    """Figures of one evaluator that are of one of some models: which, and how it was asked, is not known."""

    models: list[str] = Field(min_length=2)
    who: str
    source: str
    figures: list[Values]


class Published(Section):
    """published.yaml. read: the date on which the sources were."""

    read: str
    unattributed: list[Unattributed]
    models: list[PublishedModel]


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """An evaluation of a known model beside what others found.

    Attributes:
        model: The known one's name.
        low: Of the band; high as well.
        evaluators: Whom the band is of.
        accuracy: The one found here, with its interval in accuracy_low and accuracy_high.
        verdict: inside the band; outside it with the whole interval; undecided where only the value is outside; or not
            comparable.
        why: In words.
    """

    model: str
    benchmark: str
    low: float
    high: float
    evaluators: int
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    verdict: Verdict
    why: str


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """How an evaluation was made, as far as a published figure depends on it.

    Attributes:
        rows: Questions that were asked.
        differs: Settings that are not the protocol's, in words.
    """

    benchmark: str
    protocol: str
    samples: int
    rows: int
    differs: Sequence[str]
    accuracy: Estimate


@cache
def published() -> Published:
    """All that the package knows."""
    text = _FILE.read_text(encoding="utf-8")
    return Published.model_validate(strict_yaml.parse(text, str(_FILE))[0])


def known_model(path: str, adapter: str | None, hidden_size: int, layers: int) -> PublishedModel | None:
    """The published model that a path names; None where it is another, or was trained further.

    A name alone is no proof: the dimensions must be the model's, too.
    """
    names = {part.lower().rpartition("--")[2] for part in Path(path).parts}
    fitting = (one for one in published().models if one.name.lower() in names and adapter is None)
    return next((one for one in fitting if (one.hidden_size, one.layers) == (hidden_size, layers)), None)


def published_model(name: str) -> PublishedModel:
    """The one of this name, which is there."""
    return next(one for one in published().models if one.name == name)


def unattributed(model: str, benchmark: str) -> list[tuple[Unattributed, float]]:
    """Figures that may be this model's or another's: whose they are, and their values. They are no evidence for it."""
    return [
        (one, value)
        for one in published().unattributed
        if model in one.models
        for figure in one.figures
        if figure.benchmark == benchmark
        for value in figure.values
    ]


def reproduce(model: PublishedModel, made: Measurement) -> Reproduction | None:
    """Hold an evaluation of a known model against its band; None where nobody published one."""
    band = next((one for one in model.figures if one.benchmark == made.benchmark), None)
    if band is None:
        return None
    verdict, why = _verdict(band, made)
    return Reproduction(
        model=model.name,
        benchmark=band.benchmark,
        low=band.low,
        high=band.high,
        evaluators=band.evaluators,
        accuracy=made.accuracy.value,
        accuracy_low=made.accuracy.low,
        accuracy_high=made.accuracy.high,
        verdict=verdict,
        why=why,
    )


def _verdict(band: Band, made: Measurement) -> tuple[Verdict, str]:
    value, low, high = made.accuracy.value, made.accuracy.low, made.accuracy.high
    obstacle = None
    if made.protocol not in band.protocols:
        obstacle = f"the band is of protocol {' or '.join(band.protocols)}, and this is {made.protocol}"
    elif made.differs:
        obstacle = f"not as the protocol says: {'; '.join(made.differs)}"
    elif made.rows != band.rows:
        obstacle = f"the set has {band.rows} questions, and {made.rows} were asked"
    elif made.samples < band.min_samples:
        obstacle = f"it needs {band.min_samples} samples per question, and there are {made.samples}"
    elif value is None or low is None or high is None:
        obstacle = made.accuracy.warning or "the accuracy has no interval"
    if obstacle is not None or value is None or low is None or high is None:
        return "not comparable", obstacle or ""
    if band.low <= value <= band.high:
        return "inside", "the accuracy is in the band"
    if low <= band.high and high >= band.low:
        return "undecided", "the accuracy is not in the band, and its interval reaches into it"
    side = "below" if value < band.low else "above"
    return "outside", f"the whole interval is {side} the band: look at template, sampling and grader first"
