"""What an experiment found: the price of length by the held-out questions, then the objectives on the test questions.

A test question that several seeds have sampled is one cluster: intervals are over questions, with the seeds' samples as
samples of a question. What another seed would change is seen beside them, in the figure of each seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from vpgea.experiment.grid import Run
from vpgea.experiment.runs import Workshop
from vpgea.metrics.bootstrap import Estimate, SampleTable, evaluate
from vpgea.metrics.paired import Gain, gains, holm, p_value
from vpgea.phases.compare import decided
from vpgea.phases.evaluate import sample_table
from vpgea.questions.clusters import Numbering
from vpgea.runs.records import RoundLine
from vpgea.storage.shards import table_from_rows

_POOLED = ("question", "correct", "tokens", "truncated")
ROUNDS = pa.schema(
    [
        *(pa.field(name, pa.string(), nullable=False) for name in ("run", "setting", "objective")),
        pa.field("price", pa.float64()),  # of length, as the experiment's file has it
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("round", pa.int64()),  # null: the base model
        *(pa.field(name, pa.int64()) for name in ("sampled_tokens", "trained_tokens")),  # up to this round's end
        *(pa.field(name, pa.float64()) for name in ("seconds", "accuracy", "tokens", "truncated", "e3")),  # held out
        *(pa.field(name, pa.float64()) for name in ("accepted_share", "pseudo_efficient_share", "kl")),
        pa.field("is_chosen", pa.bool_(), nullable=False),  # whether its price is its objective's
    ]
)


Lines = Mapping[str, Sequence[RoundLine]]  # run's name → of the base model and of every finished round
Chosen = dict[tuple[str, str], float | None]  # (setting, objective) → price


@dataclass(frozen=True, kw_only=True)
class Against:
    """An objective against the reference: e3 with the reference as base; p values adjusted for the whole experiment."""

    accuracy: Gain
    tokens: Gain
    e3: Estimate
    accuracy_p_holm: float | None = None
    tokens_p_holm: float | None = None
    e3_p_holm: float | None = None
    verdict: str = ""

    @property
    def log_e3(self) -> Gain:
        """The logarithm of e3, 0 where there is no difference, and its p value."""
        low, value, high = (None if not one else math.log(one) for one in (self.e3.low, self.e3.value, self.e3.high))
        return Gain(estimate=replace(self.e3, value=value, low=low, high=high), p=p_value(value, low, high))


@dataclass(frozen=True, kw_only=True)
class ObjectiveResult:
    """An objective at its price on the test questions.

    Attributes:
        price: The one of highest mean e3 on the held-out questions; None where there was none to choose.
        seeds: Of its runs. sampled_tokens, rounds: means over them.
        metrics: Of all seeds together against the base model.
        e3_of_seeds: Of each seed alone.
        against: None for the reference itself.
    """

    objective: str
    price: float | None
    seeds: list[int]
    sampled_tokens: float | None
    rounds: float
    metrics: dict[str, Estimate]
    e3_of_seeds: list[float | None]
    against: Against | None = None


@dataclass(frozen=True, kw_only=True)
class SettingResult:
    """All objectives under one setting.

    base: the base model's accuracy and tokens. without_round: runs that finished none, whose weights are the base's.
    """

    name: str
    questions: int
    base: dict[str, Estimate]
    objectives: list[ObjectiveResult]
    without_round: list[str]


def choose(runs: Sequence[Run], lines: Lines) -> Chosen:
    """(Setting, objective) → the price whose runs have the highest mean e3 on the held-out questions at their ends.

    A run that was never measured is worth nothing: its e3 is 0.
    """
    chosen: Chosen = {}
    for key in dict.fromkeys((run.setting, run.objective) for run in runs):
        own = [run for run in runs if (run.setting, run.objective) == key]
        scores = {
            price: float(np.mean([_last_e3(lines[run.name]) for run in own if run.price == price]))
            for price in dict.fromkeys(run.price for run in own)
        }
        chosen[key] = max(scores, key=lambda price: scores[price])
    return chosen


def _last_e3(lines: Sequence[RoundLine]) -> float:
    return next((line.measured.e3 for line in reversed(lines[1:]) if line.is_measured), 0.0)


def results_of(workshop: Workshop, lines: Lines, chosen: Chosen, *, draws: int = 2000) -> list[SettingResult]:
    """Test what was chosen, and compare. All runs are trained.

    Raises:
        VpgeaError: What an evaluation raises.
    """
    runs = workshop.experiment.runs
    found = [
        _setting(workshop, name, [run for run in runs if run.setting == name], lines, chosen, draws)
        for name in dict.fromkeys(run.setting for run in runs)
    ]
    return corrected(found)


def _setting(
    workshop: Workshop,
    name: str,
    runs: Sequence[Run],
    lines: Lines,
    chosen: Chosen,
    draws: int,
) -> SettingResult:
    numbers = Numbering()
    tables: dict[str, list[tuple[Run, SampleTable, SampleTable]]] = {}
    tried = [run for run in runs if run.price == chosen[run.setting, run.objective]]
    for run in tried:
        own, base = (sample_table(one, numbers) for one in workshop.test(run, _rounds(lines[run.name])))
        tables.setdefault(run.objective, []).append((run, own, base))
    reference = workshop.experiment.reference
    theirs = {run.seed: table for run, table, _ in tables.get(reference, [])}
    objectives = []
    for objective, each in tables.items():
        one = _objective(each, lines, draws)
        shared = [(table, theirs[run.seed]) for run, table, _ in each if run.seed in theirs]
        if objective != reference and shared:
            own, other = (pooled([pair[side] for pair in shared]) for side in (0, 1))
            one = replace(one, against=_against(own, other, draws))
        objectives.append(one)
    bases = {run.seed: base for each in tables.values() for run, _, base in each}
    return SettingResult(
        name=name,
        questions=numbers.questions,
        base=evaluate(pooled(list(bases.values())), draws=draws),
        objectives=objectives,
        without_round=[run.name for run in tried if not _rounds(lines[run.name])],
    )


def _rounds(lines: Sequence[RoundLine]) -> int:
    """How many are finished; a run whose base could not be measured has no line at all."""
    return max(len(lines) - 1, 0)


def _objective(each: Sequence[tuple[Run, SampleTable, SampleTable]], lines: Lines, draws: int) -> ObjectiveResult:
    runs = [run for run, _, _ in each]
    spent = [costs(lines[run.name])[-1][0] for run in runs]
    return ObjectiveResult(
        objective=runs[0].objective,
        price=runs[0].price,
        seeds=[run.seed for run in runs],
        sampled_tokens=None if None in spent else float(np.mean([one for one in spent if one is not None])),
        rounds=float(np.mean([_rounds(lines[run.name]) for run in runs])),
        metrics=evaluate(pooled([own for _, own, _ in each]), pooled([base for _, _, base in each]), draws=draws),
        e3_of_seeds=[evaluate(own, base, draws=1)["e3"].value for _, own, base in each],
    )


def _against(own: SampleTable, reference: SampleTable, draws: int) -> Against:
    accuracy, tokens = gains(own, reference, draws=draws)
    return Against(accuracy=accuracy, tokens=tokens, e3=evaluate(own, reference, draws=draws)["e3"])


def pooled(tables: Sequence[SampleTable]) -> SampleTable:
    """The samples of several runs on the same questions as samples of one."""
    question, correct, tokens, truncated = (
        np.concatenate([np.asarray(getattr(one, name)) for one in tables]) for name in _POOLED
    )
    record = np.concatenate([one.clusters for one in tables])
    return SampleTable(question=question, correct=correct, tokens=tokens, truncated=truncated, record=record)


def corrected(found: Sequence[SettingResult]) -> list[SettingResult]:
    """With p values for all comparisons of the experiment together, and what they allow to be said."""
    every = [one.against for setting in found for one in setting.objectives if one.against]
    adjusted = iter(holm([gain.p for one in every for gain in (one.accuracy, one.tokens, one.log_e3)]))

    def told(one: ObjectiveResult) -> ObjectiveResult:
        if one.against is None:
            return one
        accuracy, tokens, e3 = (next(adjusted) for _ in range(3))
        against = replace(one.against, accuracy_p_holm=accuracy, tokens_p_holm=tokens, e3_p_holm=e3)
        return replace(one, against=replace(against, verdict=_verdict(against)))

    return [replace(setting, objectives=[told(one) for one in setting.objectives]) for setting in found]


def _verdict(against: Against) -> str:
    accuracy = decided(against.accuracy, against.accuracy_p_holm, ("higher", "lower"))
    tokens = decided(against.tokens, against.tokens_p_holm, ("more", "fewer"))
    e3 = decided(against.log_e3, against.e3_p_holm, ("better", "worse"))
    return f"accuracy {accuracy}, tokens {tokens}, ε³ {e3}"


# --- learning per cost ----------------------------------------------------------------------------------------------


def costs(lines: Sequence[RoundLine]) -> list[tuple[int | None, int | None, float | None]]:
    """Up to the end of each round, the base's line first: tokens sampled, tokens trained on, seconds.

    None from where one round does not say it.
    """
    of_rounds = [(line.sampled_tokens, line.trained_tokens, _seconds(line)) for line in lines[1:]]
    columns = list(zip(*of_rounds, strict=True)) or [(), (), ()]
    return list(zip(*([0, *_sums(column)] for column in columns), strict=True))


def _seconds(line: RoundLine) -> float | None:
    """Of all attempts, without the evaluation: it is no part of learning."""
    if line.times is None:
        return None
    return math.fsum(seconds for phase, parts in line.times.items() if phase != "eval" for seconds in parts.values())


def _sums(values: Sequence[float | None]) -> Iterator[float | None]:
    total: float | None = 0
    for value in values:
        total = None if total is None or value is None else total + value
        yield total


def rounds_table(runs: Sequence[Run], lines: Lines, chosen: Chosen) -> pa.Table:
    """A row of ROUNDS for the base model and each round of each run: what it had cost, and what it was worth."""
    rows = [
        {
            **{name: getattr(run, name) for name in ("setting", "objective", "price", "seed")},
            **{name: getattr(line, name) for name in ROUNDS.names if hasattr(line, name)},
            "run": run.name,
            "sampled_tokens": sampled,
            "trained_tokens": trained,
            "seconds": seconds,
            "is_chosen": run.price == chosen[run.setting, run.objective],
        }
        for run in runs
        for line, (sampled, trained, seconds) in zip(lines[run.name], costs(lines[run.name]), strict=True)
    ]
    return table_from_rows(rows, ROUNDS)
