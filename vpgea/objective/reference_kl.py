"""KL from the trained policy to the reference model, from sampled tokens; `vocabulary_sums` has the exact one."""

from __future__ import annotations

import math

from torch import Tensor

from vpgea.modeling.logprobs import upcast


def k2(logprobs: Tensor, reference_logprobs: Tensor, sampler_logprobs: Tensor, *, cap: float) -> Tensor:
    """w_t (log pi_theta - log pi_ref)^2 / 2 with w_t = min(pi_theta / pi_sampler, cap), detached.

    Its mean gradient under pi_theta is that of the KL (http://joschu.net/blog/kl-approx.html names k1, k2, k3); w_t
    corrects for older samples, up to the cap.

    Args:
        logprobs: (T,) log pi_theta of the sampled tokens.
        reference_logprobs: (T,) log pi_ref of the same tokens.
        sampler_logprobs: (T,) of the same tokens, under the weights that drew them.
        cap: Of w_t.

    Returns:
        (T,), with the gradient of `logprobs`.
    """
    current = upcast(logprobs)
    weights = (current.detach() - upcast(sampler_logprobs).detach()).clamp(max=math.log(cap)).exp()
    return weights * 0.5 * (current - upcast(reference_logprobs).detach()).square()


def k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """exp(d) - d - 1 with d = log pi_ref - log pi_theta: an unbiased, non-negative figure for the log.

    Args:
        logprobs: (T,) log pi_theta of the sampled tokens.
        reference_logprobs: (T,) log pi_ref of the same tokens.

    Returns:
        (T,), without gradient: as a loss its mean gradient would be that of KL(pi_ref || pi_theta), the wrong way.
    """
    d = (upcast(reference_logprobs) - upcast(logprobs)).detach()
    return d.exp() - d - 1
