"""The clipped policy gradient on prior samples, per token."""

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
