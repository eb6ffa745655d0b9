"""Accuracy over budgets of tokens, from samples that are there, and over difficulty, free of regression to the mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from vpgea.metrics.bootstrap import SampleTable
from vpgea.metrics.estimates import Estimate, mean_of, share_of
from vpgea.metrics.scores import FloatArray, ratio

BUDGET_RULE = "of stored samples: one that has not ended within the budget is wrong"
_BUDGETS = 6
# upper edges of the shares of right answers of the bins
_EDGES = (0.0, 0.25, 0.5, 0.75, 1 - 1e-9, 1.0)
_NAMES = ("none right", "to 1/4", "to 1/2", "to 3/4", "below 1", "all right")


@dataclass(frozen=True)
class BudgetPoint:
    """Accuracy if each response were cut at `budget` tokens, and the mean tokens that are then spent."""

    budget: int
    accuracy: Estimate
    tokens: Estimate


@dataclass(frozen=True)
class DifficultyBin:
    """Questions of which another half of the base's samples has a share of right answers in a range.

    questions: how many, those of one record as one. runs: for the base and each other run, (accuracy, mean tokens).
    """

    name: str
    questions: int
    runs: list[tuple[Estimate, Estimate]]


def budgets_below(cap: int) -> list[int]:
    """The cap and what halving it gives, rising."""
    return sorted({max(cap >> power, 1) for power in range(_BUDGETS)})


def budget_curve(table: SampleTable, budgets: Sequence[int], *, draws: int = 2000, seed: int = 0) -> list[BudgetPoint]:
    """Accuracy and tokens at each budget of tokens; BUDGET_RULE, so that at the cap a truncated sample is wrong too.

    No points where it is not known of a sample how long it is, or whether it ended.
    """
    correct = np.asarray(table.correct, np.float64)
    valid = ~np.isnan(correct)
    tokens, truncated = (np.asarray(one, np.float64)[valid] for one in (table.tokens, table.truncated))
    if np.isnan(tokens).any() or np.isnan(truncated).any():
        return []
    ended = truncated == 0
    index = np.unique(table.clusters[valid], return_inverse=True)[1]

    def total(values: npt.ArrayLike) -> FloatArray:
        return np.bincount(index, np.asarray(values, np.float64)).astype(np.float64)

    every, points = total(np.ones(index.size)), []
    for budget in budgets:
        right = total(correct[valid] * (ended & (tokens <= budget)))
        spent = total(np.minimum(tokens, budget))
        points.append(BudgetPoint(budget, share_of(right, every, draws=draws, seed=seed), mean_of(spent, every)))
    return points


def difficulty_bins(
    base: SampleTable, others: Sequence[SampleTable], *, draws: int = 2000, seed: int = 0
) -> list[DifficultyBin]:
    """Figures by how hard a question is for the base.

    A question's bin is told by its second, fourth, ... sample of the base, the figures of every run by the samples
    between. The same samples would put lucky ones among the easy and show a loss there that is none; and samples of
    another run that have the seeds of those that bin share their luck, and would show a gain. Rows of a question stand
    in the order of their seeds. Questions of one record share a bin, and every other one of them begins with a sample
    that bins. Those without a valid sample of the base in both halves are in no bin.
    """
    tables = (base, *others)
    second = _seconds(tables)
    labels = np.unique(np.concatenate([table.clusters for table in tables]))
    right, valid, _ = _sums(_rows(base, second[0]), labels)
    figures = [_sums(_rows(table, ~bins), labels) for table, bins in zip(tables, second, strict=True)]
    share = ratio(right, valid)
    usable = (valid > 0) & (figures[0][1] > 0)
    bins = []
    for name, (low, high) in zip(_NAMES, pairwise((-1.0, *_EDGES)), strict=True):
        members = usable & (share > low) & (share <= high)
        if members.any():
            runs = [
                (
                    share_of(one[0][members], one[1][members], draws=draws, seed=seed),
                    mean_of(one[2][members], one[1][members]),
                )
                for one in figures
            ]
            bins.append(DifficultyBin(name, int(members.sum()), runs))
    return bins


def _seconds(tables: Sequence[SampleTable]) -> list[npt.NDArray[np.bool_]]:
    """(n,) of each table: whether a row is the second, fourth, ... of its question.

    Of the second, fourth, ... question of a record it is the first, third, ..., so that orders of one sample each are
    halved as well.
    """
    asked = [np.asarray(table.question) for table in tables]
    labels, first = np.unique(np.concatenate(asked), return_index=True)
    among = _places(np.concatenate([table.clusters for table in tables])[first])
    return [(_places(question) + among[np.searchsorted(labels, question)]) % 2 == 1 for question in asked]


def _places(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(n,) how many equal values stand before each."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=-1))
    place = np.empty(values.size, np.int64)
    place[order] = np.arange(values.size) - np.repeat(starts, np.diff(starts, append=values.size))
    return place


def _rows(table: SampleTable, chosen: npt.NDArray[np.bool_]) -> SampleTable:
    columns = (np.asarray(one)[chosen] for one in (table.question, table.correct, table.tokens, table.truncated))
    question, correct, tokens, truncated = columns
    record = table.clusters[chosen]
    return SampleTable(question=question, correct=correct, tokens=tokens, truncated=truncated, record=record)


def _sums(table: SampleTable, labels: npt.NDArray[np.int64]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Right, valid, and tokens per record, (labels,) each."""
    correct = np.asarray(table.correct, np.float64)
    valid = ~np.isnan(correct)
    index = np.searchsorted(labels, table.clusters[valid])
    columns = (correct[valid], np.ones(index.size), np.asarray(table.tokens, np.float64)[valid])
    right, every, tokens = (np.bincount(index, one, labels.size).astype(np.float64) for one in columns)
    return right, every, tokens
