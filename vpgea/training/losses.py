"""The loss of a micro-batch: every term as a sum over tokens times the step's constants, a few tokens at a time.

A term is an object that says what it needs and gives its share; its formula per token is a function of
`vpgea/objective/`. L = w_kl L_D - w_pg J + w_ref R, of which L_D lies on posterior paths, J on prior ones, R on both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor

from vpgea.config.training import DistillConfig
from vpgea.modeling.head import Head, chunked_sum
from vpgea.modeling.logprobs import log_softmax, upcast
from vpgea.modeling.policy import Policy
from vpgea.objective import forward_kl, policy_gradient, reference_kl
from vpgea.objective.normalisers import Normalisers
from vpgea.objective.vocabulary import VocabularySums, vocabulary_sums
from vpgea.training.micro_batch import FrozenRole, MicroBatch, Tokens


@dataclass(kw_only=True)
class LossTerms:
    """Scaled terms of a step, summed over micro-batches and ranks; plain numbers for the log."""

    loss: float = 0.0
    kl: float = 0.0
    policy_gradient: float = 0.0
    reference_kl: float = 0.0
    reference_k3: float = 0.0  # an estimate of the same KL from the sampled tokens alone, for the log
    entropy: float = 0.0  # sum over the policy gradient's tokens, nats
    clipped_tokens: int = 0
    truncated_weights: int = 0  # importance weights that were cut at the cap
    clipped_kl_tokens: int = 0
    pg_tokens: int = 0
    tokens: int = 0


class Tally:
    """Sums up LossTerms on the device, so that no step waits for a number."""

    def __init__(self, device: torch.device) -> None:
        self._names = [entry.name for entry in fields(LossTerms)]
        self.values = torch.zeros(len(self._names), dtype=torch.float64, device=device)

    def add(self, **terms: Tensor | int) -> None:
        for name, value in terms.items():
            self.values[self._names.index(name)] += value.detach() if isinstance(value, Tensor) else value

    def terms(self) -> LossTerms:
        """The sums as plain numbers; waits for the device."""
        default = LossTerms()
        values = zip(self._names, self.values.tolist(), strict=True)
        return LossTerms(**{name: type(getattr(default, name))(value) for name, value in values})


@dataclass(frozen=True)
class StepContext:
    """What the terms of one optimiser step share.

    Attributes:
        config: Weights and bounds of the terms.
        normalisers: Constants of the step.
        trained_tokens: Of the whole step over all ranks, R's divisor.
        tally: Where the terms' figures go.
    """

    config: DistillConfig
    normalisers: Normalisers
    trained_tokens: int
    tally: Tally

    def bounded(self, terms: Tensor, weights: Tensor) -> Tensor:
        """min(l_t, c g_t), (T,), c the option `kl_clip`; counts the tokens that it bounds."""
        limit = self.config.kl_clip
        if limit is None:
            return terms
        self.tally.add(clipped_kl_tokens=(terms > limit * weights).sum())
        return torch.minimum(terms, limit * weights)


@dataclass(frozen=True)
class Term(ABC):
    """A summand of the loss over tokens of one kind.

    What no term needs is not computed.

    Attributes:
        needs_teacher: The formula takes sums over the teacher's vocabulary.
        needs_reference: It takes sums over the reference's vocabulary.
        needs_entropy: It takes the student's entropy.
    """

    step: StepContext
    needs_teacher: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = False
    needs_entropy: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, tokens: Tokens, sums: VocabularySums, logits: Tensor) -> Tensor:
        """Weight x the step's constants x the sum over the tokens; its figures go to the tally.

        Args:
            tokens: T of them.
            sums: Of the same tokens; what was not needed is 0.
            logits: (T, V) of the student, float32 at least, for a formula that `sums` has nothing for.

        Returns:
            A scalar with gradient.
        """


class GatedKl(Term):
    """w_kl L_D = w_kl / (N_q K L) sum_t min(l_t, c g_t): l_t a form's loss of a token, g_t its gate.

    Options: `kl_weight` w_kl, `kl_clip` c (null: no bound); `kl_form` and `teacher` choose the form.
    """

    @abstractmethod
    def per_token(self, tokens: Tokens, sums: VocabularySums, logits: Tensor) -> Tensor:
        """l_t, (T,)."""

    def __call__(self, tokens: Tokens, sums: VocabularySums, logits: Tensor) -> Tensor:
        kl = self.step.normalisers.kl_scale * self.step.bounded(self.per_token(tokens, sums, logits), tokens.gate).sum()
        self.step.tally.add(kl=kl)
        return self.step.config.kl_weight * kl


class SampledKl(GatedKl):
    """l = -g log pi(z_t). `kl_form: sampled`; under every form the tokens of `answer_from: crossview`."""

    def per_token(self, tokens: Tokens, sums: VocabularySums, logits: Tensor) -> Tensor:
        return forward_kl.sampled(sums.logprobs, tokens.gate)


class DenseKl(GatedKl):
    """l = g sum_v q_v (log q_v - log pi_v). `kl_form: dense`, the ablation that brings filtered leaks back."""

    needs_teacher = True

    def per_token(self, tokens: Tokens, sums: VocabularySums, logits: Tensor) -> Tensor:
        return forward_kl.dense(sums.guided, sums.teacher, tokens.gate)


class DenseCvKl(GatedKl):
    """l = -[(g - b) log pi(z_t) + b sum_v q_v log pi_v], b the mean gate of the other paths. `kl_form: dense-cv`."""

    needs_teacher = True

    def per_token(self, tokens: Tokens, sums: VocabularySums, logits: Tensor) -> Tensor:
        return forward_kl.dense_cv(sums.logprobs, sums.guided, tokens.gate, tokens.other_gate)


class ReverseKl(GatedKl):
    """l = g sum_v pi_v (log pi_v - log q_v), to be compared with `DenseKl`. `kl_form: reverse`, an ablation."""

    needs_teacher = True

    def per_token(self, tokens: Tokens, sums: VocabularySums, logits: Tensor) -> Tensor:
        return forward_kl.reverse(sums.reverse_kl, tokens.gate)


class StoredDenseKl(GatedKl):
    """`DenseKl` over the stored teacher's k likeliest tokens and one bucket for the others. `teacher: stored`."""

    def per_token(self, tokens: Tokens, sums: VocabularySums, logits: Tensor) -> Tensor:
        return forward_kl.dense_top_k(log_softmax(logits), *tokens.stored_teacher, tokens.gate)


