"""The loss of a micro-batch: every term as a sum over tokens times the step's constants, a few tokens at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from vpgea.config.schema import DistillConfig
from vpgea.modeling.head import chunked_sum
from vpgea.modeling.logprobs import log_softmax, upcast
from vpgea.modeling.policy import Policy
from vpgea.objective import forward_kl, policy_gradient, reference_kl
from vpgea.objective.normalisers import Normalisers
from vpgea.objective.vocabulary import VocabularySums, vocabulary_sums
from vpgea.training.data import TrainingPath


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


class FrozenRole(Protocol):
    """A model that is not trained: hidden states of whole paths, logits of some tokens of them."""

    def hidden(self, paths: Sequence[TrainingPath]) -> Tensor:
        """(T, H) before each completion token of `paths`, in order."""

    def logits(self, hidden: Tensor) -> Tensor:
        """(T, V) of some rows of hidden (T, H)."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The completion tokens of some paths as flat tensors (T,): what each of them weighs in each term.

    targets: int64. old: log pi_old, NaN where it is what the student says now. sampler: NaN where it is unknown.
    top_ids, top_logprobs: (T, k) of a stored teacher. teacher, reference: (T, H) hidden states of the frozen roles.
    """

    targets: Tensor
    gate: Tensor
    other_gate: Tensor
    advantage: Tensor
    old: Tensor
    sampler: Tensor
    top_ids: Tensor | None = None
    top_logprobs: Tensor | None = None
    teacher: Tensor | None = None
    reference: Tensor | None = None

    def __getitem__(self, rows: slice | Tensor) -> Tokens:
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        some: dict[str, Any] = {name: None if value is None else value[rows] for name, value in values.items()}
        return Tokens(**some)


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """Some paths, their tokens, and which of them are of which kind: int64 places among all tokens.

    guided: z of posterior paths under a dense form. plain: cross-entropy, on z of the sampled form and on
    continuations. prior: the policy gradient's.
    """

    paths: Sequence[TrainingPath]
    tokens: Tokens
    guided: Tensor
    plain: Tensor
    prior: Tensor
    seen: Tensor = field(init=False)  # float32 (T,): log pi of prior tokens, filled as the loss is computed

    def __post_init__(self) -> None:
        object.__setattr__(self, "seen", torch.full_like(self.tokens.old, torch.nan))

    @classmethod
    def of(
        cls, paths: Sequence[TrainingPath], old_logprobs: dict[int, Tensor], config: DistillConfig, device: torch.device
    ) -> MicroBatch:
        """old_logprobs: log pi_old (T,) of prior paths by index; what is missing is what the student says now."""
        lengths = torch.tensor([len(path.completion_ids) for path in paths])

        def per_token(values: Sequence[float]) -> Tensor:
            return torch.repeat_interleave(torch.tensor(values), lengths).to(device)

        def joined(parts: Sequence[Tensor]) -> Tensor:
            return torch.cat(list(parts)).to(device)

        unknown = {path.index: torch.full((len(path.completion_ids),), torch.nan) for path in paths}
        is_prior = per_token([float(path.is_prior) for path in paths]) > 0
        in_thinking = joined([torch.arange(int(n)) < p.thinking_tokens for n, p in zip(lengths, paths, strict=True)])
        guided = ~is_prior & in_thinking if config.is_dense else torch.zeros_like(is_prior)
        stored = [path.teacher for path in paths if path.teacher is not None] if config.reads_teacher else []
        tokens = Tokens(
            targets=joined([torch.as_tensor(path.completion_ids, dtype=torch.long) for path in paths]),
            gate=per_token([path.gate for path in paths]),
            other_gate=per_token([path.other_gate for path in paths]),
            advantage=per_token([path.advantage for path in paths]),
            old=joined([old_logprobs.get(path.index, unknown[path.index]) for path in paths]),
            sampler=joined([torch.as_tensor(path.sampler_logprobs) for path in paths]),
        )
        if stored:
            tokens = replace(
                tokens,
                top_ids=_spread([torch.tensor(one.ids, dtype=torch.long) for one in stored], guided),
                top_logprobs=_spread([torch.tensor(one.logprobs) for one in stored], guided),
            )
        return cls(
            paths=paths,
            tokens=tokens,
            guided=guided.nonzero().flatten(),
            plain=(~is_prior & ~guided).nonzero().flatten(),
            prior=is_prior.nonzero().flatten(),
        )

    def with_frozen(self, teacher: FrozenRole | None, reference: FrozenRole | None) -> MicroBatch:
        """The same with the hidden states of the frozen roles, one forward pass each."""
        teacher_hidden = None
        posterior = [path for path in self.paths if not path.is_prior]
        if teacher is not None and not posterior:
            teacher.hidden([])  # sharded ranks compute together
        elif teacher is not None:
            places = torch.cat([self.guided, self.plain]).sort().values  # all tokens of posterior paths
            hidden = teacher.hidden(posterior)
            teacher_hidden = hidden.new_zeros((len(self.tokens.targets), hidden.shape[-1])).index_copy(
                0, places, hidden
            )
        reference_hidden = None if reference is None else reference.hidden(self.paths)
        return replace(self, tokens=replace(self.tokens, teacher=teacher_hidden, reference=reference_hidden))


def _spread(parts: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Rows of `parts`, end to end, at the places of the mask (T,), zeros elsewhere: (T, k)."""
    rows = torch.cat(list(parts)).to(mask.device)
    return rows.new_zeros((len(mask), rows.shape[-1])).index_copy(0, mask.nonzero().flatten(), rows)


