"""Which check finds which pseudo-efficient path: recall, loss and precision, of the filter and of each check alone.

Every share has its 95 % interval over questions; of several rounds a question is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np

from examples.detection.cost import CheckCost
from examples.detection.rounds import RightPath, RightSample, Round, Verdict
from examples.detection.thresholds import DIALS, Sweep, sweep
from examples.detection.truth import Kind
from vpgea.errors import UsageError
from vpgea.metrics.estimates import Estimate, share_of
from vpgea.metrics.scores import FloatArray

LEAST_RECALL, MOST_LOSS = 0.97, 0.02  # the goal, in every round and every family
DRAWS = 2000  # of the bootstrap

S = TypeVar("S", bound=RightSample)


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What the filter, or a check alone, takes.

    Attributes:
        recall: Share of the pseudo-efficient paths that it rejects.
        loss: Share of the sound ones.
        precision: Share of pseudo-efficient paths among those that it rejects.
        lucky: Share of the slips that ended right by luck.
    """

    recall: Estimate
    loss: Estimate
    precision: Estimate
    lucky: Estimate


@dataclass(frozen=True, kw_only=True)
class CheckFigures:
    """One check.

    Attributes:
        alone: What it catches; what it could not judge it does not.
        not_judged: Share of all right paths.
        only: Pseudo-efficient paths that no other check catches.
        without: What the filter rejects without it. Where no other check can judge, a path stays undecided.
        cost: Of all rounds.
    """

    alone: Taken
    not_judged: Estimate
    only: int
    without: Taken
    cost: CheckCost


@dataclass(frozen=True, kw_only=True)
class Group:
    """The paths of some questions.

    Attributes:
        caught, lost: Check → its recall and its loss alone.
        thresholds: Check → other thresholds; none of a check without one, or that measured no path of one of the kinds.
        goal: `verdict` of the filter.
    """

    pseudo_efficient: int
    sound: int
    filter: Taken
    caught: dict[str, Estimate]
    lost: dict[str, Estimate]
    thresholds: dict[str, Sweep]
    goal: str


@dataclass(frozen=True, kw_only=True)
class KindFigures:
    """The paths of one kind: how many, and the shares that the filter rejects and that each check catches alone."""

    count: int
    filter: Estimate
    caught: dict[str, Estimate]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """A round, or all of a loop.

    Attributes:
        prior_right: Prior samples with a right answer.
        prior_unsound: Share of those that are not sound.
        undecided: Share of all right paths that the filter rejects though no check caught them.
        families, answers: By the question's family, and by whether its answer's value can be told apart in a text.
        tokens: As the filter recorded them.
    """

    round: str
    right: int
    prior_right: int
    prior_unsound: Estimate
    whole: Group
    undecided: Estimate
    kinds: dict[str, KindFigures]
    families: dict[str, Group]
    answers: dict[str, Group]
    checks: dict[str, CheckFigures]
    tokens: dict[str, int]

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)


def pooled(rounds: Sequence[Round]) -> Round:
    """All rounds of a loop as one.

    Raises:
        UsageError: Their filters were not the same.
    """
    first, *others = rounds
    for other in others:
        if (other.checks, other.settings) != (first.checks, first.settings):
            raise UsageError(
                f"{first.name} and {other.name} cannot be taken together",
                why="their filters have other checks or thresholds",
                mend="give the folder of one round",
            )
    costs = {name: sum((one.costs[name] for one in rounds), CheckCost()) for name in first.checks}
    return Round(
        name="all" if others else first.name,
        prior=[sample for one in rounds for sample in one.prior],
        posterior=[path for one in rounds for path in one.posterior],
        checks=first.checks,
        settings=first.settings,
        tokens={
            name: sum(one.tokens[name] for one in rounds)
            for name in first.tokens
            if all(name in one.tokens for one in rounds)  # an earlier version did not count them all
        },
        costs=costs,
    )