class StoredDenseCvKl(GatedKl):
    """`DenseCvKl` over the stored teacher's k likeliest tokens and one bucket for the others. `teacher: stored`."""

    def per_token(self, tokens: Tokens, sums: VocabularySums, logits: Tensor) -> Tensor:
        return forward_kl.dense_cv_top_k(
            log_softmax(logits), tokens.targets, *tokens.stored_teacher, tokens.gate, tokens.other_gate
        )


class PolicyGradient(Term):
    """-w_pg J: -w_pg / N_tok sum_t kappa_t f_t, f the doubly clipped surrogate of rho_t A.

    Options: `pg_weight` w_pg, `clip_low`, `clip_high` and `dual_clip` of f, `mismatch_cap` of kappa.
    """

    needs_entropy = True  # for the log and its guard

    def __call__(self, tokens: Tokens, sums: VocabularySums, logits: Tensor) -> Tensor:
        config, logprobs = self.step.config, sums.logprobs
        old = _known(tokens.old, logprobs.detach())
        advantages = self.advantages(tokens, sums, old)
        sampler = _known(tokens.sampler, old)
        ratio = (logprobs.detach() - old).exp()
        outside = (ratio > 1 + config.clip_high) & (advantages > 0) | (ratio < 1 - config.clip_low) & (advantages < 0)
        weights = policy_gradient.mismatch_weight(old, sampler, config.mismatch_cap)
        objective = self.step.normalisers.pg_scale * (
            policy_gradient.surrogate(
                logprobs,
                old,
                advantages,
                weights,
                clip_low=config.clip_low,
                clip_high=config.clip_high,
                dual_clip=config.dual_clip,
            ).sum()
        )
        self.step.tally.add(
            policy_gradient=objective,
            entropy=sums.entropy.sum(),
            clipped_tokens=outside.sum(),
            truncated_weights=(weights >= config.mismatch_cap).sum(),
            pg_tokens=len(advantages),
        )
        return -config.pg_weight * objective

    def advantages(self, tokens: Tokens, sums: VocabularySums, old: Tensor) -> Tensor:
        """A of each token, (T,). old: (T,) log pi_old."""
        return tokens.advantage


