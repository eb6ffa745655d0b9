"""A round's line of figures, made of the records of its phases, and held against them whenever it is read."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpgea.errors import DamagedError, QualityGateError
from vpgea.metrics.bootstrap import Estimate
from vpgea.runs.layout import MANIFEST, METRICS, RESULTS, ROUND_RECORD, SUMMARY, Step, round_record
from vpgea.runs.manifest import Manifest
from vpgea.runs.records import NEWER_FIGURES, DistillSummary, EvalResults, FilterSummary, RoundLine
from vpgea.storage.files import read_json_lines
from vpgea.storage.records import damaged_record, read_record

# the name in a round's line → the metric of the evaluation
_HELD_OUT = {
    "accuracy": "accuracy",
    "tokens": "tokens",
    "truncated": "truncation_rate",
    "e3": "e3",
    "accuracy_gain": "accuracy_gain",
}

_ABSENT: dict[str, Any] = {f"{name}{bound}": None for name in _HELD_OUT for bound in ("", "_low", "_high")}


def line_of(
    index: int | None,
    results: EvalResults | None,
    training: TrainingFigures | None,
    *,
    seconds: float | None,
    times: dict[str, dict[str, float]],
) -> RoundLine:
    """The line of a round whose steps are all complete.

    Args:
        index: The round; None: the base model.
        results: Of its evaluation; None where it was not measured.
        training: Of rounds; the base model has none.
        seconds: What the round took; None where jobs of a cluster made it.
        times: Seconds of each phase by activity (runs/clock.py).

    Raises:
        QualityGateError: A figure is not defined on the held-out samples.
    """
    measured = {} if results is None else results.metrics
    for metric in (metric for metric in _HELD_OUT.values() if metric in measured):
        _require_defined(metric, measured[metric])
    figures = {**(_ABSENT if results is None else _held_out(results)), **({} if training is None else vars(training))}
    return RoundLine(**figures, round=index, seconds=seconds, times=times)


def _held_out(results: EvalResults) -> dict[str, Any]:
    """The figures of an evaluation by their names in a round's line."""
    figures: dict[str, Any] = {"e3": 1.0}  # the base is 1 by definition
    for name, metric in _HELD_OUT.items():
        if (estimate := results.metrics.get(metric)) is not None:
            figures |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return figures


def _require_defined(metric: str, estimate: Estimate) -> None:
    if estimate.value is None:
        raise QualityGateError(
            f"{metric} is not defined on the held-out samples",
            why=estimate.warning or f"{estimate.n} samples are behind it",
            mend="look at the round's evaluation with `vpgea inspect`; more held-out questions or samples help",
        )


@dataclass(frozen=True, kw_only=True)
class TrainingFigures:
    """What a round's line says of its filter and its training."""

    accepted_share: float
    pseudo_efficient_share: float
    kl: float | None
    elbo: float | None
    check_tokens: int
    sampled_tokens: int | None
    length_price: float
    loss_reference_kl: float | None
    trained_tokens: int
    engine_mismatch: float | None

    @classmethod
    def of(
        cls, selection: FilterSummary, training: DistillSummary, *, price: float, reference_kl: float | None
    ) -> TrainingFigures:
        """price: lambda of the round. reference_kl: of its last optimiser step, in nats."""
        counts, bound = selection.counts, selection.elbo
        correct = (
            counts["posterior_accepted"] + counts["posterior_pseudo_efficient"] + counts["posterior_rejected_undecided"]
        )
        return cls(
            accepted_share=counts["posterior_accepted"] / max(counts["posterior_sampled"], 1),
            pseudo_efficient_share=counts["posterior_pseudo_efficient"] / max(correct, 1),
            kl=None if isinstance(bound, str) else bound.kl.value,
            elbo=None if isinstance(bound, str) else bound.elbo.value,
            check_tokens=selection.tokens["check_tokens"],
            sampled_tokens=sampled_tokens(selection),
            length_price=price,
            loss_reference_kl=reference_kl,
            trained_tokens=training.trained_tokens,
            engine_mismatch=None if training.engine_mismatch is None else training.engine_mismatch.largest,
        )


