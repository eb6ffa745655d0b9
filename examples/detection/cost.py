"""What each check asks of the engine over the paths that it measured, as it reckons itself: vpgea/filtering/cost.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from vpgea.config.schema import RunConfig
from vpgea.filtering.checks.base import Check
from vpgea.filtering.cost import Paths, RolloutLengths
from vpgea.filtering.samples import JudgedSample
from vpgea.storage.schemas import POSTERIOR, PRIOR, View

Prompts = Mapping[View, Mapping[str, int]]  # view → question's id → tokens of its prompt


@dataclass(frozen=True)
class CheckCost:
    """Tokens: sampled, if every continuation ran to its cap, and scored, prompts included."""

    sampled_at_most: int = 0
    scored: int = 0

    def __add__(self, other: CheckCost) -> CheckCost:
        return CheckCost(self.sampled_at_most + other.sampled_at_most, self.scored + other.scored)

    def as_dict(self) -> dict[str, int]:
        """Plain values for JSON."""
        return asdict(self)


def costs(
    config: RunConfig, checks: Sequence[Check], right: Sequence[JudgedSample], prompts: Prompts
) -> dict[str, CheckCost]:
    """Check → its cost.

    Args:
        config: Of the filter.
        checks: Those that were on.
        right: Samples of either view whose answer is right, all that checks look at.
        prompts: Of the view with the note they are those of questions with posterior samples: no others are asked.
    """
    found = {}
    for check in checks:
        cost = check.cost(config, _lengths(right, [one for one in right if _is_measured(check, one)], prompts))
        found[check.name] = CheckCost(
            sum(len(kind.starts) * kind.samples * kind.cap for kind in cost.continuations),
            sum(int(scored.sum()) for scored in cost.scored),
        )
    return found


def _is_measured(check: Check, sample: JudgedSample) -> bool:
    if sample.view != POSTERIOR:
        return False
    return not check.columns or any(sample.measured[column.name] is not None for column in check.columns)


def _lengths(right: Sequence[JudgedSample], candidates: Sequence[JudgedSample], prompts: Prompts) -> RolloutLengths:
    def behind(view: View, chosen: Sequence[JudgedSample]) -> Paths:
        pairs = [
            (prompts[view][sample.key.question_id], sample.thinking_tokens)
            for sample in chosen
            if sample.key.question_id in prompts[view]
        ]
        return Paths(*np.array(pairs, np.int64).reshape(-1, 2).T)

    prior, posterior = ([sample for sample in right if sample.view == view] for view in (PRIOR, POSTERIOR))
    asked = {sample.key.question_id for sample in candidates}
    return RolloutLengths(
        prompts=np.array([length for question, length in prompts[PRIOR].items() if question in asked], np.int64),
        prior=behind(PRIOR, prior),
        posterior=behind(PRIOR, posterior),
        candidates=behind(PRIOR, candidates),
        noted_prior=behind(POSTERIOR, prior),
        noted_posterior=behind(POSTERIOR, posterior),
        noted_candidates=behind(POSTERIOR, candidates),
        completion_tokens=sum(sample.completion_tokens for sample in right),
    )