class CreditedGradient(PolicyGradient):
    """`PolicyGradient` of A_t = A clip((q / pi_old)^sign(A)), q the posterior view. `pg_form: credited`.

    Options: those of `PolicyGradient`, and `credit_clip`, the bounds around 1.
    """

    needs_teacher = True

    def advantages(self, tokens: Tokens, sums: VocabularySums, old: Tensor) -> Tensor:
        return policy_gradient.credited(tokens.advantage, sums.teacher_logprobs, old, self.step.config.credit_clip)


class PriorCrossEntropy(Term):
    """-w_pg J with J = 1 / N_tok sum_t A log pi: without ratio and bounds. `pg_form: cross-entropy`."""

    needs_entropy = True

    def __call__(self, tokens: Tokens, sums: VocabularySums, logits: Tensor) -> Tensor:
        objective = self.step.normalisers.pg_scale * (tokens.advantage * sums.logprobs).sum()
        self.step.tally.add(policy_gradient=objective, entropy=sums.entropy.sum(), pg_tokens=len(tokens.advantage))
        return -self.step.config.pg_weight * objective


class PriorForwardKl(Term):
    """-w_pg J with J = -1 / N_tok sum_t min(A KL(q || pi), c A), q the posterior view. `pg_form: forward-kl`.

    Options: `pg_weight` w_pg, `kl_clip` c (null: no bound).
    """

    needs_teacher = True
    needs_entropy = True

    def per_token(self, tokens: Tokens, sums: VocabularySums) -> Tensor:
        """A times the KL of each token, (T,)."""
        return forward_kl.dense(sums.guided, sums.teacher, tokens.advantage)

    def __call__(self, tokens: Tokens, sums: VocabularySums, logits: Tensor) -> Tensor:
        terms = self.step.bounded(self.per_token(tokens, sums), tokens.advantage)
        objective = -self.step.normalisers.pg_scale * terms.sum()
        self.step.tally.add(policy_gradient=objective, entropy=sums.entropy.sum(), pg_tokens=len(terms))
        return -self.step.config.pg_weight * objective


class PriorReverseKl(PriorForwardKl):
    """The same with KL(pi || q). `pg_form: reverse-kl`."""

    def per_token(self, tokens: Tokens, sums: VocabularySums) -> Tensor:
        return forward_kl.reverse(sums.reverse_kl, tokens.advantage)


class ReferenceKl(Term):
    """w_ref R: w_ref / N_trained sum_t KL(pi(.|z_<t) || pi_ref), or k2 of the sampled tokens.

    Options: `reference_weight` w_ref, `reference_kl` exact or k2, `mismatch_cap` of the weights of k2.
    """

    needs_reference = True

    def __call__(self, tokens: Tokens, sums: VocabularySums, logits: Tensor) -> Tensor:
        config, trained_tokens = self.step.config, self.step.trained_tokens
        terms = sums.reference_kl
        if config.reference_kl == "k2":
            sampler = _known(tokens.sampler, sums.logprobs.detach())
            terms = reference_kl.k2(sums.logprobs, sums.reference_logprobs, sampler, cap=config.mismatch_cap)
        kl = terms.sum() / trained_tokens
        k3 = reference_kl.k3(sums.logprobs, sums.reference_logprobs).sum() / trained_tokens
        self.step.tally.add(reference_kl=kl, reference_k3=k3)
        return config.reference_weight * kl


