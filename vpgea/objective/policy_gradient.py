"""The clipped policy gradient on prior samples, per token, and what a teacher adds to its advantages."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vpgea.modeling.logprobs import upcast

# Above this log-ratio every branch is clipped; the bound only keeps exp() and its gradient finite.
MAX_LOG_RATIO = 20.0


def mismatch_weight(old_logprobs: Tensor, engine_logprobs: Tensor, cap: float) -> Tensor:
    """kappa_t = min(pi_old / pi_engine, cap): what the engine sampled, weighed as the trainer's own.

    Truncated importance sampling as in https://fengyao.notion.site/off-policy-rl.

    Args:
        old_logprobs: (T,) recomputed by the trainer at the start of the round.
        engine_logprobs: (T,) stored at sampling.
        cap: Of the ratio.

    Returns:
        (T,), float32 at least, without gradient.
    """
    log_ratio = (upcast(old_logprobs) - upcast(engine_logprobs)).detach()
    return log_ratio.clamp(max=math.log(cap)).exp()


def credited(advantages: Tensor, teacher_logprobs: Tensor, old_logprobs: Tensor, clip: float) -> Tensor:
    """A_t = A clip((q(z_t) / pi_old(z_t))^sign(A), 1 - clip, 1 + clip): the grade gives the direction, q the size.

    What the teacher, who knows the answer, finds likelier than the student did gets more of a praise and less of a
    blame. The weights are those of RLSD (arXiv 2604.03128).

    Args:
        advantages: (T,) the sample's A on each of its tokens.
        teacher_logprobs: (T,) log q of the sampled tokens, in the posterior view.
        old_logprobs: (T,) log pi_old of the same tokens, in the prior view.
        clip: Epsilon_c, between 0 and 1.

    Returns:
        (T,), without gradient.
    """
    a = advantages.detach()
    log_ratio = a.sign() * (upcast(teacher_logprobs) - upcast(old_logprobs)).detach()
    return a * log_ratio.clamp(math.log(1 - clip), math.log(1 + clip)).exp()


def surrogate(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    weights: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float,
) -> Tensor:
    """kappa_t f_t, to be *maximised*.

    f = min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A) (PPO, arXiv 1707.06347, with the uneven bounds of DAPO,
    arXiv 2503.14476), and f >= dual_clip A where A < 0 (dual clip, arXiv 1912.09729); rho = exp(logprobs -
    old_logprobs).

    Args:
        logprobs: (T,) log pi_theta of the sampled tokens.
        old_logprobs: (T,) log pi_old of the same tokens.
        advantages: (T,) the sample's A on each of its tokens.
        weights: (T,) `mismatch_weight`, 0 on masked tokens.
        clip_low: Epsilon_l.
        clip_high: Epsilon_h.
        dual_clip: Above 1.

    Returns:
        (T,), with the gradient of `logprobs` alone.
    """
    a = advantages.detach()
    ratio = (upcast(logprobs) - upcast(old_logprobs).detach()).clamp(max=MAX_LOG_RATIO).exp()
    clipped = torch.minimum(ratio * a, ratio.clamp(1 - clip_low, 1 + clip_high) * a)
    bounded = torch.where(a < 0, torch.maximum(clipped, dual_clip * a), clipped)
    return weights.detach() * bounded
