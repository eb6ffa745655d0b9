"""Every figure of a run of samples, with an interval clustered by question (numpy).

Every figure is a function of per-question sums, so a bootstrap draw is a vector of question counts and all draws
together are one matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from vpgea.metrics.scores import FloatArray, aes, e3_score, majority_share, ock_score, pass_at_k, ratio

Sums = dict[str, FloatArray]

LEVEL = 0.95
WIDE = 2.0  # an e3 interval with high / low above this says nothing
_CHUNK_CELLS = 2_000_000  # cells of the draws x questions matrix held at once


@dataclass(frozen=True, kw_only=True)
class SampleTable:
    """One row per sample; arrays of shape (n,).

    question: int, the same number for the same question in two runs that are compared. correct: bool or 0/1, NaN for a
    grader's error or timeout; such rows leave every mean and count. tokens: completion tokens, > 0. truncated: the
    cap was hit. answers: canonical answers for the vote, None where there is none. first_correct: tokens up to the
    first correct value, NaN where it is not known.
    """

    question: npt.ArrayLike
    correct: npt.ArrayLike
    tokens: npt.ArrayLike
    truncated: npt.ArrayLike
    answers: Sequence[str | None] | None = None
    first_correct: npt.ArrayLike | None = None


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its 95 % interval.

    n: samples behind it (questions for pass@k, mean@k, maj@k). None: not defined on these data; the bounds are None
    too where more than 2.5 % of the draws are not defined. warning: why the figure says little.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    warning: str | None = None

    def as_dict(self) -> dict[str, float | int | str | None]:
        """Plain values for JSON."""
        return asdict(self)


def evaluate(
    table: SampleTable, baseline: SampleTable | None = None, *, draws: int = 2000, seed: int = 0
) -> dict[str, Estimate]:
    """Every figure that the table allows, by name, with percentile intervals of a bootstrap over questions.

    accuracy, tokens, truncation_rate, token_efficiency, ock_score, mean@n, pass@k; maj@n with answers;
    outcome_efficiency and outcome_efficiency_correct with first_correct; e3, aes, accuracy_gain (A - A0) and
    token_saving ((T0 - T) / T0) with a baseline. Both runs are resampled by the same draw of questions, so questions
    that they share are paired. n in the names is the largest number of valid samples of a question.
    """
    labels = _labels(table, baseline)
    sums = _question_sums(table, labels)
    base_sums = _question_sums(baseline, labels) if baseline else None
    whole = np.ones((1, labels.size))
    counts = _totals(sums, whole)
    point = _figures(counts, _totals(base_sums, whole) if base_sums else None, smooth=False)
    parts = [
        _figures(_totals(sums, weights), _totals(base_sums, weights) if base_sums else None, smooth=True)
        for weights in _question_counts(labels.size, draws, np.random.default_rng(seed))
    ]
    result = {
        name: _estimate(float(value[0]), np.concatenate([part[name] for part in parts]), _size(name, counts))
        for name, value in point.items()
    }
    return result if baseline is None else _with_warnings(result, table, baseline)


def mean_e3(runs: Sequence[tuple[SampleTable, SampleTable]], *, draws: int = 2000, seed: int = 0) -> Estimate:
    """Mean of the e3 scores of several question sets, each (run, base run); the sets are resampled independently."""
    values, samples, size = [], [], 0
    for position, (table, baseline) in enumerate(runs):
        labels = _labels(table, baseline)
        both = [_question_sums(run, labels) for run in (table, baseline)]
        whole = np.ones((1, labels.size))
        values.append(float(_comparison(*(_totals(sums, whole) for sums in both), smooth=False)["e3"][0]))
        weights = _question_counts(labels.size, draws, np.random.default_rng([seed, position]))
        samples.append(
            np.concatenate([_comparison(*(_totals(s, w) for s in both), smooth=True)["e3"] for w in weights])
        )
        size += int(both[0]["valid"].sum())
    return _estimate(float(np.mean(values)), np.mean(samples, axis=0), size)


def _labels(table: SampleTable, baseline: SampleTable | None) -> npt.NDArray[np.int64]:
    """All questions of either run, sorted."""
    return np.unique(np.concatenate([np.asarray(run.question) for run in (table, baseline) if run is not None]))


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
    sums["truncated"] = total(truncated)
    most = int(sums["valid"].max(initial=0))
    _add_mean(sums, f"mean@{most}", ratio(sums["correct"], sums["valid"]))
    for k in sorted({2**power for power in range(1, most.bit_length()) if 2**power <= most} | ({most} - {0, 1})):
        _add_mean(sums, f"pass@{k}", pass_at_k(sums["valid"], sums["correct"], k))
    if table.answers is not None:
        _add_mean(sums, f"maj@{most}", _majorities(table.answers, correct, np.asarray(table.question), labels))
    if table.first_correct is not None:
        share = np.where(right == 1, np.asarray(table.first_correct, np.float64)[valid] / tokens, 0.0)
        known = ~np.isnan(share)
        sums |= {
            "outcome": total(np.where(known, share, 0.0)),
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
    answers: Sequence[str | None],
    correct: FloatArray,
    question: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
) -> FloatArray:
    """`majority_share` of each question over its valid samples; NaN without any."""
    result = np.full(labels.size, np.nan)
    rows: dict[int, list[int]] = {}
    for row in np.flatnonzero(~np.isnan(correct)):
        rows.setdefault(int(np.searchsorted(labels, question[row])), []).append(int(row))
    for position, members in rows.items():
        result[position] = majority_share(correct[members], [answers[row] for row in members])
    return result


def _question_counts(questions: int, draws: int, rng: np.random.Generator) -> Iterator[FloatArray]:
    """How often each question stands in each draw, in blocks (<= draws, questions) of bounded memory."""
    block = max(1, _CHUNK_CELLS // max(questions, 1))
    for start in range(0, draws, block):
        rows = min(block, draws - start)
        picks = rng.integers(questions, size=(rows, questions)) if questions else np.zeros((rows, 0), np.int64)
        cells = (picks + questions * np.arange(rows)[:, None]).ravel()
        yield np.bincount(cells, minlength=rows * questions).reshape(rows, questions).astype(np.float64)


def _totals(sums: Sums, weights: FloatArray) -> Sums:
    """Weighted sums over questions: weights (draws, questions) -> (draws,) each."""
    table = weights @ np.stack(list(sums.values()), axis=1)
    return dict(zip(sums, table.T, strict=True))


def _figures(run: Sums, base: Sums | None, *, smooth: bool) -> Sums:
    """Every figure from totals, (draws,) each."""
    accuracy, tokens = ratio(run["correct"], run["valid"]), ratio(run["tokens"], run["valid"])
    figures = {
        "accuracy": accuracy,
        "tokens": tokens,
        "truncation_rate": ratio(run["truncated"], run["valid"]),
        "token_efficiency": ratio(accuracy, tokens),
        "ock_score": ock_score(accuracy, tokens),
    }
    figures |= {name: ratio(run[name], run[f"{name}_n"]) for name in run if "@" in name and not name.endswith("_n")}
    if "outcome" in run:
        figures["outcome_efficiency"] = ratio(run["outcome"], run["outcome_n"])
        figures["outcome_efficiency_correct"] = ratio(run["outcome"], run["outcome_correct_n"])
    return figures if base is None else figures | _comparison(run, base, smooth=smooth)


def _comparison(run: Sums, base: Sums, *, smooth: bool) -> Sums:
    """The figures against a baseline, (draws,) each."""
    (a, t), (a0, t0) = (
        (ratio(total["correct"], total["valid"]), ratio(total["tokens"], total["valid"])) for total in (run, base)
    )
    return {
        "e3": e3_score(a, t, a0, t0, samples=run["valid"], base_samples=base["valid"], smooth=smooth),
        "aes": aes(a, t, a0, t0),
        "accuracy_gain": a - a0,
        "token_saving": ratio(t0 - t, t0),
    }


def _size(name: str, counts: Sums) -> int:
    """What the figure's mean is taken over."""
    own = {"outcome_efficiency": "outcome_n", "outcome_efficiency_correct": "outcome_correct_n"}
    key = own.get(name, f"{name}_n" if "@" in name else "valid")
    return int(counts[key][0])


