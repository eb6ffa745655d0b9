"""The gated forward KL from the filtered posterior to the prior view, on sampled tokens or densely.

All return per-token losses (T,) to be summed and multiplied by `Normalisers.kl_scale`. The teacher is the posterior
view and is always detached: guidance goes one way only. Our own reconstruction; docs/method.md, "Gated forward KL".
"""

from __future__ import annotations

import torch
from torch import Tensor

from vpgea.modeling.logprobs import pick, upcast
from vpgea.objective.vocabulary import expectation

TAIL_FLOOR = 1e-6


def other_gates_mean(gates: Tensor, question: Tensor) -> Tensor:
    """b_j: mean gate of the *other* posterior paths of the question, 0 where there is none.

    b_j must not depend on path j itself, otherwise `dense_cv` is biased: call it on all paths of a question at once,
    before cutting micro-batches.

    Args:
        gates: (P,), rejected paths included with gate 0.
        question: (P,) int64, the question of each path, counted from 0.

    Returns:
        (P,), float32 at least.
    """
    values = upcast(gates)
    size = int(question.max()) + 1 if question.numel() else 0
    total = torch.zeros(size, dtype=values.dtype, device=values.device).index_add_(0, question, values)
    others = torch.bincount(question, minlength=size)[question] - 1
    return torch.where(others > 0, (total[question] - values) / others.clamp(min=1), 0.0)


def sampled(logprobs: Tensor, gate: Tensor) -> Tensor:
    """-g log pi_theta(z_t): KL(q_g || pi_theta) up to a constant, q_g proportional to q g, on sampled tokens.

    With gate 1 it is plain cross-entropy.

    Args:
        logprobs: (T,) of the sampled tokens in the prior view.
        gate: (T,), 0 on tokens that are masked.

    Returns:
        (T,), with the gradient of `logprobs`.
    """
    return torch.where(gate != 0, -gate.detach() * logprobs, 0.0)


def dense_cv(logprobs: Tensor, guided: Tensor, gate: Tensor, other_gate: Tensor) -> Tensor:
    """-[(g - b) log pi(z_t) + b sum_v q_v log pi(v)]: same mean gradient as `sampled`, over the full vocabulary.

    Needs every posterior path of the step, rejected ones too: it is their tokens that cancel the mean of the control
    variate.

    Args:
        logprobs: (T,) log pi(z_t).
        guided: (T,) sum_v q_v log pi(v), q the posterior view's distribution.
        gate: (T,) g.
        other_gate: (T,) b, `other_gates_mean` of the path on every token of it.

    Returns:
        (T,), with the gradient of `logprobs` and `guided`.
    """
    g, b = gate.detach(), other_gate.detach()
    return torch.where((g != 0) | (b != 0), -((g - b) * logprobs + b * guided), 0.0)


def dense(guided: Tensor, teacher: Tensor, gate: Tensor) -> Tensor:
    """g KL(q(.|z_<t) || pi_theta), an ablation: its optimum is the *unfiltered* posterior at every visited prefix.

    Args:
        guided: (T,) sum_v q_v log pi(v).
        teacher: (T,) sum_v q_v log q_v.
        gate: (T,) g.

    Returns:
        (T,), with the gradient of `guided`.
    """
    return torch.where(gate != 0, gate.detach() * (teacher.detach() - guided), 0.0)


def reverse(reverse_kl: Tensor, gate: Tensor) -> Tensor:
    """g KL(pi_theta || q(.|z_<t)): it gives up what the teacher would not write.

    Args:
        reverse_kl: (T,) sum_v pi_v (log pi_v - log q_v).
        gate: (T,) g.

    Returns:
        (T,), with the gradient of `reverse_kl`.
    """
    return torch.where(gate != 0, gate.detach() * reverse_kl, 0.0)


def dense_top_k(log_pi: Tensor, top_logprobs: Tensor, top_ids: Tensor, gate: Tensor) -> Tensor:
    """`dense` over the teacher's k likeliest tokens plus one bucket for all others: a lower bound of it.

    Nothing is renormalised. The teacher's tail is floored at 1e-6, which can lift the bound by at most 1e-6 times the
    log-ratio of the tails.

    Args:
        log_pi: (T, V) log-probabilities of the student.
        top_logprobs: (T, k) of the teacher, untempered.
        top_ids: (T, k) int64, distinct in a row, k < V.
        gate: (T,) g.

    Returns:
        (T,), with the gradient of `log_pi`.
    """
    log_q = upcast(top_logprobs.detach())
    q = log_q.exp()
    tail = (1 - q.sum(-1)).clamp(min=TAIL_FLOOR)
    log_head, log_tail = _buckets(log_pi, top_ids)
    head = expectation(q, log_q - log_head)
    return torch.where(gate != 0, gate.detach() * (head + tail * (tail.log() - log_tail)), 0.0)


def dense_cv_top_k(
    log_pi: Tensor, targets: Tensor, top_logprobs: Tensor, top_ids: Tensor, gate: Tensor, other_gate: Tensor
) -> Tensor:
    """`dense_cv` from the teacher's k likeliest tokens: -[g log pi(z_t) - b log pi(B(z_t)) + b sum_B q_B log pi(B)].

    The buckets B are those tokens, each by itself, and all others together. Unbiased like `dense_cv`, since
    E_q[log pi(B(z_t))] = sum_B q_B log pi(B).

    Args:
        log_pi: (T, V) log-probabilities of the student.
        targets: (T,) int64, the sampled tokens.
        top_logprobs: (T, k), as for `dense_top_k`.
        top_ids: (T, k) int64, as for `dense_top_k`.
        gate: (T,) g.
        other_gate: (T,) b, as for `dense_cv`.

    Returns:
        (T,), with the gradient of `log_pi`.
    """
    q = upcast(top_logprobs.detach()).exp()
    g, b = gate.detach(), other_gate.detach()
    log_head, log_tail = _buckets(log_pi, top_ids)
    mean = expectation(q, log_head) + (1 - q.sum(-1)) * log_tail
    is_top = top_ids == targets.unsqueeze(-1)
    own_bucket = torch.where(is_top.any(-1), torch.where(is_top, log_head, 0.0).sum(-1), log_tail)
    loss = -(g * pick(log_pi, targets) + b * (mean - own_bucket))
    return torch.where((g != 0) | (b != 0), loss, 0.0)


def _buckets(log_pi: Tensor, top_ids: Tensor) -> tuple[Tensor, Tensor]:
    """log pi of the top tokens (T, k), and of all others together (T,)."""
    assert top_ids.shape[-1] < log_pi.shape[-1], "no token is left for the tail"
    return log_pi.gather(-1, top_ids), log_pi.scatter(-1, top_ids, float("-inf")).logsumexp(-1)