def _known(values: Tensor, own: Tensor) -> Tensor:
    """(T,) values, `own` where they are NaN."""
    return torch.where(values.isnan(), own, values.to(own.dtype))


# By `kl_form`, and whether the teacher is what the filter stored.
_DENSE_FORMS: dict[tuple[str, bool], type[GatedKl]] = {
    ("dense", False): DenseKl,
    ("reverse", False): ReverseKl,
    ("dense", True): StoredDenseKl,
    ("dense-cv", False): DenseCvKl,
    ("dense-cv", True): StoredDenseCvKl,
}

# By `pg_form`.
_PRIOR_FORMS: dict[str, type[Term]] = {
    "clipped": PolicyGradient,
    "cross-entropy": PriorCrossEntropy,
    "credited": CreditedGradient,
    "forward-kl": PriorForwardKl,
    "reverse-kl": PriorReverseKl,
}


class Loss:
    """The sum of an optimiser step's terms, over one micro-batch at a time."""

    def __init__(self, step: StepContext, teacher: FrozenRole | None, reference: FrozenRole | None) -> None:
        """teacher, reference: where a term needs them; without a reference there is no term R."""
        self.teacher, self.reference, self._tally = teacher, reference, step.tally
        config = step.config
        anywhere = [] if reference is None else [ReferenceKl(step)]
        guided = [_DENSE_FORMS[config.kl_form, config.reads_teacher](step)] if config.is_dense else []
        self._guided: list[Term] = [*guided, *anywhere]
        self._plain: list[Term] = [SampledKl(step), *anywhere]
        self._prior: list[Term] = [_PRIOR_FORMS[config.pg_form](step), *anywhere]

    def __call__(self, policy: Policy, hidden: Tensor, batch: MicroBatch) -> Tensor:
        """This micro-batch's share of the loss; adds its figures to the tally.

        Args:
            policy: The student.
            hidden: (T, H) of the student before each completion token of the batch's paths.
            batch: Those paths; its `seen` is filled.

        Returns:
            A scalar with gradient.
        """
        total = upcast(hidden.new_zeros(()))
        for places, terms in ((batch.guided, self._guided), (batch.plain, self._plain), (batch.prior, self._prior)):
            if len(places):
                total = total + self._sum(policy, hidden, batch, places, terms)
        self._tally.add(loss=total, tokens=len(hidden))
        return total

    def _sum(self, policy: Policy, hidden: Tensor, batch: MicroBatch, places: Tensor, terms: Sequence[Term]) -> Tensor:
        """The terms over the tokens at `places`."""
        is_whole_batch = len(places) == len(hidden)
        rows, tokens = (hidden, batch.tokens) if is_whole_batch else (hidden[places], batch.tokens[places])
        frozen: dict[str, tuple[Head, Tensor]] = {}
        if any(term.needs_teacher for term in terms):
            assert self.teacher is not None
            assert tokens.teacher is not None
            frozen["teacher"] = self.teacher.logits, tokens.teacher
        if any(term.needs_reference for term in terms):
            assert self.reference is not None
            assert tokens.reference is not None
            frozen["reference"] = self.reference.logits, tokens.reference
        with_entropy = any(term.needs_entropy for term in terms)
        with_reverse = any(isinstance(term, ReverseKl | PriorReverseKl) for term in terms)

        def sum_of_terms(logits: Sequence[Tensor], part: slice) -> Tensor:
            chunk = tokens[part]
            of_frozen = dict(zip(frozen, logits[1:], strict=True))
            sums = vocabulary_sums(
                logits[0], chunk.targets, **of_frozen, with_entropy=with_entropy, with_reverse=with_reverse
            )
            batch.seen[places[part]] = sums.logprobs.detach().to(batch.seen.dtype)
            shares = [term(chunk, sums, logits[0]) for term in terms]
            return reduce(torch.add, shares)

        return chunked_sum(sum_of_terms, policy.logits, rows, policy.head_weights, list(frozen.values()))