def _estimate(value: float, draws: FloatArray, n: int) -> Estimate:
    defined = draws[np.isfinite(draws)]
    if not np.isfinite(value):
        return Estimate(value=None, low=None, high=None, n=n)
    if defined.size < draws.size * (1 + LEVEL) / 2:
        return Estimate(value=value, low=None, high=None, n=n)
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value=value, low=float(low), high=float(high), n=n)


def _with_warnings(result: dict[str, Estimate], table: SampleTable, baseline: SampleTable) -> dict[str, Estimate]:
    """The comparisons, with what makes them weak said beside them."""
    alone = np.setxor1d(np.asarray(table.question), np.asarray(baseline.question)).size
    apart = f"{alone} questions are in one of the two runs only; those are not paired" if alone else None
    for name in ("e3", "aes", "accuracy_gain", "token_saving"):
        found = result[name]
        said = [apart, _too_wide(found) if name == "e3" else None]
        text = "; ".join(part for part in said if part)
        result[name] = Estimate(value=found.value, low=found.low, high=found.high, n=found.n, warning=text or None)
    return result


def _too_wide(found: Estimate) -> str | None:
    if found.low is None or found.high is None or found.high <= WIDE * found.low:
        return None
    return (
        f"the e3 interval {found.low:.2f} to {found.high:.2f} is too wide to say anything: "
        "use more questions or more samples per question"
    )
