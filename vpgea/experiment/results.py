"""What an experiment found on its test questions: the objectives, each at its price of length, against one another.

A test question that several seeds have sampled is one cluster: intervals are over questions, with the seeds' samples as
samples of a question. What another seed would change is seen beside them, in the figure of each seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vpgea.experiment.grid import Run
from vpgea.experiment.rounds import Chosen, Lines, costs, rounds_of
from vpgea.experiment.runs import Workshop
from vpgea.metrics.bootstrap import Estimate, SampleTable, evaluate
from vpgea.metrics.paired import Gain, gains, holm, p_value
from vpgea.phases.compare import decided
from vpgea.phases.evaluate import sample_table
from vpgea.questions.clusters import Numbering

_POOLED = ("question", "correct", "tokens", "truncated")
Tested = tuple[Run, SampleTable, SampleTable]  # a run, its samples of the test questions and the base's


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
        seeds: Of its runs. sampled_tokens, rounds: means over them; None where it is not known, or has none.
        metrics: Of all seeds together against the base model.
        e3_of_seeds: Of each seed alone.
        against: None for the reference itself.
        gain_p_holm: Of its gain in accuracy over the base, where there are several tests.
        gain_verdict: What may be said of that gain.
    """

    objective: str
    price: float | None
    seeds: list[int]
    sampled_tokens: float | None
    rounds: float | None
    metrics: dict[str, Estimate]
    e3_of_seeds: list[float | None]
    against: Against | None = None
    gain_p_holm: float | None = None
    gain_verdict: str = ""

    @property
    def gain(self) -> Gain:
        """Of accuracy over the base."""
        found = self.metrics["accuracy_gain"]
        return Gain(estimate=found, p=p_value(found.value, found.low, found.high))


@dataclass(frozen=True, kw_only=True)
class SettingResult:
    """All objectives under one setting on one test.

    Attributes:
        name: Of the setting; test: of the test, "" for the one without a name.
        base: The base model's accuracy and tokens.
        without_round: Runs that finished none, whose weights are the base's.
    """

    name: str
    test: str = ""
    questions: int
    base: dict[str, Estimate]
    objectives: list[ObjectiveResult]
    without_round: list[str]


def results_of(workshop: Workshop, lines: Lines, chosen: Chosen, *, draws: int = 2000) -> list[SettingResult]:
    """Test what was chosen, and compare. All runs are trained.

    Raises:
        VpgeaError: What an evaluation raises.
    """
    runs = workshop.experiment.runs
    found = [
        _setting(workshop, name, test, [run for run in runs if run.setting == name], lines, chosen, draws)
        for name in dict.fromkeys(run.setting for run in runs)
        for test in workshop.experiment.tests
    ]
    return corrected(found)


def _setting(
    workshop: Workshop,
    name: str,
    test: str,
    runs: Sequence[Run],
    lines: Lines,
    chosen: Chosen,
    draws: int,
) -> SettingResult:
    numbers = Numbering()
    tables: dict[str, list[Tested]] = {}
    tried = [run for run in runs if run.price == chosen[run.setting, run.objective]]
    for run in tried:
        own, base = (sample_table(one, numbers) for one in workshop.test(run, rounds_of(lines[run.name]), test))
        tables.setdefault(run.objective, []).append((run, own, base))
    reference = workshop.experiment.reference
    theirs = {run.seed: table for run, table, _ in tables.get(reference, [])}
    objectives = [
        objective_result(
            each,
            {} if objective == reference else theirs,
            sampled_tokens=[costs(lines[run.name])[-1][0] for run, _, _ in each],
            rounds=float(np.mean([rounds_of(lines[run.name]) for run, _, _ in each])),
            draws=draws,
        )
        for objective, each in tables.items()
    ]
    bases = {run.seed: base for each in tables.values() for run, _, base in each}
    return SettingResult(
        name=name,
        test=test,
        questions=numbers.questions,
        base=evaluate(pooled(list(bases.values())), draws=draws),
        objectives=objectives,
        without_round=[run.name for run in tried if not rounds_of(lines[run.name])],
    )


def objective_result(
    each: Sequence[Tested],
    reference: Mapping[int, SampleTable],
    *,
    sampled_tokens: Sequence[int | None],
    rounds: float | None,
    draws: int = 2000,
) -> ObjectiveResult:
    """The runs of an objective at its price together, and against those of the reference with the same seeds.

    Args:
        each: Its runs, one for each seed.
        reference: Seed → the reference's samples; empty for the reference itself.
        sampled_tokens: Of each run; None: not known.
        rounds: Mean over the runs; None where there are none.
        draws: Of the bootstrap.
    """
    runs = [run for run, _, _ in each]
    known = [one for one in sampled_tokens if one is not None]
    shared = [table for run, table, _ in each if run.seed in reference]
    theirs = [reference[run.seed] for run, _, _ in each if run.seed in reference]
    return ObjectiveResult(
        objective=runs[0].objective,
        price=runs[0].price,
        seeds=[run.seed for run in runs],
        sampled_tokens=float(np.mean(known)) if len(known) == len(runs) else None,
        rounds=rounds,
        metrics=evaluate(pooled([own for _, own, _ in each]), pooled([base for _, _, base in each]), draws=draws),
        e3_of_seeds=[evaluate(own, base, draws=1)["e3"].value for _, own, base in each],
        against=_against(pooled(shared), pooled(theirs), draws) if shared else None,
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
    """With p values for all comparisons of the experiment together, and what they allow to be said.

    Where there are several tests, what is kept and forgotten is a comparison, too: each objective against the base.
    """
    several = len({setting.test for setting in found}) > 1

    def compared(one: ObjectiveResult) -> list[Gain]:
        with_base = [one.gain] if several else []
        other = one.against
        return with_base + ([] if other is None else [other.accuracy, other.tokens, other.log_e3])

    every = [one for setting in found for one in setting.objectives]
    adjusted = iter(holm([gain.p for one in every for gain in compared(one)]))

    def told(one: ObjectiveResult) -> ObjectiveResult:
        if several:
            p = next(adjusted)
            one = replace(one, gain_p_holm=p, gain_verdict=decided(one.gain, p, ("higher", "lower")))
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
