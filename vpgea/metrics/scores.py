"""The formulas of accuracy, tokens and the scores that join them: pure functions of arrays (numpy, float64)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_CORRECT = object()  # the vote of every correct answer


def smoothed(share: npt.ArrayLike, samples: npt.ArrayLike) -> FloatArray:
    """A' = (k + 1/2) / (N + 1) with k = share N correct of N samples."""
    n = np.asarray(samples, np.float64)
    return (np.asarray(share, np.float64) * n + 0.5) / (n + 1)


def e3_score(
    accuracy: npt.ArrayLike,
    tokens: npt.ArrayLike,
    base_accuracy: npt.ArrayLike,
    base_tokens: npt.ArrayLike,
    *,
    samples: npt.ArrayLike,
    base_samples: npt.ArrayLike,
) -> FloatArray:
    """E3-Score (arXiv 2511.10201): 1 / (A0 / r_acc + (1 - A0) / r_tok); 1 for the base model itself.

    r_acc = odds(A) / odds(A0), r_tok = T0 / T. An accuracy of exactly 0 or 1 has no odds and is smoothed. Arguments
    broadcast. That the paper's score is this one is inferred.
    """
    a, a0 = (
        np.where((share <= 0) | (share >= 1), smoothed(share, n), share)
        for share, n in (
            (np.asarray(accuracy, np.float64), samples),
            (np.asarray(base_accuracy, np.float64), base_samples),
        )
    )
    r_acc = a / (1 - a) / (a0 / (1 - a0))
    r_tok = np.asarray(base_tokens, np.float64) / np.asarray(tokens, np.float64)
    return 1 / (a0 / r_acc + (1 - a0) / r_tok)


def aes(
    accuracy: npt.ArrayLike, tokens: npt.ArrayLike, base_accuracy: npt.ArrayLike, base_tokens: npt.ArrayLike
) -> FloatArray:
    """AES (O1-Pruner, arXiv 2501.12570): dT + 3 dA where dA >= 0, else dT + 5 dA; NaN where A0 = 0.

    dT = (T0 - T) / T0, dA = (A - A0) / A0.
    """
    a, t, a0, t0 = (np.asarray(value, np.float64) for value in (accuracy, tokens, base_accuracy, base_tokens))
    gain, saving = ratio(a - a0, a0), ratio(t0 - t, t0)
    return saving + np.where(gain >= 0, 3.0, 5.0) * gain


def ock_score(accuracy: npt.ArrayLike, tokens: npt.ArrayLike) -> FloatArray:
    """OckScore (OckBench, arXiv 2511.05722): 100 A - 10 ln(T / 10000 + 1)."""
    return 100 * np.asarray(accuracy, np.float64) - 10 * np.log(np.asarray(tokens, np.float64) / 10_000 + 1)


def pass_at_k(samples: npt.ArrayLike, correct: npt.ArrayLike, k: int) -> FloatArray:
    """1 - C(n - c, k) / C(n, k), unbiased (arXiv 2107.03374), per question; NaN where n < k."""
    n, c = np.asarray(samples, np.float64), np.asarray(correct, np.float64)
    all_wrong = np.ones(np.broadcast_shapes(n.shape, c.shape))
    for drawn in range(k):
        all_wrong = all_wrong * ratio(np.maximum(n - c - drawn, 0), n - drawn)
    return np.where(n >= k, 1 - all_wrong, np.nan)


def majority_share(correct: FloatArray, answers: Sequence[Hashable | None]) -> float:
    """Chance that the most frequent answer is correct, a tie broken at random; 0 when nobody answers.

    correct: (n,) 0/1. Correct answers are one, however written: each is what the reference is. answers: n answers,
    equal where they are the same; samples without an answer do not vote.
    """
    leading = _leading(correct, answers)
    return float(np.mean([np.mean(group) for group in leading])) if leading else 0.0


def is_tied(correct: FloatArray, answers: Sequence[Hashable | None]) -> bool:
    """Whether several answers are the most frequent one, a right one among them: then the share is a fraction."""
    leading = _leading(correct, answers)
    return len(leading) > 1 and any(map(any, leading))


def _leading(correct: FloatArray, answers: Sequence[Hashable | None]) -> list[list[float]]:
    """The votes of the most frequent answers, 1 for each that is correct."""
    votes: dict[Hashable, list[float]] = {}
    for answer, is_correct in zip(answers, correct, strict=True):
        if answer is not None:
            votes.setdefault(_CORRECT if is_correct else answer, []).append(float(is_correct))
    most = max((len(group) for group in votes.values()), default=0)
    return [group for group in votes.values() if len(group) == most]


def ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> FloatArray:
    """numerator / denominator, NaN where the denominator is 0."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0)
