"""From measurements to a selected set: thresholds, utilities, advantages and gates, and the table of counts."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, ValidationError

from vpgea.config.schema import FilterConfig, PlausibilityConfig, RunConfig, Section
from vpgea.errors import UsageError
from vpgea.filtering import elbo, utility
from vpgea.filtering.crossview import sampling_truncated
from vpgea.grading.base import Status
from vpgea.prompts.views import Views
from vpgea.questions.load import Question
from vpgea.runs.layout import REFERENCE_LENGTHS, SETS, SUMMARY
from vpgea.runs.phase_folder import chunk_paths
from vpgea.storage.files import read_json, write_json
from vpgea.storage.schemas import POSTERIOR, PRIOR, SELECTION
from vpgea.storage.shards import read_table, table_from_rows, write_table

MIN_CALIBRATION_PATHS = 8
NO_LOG_RATIOS = "not available (truncated support)"
_ROUNDING = 1e-6  # measured shares are float32: 7 of 10 reads 0.69999999 and must still reach a threshold of 0.7

Tokens = Annotated[float, Field(gt=0, allow_inf_nan=False)]

# Reasons in the order in which they are blamed in the table; a path stores all that apply.
PSEUDO_EFFICIENT = ("leak", "derivation", "no-lift", "answerability", "plausibility")
OTHER_REASONS = ("error", "timeout", "cut-off", "wrong", "undecided")


class ReferenceLengths(Section):
    """L_ref in tokens: of each question, and for questions that are not among them."""

    questions: dict[str, Tokens]
    default: Tokens

    @classmethod
    def read(cls, path: Path) -> ReferenceLengths:
        """Raises UsageError for a file that `vpgea filter` did not write."""
        value = read_json(path)
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise UsageError(
                f"not a file of reference lengths: {path}",
                why=" ".join(str(error).split()),
                mend="give the reference_lengths.json that `vpgea filter` wrote for the base model's rollout",
            ) from error

    def floored(self, floor: float) -> ReferenceLengths:
        lengths = {question: max(length, floor) for question, length in self.questions.items()}
        return ReferenceLengths(questions=lengths, default=max(self.default, floor))

    def of(self, question_id: str) -> float:
        return self.questions.get(question_id, self.default)


@dataclass
class Sample:
    """What selection needs to know of one sample; measured holds no log-probabilities per token."""

    key: tuple[int, str, str, int]
    status: Status
    cut_off: bool
    length: float  # tokens; of a posterior path |z| + mean |y| over its prior-view continuations
    measured: dict[str, Any]
    log_ratio: float | None  # sum over z of log q - log pi
    own_logprob: float | None  # mean over z under the view that sampled it
    thinking_tokens: int
    stats: PathStats | None
    reasons: list[str] = field(default_factory=list)
    utility: float = float("nan")
    advantage: float | None = None
    gate: float | None = None

    @property
    def view(self) -> str:
        return self.key[2]

    @property
    def r(self) -> float:
        """Correctness in [0, 1]: the grade of a prior sample, the answerability of a posterior path where it was
        measured; NaN when no grade, or no continuation, is valid."""
        if not self.status.valid:
            return float("nan")
        if self.measured["answerability_valid"] is None:
            return float(self.status == Status.CORRECT)
        share = self.measured["answerability"]
        return float("nan") if share is None else float(share)


@dataclass(frozen=True)
class PathStats:
    """How far a path's log q - log pi goes, in nats: worst window mean, quantile, and the smallest log pi."""

    window: float
    quantile: float
    log_pi: float


def path_stats(log_q: Sequence[float], log_pi: Sequence[float], config: PlausibilityConfig) -> PathStats:
    """Both (|z|,), |z| >= 1. A path shorter than the window is one window."""
    pi = np.asarray(log_pi, np.float64)
    ratio = np.asarray(log_q, np.float64) - pi
    windows = np.lib.stride_tricks.sliding_window_view(ratio, min(config.window, ratio.size)).mean(axis=-1)
    return PathStats(float(windows.max()), float(np.quantile(ratio, config.quantile)), float(pi.min()))