def sampled_tokens(selection: FilterSummary) -> int | None:
    """By a round's rollout and for its checks; None where an earlier version did not count them."""
    drawn = selection.tokens.get("rollout_tokens")
    return None if drawn is None else drawn + selection.tokens["check_tokens"]


def last_reference_kl(path: Path) -> float | None:
    """Of the last step in a training's metrics.jsonl; None without one.

    Raises:
        DamagedError: Its last line is none of a step.
    """
    if not (lines := read_json_lines(path)):
        return None
    last = lines[-1]
    if not isinstance(last, dict) or "reference_kl" not in last:
        raise damaged_record(path, "its last line is none of a step")
    value: float | None = last["reference_kl"]
    return value


@dataclass(frozen=True, kw_only=True)
class OtherFigure:
    """A figure of a round's line that is not the one of the record which it was taken from.

    Attributes:
        name: In the line.
        in_line: As the line has it.
        source: The phase's record, with `in_source`.
    """

    name: str
    in_line: object
    source: Path
    in_source: object

    @property
    def words(self) -> str:
        place = f"{self.source.parent.name}/{self.source.name}"
        return f"{self.name} is {self.in_line} in {ROUND_RECORD}, and {place} has {self.in_source}"


def other_figures(run_dir: Path, line: RoundLine) -> list[OtherFigure]:
    """What of a round's line its phases say otherwise, as far as their records are there.

    Raises:
        DamagedError: A record of a phase is none.
    """
    said = {name: (path, value) for path, figures in _sources(run_dir, line.round) for name, value in figures.items()}
    return [
        OtherFigure(name=name, in_line=getattr(line, name), source=path, in_source=value)
        for name, (path, value) in said.items()
        if not are_equal(getattr(line, name), value)
        and not (name in NEWER_FIGURES and getattr(line, name) is None)  # the phase was made again since
    ]


def are_equal(one: object, other: object) -> bool:
    """The KL of a step that was left out may be no number, in both."""
    return one == other or repr(one) == "nan" == repr(other)


def require_own_figures(run_dir: Path, line: RoundLine) -> None:
    """See that a round's line is what its phases' records say, before anything is decided by it.

    Raises:
        DamagedError: A figure in one of them was changed, or they are of two runs.
    """
    if other := other_figures(run_dir, line):
        raise DamagedError(
            f"{round_record(run_dir, line.round)} is not what its phases say",
            why=other[0].words,
            mend=f"`vpgea doctor {shlex.quote(str(run_dir))} --repair` makes again what was changed",
        )


def _sources(run_dir: Path, index: int | None) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The records that are there with the figures that a round's line has of them."""
    if (results := Step(index, "eval").folder(run_dir) / RESULTS).is_file():
        measured = _held_out(read_record(results, EvalResults))
        yield results, _ABSENT | measured
    if index is None:
        return
    filtered, trained = (Step(index, phase).folder(run_dir) for phase in ("filter", "distill"))
    records = (filtered / SUMMARY, filtered / MANIFEST, trained / SUMMARY)
    if not all(path.is_file() for path in records):
        return
    price = Manifest.read(records[1]).identity.get("filter.utility.length_price")
    steps = trained / METRICS
    selection, training = read_record(records[0], FilterSummary), read_record(records[2], DistillSummary)
    reference_kl = last_reference_kl(steps) if steps.is_file() else None
    number = float(price) if isinstance(price, int | float) else 0.0
    try:
        figures = vars(TrainingFigures.of(selection, training, price=number, reference_kl=reference_kl))
    except KeyError as error:
        raise damaged_record(records[0], f"it does not count {error}") from error
    of_training = {"trained_tokens": records[2], "engine_mismatch": records[2], "length_price": records[1]}
    of_training["loss_reference_kl"] = steps
    for name, value in figures.items():
        if (source := of_training.get(name, records[0])).is_file():
            yield source, {name: value}
