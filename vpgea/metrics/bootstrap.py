"""Every figure of a run of samples, with an interval clustered by question (numpy).

Every figure is a function of per-question sums, so a bootstrap draw is a vector of question weights and all draws
together are one matrix product. Questions of one record, which say the same thing several times, are added up first:
wherever an interval counts questions, they are one.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vpgea.metrics.estimates import Estimate, influence, mean_bounds, of_draws, quantile_of
from vpgea.metrics.resampling import (
    MIN_QUESTIONS,
    log_interval,
    paired_pseudo,
    paired_unit,
    pseudo,
    question_weights,
    share,
    unit,
)
from vpgea.metrics.scores import FloatArray, aes, e3_score, is_tied, majority_share, ock_score, pass_at_k, ratio

__all__ = ["Estimate", "SampleTable", "evaluate", "mean_e3"]

Sums = dict[str, FloatArray]

WIDE = 2.0  # an e3 interval with high / low above this says nothing
_COMPARISONS = ("e3", "aes", "accuracy_gain", "token_saving")
_QUANTILES = {"tokens_median": 0.5, "tokens_p95": 0.95}


@dataclass(frozen=True, kw_only=True)
class SampleTable:
    """One row per sample; arrays of shape (n,).

    question: int, the same number for the same question in two runs that are compared. correct: bool or 0/1, NaN for a
    grader's error or timeout; such rows leave every mean and count. tokens: completion tokens, > 0. truncated: the
    cap was hit. answers: for the vote, the same for the same value; None where there is none. first_correct: tokens up
    to the first correct value, NaN where it is not known. has_place: whether the question has a value whose first place
    says something; others leave the outcome efficiency, wrong samples too. None: all have. unended: the response ended
    by itself, and its thinking did not. thinking: tokens of the thinking; the others are the answer's. record: int, the
    same for questions that are one in other orders or copies, in both runs; None: each question is its own.
    tokens, truncated, unended and thinking are NaN where they are not known: figures over such samples have no value.
    """

    question: npt.ArrayLike
    correct: npt.ArrayLike
    tokens: npt.ArrayLike
    truncated: npt.ArrayLike
    answers: Sequence[Hashable | None] | None = None
    first_correct: npt.ArrayLike | None = None
    unended: npt.ArrayLike | None = None
    has_place: npt.ArrayLike | None = None
    thinking: npt.ArrayLike | None = None
    record: npt.ArrayLike | None = None

    @property
    def clusters(self) -> npt.NDArray[np.int64]:
        """(n,) what a draw takes or leaves as a whole: the record of each sample."""
        return np.asarray(self.question if self.record is None else self.record)


def evaluate(
    table: SampleTable, baseline: SampleTable | None = None, *, draws: int = 2000, seed: int = 0
) -> dict[str, Estimate]:
    """Every figure that the table allows, by name, with intervals clustered by question.

    accuracy, accuracy_finished (of the samples that ended before their cap), tokens (their mean), tokens_median,
    tokens_p95, tokens_correct (of right samples), truncation_rate, token_efficiency, ock_score, mean@n, pass@k; maj@n
    with answers; thinking_tokens and answer_tokens with thinking; no_end_of_thinking_rate with unended;
    outcome_efficiency and outcome_efficiency_correct with first_correct; e3, aes, accuracy_gain (A - A0) and
    token_saving ((T0 - T) / T0) with a baseline. Both runs get the same weights of questions in a draw, so questions
    that they share are paired. n in the names is the largest number of valid samples of a question.
    """
    labels = _labels(table, baseline)
    run = _Run.of(table, labels, seed)
    base = None if baseline is None else _Run.of(baseline, labels, seed)
    pair = None if base is None else _Pair.of(run, base, seed)
    point = run.figures(run.whole, None) | ({} if pair is None else pair.figures(run.whole, pair.base.whole, None))
    drawn: dict[str, list[FloatArray]] = {name: [] for name in point}
    for weights in question_weights(labels.size, draws, np.random.default_rng(seed)):
        totals = run.totals(weights)
        found = run.figures(totals, len(weights))
        if pair is not None:
            found |= pair.figures(totals, pair.base.totals(weights), len(weights))
        for name in point:
            drawn[name].append(found[name])
    result = {}
    for name, value in point.items():
        samples, questions = run.size(name)
        if pair is not None and name in _COMPARISONS:
            questions = min(questions, pair.base.size(name)[1])
        result[name] = of_draws(float(value[0]), np.concatenate(drawn[name]), samples, questions)
    for name, (top, bottom) in run.means.items():
        result[name] = result[name].with_bounds(mean_bounds(run.sums[top], run.sums[bottom]))
    result |= _quantiles(table) | {name: result[name].also(said) for name, said in run.warnings.items()}
    if pair is not None:
        result["token_saving"] = result["token_saving"].with_bounds(pair.saving_bounds())
    return result if baseline is None else _with_warnings(result, table, baseline)


def mean_e3(runs: Sequence[tuple[SampleTable, SampleTable]], *, draws: int = 2000, seed: int = 0) -> Estimate:
    """Mean of the e3 scores of several question sets, each (run, base run); the sets are resampled independently."""
    values, samples, size, questions = [], [], 0, []
    for position, (table, baseline) in enumerate(runs):
        labels = _labels(table, baseline)
        run, base = (_Run.of(one, labels, seed, position) for one in (table, baseline))
        pair = _Pair.of(run, base, seed, position)
        values.append(float(pair.figures(run.whole, base.whole, None)["e3"][0]))
        blocks = question_weights(labels.size, draws, np.random.default_rng([seed, position]))
        drawn = [pair.figures(run.totals(weights), base.totals(weights), len(weights))["e3"] for weights in blocks]
        samples.append(np.concatenate(drawn))
        size += run.size("e3")[0]
        questions.append(min(run.size("e3")[1], base.size("e3")[1]))
    return of_draws(float(np.mean(values)), np.mean(samples, axis=0), size, min(questions))


@dataclass(frozen=True, kw_only=True)
class _Run:
    """Sums of a run, and what its shares are smoothed with in a draw. A question is a record from here on.

    Attributes:
        sums: (questions,) each.
        valid: Of each question of the table, as it was asked: its graded samples.
        shares: figure → the two sums that it is a ratio of; a value in [0, 1].
        means: The same of figures that are numbers of tokens.
        units: figure → how many questions one independent observation is worth.
        rngs: figure → where its pseudo-observations come from.
    """

    sums: Sums
    valid: FloatArray
    shares: dict[str, tuple[str, str]]
    means: dict[str, tuple[str, str]]
    units: dict[str, float]
    rngs: dict[str, np.random.Generator]

    @classmethod
    def of(cls, table: SampleTable, labels: npt.NDArray[np.int64], *seeds: int) -> _Run:
        questions, first = np.unique(np.asarray(table.question), return_index=True)
        asked = _question_sums(table, questions)
        index = np.searchsorted(labels, table.clusters[first])
        sums = {name: np.bincount(index, column, labels.size).astype(np.float64) for name, column in asked.items()}
        shares = {"accuracy": ("correct", "valid"), "truncation_rate": ("truncated", "valid")}
        shares["accuracy_finished"] = "correct_finished", "finished"
        shares |= {"no_end_of_thinking_rate": ("unended", "valid")} if "unended" in sums else {}
        shares |= {name: (name, f"{name}_n") for name in sums if "@" in name and not name.endswith("_n")}
        if "outcome" in sums:
            shares["outcome_efficiency"] = "outcome", "outcome_n"
            shares["outcome_efficiency_correct"] = "outcome", "outcome_correct_n"
        means = {"tokens": ("tokens", "valid"), "tokens_correct": ("tokens_correct", "correct")}
        means |= {name: (name, "valid") for name in ("thinking_tokens", "answer_tokens") if name in sums}
        units = {name: unit(sums[top], sums[bottom]) for name, (top, bottom) in shares.items()}
        rngs = {name: np.random.default_rng([*seeds, 1, *name.encode()]) for name in shares}
        return cls(sums=sums, valid=asked["valid"], shares=shares, means=means, units=units, rngs=rngs)

    @property
    def whole(self) -> Sums:
        """The sums over all questions, (1,) each."""
        return self.totals(np.ones((1, self.sums["valid"].size)))

    def totals(self, weights: FloatArray) -> Sums:
        """Weighted sums over questions: weights (draws, questions) -> (draws,) each."""
        table = weights @ np.stack(list(self.sums.values()), axis=1)
        return dict(zip(self.sums, table.T, strict=True))

    def each(self, column: str) -> float:
        """Values of a question that has any."""
        values = self.sums[column]
        return float(values.sum() / max((values > 0).sum(), 1))

    def figures(self, totals: Sums, draws: int | None) -> Sums:
        """Every figure of one run, (draws,) each; draws None: as they are, without a pseudo-observation."""
        figures = {}
        for name, (top, bottom) in self.shares.items():
            if draws is None:
                figures[name] = ratio(totals[top], totals[bottom])
            else:
                extra = pseudo(self.units[name], draws, self.rngs[name])
                figures[name] = share(totals[top], totals[bottom], self.each(bottom), extra)
        figures |= {name: ratio(totals[top], totals[bottom]) for name, (top, bottom) in self.means.items()}
        return figures | {
            "token_efficiency": ratio(figures["accuracy"], figures["tokens"]),
            "ock_score": ock_score(figures["accuracy"], figures["tokens"]),
        }

    def size(self, name: str) -> tuple[int, int]:
        """What a figure's mean is taken over, and how many questions that is."""
        counts = self.sums[(self.shares | self.means).get(name, ("", "valid"))[1]]
        return int(counts.sum()), int((counts > 0).sum())

    @property
    def token_influence(self) -> FloatArray:
        """(questions,) of each question on the logarithm of the mean tokens."""
        return influence(self.sums["tokens"], self.sums["valid"])

    @property
    def warnings(self) -> dict[str, str]:
        """What is left out of a figure, or counted in fractions, by the figure's name."""
        valid, said = self.valid, {}
        asked, records = int((valid > 0).sum()), self.size("")[1]
        if records < asked:
            said["accuracy"] = f"{asked} questions are of {records} records, and every interval counts records"
        for name in self.shares:
            kind, _, k = name.partition("@")
            if kind == "pass" and (lacking := asked - self.size(name)[0]):
                said[name] = f"{lacking} questions have fewer than {k} graded samples and are not in it"
            elif kind == "mean" and (fewer := int(((valid > 0) & (valid < int(k))).sum())):
                said[name] = f"{fewer} questions have fewer than {k} graded samples"
            elif kind == "maj" and (tied := int(self.sums["tied"].sum())):
                said[name] = f"{tied} questions are ties: the right share of the tied answers counts"
        return said


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """A run and its baseline. unit, apart: what a pseudo-observation of both, and a disagreement, are worth."""

    run: _Run
    base: _Run
    unit: float
    apart: float
    rng: np.random.Generator

    @classmethod
    def of(cls, run: _Run, base: _Run, *seeds: int) -> _Pair:
        both = [(one.sums["correct"], one.sums["valid"]) for one in (run, base)]
        return cls(
            run=run,
            base=base,
            unit=(run.units["accuracy"] + base.units["accuracy"]) / 2,
            apart=paired_unit(*both),
            rng=np.random.default_rng([*seeds, 2]),
        )

    def figures(self, run: Sums, base: Sums, draws: int | None) -> Sums:
        """The figures against the baseline from totals, (draws,) each."""
        if draws is None:
            a, a0 = (ratio(totals["correct"], totals["valid"]) for totals in (run, base))
        else:
            right, base_right, every = paired_pseudo(self.unit, self.apart, draws, self.rng)
            a = share(run["correct"], run["valid"], self.run.each("valid"), (right, every))
            a0 = share(base["correct"], base["valid"], self.base.each("valid"), (base_right, every))
        t, t0 = (ratio(totals["tokens"], totals["valid"]) for totals in (run, base))
        return {
            "e3": e3_score(a, t, a0, t0, samples=run["valid"], base_samples=base["valid"]),
            "aes": aes(a, t, a0, t0),
            "accuracy_gain": a - a0,
            "token_saving": ratio(t0 - t, t0),
        }

    def saving_bounds(self) -> tuple[float, float] | None:
        sizes = [one.size("tokens") for one in (self.run, self.base)]
        if min(questions for _, questions in sizes) < MIN_QUESTIONS:
            return None
        t, t0 = (one.sums["tokens"].sum() / one.sums["valid"].sum() for one in (self.run, self.base))
        has = (self.run.sums["valid"] > 0) | (self.base.sums["valid"] > 0)
        influence = (self.run.token_influence - self.base.token_influence)[has]
        low, high = log_interval(float(t / t0), influence, is_skewed=False)
        return 1 - high, 1 - low