def figures(of: Round) -> Figures:
    """Every figure of a round."""
    paths = of.posterior
    return Figures(
        round=of.name,
        right=len(paths),
        prior_right=len(of.prior),
        prior_unsound=_share(of.prior, lambda sample: not sample.kind.is_sound),
        whole=_group(of, paths),
        undecided=_share(paths, lambda path: path.is_rejected and Verdict.CAUGHT not in path.verdicts.values()),
        kinds={
            kind: KindFigures(
                count=len(own),
                filter=_share(own, lambda path: path.is_rejected),
                caught={check: _share(own, _caught_by(check)) for check in of.checks},
            )
            for kind in Kind
            if (own := [path for path in paths if path.kind == kind])
        },
        families=_groups(of, lambda path: path.family),
        answers=_groups(of, lambda path: "told apart" if path.is_distinct else "not told apart"),
        checks={check: _check(of, check) for check in of.checks},
        tokens=of.tokens,
    )


def verdict(recall: Estimate, loss: Estimate) -> str:
    """Whether the goal is kept by the figures, with `?` where their intervals hold the other answer, too.

    `-` where there is nothing to find or nothing to lose.
    """
    if recall.value is None or loss.value is None:
        return "-"
    kept = recall.value >= LEAST_RECALL and loss.value <= MOST_LOSS
    if recall.low is None or recall.high is None or loss.low is None or loss.high is None:
        return "pass?" if kept else "miss?"
    if kept:
        return "pass" if recall.low >= LEAST_RECALL and loss.high <= MOST_LOSS else "pass?"
    return "miss" if recall.high < LEAST_RECALL or loss.low > MOST_LOSS else "miss?"


def _check(of: Round, check: str) -> CheckFigures:
    paths = of.posterior
    return CheckFigures(
        alone=_taken(paths, _caught_by(check)),
        not_judged=_share(paths, lambda path: path.verdicts[check] == Verdict.NOT_JUDGED),
        only=sum(path.only_caught_by(check) for path in paths if path.kind.is_pseudo_efficient),
        without=_taken(paths, lambda path: check in path.rejected_without),
        cost=of.costs[check],
    )


def _caught_by(check: str) -> Callable[[RightPath], bool]:
    return lambda path: path.verdicts[check] == Verdict.CAUGHT


def _groups(of: Round, name: Callable[[RightPath], str]) -> dict[str, Group]:
    names = sorted({name(path) for path in of.posterior})
    return {one: _group(of, [path for path in of.posterior if name(path) == one]) for one in names}


def _group(of: Round, paths: Sequence[RightPath]) -> Group:
    copied = [path for path in paths if path.kind.is_pseudo_efficient]
    sound = [path for path in paths if path.kind.is_sound]
    taken = _taken(paths, lambda path: path.is_rejected)
    sweeps = {
        check: sweep(DIALS[check], setting, _values(check, copied), _values(check, sound), MOST_LOSS)
        for check, setting in of.settings.items()
    }
    return Group(
        pseudo_efficient=len(copied),
        sound=len(sound),
        filter=taken,
        caught={check: _share(copied, _caught_by(check)) for check in of.checks},
        lost={check: _share(sound, _caught_by(check)) for check in of.checks},
        thresholds={check: found for check, found in sweeps.items() if found is not None},
        goal=verdict(taken.recall, taken.loss),
    )


def _values(check: str, paths: Sequence[RightPath]) -> FloatArray:
    """(n,) of those that have one."""
    return np.array([path.values[check] for path in paths if check in path.values], np.float64)


def _taken(paths: Sequence[RightPath], is_taken: Callable[[RightPath], bool]) -> Taken:
    return Taken(
        recall=_share([path for path in paths if path.kind.is_pseudo_efficient], is_taken),
        loss=_share([path for path in paths if path.kind.is_sound], is_taken),
        precision=_share([path for path in paths if is_taken(path)], lambda path: path.kind.is_pseudo_efficient),
        lucky=_share([path for path in paths if path.kind == Kind.LUCKY_SLIP], is_taken),
    )


def _share(samples: Sequence[S], holds: Callable[[S], bool]) -> Estimate:
    """Share of the samples of which something holds."""
    if not samples:
        return Estimate(value=None, low=None, high=None, n=0)
    question = np.unique([sample.question for sample in samples], return_inverse=True)[1]
    top = np.bincount(question, weights=[holds(sample) for sample in samples]).astype(np.float64)
    return share_of(top, np.bincount(question).astype(np.float64), draws=DRAWS, seed=0)
