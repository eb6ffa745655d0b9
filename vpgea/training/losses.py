"""The loss of a micro-batch: every term as a sum over tokens times the step's constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vpgea.config import DistillConfig
from vpgea.modeling.logprobs import token_logprobs
from vpgea.objective import forward_kl, policy_gradient, reference_kl
from vpgea.objective.normalisers import Normalisers
from vpgea.training.data import TrainingPath

Logits = Callable[[Sequence[TrainingPath]], Tensor]


@dataclass(frozen=True)
class FrozenLogits:
    """Logits (T, V) of the frozen roles for the completion tokens of some paths."""

    reference: Logits
    teacher: Logits


@dataclass
class LossTerms:
    """Scaled terms of a step, summed over its micro-batches; plain numbers for the log."""

    loss: float = 0.0
    kl: float = 0.0
    policy_gradient: float = 0.0
    reference_kl: float = 0.0
    reference_k3: float = 0.0  # an estimate of the same KL from the sampled tokens alone, for the log
    clipped_tokens: int = 0
    pg_tokens: int = 0
    tokens: int = 0


def step_loss(
    paths: Sequence[TrainingPath],
    logits: Tensor,
    frozen: FrozenLogits,
    old_logprobs: dict[int, Tensor],
    config: DistillConfig,
    normalisers: Normalisers,
    trained_tokens: int,
    log: LossTerms,
) -> Tensor:
    """This micro-batch's share of L = w_kl L_D - w_pg J + w_ref R, a scalar; adds its parts to `log`.

    logits: (T, V) of the completion tokens of `paths`, in order. trained_tokens: of the whole step, R's divisor.
    """
    device = logits.device
    lengths = [len(path.completion_ids) for path in paths]
    targets = _concatenate([torch.as_tensor(path.completion_ids, dtype=torch.long) for path in paths], device)
    is_prior = _per_token([float(path.is_prior) for path in paths], lengths, device) > 0
    loss = logits.new_zeros((), dtype=torch.float64 if logits.dtype == torch.float64 else torch.float32)
    posterior = [path for path in paths if not path.is_prior]
    if posterior and config.kl_weight > 0:
        terms = _kl_terms(posterior, logits[~is_prior], targets[~is_prior], frozen, config)
        kl = normalisers.kl_scale * terms.sum()
        log.kl += float(kl.detach())
        loss = loss + config.kl_weight * kl
    prior = [path for path in paths if path.is_prior]
    if prior and config.pg_weight > 0:
        objective = (
            normalisers.pg_scale
            * _pg_terms(prior, logits[is_prior], targets[is_prior], old_logprobs, config, log).sum()
        )
        log.policy_gradient += float(objective.detach())
        loss = loss - config.pg_weight * objective
    if config.reference_weight > 0 and trained_tokens:
        reference = _reference_terms(paths, logits, targets, frozen, config, trained_tokens, log).sum() / trained_tokens
        log.reference_kl += float(reference.detach())
        loss = loss + config.reference_weight * reference
    log.loss += float(loss.detach())
    log.tokens += sum(lengths)
    return loss


def _kl_terms(
    paths: Sequence[TrainingPath],
    logits: Tensor,
    targets: Tensor,
    frozen: FrozenLogits,
    config: DistillConfig,
) -> Tensor:
    """(T,) of the configured form on z; a continuation behind z is always plain cross-entropy with the path's gate."""
    lengths = [len(path.completion_ids) for path in paths]
    gate = _per_token([path.gate for path in paths], lengths, logits.device)
    if config.kl_form == "sampled":
        return forward_kl.sampled(logits, targets, gate)
    thinking = torch.cat([torch.arange(n) < path.thinking_tokens for path, n in zip(paths, lengths, strict=True)])
    in_thinking = thinking.to(logits.device)
    if config.reads_teacher:
        other = _per_token([path.other_gate for path in paths], lengths, logits.device)
        z_logits, z_targets, z_gate, z_other = (one[in_thinking] for one in (logits, targets, gate, other))
        stored = _stored_terms(paths, z_logits, z_targets, z_gate, z_other, config)
        return forward_kl.sampled(logits, targets, gate).masked_scatter(in_thinking, stored)
    teacher = frozen.teacher(paths)
    if config.kl_form == "dense":
        terms = forward_kl.dense(logits, teacher, gate)
    else:
        other = _per_token([path.other_gate for path in paths], lengths, logits.device)
        terms = forward_kl.dense_cv(logits, targets, teacher, gate, other)
    return torch.where(in_thinking, terms, forward_kl.sampled(logits, targets, gate))