def _labels(table: SampleTable, baseline: SampleTable | None) -> npt.NDArray[np.int64]:
    """All records of either run, sorted."""
    return np.unique(np.concatenate([run.clusters for run in (table, baseline) if run is not None]))


def _question_sums(table: SampleTable, labels: npt.NDArray[np.int64]) -> Sums:
    """Per question: sums over its valid samples, and question-wise figures beside the count of questions with one."""
    correct = np.asarray(table.correct, np.float64)
    columns = [np.asarray(column) for column in (table.question, table.tokens, table.truncated)]
    assert all(column.shape == correct.shape for column in columns), "one row per sample"
    valid = ~np.isnan(correct)
    right = correct[valid]
    question, tokens, truncated = (column[valid] for column in columns)
    index = np.searchsorted(labels, question)

    def total(values: npt.ArrayLike) -> FloatArray:
        return np.bincount(index, np.asarray(values, np.float64), minlength=labels.size).astype(np.float64)

    sums = {"valid": total(np.ones(right.size)), "correct": total(right), "tokens": total(tokens)}
    ended = np.asarray(truncated, np.float64) == 0
    sums |= {"truncated": total(truncated), "finished": total(ended), "correct_finished": total(right * ended)}
    sums["tokens_correct"] = total(right * tokens)
    if table.thinking is not None:
        thinking = np.asarray(table.thinking)[valid]
        sums |= {"thinking_tokens": total(thinking), "answer_tokens": total(tokens - thinking)}
    if table.unended is not None:
        sums["unended"] = total(np.asarray(table.unended)[valid])
    most = int(sums["valid"].max(initial=0))
    _add_mean(sums, f"mean@{most}", ratio(sums["correct"], sums["valid"]))
    for k in sorted({2**power for power in range(1, most.bit_length()) if 2**power <= most} | ({most} - {0, 1})):
        _add_mean(sums, f"pass@{k}", pass_at_k(sums["valid"], sums["correct"], k))
    if table.answers is not None:
        votes = _majorities(table.answers, correct, np.asarray(table.question), labels)
        _add_mean(sums, f"maj@{most}", votes[0])
        sums["tied"] = votes[1]
    if table.first_correct is not None:
        place = np.where(right == 1, np.asarray(table.first_correct, np.float64)[valid] / tokens, 0.0)
        known = ~np.isnan(place)
        if table.has_place is not None:
            known &= np.asarray(table.has_place, bool)[valid]
        sums |= {
            "outcome": total(np.where(known, place, 0.0)),
            "outcome_n": total(known),
            "outcome_correct_n": total(known & (right == 1)),
        }
    return sums


