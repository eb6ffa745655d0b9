"""What one round of a loop says of itself, read from the records of its filter and its training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vpgea.runs.layout import METRICS, SUMMARY, Step
from vpgea.runs.records import ElboEstimate, FilterSummary, RoundLine
from vpgea.storage.files import read_json_lines
from vpgea.storage.records import read_record

_REASON = "posterior_rejected_"


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one round says of itself.

    Attributes:
        filtered: None where its records are not kept.
        entropy: Of its training's first step that has one, in nats per token; entropy_after: of the last one, before
            that step is taken.
        reflection: Words of reflection per 1,000 tokens, of the prior's paths and of the posterior's that were learnt.
    """

    line: RoundLine
    filtered: FilterSummary | None = None
    entropy: float | None = None
    entropy_after: float | None = None
    reflection: tuple[float | None, float | None] = (None, None)

    @property
    def index(self) -> int:
        assert self.line.round is not None
        return self.line.round

    @property
    def bound(self) -> ElboEstimate | None:
        found = None if self.filtered is None else self.filtered.elbo
        return found if isinstance(found, ElboEstimate) else None

    def posterior(self, outcome: str) -> int:
        """Posterior paths of which the filter's table says this: sampled, accepted, in_part ..."""
        return 0 if self.filtered is None else self.filtered.counts.get(f"posterior_{outcome}", 0)

    @property
    def reasons(self) -> dict[str, int]:
        """Rejected posterior paths by the reason that is blamed."""
        counts = {} if self.filtered is None else self.filtered.counts
        return {name.removeprefix(_REASON): n for name, n in counts.items() if name.startswith(_REASON) and n}


def read_round(run_dir: Path, line: RoundLine) -> Round:
    """A finished round with what its phases have recorded.

    Raises:
        DamagedError: A record is none.
    """
    summary = Step(line.round, "filter").folder(run_dir) / SUMMARY
    metrics = Step(line.round, "distill").folder(run_dir) / METRICS
    steps = [step for step in read_json_lines(metrics) if isinstance(step, dict)] if metrics.is_file() else []
    entropies = _figures(steps, "entropy")
    return Round(
        line=line,
        filtered=read_record(summary, FilterSummary) if summary.is_file() else None,
        entropy=entropies[0] if entropies else None,
        entropy_after=entropies[-1] if entropies else None,
        reflection=(_mean(steps, "epistemic_prior"), _mean(steps, "epistemic_posterior")),
    )


def _figures(steps: Sequence[Mapping[str, object]], name: str) -> list[float]:
    """Of the steps that have it; earlier versions had fewer."""
    values = (step.get(name) for step in steps)
    return [float(value) for value in values if isinstance(value, int | float) and math.isfinite(value)]


def _mean(steps: Sequence[Mapping[str, object]], name: str) -> float | None:
    values = _figures(steps, name)
    return sum(values) / len(values) if values else None