def _stored_terms(
    paths: Sequence[TrainingPath],
    logits: Tensor,
    targets: Tensor,
    gate: Tensor,
    other_gate: Tensor,
    config: DistillConfig,
) -> Tensor:
    """The dense forms (T,) on the tokens of z alone, from what the filter stored of the teacher."""
    stored = [path.teacher for path in paths if path.teacher is not None]
    assert len(stored) == len(paths)
    ids = _concatenate([torch.tensor(one.ids, dtype=torch.long) for one in stored], logits.device)
    logprobs = _concatenate([torch.tensor(one.logprobs) for one in stored], logits.device)
    if config.kl_form == "dense":
        return forward_kl.dense_top_k(logits, logprobs, ids, gate)
    return forward_kl.dense_cv_top_k(logits, targets, logprobs, ids, gate, other_gate)


def _pg_terms(
    paths: Sequence[TrainingPath],
    logits: Tensor,
    targets: Tensor,
    old_logprobs: dict[int, Tensor],
    config: DistillConfig,
    log: LossTerms,
) -> Tensor:
    lengths = [len(path.completion_ids) for path in paths]
    device = logits.device
    logprobs = token_logprobs(logits, targets)
    old = _concatenate([old_logprobs[path.index] for path in paths], device)
    sampler = _sampler_logprobs(paths, old)
    advantages = _per_token([path.advantage for path in paths], lengths, device)
    ratio = (logprobs.detach() - old).exp()
    outside = (ratio > 1 + config.clip_high) & (advantages > 0) | (ratio < 1 - config.clip_low) & (advantages < 0)
    log.clipped_tokens += int(outside.sum())
    log.pg_tokens += len(targets)
    return policy_gradient.surrogate(
        logprobs,
        old,
        advantages,
        policy_gradient.mismatch_weight(old, sampler, config.mismatch_cap),
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        dual_clip=config.dual_clip,
    )


def _reference_terms(
    paths: Sequence[TrainingPath],
    logits: Tensor,
    targets: Tensor,
    frozen: FrozenLogits,
    config: DistillConfig,
    trained_tokens: int,
    log: LossTerms,
) -> Tensor:
    reference = frozen.reference(paths)
    logprobs, reference_logprobs = token_logprobs(logits, targets), token_logprobs(reference, targets)
    log.reference_k3 += float(reference_kl.k3(logprobs, reference_logprobs).sum()) / trained_tokens
    if config.reference_kl == "exact":
        return reference_kl.exact(logits, reference)
    sampler = _sampler_logprobs(paths, logprobs.detach())
    return reference_kl.k2(logprobs, reference_logprobs, sampler, cap=config.mismatch_cap)


def _sampler_logprobs(paths: Sequence[TrainingPath], own: Tensor) -> Tensor:
    """(T,) log-probabilities of the sampler; `own` where they are not known, so that their weight is 1."""
    stored = _concatenate([torch.as_tensor(path.sampler_logprobs) for path in paths], own.device)
    return torch.where(stored.isnan(), own, stored.to(own.dtype))


def _per_token(values: Sequence[float], lengths: Sequence[int], device: torch.device) -> Tensor:
    """One value per path to one per token, float32 (T,)."""
    return torch.repeat_interleave(torch.tensor(values), torch.tensor(lengths)).to(device)


def _concatenate(parts: Sequence[Tensor], device: torch.device) -> Tensor:
    return torch.cat(list(parts)).to(device)