def _add_mean(sums: Sums, name: str, per_question: FloatArray) -> None:
    """A mean over the questions where the figure is defined, as sum and count."""
    defined = ~np.isnan(per_question)
    sums[name] = np.where(defined, per_question, 0.0)
    sums[f"{name}_n"] = defined.astype(np.float64)


def _majorities(
    answers: Sequence[Hashable | None],
    correct: FloatArray,
    question: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
) -> tuple[FloatArray, FloatArray]:
    """`majority_share` of each question over its valid samples, NaN without any, and 1 where it `is_tied`."""
    shares, ties = np.full(labels.size, np.nan), np.zeros(labels.size)
    rows: dict[int, list[int]] = {}
    for row in np.flatnonzero(~np.isnan(correct)):
        rows.setdefault(int(np.searchsorted(labels, question[row])), []).append(int(row))
    for position, members in rows.items():
        votes = correct[members], [answers[row] for row in members]
        shares[position], ties[position] = majority_share(*votes), is_tied(*votes)
    return shares, ties


def _quantiles(table: SampleTable) -> dict[str, Estimate]:
    """Those of the tokens of all valid samples."""
    valid = ~np.isnan(np.asarray(table.correct, np.float64))
    tokens, records = np.asarray(table.tokens)[valid], table.clusters[valid]
    return {name: quantile_of(tokens, records, level) for name, level in _QUANTILES.items()}


def _with_warnings(result: dict[str, Estimate], table: SampleTable, baseline: SampleTable) -> dict[str, Estimate]:
    """The comparisons, with what makes them weak said beside them."""
    alone = np.setxor1d(np.asarray(table.question), np.asarray(baseline.question)).size
    apart = f"{alone} questions are in one of the two runs only; those are not paired" if alone else None
    for name in _COMPARISONS:
        found = result[name].also(apart)
        result[name] = found.also(_too_wide(found)) if name == "e3" else found
    return result


def _too_wide(found: Estimate) -> str | None:
    if found.low is None or found.high is None or found.high <= WIDE * found.low:
        return None
    return (
        f"the e3 interval {found.low:.2f} to {found.high:.2f} is too wide to say anything: "
        "use more questions or more samples per question"
    )