def select(config: RunConfig, views: Views, rollout_dir: Path, output_dir: Path) -> dict[str, Any]:
    """Write selected/, rejected/, reference_lengths.json and summary.json; return the summary."""
    pairs = list(zip(chunk_paths(rollout_dir), chunk_paths(output_dir), strict=True))
    samples = [sample for pair in pairs for sample in _samples(config, *pair)]
    limits = plausibility_limits(config, samples)
    for sample in samples:
        sample.reasons = rejection_reasons(sample, config.filter, limits if isinstance(limits, PathStats) else None)
    own = own_reference_lengths(samples)
    given = config.filter.reference_lengths
    references = (own if given is None else ReferenceLengths.read(Path(given))).floored(
        config.filter.min_reference_tokens
    )
    for question_id, group in _by_question(samples).items():
        _value(config, group, references.of(question_id))
    by_key = {sample.key: sample for sample in samples}
    for rollout_path, _ in pairs:
        _write_sets(views, rollout_path, output_dir, by_key)
    summary = {
        "counts": counts(samples),
        "plausibility_limits": vars(limits) if isinstance(limits, PathStats) else limits,
        "needs_no_thinking": questions_without_need(samples, config.filter),
        "elbo": _elbo(config, samples, references),
        "checks": _check_means(config, samples),
        "tokens": {name: sum(sample.measured[name] for sample in samples) for name in ("check_tokens", "score_tokens")},
    }
    write_json(output_dir / REFERENCE_LENGTHS, own.model_dump())
    write_json(output_dir / SUMMARY, summary)
    return summary


def rejection_reasons(sample: Sample, config: FilterConfig, limits: PathStats | None) -> list[str]:
    """Why a sample is not learnt from; empty when it is accepted. Prior samples need only a valid grade."""
    if not sample.status.valid:
        return [sample.status.value]
    if sample.view == PRIOR:
        return []
    if sample.cut_off or sample.status == Status.WRONG:
        return ["cut-off" if sample.cut_off else "wrong"]
    found, reasons = sample.measured, []
    if config.leaks.enabled and found["leak"] is not None:
        reasons.append("leak")
    if config.derivation.enabled and found["derivation"] is not None:
        reasons += ["derivation"] * _below(found["derivation"], config.derivation.threshold)
    if config.answerability.enabled:
        reasons += _answerability_reasons(found, config)
    if limits is not None and sample.stats is not None and _implausible(sample.stats, limits):
        reasons.append("plausibility")
    return reasons


def _answerability_reasons(found: dict[str, Any], config: FilterConfig) -> list[str]:
    options, share, empty = config.answerability, found["answerability"], found["answerability_empty"]
    if share is None or found["answerability_valid"] < options.samples / 2:
        return ["undecided"]
    reasons = ["answerability"] * _below(share, options.threshold)
    if empty is not None and _below(empty, options.threshold) and _below(share - empty, options.lift):
        reasons.append("no-lift")
    return reasons


def questions_without_need(samples: Sequence[Sample], config: FilterConfig) -> list[str]:
    """Questions that the prior view answers without any thinking; no lift is asked of their paths."""
    threshold = config.answerability.threshold
    empty = {
        sample.key[1]: sample.measured["answerability_empty"]
        for sample in samples
        if sample.view == POSTERIOR and sample.measured["answerability_empty"] is not None
    }
    return [question for question, share in empty.items() if not _below(share, threshold)]


def _below(share: float, limit: float) -> bool:
    return share < limit - _ROUNDING


def _implausible(stats: PathStats, limits: PathStats) -> bool:
    return stats.window > limits.window or stats.quantile > limits.quantile or stats.log_pi < limits.log_pi


def plausibility_limits(config: RunConfig, samples: Sequence[Sample]) -> PathStats | str:
    """Quantiles of the prior's own correct paths plus slack; in words, why no path is judged by them."""
    options = config.filter.plausibility
    if not options.enabled:
        return "off"
    if sampling_truncated(config):
        return NO_LOG_RATIOS
    own = [sample.stats for sample in samples if sample.view == PRIOR and sample.stats is not None]
    if len(own) < MIN_CALIBRATION_PATHS:
        return f"not calibrated ({len(own)} correct prior paths, {MIN_CALIBRATION_PATHS} are needed)"
    share, slack = options.calibration_quantile, options.slack
    return PathStats(
        window=float(np.quantile([stats.window for stats in own], share)) + slack,
        quantile=float(np.quantile([stats.quantile for stats in own], share)) + slack,
        log_pi=float(np.quantile([stats.log_pi for stats in own], 1 - share)) - slack,
    )


