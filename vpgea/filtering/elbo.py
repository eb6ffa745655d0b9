"""The efficiency-aware ELBO, estimated from posterior paths (numpy, float64).

Our own reconstruction; docs/method.md, "Efficiency-aware ELBO". Needs untempered, untruncated sampling: elsewhere
the posterior's support is cut and the estimate has no meaning.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vpgea.runs.records import ElboEstimate, Term

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def path_log_ratio(posterior_logprobs: npt.ArrayLike, prior_logprobs: npt.ArrayLike, thinking_tokens: int) -> float:
    """Sum over z, its end ids included and y not, of log q(z_t) - log pi(z_t), in nats.

    Both arrays: (T,) with T >= thinking_tokens = |z|.
    """
    q = np.asarray(posterior_logprobs, np.float64)[:thinking_tokens]
    pi = np.asarray(prior_logprobs, np.float64)[:thinking_tokens]
    assert q.shape == pi.shape == (thinking_tokens,)
    return float((q - pi).sum())


def estimate(
    question: npt.ArrayLike,
    log_s_cue: npt.ArrayLike,
    relative_length: npt.ArrayLike,
    log_ratio: npt.ArrayLike,
    length_price: float,
) -> ElboEstimate:
    """Estimate ELBO_EA from paths z_j ~ q: the mean over questions of each question's mean over its paths.

    NaN in any array: not measured, the path is left out and counted. Standard errors are clustered by question: sample
    std of the questions' means / sqrt(questions).

    Args:
        question: (n,) any integers.
        log_s_cue: (n,) log-probability of the answer after the cue, prior view, -inf allowed.
        relative_length: (n,) c.
        log_ratio: (n,) `path_log_ratio`.
        length_price: lambda.
    """
    columns = [np.asarray(column, np.float64) for column in (log_s_cue, relative_length, log_ratio)]
    measured = ~np.isnan(np.stack(columns)).any(axis=0)
    log_s, c, ratio = (column[measured] for column in columns)
    labels, index = np.unique(np.asarray(question)[measured], return_inverse=True)
    log_w = log_s - length_price * c - ratio
    return ElboEstimate(
        elbo=_clustered(question_means(log_w, index)),
        log_s_cue=_clustered(question_means(log_s, index)),
        length_cost=_clustered(question_means(length_price * c, index)),
        kl=_clustered(question_means(ratio, index)),
        ess_share=_clustered(ess_share(log_w, index)),
        log_weight_variance=_clustered(_variances(log_w, index)),
        questions=labels.size,
        paths=log_w.size,
        left_out=int((~measured).sum()),
    )


def question_means(values: FloatArray, index: IntArray) -> FloatArray:
    """Mean of values (n,) per question: (questions,), index (n,) running from 0 without gaps."""
    return np.bincount(index, values) / np.bincount(index)


def ess_share(log_weights: FloatArray, index: IntArray) -> FloatArray:
    """(sum w)^2 / (K sum w^2) of each question, between 1/K and 1, or 0 where all weights are zero (log w = -inf).

    Shifted by the question's largest weight, as logsumexp does, so that no weight overflows.

    Args:
        log_weights: (n,).
        index: (n,) the question of each, running from 0 without gaps.
    """
    count = np.bincount(index)
    largest = np.full(count.size, -np.inf)
    np.maximum.at(largest, index, log_weights)
    weights = np.exp(log_weights - np.where(np.isfinite(largest), largest, 0.0)[index])
    total, squares = np.bincount(index, weights), np.bincount(index, weights**2)
    return np.divide(total**2, count * squares, out=np.zeros(count.size), where=squares > 0)


def _variances(log_weights: FloatArray, index: IntArray) -> FloatArray:
    """Sample variance per question, of those with at least two paths and finite weights only."""
    count = np.bincount(index)
    finite = np.bincount(index, ~np.isfinite(log_weights)) == 0
    centred = np.where(finite[index], log_weights, 0.0)
    centred = centred - question_means(centred, index)[index]
    usable = finite & (count > 1)
    return np.bincount(index, centred**2)[usable] / (count[usable] - 1)


def _clustered(per_question: FloatArray) -> Term:
    """Mean over questions with the standard error of that mean."""
    count = per_question.size
    if not count:
        return Term(None, None)
    has_error = count > 1 and bool(np.isfinite(per_question).all())
    return Term(float(per_question.mean()), float(per_question.std(ddof=1) / np.sqrt(count)) if has_error else None)
