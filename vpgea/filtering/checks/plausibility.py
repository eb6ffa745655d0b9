"""Could the prior view have written the path? Judged by what its own correct paths look like."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vpgea.config.schema import RunConfig
from vpgea.engines.base import ScoreRequest
from vpgea.errors import DamagedError
from vpgea.filtering.checks.base import Check, Judge
from vpgea.filtering.cost import Cost, RolloutLengths
from vpgea.filtering.log_ratios import PathStats
from vpgea.filtering.prior_view import PriorView, sampling_truncated
from vpgea.filtering.samples import Chunk, JudgedSample
from vpgea.storage.schemas import PRIOR

MIN_CALIBRATION_PATHS = 8
NO_LOG_RATIOS = "not available (truncated support)"


def _measure(chunk: Chunk, view: PriorView) -> None:
    """log q(z) per token of the prior's own correct paths: what plausible log-ratios look like.

    A posterior path's log pi(z) is measured in any case, for the ELBO.

    Raises:
        DamagedError: A question's posterior samples are lost, and those of others are there.
    """
    if view.is_truncated or not chunk.posterior:
        return
    samples = [sample for sample in chunk.samples if sample.is_correct_prior]
    prompts = {sample.question.id: sample.row.prompt_ids.tolist() for sample in chunk.posterior}
    requests = []
    for sample in samples:
        if (prompt := prompts.get(sample.question.id)) is None:
            raise DamagedError(
                f"question {sample.question.id} has prior samples and no posterior ones",
                why="the prompt with its note, behind which the prior's paths are scored, stands with those",
                mend="sample the rollout again; `vpgea doctor` says what of its folder is damaged",
            )
        requests.append(ScoreRequest(prompt + sample.z, len(prompt)))
    for sample, logprobs in zip(samples, view.score(samples, requests), strict=True):
        if logprobs is not None:
            sample.found["other_view_logprobs"] = logprobs


def plausibility_limits(config: RunConfig, samples: Sequence[JudgedSample]) -> PathStats | str:
    """Quantiles of the prior's own correct paths plus slack; in words, why no path is judged by them."""
    options = config.filter.plausibility
    if not options.enabled:
        return "off"
    if sampling_truncated(config):
        return NO_LOG_RATIOS
    prior = [sample.stats for sample in samples if sample.view == PRIOR and sample.stats is not None]
    own = [stats for stats in prior if np.isfinite([stats.window, stats.quantile, stats.log_pi]).all()]
    if len(own) < MIN_CALIBRATION_PATHS:
        return f"not calibrated ({len(own)} correct prior paths, {MIN_CALIBRATION_PATHS} are needed)"
    share, slack = options.calibration_quantile, options.slack
    return PathStats(
        window=float(np.quantile([stats.window for stats in own], share)) + slack,
        quantile=float(np.quantile([stats.quantile for stats in own], share)) + slack,
        log_pi=float(np.quantile([stats.log_pi for stats in own], 1 - share)) - slack,
    )


def _judge(config: RunConfig, samples: Sequence[JudgedSample]) -> Judge:
    limits = plausibility_limits(config, samples)

    def judge(sample: JudgedSample) -> list[str] | None:
        stats = sample.stats
        if isinstance(limits, str) or stats is None:
            return None
        within = stats.window <= limits.window and stats.quantile <= limits.quantile and stats.log_pi >= limits.log_pi
        return ["plausibility"] * (not within)  # NaN is within nothing

    return judge


def _cost(config: RunConfig, lengths: RolloutLengths) -> Cost:
    return Cost(scored=(lengths.noted_prior.end,))


PLAUSIBILITY = Check(
    name="plausibility",
    about="could the prior have written z?",
    columns=(),  # it reads other_view_logprobs
    measure=_measure,
    reasons={"plausibility": "the prior would not have written it"},
    judge=_judge,
    cost=_cost,
)