def _samples(config: RunConfig, rollout_path: Path, measured_path: Path) -> Iterator[Sample]:
    """One chunk's samples joined with their measurements."""
    rows = read_table(rollout_path).to_pylist()
    measurements = read_table(measured_path).to_pylist()
    for row, measured in zip(rows, measurements, strict=True):
        key = row["round"], row["question_id"], row["view"], row["sample_index"]
        assert key == (measured["round"], measured["question_id"], measured["view"], measured["sample_index"])
        thinking, other = row["thinking_tokens"], measured.pop("other_view_logprobs")
        own = row["logprobs"][:thinking]
        log_ratio, stats = None, None
        if other is not None and thinking > 0:
            log_q, log_pi = (own, other) if row["view"] == POSTERIOR else (other, own)
            log_ratio = elbo.path_log_ratio(log_q, log_pi, thinking)
            stats = path_stats(log_q, log_pi, config.filter.plausibility)
        answer_tokens = measured["answer_tokens"]
        answer_length = len(row["completion_ids"]) - thinking if answer_tokens is None else answer_tokens
        yield Sample(
            key,
            Status(measured["status"]),
            row["cut_off"],
            thinking + answer_length,
            measured,
            log_ratio,
            float(np.mean(own)) if thinking else None,
            thinking,
            stats,
        )


def _by_question(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.key[1], []).append(sample)
    return groups


def own_reference_lengths(samples: Sequence[Sample]) -> ReferenceLengths:
    """Each question's mean length of its correct prior samples, else the median of all that have a grade; and the
    median over the questions as default. Of the base model's rollout, this is L_ref for every later round."""
    lengths: dict[str, float] = {}
    for question_id, group in _by_question(samples).items():
        prior = [sample for sample in group if sample.view == PRIOR and sample.status.valid]
        correct = utility.mean_correct_length([s.length for s in prior], [s.r for s in prior])
        if correct is not None:
            lengths[question_id] = correct
        elif prior:
            lengths[question_id] = statistics.median(sample.length for sample in prior)
    everything = list(lengths.values()) or [sample.length for sample in samples]
    return ReferenceLengths(questions=lengths, default=statistics.median(everything))


def _value(config: RunConfig, group: Sequence[Sample], reference: float) -> None:
    """Utilities of a question's samples, then advantages and gates."""
    prior = [sample for sample in group if sample.view == PRIOR]
    posterior = [sample for sample in group if sample.view == POSTERIOR]
    correct_lengths = [sample.length for sample in prior if sample.r == 1]
    values = utility.utility(
        config.filter.utility,
        [sample.r for sample in group],
        [sample.length for sample in group],
        reference,
        correct_lengths,
    )
    for sample, value in zip(group, values, strict=True):
        sample.utility = float(value)
    advantages, gates = utility.advantages_and_gates(
        [sample.utility for sample in prior],
        [sample.status.valid for sample in prior],
        [sample.utility for sample in posterior],
        [not sample.reasons for sample in posterior],
        config=config.filter.advantage,
        mean_log_ratio=[-(s.log_ratio or 0.0) / max(s.thinking_tokens, 1) for s in posterior],
    )
    for sample, advantage in zip(prior, advantages, strict=True):
        sample.advantage = float(advantage)
    for sample, gate in zip(posterior, gates, strict=True):
        sample.gate = float(gate)


def _write_sets(
    views: Views, rollout_path: Path, output_dir: Path, by_key: dict[tuple[int, str, str, int], Sample]
) -> None:
    """Split one rollout chunk into the selected and the rejected set, everything that training needs with it."""
    sets: dict[str, list[dict[str, Any]]] = {name: [] for name in SETS}
    prompts: dict[str, tuple[list[int], list[int]]] = {}
    for row in read_table(rollout_path).to_pylist():
        sample = by_key[row["round"], row["question_id"], row["view"], row["sample_index"]]
        question = Question.from_row(row)
        if question.id not in prompts:
            prompts[question.id] = views.prior_prompt(question), views.posterior_prompt(question)
        prior_prompt, posterior_prompt = prompts[question.id]
        values = {
            **row,
            "prompt_ids": prior_prompt,
            "posterior_prompt_ids": posterior_prompt if row["view"] == POSTERIOR else None,
            "crossview_answer_ids": sample.measured["crossview_answer_ids"],
            "status": sample.status.value,
            "reasons": sample.reasons,
            "utility": None if np.isnan(sample.utility) else sample.utility,
            "advantage": sample.advantage,
            "gate": sample.gate,
        }
        sets["rejected" if sample.reasons else "selected"].append({name: values[name] for name in SELECTION.names})
    for name, rows in sets.items():
        (output_dir / name).mkdir(exist_ok=True)
        write_table(output_dir / name / rollout_path.name, table_from_rows(rows, SELECTION))


