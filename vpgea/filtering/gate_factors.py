"""What a posterior path's gate is multiplied with, by the kind of gate (numpy, float64).

Our own reconstruction; docs/method.md, "Other gates". A path of which what a gate asks is not known gets 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from vpgea.config.filtering import AdvantageConfig
from vpgea.filtering.elbo import ess_share
from vpgea.filtering.samples import JudgedSample
from vpgea.storage.schemas import POSTERIOR

FloatArray = npt.NDArray[np.float64]
_HALVINGS = 50


def gate_factors(config: AdvantageConfig, paths: Sequence[JudgedSample]) -> FloatArray:
    """f of one question's posterior paths, (K,); 1 where the kind of gate asks for nothing beside the utility."""
    if config.gate == "plausible":
        tokens = np.array([max(path.thinking_tokens, 1) for path in paths], np.float64)
        return plausible_factors(_log_weights(paths) / tokens, config.plausible_slack)
    if config.gate == "importance":
        accepted = np.array([not path.reasons for path in paths], bool)
        return importance_factors(np.where(accepted, _log_weights(paths), -np.inf), config.ess_min)
    if config.gate == "contrast":
        found = [path.measured["note_dependence"] for path in paths]
        return contrast_factors([np.nan if value is None else value for value in found], config.contrast_rate)
    return np.ones(len(paths))


def mean_tempering_power(config: AdvantageConfig, questions: Iterable[Sequence[JudgedSample]]) -> float | None:
    """Mean alpha of the importance gate over questions with two accepted paths or more; None without any.

    questions: The samples of each.
    """
    if config.gate != "importance":
        return None
    accepted = ([s for s in samples if s.view == POSTERIOR and not s.reasons] for samples in questions)
    weights = (log_weights[np.isfinite(log_weights)] for log_weights in map(_log_weights, accepted))
    powers = [tempering_power(known, config.ess_min) for known in weights if known.size > 1]
    return float(np.mean(powers)) if powers else None


def _log_weights(paths: Sequence[JudgedSample]) -> FloatArray:
    """log w = sum over z of log pi - log q, (K,) nats; 0 where z is empty, NaN where one of them is not known."""
    known = [0.0 if path.thinking_tokens == 0 else path.log_ratio for path in paths]
    return np.array([np.nan if ratio is None else -ratio for ratio in known], np.float64)


def plausible_factors(mean_log_ratio: npt.ArrayLike, slack: float) -> FloatArray:
    """exp(min(0, m_j + kappa)), (K,). mean_log_ratio: m, (K,) mean over z of log pi - log q, nats per token."""
    ratio = np.asarray(mean_log_ratio, np.float64)
    return np.where(np.isnan(ratio), 0.0, np.exp(np.minimum(0.0, ratio + slack)))


def contrast_factors(note_dependence: npt.ArrayLike, rate: float) -> FloatArray:
    """exp(-gamma max(D_j, 0)), (K,). note_dependence: D, (K,) nats, NaN where it could not be measured."""
    dependence = np.asarray(note_dependence, np.float64)
    return np.where(np.isnan(dependence), 0.0, np.exp(-rate * np.maximum(dependence, 0.0)))


def importance_factors(log_weight: npt.ArrayLike, ess_min: float) -> FloatArray:
    """n w_j^alpha / sum_i w_i^alpha over the n paths whose weight is finite and not 0, 0 for the others; (K,).

    Their mean over the n paths is 1.

    Args:
        log_weight: (K,) log w = sum over z of log pi - log q, nats; -inf for a path that is not accepted.
        ess_min: As `tempering_power` has it.
    """
    weights = np.asarray(log_weight, np.float64)
    known = np.isfinite(weights)
    factors = np.zeros(weights.size)
    if known.any():
        tempered = tempering_power(weights[known], ess_min) * (weights[known] - weights[known].max())
        factors[known] = np.exp(tempered) / np.exp(tempered).mean()
    return factors


def tempering_power(log_weight: FloatArray, ess_min: float) -> float:
    """The largest alpha in [0, 1] with (sum w^alpha)^2 / sum w^(2 alpha) >= ess_min n, by bisection.

    The share falls from 1 at alpha = 0 as alpha grows, since the logarithm of sum w^alpha is convex in alpha.

    Args:
        log_weight: (n,) finite, n >= 1.
        ess_min: Least effective sample size as a share of n, in [0, 1].
    """
    one_question = np.zeros(log_weight.size, np.int64)

    def is_enough(power: float) -> bool:
        return float(ess_share(power * log_weight, one_question)[0]) >= ess_min

    if is_enough(1.0):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_enough(middle) else (low, middle)
    return low
