"""What a check is: a few members, kept in one file per check."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from vpgea.config.filtering import FilterConfig
from vpgea.config.schema import RunConfig
from vpgea.filtering.cost import Cost, RolloutLengths
from vpgea.filtering.prior_view import PriorView
from vpgea.filtering.samples import Chunk, JudgedSample

Judge = Callable[[JudgedSample], list[str] | None]  # reasons against a path, [] for none; None: it could not be judged

UNDECIDED = "undecided"  # a reason that is no check's own: nothing speaks against the path, and too little for it
_ROUNDING = 1e-6  # measured shares are float32: 7 of 10 reads 0.69999999 and must still reach a threshold of 0.7


def no_judge(config: RunConfig, samples: Sequence[JudgedSample]) -> Judge:
    """A diagnostic rejects nothing."""
    return lambda sample: []


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check, or diagnostic, of the cross-view evaluation.

    Attributes:
        name: that of its options, `filter.NAME`: a section with `enabled`, or a flag.
        about: what it asks of a path, in one line.
        columns: what it measures, as columns of MEASUREMENTS; null means not measured or not applicable.
        measure: fills these columns in `found` of a chunk's samples.
        reasons: reason → meaning, in the order in which they are blamed; none for a diagnostic.
        judge: sees all samples of the phase, then judges candidates one by one.
        cost: what measuring asks of the engine.
        reads_content: whether it judges what a path says; a path that no such check could judge is undecided.
    """

    name: str
    about: str
    columns: tuple[pa.Field, ...]
    measure: Callable[[Chunk, PriorView], None]
    cost: Callable[[RunConfig, RolloutLengths], Cost]
    reasons: Mapping[str, str] = field(default_factory=dict)
    judge: Callable[[RunConfig, Sequence[JudgedSample]], Judge] = no_judge
    reads_content: bool = False

    def is_enabled(self, options: FilterConfig) -> bool:
        option = getattr(options, self.name)
        return option if isinstance(option, bool) else bool(option.enabled)


def below(share: float, limit: float) -> bool:
    """Whether a measured share misses its threshold."""
    return share < limit - _ROUNDING
