"""The end of training: what became of each chosen run, from its first round to its last, and after its best one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from vpgea.experiment.grid import Run
from vpgea.experiment.rounds import Chosen, Lines, Trained, TrainedRound
from vpgea.runs.records import RoundLine

RISING, PLATEAU, COLLAPSE, BELOW = "rising", "plateau", "collapse", "below the base"
UNDECIDED, UNMEASURED = "undecided: no interval", "never measured"
BASE_E3 = 1.0  # of the base model, by definition
R = TypeVar("R")


@dataclass(frozen=True)
class Change:
    """A figure before and after: of the first and of the last round that has it; None: no round has."""

    before: float | None
    after: float | None


@dataclass(frozen=True, kw_only=True)
class EndOfTraining:
    """What became of a run.

    Attributes:
        rounds: That it finished.
        entropy: In nats per token, as the first training began and before the last step of the last one.
        kl: Of the posterior's paths from the prior, in nats per path.
        ess_share: Effective sample size of the importance weights, a share of K.
        epistemic: Words of reflection per 1,000 tokens of the prior's paths.
        k: Graded prior samples of a training question, in the first round; mean_at_k and pass_at_k are of these
            samples, each round's on its own questions, and of the model as it came to the round.
        best_round: Of highest e3 on the held-out questions, with it; None where no round was measured.
        last_round: The last that was measured, with its e3.
        below_base: Measured rounds whose accuracy is below the base's by more than the interval of the difference.
        verdict: BELOW: the best round is itself one of these. RISING: it is the last that was measured, and better than
            the base. COLLAPSE: it is none of these, and the last one is. PLATEAU: neither is. UNDECIDED: one of the two
            has no interval. UNMEASURED.
    """

    run: str
    setting: str
    objective: str
    price: float | None
    seed: int
    rounds: int
    entropy: Change
    kl: Change
    ess_share: Change
    epistemic: Change
    k: int | None
    mean_at_k: Change
    pass_at_k: Change
    best_round: int | None
    best_e3: float | None
    last_round: int | None
    last_e3: float | None
    below_base: list[int]
    verdict: str


def ends_of_training(runs: Sequence[Run], lines: Lines, trained: Trained, chosen: Chosen) -> list[EndOfTraining]:
    """Of every run at its objective's price."""
    return [
        _end(run, lines[run.name], trained[run.name]) for run in runs if run.price == chosen[run.setting, run.objective]
    ]


def _end(run: Run, lines: Sequence[RoundLine], rounds: Sequence[TrainedRound]) -> EndOfTraining:
    measured = [line for line in lines[1:] if line.is_measured]
    best = max(measured, key=lambda line: line.measured.e3, default=None)
    seen = [one.seen for one in rounds]
    prior = [one.prior for one in rounds if one.prior is not None and one.prior.k]
    below = [line.round for line in measured if _is_below(line)]
    entropy = _change(seen, lambda one: one.entropy).before, _change(seen, lambda one: one.entropy_after).after
    return EndOfTraining(
        run=run.name,
        setting=run.setting,
        objective=run.objective,
        price=run.price,
        seed=run.seed,
        rounds=len(rounds),
        entropy=Change(*entropy),
        kl=_change(seen, lambda one: one.line.kl),
        ess_share=_change(seen, lambda one: None if one.bound is None else one.bound.ess_share.value),
        epistemic=_change(seen, lambda one: one.reflection[0]),
        k=prior[0].k if prior else None,
        mean_at_k=_change(prior, lambda one: one.mean_at_k),
        pass_at_k=_change(prior, lambda one: one.pass_at_k),
        best_round=None if best is None else best.round,
        best_e3=None if best is None else best.e3,
        last_round=measured[-1].round if measured else None,
        last_e3=measured[-1].e3 if measured else None,
        below_base=[index for index in below if index is not None],
        verdict=UNMEASURED if best is None else verdict(best, measured[-1]),
    )


def verdict(best: RoundLine, last: RoundLine) -> str:
    """What became of the best round until the last that was measured.

    A collapse loses what there was: where the best round is itself below the base nothing was gained, and a dip between
    the two that the last round no longer shows was none.
    """
    if _is_below(best):
        return BELOW
    if best is last and best.measured.e3 > BASE_E3:
        return RISING
    if _is_below(best) is None or _is_below(last) is None:
        return UNDECIDED
    return COLLAPSE if _is_below(last) else PLATEAU


def _is_below(line: RoundLine) -> bool | None:
    """Whether its accuracy is below the base's by more than the interval of the difference; None without one."""
    return None if line.accuracy_gain_high is None else line.accuracy_gain_high < 0


def _change(rounds: Sequence[R], figure: Callable[[R], float | None]) -> Change:
    values = [value for one in rounds if (value := figure(one)) is not None]
    return Change(values[0], values[-1]) if values else Change(None, None)
