"""The price of length: what each is worth on the held-out questions, and which one an objective gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vpgea.experiment.grid import Run
from vpgea.experiment.rounds import Chosen, Lines
from vpgea.runs.records import Measured, RoundLine


@dataclass(frozen=True, kw_only=True)
class PriceResult:
    """An objective at one price on the held-out questions, at the ends of its runs.

    Attributes:
        price: None where there was none to choose.
        seeds: Of its runs. unmeasured: how many of them were never measured after a round.
        accuracy: Mean over the measured seeds, as tokens; None where there is none.
        e3: Mean over all seeds, one that was never measured being worth 0: the choice is made by it.
        of_seeds: Of each seed, None where it was never measured.
        is_chosen: Whether it is its objective's.
        is_efficient: Whether no other price of any objective, nor the base, is as accurate with fewer tokens, or more
            accurate with as few.
    """

    setting: str
    objective: str
    price: float | None
    seeds: list[int]
    unmeasured: int
    accuracy: float | None
    tokens: float | None
    e3: float
    of_seeds: list[Measured | None]
    is_chosen: bool = False
    is_efficient: bool = False

    @property
    def place(self) -> tuple[float, float] | None:
        """Tokens and accuracy, as far as they are known."""
        return None if self.accuracy is None or self.tokens is None else (self.tokens, self.accuracy)


@dataclass(frozen=True, kw_only=True)
class PriceSweep:
    """All prices under one setting. base: the base model's figures on the held-out questions, mean over seeds."""

    setting: str
    base: Measured | None
    prices: list[PriceResult]


def sweep_prices(runs: Sequence[Run], lines: Lines) -> list[PriceSweep]:
    """Every price of every objective, of each setting by itself.

    An objective gets the price whose runs have the highest mean e3 on the held-out questions at their ends.
    """
    sweeps = []
    for name in dict.fromkeys(run.setting for run in runs):
        own = [run for run in runs if run.setting == name]
        bases = {run.seed: lines[run.name][0].measured for run in own if lines[run.name]}
        ends = {run.name: last_measured(lines[run.name]) for run in own}
        sweeps.append(sweep_of(name, own, ends, list(bases.values())))
    return sweeps


def chosen_of(sweeps: Sequence[PriceSweep]) -> Chosen:
    """(Setting, objective) → its price."""
    return {(one.setting, one.objective): one.price for sweep in sweeps for one in sweep.prices if one.is_chosen}


def sweep_of(
    setting: str, runs: Sequence[Run], ends: Mapping[str, Measured | None], bases: Sequence[Measured]
) -> PriceSweep:
    """The prices of one setting.

    Args:
        setting: Its name.
        runs: Of it alone.
        ends: Run's name → its figures on the held-out questions at its end; None: never measured.
        bases: The base model's, of each seed.
    """
    found = [
        _price(
            setting, objective, price, [run for run in runs if (run.objective, run.price) == (objective, price)], ends
        )
        for objective, price in dict.fromkeys((run.objective, run.price) for run in runs)
    ]
    best = {
        objective: max((one for one in found if one.objective == objective), key=lambda one: one.e3).price
        for objective in dict.fromkeys(run.objective for run in runs)
    }
    base = _mean(bases)
    places = [place for one in found if (place := one.place) is not None]
    places += [] if base is None else [(base.tokens, base.accuracy)]
    prices = [
        replace(
            one,
            is_chosen=one.price == best[one.objective],
            is_efficient=one.place is not None and not any(_is_better(other, one.place) for other in places),
        )
        for one in found
    ]
    return PriceSweep(setting=setting, base=base, prices=prices)


def _price(
    setting: str, objective: str, price: float | None, runs: Sequence[Run], ends: Mapping[str, Measured | None]
) -> PriceResult:
    own = [ends[run.name] for run in runs]
    mean = _mean([end for end in own if end is not None])
    return PriceResult(
        setting=setting,
        objective=objective,
        price=price,
        seeds=[run.seed for run in runs],
        unmeasured=own.count(None),
        accuracy=None if mean is None else mean.accuracy,
        tokens=None if mean is None else mean.tokens,
        e3=float(np.mean([0.0 if end is None else end.e3 for end in own])),
        of_seeds=own,
    )


def last_measured(lines: Sequence[RoundLine]) -> Measured | None:
    """The figures of the last round that was measured."""
    return next((line.measured for line in reversed(lines[1:]) if line.is_measured), None)


def _mean(figures: Sequence[Measured]) -> Measured | None:
    if not figures:
        return None
    accuracy, tokens, e3 = (
        float(np.mean([getattr(one, name) for one in figures])) for name in ("accuracy", "tokens", "e3")
    )
    return Measured(accuracy, tokens, e3)


def _is_better(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Each is tokens and accuracy; a place is not better than itself."""
    return one != other and one[0] <= other[0] and one[1] >= other[1]
