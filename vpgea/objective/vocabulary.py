"""Sums over the vocabulary: what the terms need, in one pass over it, with the gradient in closed form."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from vpgea.modeling.logprobs import pick, upcast


@dataclass(frozen=True, kw_only=True)
class VocabularySums:
    """Sums over the vocabulary at each position, (T,) each, float32 at least; the first four have a gradient.

    Attributes:
        logprobs: log pi of the targets.
        guided: sum_v q_v log pi_v, 0 without a teacher.
        reference_kl: KL(pi || pi_ref), 0 without a reference.
        reverse_kl: KL(pi || q), 0 unless asked for.
        teacher: sum_v q_v log q_v, 0 without a teacher.
        teacher_logprobs: log q of the targets, 0 without a teacher.
        reference_logprobs: log pi_ref of the targets, 0 without a reference.
        entropy: Of pi, in nats, 0 unless asked for.
    """

    logprobs: Tensor
    guided: Tensor
    reference_kl: Tensor
    reverse_kl: Tensor
    teacher: Tensor
    teacher_logprobs: Tensor
    reference_logprobs: Tensor
    entropy: Tensor


def vocabulary_sums(
    logits: Tensor,
    targets: Tensor,
    teacher: Tensor | None = None,
    reference: Tensor | None = None,
    *,
    with_entropy: bool = False,
    with_reverse: bool = False,
) -> VocabularySums:
    """The sums of pi = softmax(logits), q = softmax(teacher) and pi_ref = softmax(reference).

    Entries masked by -inf count 0 (0 log 0 = 0). Only `logits` gets a gradient: with g1 to g4 those of the first four
    sums it is g1 (onehot - pi) + g2 (q - pi) + g3 pi (log pi - log pi_ref - KL) + g4 pi (log pi - log q - KL').

    Args:
        logits: (T, V) of the student.
        targets: (T,) int64.
        teacher: (T, V) logits.
        reference: (T, V) logits.
        with_entropy: Whether the entropy is asked for.
        with_reverse: Whether the KL to the teacher is.
    """
    assert teacher is not None or not with_reverse
    sums = _VocabularySums.apply(logits, targets, teacher, reference, with_entropy, with_reverse)
    return VocabularySums(**dict(zip(_NAMES, sums, strict=True)))


_NAMES = [entry.name for entry in fields(VocabularySums)]


class _VocabularySums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        targets: Tensor,
        teacher: Tensor | None,
        reference: Tensor | None,
        with_entropy: bool,
        with_reverse: bool,
    ) -> tuple[Tensor, ...]:
        log_pi = torch.log_softmax(upcast(logits), -1)
        if teacher is not None or reference is not None or with_entropy:
            _make_finite(log_pi)
        pi = log_pi.exp()
        logprobs = pick(log_pi, targets)
        guided, teacher_sum, teacher_logprobs, reference_kl, reverse_kl, reference_logprobs = (
            torch.zeros_like(logprobs) for _ in range(6)
        )
        entropy = -_dot(pi, log_pi) if with_entropy else torch.zeros_like(logprobs)
        q = log_ratio = teacher_ratio = None
        if teacher is not None:
            log_q = _make_finite(torch.log_softmax(upcast(teacher), -1))
            q = log_q.exp()
            guided, teacher_sum = _dot(q, log_pi), _dot(q, log_q)
            teacher_logprobs = pick(log_q, targets)
            if with_reverse:
                teacher_ratio = torch.sub(log_pi, log_q, out=log_q)
                reverse_kl = _dot(pi, teacher_ratio)
        if reference is not None:
            log_reference = _make_finite(torch.log_softmax(upcast(reference), -1))
            reference_logprobs = pick(log_reference, targets)
            log_ratio = torch.sub(log_pi, log_reference, out=log_reference)
            reference_kl = _dot(pi, log_ratio)
        ctx.save_for_backward(targets, pi, q, log_ratio, reference_kl, teacher_ratio, reverse_kl)
        ctx.dtype = logits.dtype
        ctx.mark_non_differentiable(teacher_sum, teacher_logprobs, reference_logprobs, entropy)
        return (
            *(logprobs, guided, reference_kl, reverse_kl),
            *(teacher_sum, teacher_logprobs, reference_logprobs, entropy),
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        targets, pi, q, log_ratio, reference_kl, teacher_ratio, reverse_kl = ctx.saved_tensors
        of_target, of_guided, of_kl, of_reverse = gradients[:4]
        shift = -of_target if q is None else -(of_target + of_guided)
        if log_ratio is None:
            gradient = pi * shift.unsqueeze(-1)
        else:
            gradient = log_ratio * of_kl.unsqueeze(-1)
            gradient.add_((shift - of_kl * reference_kl).unsqueeze(-1)).mul_(pi)
        if teacher_ratio is not None:
            gradient.addcmul_(pi, (teacher_ratio - reverse_kl.unsqueeze(-1)) * of_reverse.unsqueeze(-1))
        if q is not None:
            gradient.addcmul_(q, of_guided.unsqueeze(-1))
        gradient.scatter_add_(-1, targets.unsqueeze(-1), of_target.unsqueeze(-1))
        return gradient.to(ctx.dtype), None, None, None, None, None


def expectation(probs: Tensor, values: Tensor) -> Tensor:
    """Sum over the last axis of probs * values with 0 * inf = 0, as for vocabulary entries masked by -inf logits.

    The values are masked before the product, so that no NaN reaches the gradient of probs either.

    Args:
        probs: (T, V).
        values: (T, V).

    Returns:
        (T,).
    """
    return (probs * torch.where(probs > 0, values, 0.0)).sum(-1)


def _make_finite(logprobs: Tensor) -> Tensor:
    """In place, so that an entry of probability 0 gives a product of 0."""
    return logprobs.clamp_(min=torch.finfo(logprobs.dtype).min)


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """Row by row, (T,)."""
    return (left * right).sum(-1)
