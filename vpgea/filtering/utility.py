"""Utilities, baselines, advantages and gates of one question's paths (numpy, float64).

The formulas are our own reconstruction of the method: docs/method.md, "Utilities, advantages, gates".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vpgea.config.filtering import AdvantageConfig, UtilityConfig

FloatArray = npt.NDArray[np.float64]


def mean_correct_length(length: npt.ArrayLike, correct: npt.ArrayLike) -> float | None:
    """Mean length in tokens of the correct samples, None without any. length, correct: (n,); NaN is not correct."""
    lengths = np.asarray(length, np.float64)[np.asarray(correct, np.float64) == 1]
    return float(lengths.mean()) if lengths.size else None


def relative_length(length: npt.ArrayLike, reference: float) -> FloatArray:
    """c = length / L_ref, without unit; length in tokens, any shape."""
    assert reference > 0
    return np.asarray(length, np.float64) / reference


def utility(
    config: UtilityConfig,
    r: npt.ArrayLike,
    length: npt.ArrayLike,
    reference: float,
    correct_lengths: npt.ArrayLike = (),
    target: float = math.inf,
) -> FloatArray:
    """u of each path, shape of r and length broadcast. NaN in r (no valid grade) stays NaN.

    Args:
        config: Form and parameters.
        r: Correctness in [0, 1] (the grade of a prior sample, the answerability of a posterior path).
        length: Tokens.
        reference: L_ref.
        correct_lengths: Tokens of the question's correct prior samples, read by the sigmoid and distance forms.
        target: Tokens within which a correct path earns the bonus of the step form.
    """
    reward, price = np.asarray(r, np.float64), config.length_price
    c = relative_length(length, reference)
    if config.kind == "step":
        return reward * (1 + price * (np.asarray(length, np.float64) <= target))
    if config.kind == "distance":
        return reward - price * np.abs(c - relative_length(_best_length(reward, length, correct_lengths), reference))
    if config.kind == "exponential":
        return reward * np.exp(-price * c)
    if config.kind == "linear":
        return reward * (1 - price * np.minimum(c, config.c_max))
    z = _z_score(np.asarray(length, np.float64), np.asarray(correct_lengths, np.float64))
    return reward * (1 - price * 0.5 * (1 + np.tanh(z / 2)))  # the logistic function, written so as not to overflow


def _z_score(length: FloatArray, group: FloatArray) -> FloatArray:
    """(length - mean) / max(population std, 1 token) over the group; 0 without a group."""
    if not group.size:
        return np.zeros_like(length)
    return (length - group.mean()) / max(float(group.std()), 1.0)


def _best_length(reward: FloatArray, length: npt.ArrayLike, correct_lengths: npt.ArrayLike) -> float:
    """Of the shortest correct sample; without one, the mean over the samples that have a grade."""
    correct = np.asarray(correct_lengths, np.float64)
    if correct.size:
        return float(correct.min())
    graded = np.broadcast_to(np.asarray(length, np.float64), reward.shape)[~np.isnan(reward)]
    return float(graded.mean()) if graded.size else 0.0


def target_lengths(questions: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]]) -> dict[str, float]:
    """Target length of each question, in tokens: one for each of three bins by difficulty.

    A question's bin is the third that its share of correct samples lies in. A bin's target is the shortest length L
    for which the samples of a question that are correct and no longer than L are at least one in the mean; without
    such a length no path is too long. As in LASER-D (arXiv 2505.15612), with the round's own prior samples for the
    monitoring set. A question without a valid sample is in no bin, and has no target.

    Args:
        questions: Id → (r, length) of its valid prior samples, (n,) each.
    """
    bins: dict[int, list[str]] = {}
    rows = {key: (np.asarray(r, np.float64), np.asarray(length, np.float64)) for key, (r, length) in questions.items()}
    for key, (r, _) in rows.items():
        if r.size:
            bins.setdefault(min(int(3 * float((r == 1).mean())), 2), []).append(key)
    targets = dict.fromkeys(rows, math.inf)
    for members in bins.values():
        correct = np.sort(np.concatenate([rows[key][1][rows[key][0] == 1] for key in members]))
        enough = len(members)  # so many correct samples are one for each question
        target = float(correct[enough - 1]) if correct.size >= enough else math.inf
        targets |= dict.fromkeys(members, target)
    return targets


@dataclass(frozen=True)
class Baseline:
    """Mean and spread of a group's utilities; count is the group's size."""

    mean: float
    std: float
    count: int


def baseline(u: npt.ArrayLike, config: AdvantageConfig) -> Baseline:
    """b = mean u and sigma = max(population std, sigma_min), or 1 without normalising; u: (n,), all valid.

    An empty group has b = 0 and sigma = 1.
    """
    values = np.asarray(u, np.float64)
    if not values.size:
        return Baseline(0.0, 1.0, 0)
    # Shifted by the first value, so that equal utilities have exactly their own value as mean.
    shifted = values - values[0]
    std = max(float(shifted.std()), config.std_min) if config.normalise == "std" else 1.0
    return Baseline(float(values[0] + shifted.mean()), std, values.size)


def prior_advantages(u: npt.ArrayLike, valid: npt.ArrayLike, group: Baseline, config: AdvantageConfig) -> FloatArray:
    """A_i = (u_i - b_{-i}) / sigma with b_{-i} the mean of the group without i; (G,), 0 where invalid.

    A group of fewer than 2 gives 0. Uses u_i - b_{-i} = n / (n - 1) (u_i - b).

    Args:
        u: (G,).
        valid: (G,) bool.
        group: b and sigma.
        config: `kind`: that, max(A_i, 0), u_i itself without a baseline, or 1.
    """
    values, mask = np.asarray(u, np.float64), np.asarray(valid, bool)
    if config.kind == "utility":
        return np.where(mask, values, 0.0)
    if config.kind == "one":
        return mask.astype(np.float64)
    if group.count < 2:
        return np.zeros_like(values)
    scale = group.count / (group.count - 1) / group.std
    advantages = np.where(mask, scale * (values - group.mean), 0.0)
    return np.maximum(advantages, 0.0) if config.kind == "positive" else advantages


def posterior_gates(
    u: npt.ArrayLike,
    accepted: npt.ArrayLike,
    group: Baseline,
    config: AdvantageConfig,
    factors: npt.ArrayLike = 1.0,
) -> FloatArray:
    """g_j = min(f_j min(max((u_j - b) / sigma, 0), A_max), A_max) where accepted, else 0; (K,).

    Args:
        u: (K,).
        accepted: (K,) bool.
        group: b and sigma.
        config: A_max, and whether a gate is 1; the mean gate is taken over all questions, by who has them.
        factors: f, (K,) or one for all: what the kind of gate multiplies with (`gate_factors`).
    """
    mask = np.asarray(accepted, bool)
    values = np.where(mask, np.asarray(u, np.float64), 0.0)
    assert np.isfinite(values).all(), "an accepted path has a utility"
    if config.gate == "one":
        return mask.astype(np.float64)
    gates = np.where(mask, np.clip((values - group.mean) / group.std, 0.0, config.gate_max), 0.0)
    return np.minimum(gates * np.asarray(factors, np.float64), config.gate_max)


def advantages_and_gates(
    prior_u: npt.ArrayLike,
    prior_valid: npt.ArrayLike,
    posterior_u: npt.ArrayLike,
    accepted: npt.ArrayLike,
    *,
    config: AdvantageConfig,
    factors: npt.ArrayLike = 1.0,
) -> tuple[FloatArray, FloatArray]:
    """Advantages (G,) of a question's prior samples and gates (K,) of its posterior paths.

    The baseline's group is the valid prior samples; with `joint` the accepted posterior paths belong to it too.
    """
    u, valid = np.asarray(prior_u, np.float64), np.asarray(prior_valid, bool)
    members = u[valid]
    if config.group == "joint":
        members = np.concatenate([members, np.asarray(posterior_u, np.float64)[np.asarray(accepted, bool)]])
    group = baseline(members, config)
    return (
        prior_advantages(u, valid, group, config),
        posterior_gates(posterior_u, accepted, group, config, factors),
    )