@dataclass(frozen=True, kw_only=True)
class Loss:
    """L = w_kl L_D - w_pg J + w_ref R of one optimiser step, cut into micro-batches.

    trained_tokens: of the whole step over all ranks, R's divisor. teacher, reference: where a term needs them.
    """

    config: DistillConfig
    normalisers: Normalisers
    trained_tokens: int
    teacher: FrozenRole | None
    reference: FrozenRole | None
    tally: Tally

    def __call__(self, policy: Policy, hidden: Tensor, batch: MicroBatch) -> Tensor:
        """This micro-batch's share, a scalar with gradient; adds its parts to the tally.

        hidden: (T, H) of the student before each completion token of the batch's paths.
        """
        total = upcast(hidden.new_zeros(()))
        for places, main in ((batch.guided, self._guided), (batch.plain, self._plain), (batch.prior, self._prior)):
            if len(places):
                total = total + self._sum(policy, hidden, batch, places, main)
        self.tally.add(loss=total, tokens=len(hidden))
        return total

    def _sum(
        self,
        policy: Policy,
        hidden: Tensor,
        batch: MicroBatch,
        places: Tensor,
        main: Callable[[Tokens, VocabularySums, Tensor], Tensor],
    ) -> Tensor:
        """The main term and the reference's over the tokens at `places`."""
        everything = len(places) == len(hidden)
        rows, tokens = (hidden, batch.tokens) if everything else (hidden[places], batch.tokens[places])

        roles = {"teacher": (self.teacher, tokens.teacher), "reference": (self.reference, tokens.reference)}
        if main != self._guided:
            del roles["teacher"]
        frozen = {name: (role.logits, states) for name, (role, states) in roles.items() if role and states is not None}

        def terms(logits: Sequence[Tensor], part: slice) -> Tensor:
            some = tokens[part]
            said = dict(zip(frozen, logits[1:], strict=True))
            sums = vocabulary_sums(logits[0], some.targets, **said, with_entropy=main == self._prior)
            loss = main(some, sums, logits[0])
            if self.reference is not None:
                loss = loss + self._reference(some, sums)
            if main == self._prior:
                batch.seen[places[part]] = sums.logprobs.detach().to(batch.seen.dtype)
            return loss

        return chunked_sum(terms, policy.logits, rows, policy.head_weights, list(frozen.values()))

    # Each gives its term's sum times the step's constants.

    def _plain(self, tokens: Tokens, sums: VocabularySums, _: Tensor) -> Tensor:
        return self._kl(forward_kl.sampled(sums.logprobs, tokens.gate), tokens.gate)

    def _guided(self, tokens: Tokens, sums: VocabularySums, logits: Tensor) -> Tensor:
        gate, other, is_dense = tokens.gate, tokens.other_gate, self.config.kl_form == "dense"
        if tokens.top_ids is not None and tokens.top_logprobs is not None:
            top, log_pi = (tokens.top_logprobs, tokens.top_ids), log_softmax(logits)
            if is_dense:
                terms = forward_kl.dense_top_k(log_pi, *top, gate)
            else:
                terms = forward_kl.dense_cv_top_k(log_pi, tokens.targets, *top, gate, other)
        elif is_dense:
            terms = forward_kl.dense(sums.guided, sums.teacher, gate)
        else:
            terms = forward_kl.dense_cv(sums.logprobs, sums.guided, gate, other)
        return self._kl(terms, gate)

    def _kl(self, terms: Tensor, gate: Tensor) -> Tensor:
        limit = self.config.kl_clip
        if limit is not None:
            self.tally.add(clipped_kl_tokens=(terms > limit * gate).sum())
            terms = torch.minimum(terms, limit * gate)
        kl = self.normalisers.kl_scale * terms.sum()
        self.tally.add(kl=kl)
        return self.config.kl_weight * kl

    def _prior(self, tokens: Tokens, sums: VocabularySums, _: Tensor) -> Tensor:
        config, logprobs, advantages = self.config, sums.logprobs, tokens.advantage
        old = _known(tokens.old, logprobs.detach())
        sampler = _known(tokens.sampler, old)
        ratio = (logprobs.detach() - old).exp()
        outside = (ratio > 1 + config.clip_high) & (advantages > 0) | (ratio < 1 - config.clip_low) & (advantages < 0)
        weights = policy_gradient.mismatch_weight(old, sampler, config.mismatch_cap)
        objective = self.normalisers.pg_scale * (
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
        self.tally.add(
            policy_gradient=objective,
            entropy=sums.entropy.sum(),
            clipped_tokens=outside.sum(),
            truncated_weights=(weights >= config.mismatch_cap).sum(),
            pg_tokens=len(advantages),
        )
        return -config.pg_weight * objective

    def _reference(self, tokens: Tokens, sums: VocabularySums) -> Tensor:
        terms = sums.reference_kl
        if self.config.reference_kl == "k2":
            sampler = _known(tokens.sampler, sums.logprobs.detach())
            cap = self.config.mismatch_cap
            terms = reference_kl.k2(sums.logprobs, sums.reference_logprobs, sampler, cap=cap)
        kl = terms.sum() / self.trained_tokens
        k3 = reference_kl.k3(sums.logprobs, sums.reference_logprobs).sum() / self.trained_tokens
        self.tally.add(reference_kl=kl, reference_k3=k3)
        return self.config.reference_weight * kl


def _known(values: Tensor, own: Tensor) -> Tensor:
    """(T,) values, `own` where they are NaN."""
    return torch.where(values.isnan(), own, values.to(own.dtype))