def counts(samples: Sequence[Sample]) -> dict[str, int]:
    """Counts that add up: per view, sampled = accepted + every reason; reasons are blamed in a fixed order."""
    prior = [sample for sample in samples if sample.view == PRIOR]
    posterior = [sample for sample in samples if sample.view == POSTERIOR]
    blamed = Counter(primary_reason(sample) for sample in posterior)
    result = {
        "prior_sampled": len(prior),
        "prior_correct": sum(sample.status == Status.CORRECT for sample in prior),
        "prior_wrong": sum(sample.status == Status.WRONG and not sample.cut_off for sample in prior),
        "prior_cut_off": sum(sample.status == Status.WRONG and sample.cut_off for sample in prior),
        "prior_not_graded": sum(not sample.status.valid for sample in prior),
        "prior_with_advantage": sum(bool(sample.advantage) for sample in prior),
        "posterior_sampled": len(posterior),
        "posterior_accepted": blamed[None],
        "posterior_gated": sum(bool(sample.gate) for sample in posterior),
        "posterior_pseudo_efficient": sum(blamed[reason] for reason in PSEUDO_EFFICIENT),
    }
    for reason in (*PSEUDO_EFFICIENT, *OTHER_REASONS):
        result[f"posterior_rejected_{reason}"] = blamed[reason]
    assert result["posterior_sampled"] == blamed.total()
    return result


def primary_reason(sample: Sample) -> str | None:
    """The first of its reasons in the table's order; None when accepted."""
    return next((reason for reason in (*PSEUDO_EFFICIENT, *OTHER_REASONS) if reason in sample.reasons), None)


def _check_means(config: RunConfig, samples: Sequence[Sample]) -> dict[str, float | int | None]:
    """Means of the measurements over the posterior paths that have them."""
    columns = ("answerability", "answerability_empty", "derivation", "answer_position", "counterfactual_logprob")
    means: dict[str, float | int | None] = {}
    for column in columns:
        values = [sample.measured[column] for sample in samples if sample.measured[column] is not None]
        means[column] = float(np.mean(values)) if values else None
        means[f"{column}_n"] = len(values)
    if not sampling_truncated(config):
        swapped = [sample for sample in samples if sample.measured["counterfactual_logprob"] is not None]
        own = [sample.own_logprob for sample in swapped if sample.own_logprob is not None]
        means["own_note_logprob"] = float(np.mean(own)) if own else None  # what the counterfactual is compared with
    exits = [sample.measured["early_exits"] for sample in samples if sample.measured["early_exits"] is not None]
    for index, share in enumerate((25, 50, 75)):
        reached = [values[index] for values in exits if values[index] is not None]
        means[f"early_exit_{share}"] = float(np.mean(reached)) if reached else None
    return means


def _elbo(config: RunConfig, samples: Sequence[Sample], references: ReferenceLengths) -> dict[str, Any] | str:
    """The terms of ELBO_EA over all posterior paths, the rejected ones too: they are draws from q as well."""
    if sampling_truncated(config):
        return NO_LOG_RATIOS
    posterior = [sample for sample in samples if sample.view == POSTERIOR]
    if not posterior:
        return "not available (no posterior samples)"
    number = {question: index for index, question in enumerate(dict.fromkeys(sample.key[1] for sample in posterior))}
    nan = float("nan")
    return elbo.estimate(
        [number[sample.key[1]] for sample in posterior],
        [nan if sample.measured["log_s_cue"] is None else sample.measured["log_s_cue"] for sample in posterior],
        [sample.length / references.of(sample.key[1]) for sample in posterior],
        [nan if sample.log_ratio is None else sample.log_ratio for sample in posterior],
        config.filter.utility.length_price,
    ).as_dict()
