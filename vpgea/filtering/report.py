"""The summary of a filter: the table of counts, what the checks measured, the terms of the ELBO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from vpgea.config.schema import RunConfig
from vpgea.filtering import elbo
from vpgea.filtering.checks.answerability import cut_answers, questions_without_need
from vpgea.filtering.checks.base import UNDECIDED, Check
from vpgea.filtering.checks.early_exits import SHARES
from vpgea.filtering.checks.plausibility import NO_LOG_RATIOS, plausibility_limits
from vpgea.filtering.gate_factors import mean_tempering_power
from vpgea.filtering.log_ratios import PathStats
from vpgea.filtering.measurements import check_numbers
from vpgea.filtering.prior_view import sampling_truncated
from vpgea.filtering.reference_lengths import ReferenceLengths
from vpgea.filtering.samples import JudgedSample, by_question
from vpgea.grading.base import Status
from vpgea.runs.records import ElboEstimate, FilterSummary
from vpgea.storage.schemas import POSTERIOR, PRIOR

OTHER_REASONS = {  # of paths that no check has found wanting
    "error": "the sample has no grade: its grader failed",
    "timeout": "the sample has no grade: its grader took too long",
    "cut-off": "no end of the thinking, so no answer",
    "wrong": "its own answer is wrong, with the note in sight",
    UNDECIDED: "no content check could judge it, or most of its continuations got no valid grade or came to their cap",
}


MANY_CUT = 0.03  # of the continuations; more are worth a warning


def summary(
    config: RunConfig,
    samples: Sequence[JudgedSample],
    references: ReferenceLengths,
    checks: Sequence[Check],
    *,
    reference_counts: dict[str, int],
) -> FilterSummary:
    """summary.json."""
    limits = plausibility_limits(config, samples)
    return FilterSummary(
        counts=counts(samples, checks),
        plausibility_limits=vars(limits) if isinstance(limits, PathStats) else limits,
        needs_no_thinking=questions_without_need(samples, config.filter),
        elbo=_elbo(config, samples, references),
        checks=_check_means(config, samples, checks),
        tokens={
            "rollout_tokens": sum(sample.completion_tokens for sample in samples),
            **{name: sum(sample.measured[name] for sample in samples) for name in ("check_tokens", "score_tokens")},
            **_tokens_in_part(samples),
        },
        no_end_of_thinking=sum(sample.unended for sample in samples),
        answers=cut_answers(samples),
        reference_lengths=reference_counts,
        tempering_power=mean_tempering_power(config.filter.advantage, by_question(samples).values()),
    )


def warnings_of(summary: FilterSummary) -> list[str]:
    """What people should hear of a filter that is otherwise done."""
    cut, graded = summary.answers.get("cut", 0), summary.answers.get("graded", 0)
    if cut <= MANY_CUT * graded:
        return []
    return [
        f"{cut:,} of {graded:,} continuations ({cut / graded:.0%}) came to filter.answerability.max_new_tokens without "
        "the right answer: they decide nothing, and their paths count as shorter than they are; raise it"
    ]


def counts(samples: Sequence[JudgedSample], checks: Sequence[Check]) -> dict[str, int]:
    """Counts that add up: per view, sampled = accepted + in part + every reason; reasons are blamed in a fixed order.

    What is learnt in part is pseudo-efficient as well: the rest of it is not sound.
    """
    prior = [sample for sample in samples if sample.view == PRIOR]
    posterior = [sample for sample in samples if sample.view == POSTERIOR]
    pseudo_efficient = [reason for check in checks for reason in check.reasons]
    order = [*pseudo_efficient, *OTHER_REASONS]
    in_part = [sample for sample in posterior if sample.is_in_part]
    blamed = Counter(next((reason for reason in order if reason in sample.reasons), None) for sample in posterior)
    result = {
        "prior_sampled": len(prior),
        "prior_correct": sum(sample.status == Status.CORRECT for sample in prior),
        "prior_wrong": sum(sample.status == Status.WRONG and not sample.cut_off for sample in prior),
        "prior_cut_off": sum(sample.status == Status.WRONG and sample.cut_off for sample in prior),
        "prior_not_graded": sum(not sample.status.valid for sample in prior),
        "prior_with_advantage": sum(bool(sample.advantage) for sample in prior),
        "posterior_sampled": len(posterior),
        "posterior_accepted": blamed[None] - len(in_part),
        "posterior_in_part": len(in_part),
        "posterior_gated": sum(bool(sample.gate) for sample in posterior),
        "posterior_pseudo_efficient": len(in_part) + sum(blamed[reason] for reason in pseudo_efficient),
    }
    for reason in order:
        result[f"posterior_rejected_{reason}"] = blamed[reason]
    assert blamed[None] == sum(not sample.reasons for sample in posterior), (
        "a check gave a reason that it does not list"
    )
    return result


def _tokens_in_part(samples: Sequence[JudgedSample]) -> dict[str, int]:
    """Of the thinking of paths that are learnt in part."""
    in_part = [sample for sample in samples if sample.is_in_part]
    learnt = sum(sample.learnt_tokens or 0 for sample in in_part)
    return {"in_part_learnt": learnt, "in_part_masked": sum(one.thinking_tokens for one in in_part) - learnt}


def _check_means(
    config: RunConfig, samples: Sequence[JudgedSample], checks: Sequence[Check]
) -> dict[str, float | None]:
    """Means of the measurements over the posterior paths that have them."""
    means: dict[str, float | None] = {}
    for column in [*check_numbers(checks), "answer_position"]:
        values = [sample.measured[column] for sample in samples if sample.measured[column] is not None]
        means[column] = float(np.mean(values)) if values else None
        means[f"{column}_n"] = len(values)
    if not sampling_truncated(config):
        swapped = [sample for sample in samples if sample.measured["counterfactual_logprob"] is not None]
        own = [sample.own_logprob for sample in swapped if sample.own_logprob is not None]
        means["own_note_logprob"] = float(np.mean(own)) if own else None  # what the counterfactual is compared with
    exits = [sample.measured["early_exits"] for sample in samples if sample.measured["early_exits"] is not None]
    for index, share in enumerate(SHARES):
        reached = [values[index] for values in exits if values[index] is not None]
        means[f"early_exit_{share:.0%}".rstrip("%")] = float(np.mean(reached)) if reached else None
    return means


def _elbo(config: RunConfig, samples: Sequence[JudgedSample], references: ReferenceLengths) -> ElboEstimate | str:
    """The terms of ELBO_EA over all posterior paths, the rejected ones too: they are draws from q as well."""
    if sampling_truncated(config):
        return NO_LOG_RATIOS
    posterior = [sample for sample in samples if sample.view == POSTERIOR]
    if not posterior:
        return "not available (no posterior samples)"
    number = {
        question: index for index, question in enumerate(dict.fromkeys(sample.key.question_id for sample in posterior))
    }
    nan = float("nan")
    return elbo.estimate(
        [number[sample.key.question_id] for sample in posterior],
        [nan if sample.measured["log_s_cue"] is None else sample.measured["log_s_cue"] for sample in posterior],
        [sample.length / references.of(sample.key.question_id) for sample in posterior],
        [nan if sample.log_ratio is None else sample.log_ratio for sample in posterior],
        config.filter.utility.length_price,
    )
