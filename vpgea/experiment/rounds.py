"""The rounds of an experiment's runs: what each had cost, what it measured on its way, and what it was worth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vpgea.experiment.grid import Run
from vpgea.metrics.scores import pass_at_k
from vpgea.report.rounds import Round, read_round
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.layout import Step, is_phase_finished
from vpgea.runs.records import RoundLine
from vpgea.storage.schemas import PRIOR
from vpgea.storage.shards import read_table, table_from_rows

_GRADES = {"correct": 1, "wrong": 0}  # others are none
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
        *(pa.field(name, pa.float64()) for name in ("entropy", "entropy_after")),  # first and last step, nats per token
        *(pa.field(name, pa.float64()) for name in ("epistemic_prior", "epistemic_posterior")),  # per 1,000 tokens
        *(pa.field(name, pa.float64()) for name in ("elbo", "ess_share", "loss_reference_kl")),
        pa.field("k", pa.int64()),  # graded prior samples of a training question
        *(pa.field(name, pa.float64()) for name in ("mean_at_k", "pass_at_k")),  # of these, before the training
    ]
)


@dataclass(frozen=True, kw_only=True)
class PriorGrades:
    """Grades of a round's prior samples on its training questions: the model as it came to the round.

    Attributes:
        k: Most graded samples of a question; 0: there are none.
        mean_at_k: Mean share of right ones, over the questions that have any.
        pass_at_k: Share of questions with a right one, over those with k.
    """

    k: int
    mean_at_k: float | None
    pass_at_k: float | None


@dataclass(frozen=True, kw_only=True)
class TrainedRound:
    """A finished round. prior: None where its filter's rows are not kept."""

    seen: Round
    prior: PriorGrades | None


Lines = Mapping[str, Sequence[RoundLine]]  # run's name → of the base model and of every finished round
Chosen = dict[tuple[str, str], float | None]  # (setting, objective) → price
Trained = Mapping[str, Sequence[TrainedRound]]  # run's name → its finished rounds


def rounds_of(lines: Sequence[RoundLine]) -> int:
    """How many are finished; a run whose base could not be measured has no line at all."""
    return max(len(lines) - 1, 0)


def read_rounds(run_dir: Path, lines: Sequence[RoundLine]) -> list[TrainedRound]:
    """What a run's finished rounds measured.

    Raises:
        DamagedError: A record, or the grades of a filter, are not what was written.
    """
    return [
        TrainedRound(seen=read_round(run_dir, line), prior=_prior(Step(line.round, "filter").folder(run_dir)))
        for line in lines[1:]
    ]


def _prior(folder: Path) -> PriorGrades | None:
    if not is_phase_finished(folder, "filter"):
        return None
    grades: dict[str, list[int]] = {}
    for path in CompletePhase.open(folder, "filter").chunks():
        table = read_table(path, columns=("question_id", "view", "status"))
        for question, view, status in zip(*(column.to_pylist() for column in table.columns), strict=True):
            if view == PRIOR and status in _GRADES:
                grades.setdefault(question, []).append(_GRADES[status])
    return graded(list(grades.values()))


def graded(grades: Sequence[Sequence[int]]) -> PriorGrades:
    """grades: of each question with any, 1 for right and 0 for wrong."""
    samples, right = (np.array([of(one) for one in grades], np.int64) for of in (len, sum))
    k = int(samples.max(initial=0))
    if not k:
        return PriorGrades(k=0, mean_at_k=None, pass_at_k=None)
    return PriorGrades(
        k=k, mean_at_k=float(np.mean(right / samples)), pass_at_k=float(np.nanmean(pass_at_k(samples, right, k)))
    )


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


def rounds_table(runs: Sequence[Run], lines: Lines, trained: Trained, chosen: Chosen) -> pa.Table:
    """A row for the base model and each round of each run: ROUNDS, then the counts of its filter under their names."""
    filtered = [one.seen.filtered for run in runs for one in trained[run.name] if one.seen.filtered is not None]
    counted = list(dict.fromkeys(name for one in filtered for name in one.counts))
    rows = [
        {
            **dict.fromkeys((*ROUNDS.names, *counted)),
            **{name: getattr(run, name) for name in ("setting", "objective", "price", "seed")},
            **{name: getattr(line, name) for name in ROUNDS.names if hasattr(line, name)},
            **({} if one is None else _measured(one)),
            "run": run.name,
            "sampled_tokens": sampled,
            "trained_tokens": learnt,
            "seconds": seconds,
            "is_chosen": run.price == chosen[run.setting, run.objective],
        }
        for run in runs
        for line, one, (sampled, learnt, seconds) in zip(
            lines[run.name],
            [None, *trained[run.name]],
            costs(lines[run.name]),
            strict=False,  # without a line: none
        )
    ]
    return table_from_rows(rows, pa.schema([*ROUNDS, *(pa.field(name, pa.int64()) for name in counted)]))


def _measured(one: TrainedRound) -> dict[str, Any]:
    """Beside what its line has."""
    seen, prior = one.seen, one.prior
    bound = seen.bound
    return {
        "entropy": seen.entropy,
        "entropy_after": seen.entropy_after,
        "epistemic_prior": seen.reflection[0],
        "epistemic_posterior": seen.reflection[1],
        "ess_share": None if bound is None else bound.ess_share.value,
        **({} if prior is None else vars(prior)),
        **({} if seen.filtered is None else seen.filtered.counts),
    }
