"""The paths of a micro-batch as flat tensors: what each of their tokens weighs in each term."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from vpgea.config.training import DistillConfig
from vpgea.training.data import TrainingPath


class FrozenRole(Protocol):
    """A model that is not trained: hidden states of whole paths, logits of some tokens of them."""

    def hidden(self, paths: Sequence[TrainingPath]) -> Tensor:
        """(T, H) before each completion token of `paths`, in order."""

    def logits(self, hidden: Tensor) -> Tensor:
        """(T, V) of some rows of hidden (T, H)."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The completion tokens of some paths as flat tensors: what each of them weighs in each term.

    Attributes:
        targets: int64 (T,), the tokens.
        gate: (T,) g, 0 on prior paths and behind the sound part of a path that is learnt in part.
        other_gate: (T,) b, 0 on prior paths.
        advantage: (T,) A, 0 on posterior paths.
        old: (T,) log pi_old, NaN where it is what the student says now.
        sampler: (T,) log-probabilities of the sampler, NaN where they are unknown.
        top_ids: int64 (T, k) of a stored teacher.
        top_logprobs: (T, k) of a stored teacher.
        teacher: (T, H) hidden states of the teacher, in the posterior view.
        reference: (T, H) hidden states of the reference.
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

    @property
    def stored_teacher(self) -> tuple[Tensor, Tensor]:
        """(top_logprobs, top_ids), where the filter stored them."""
        assert self.top_logprobs is not None
        assert self.top_ids is not None
        return self.top_logprobs, self.top_ids

    def __getitem__(self, rows: slice | Tensor) -> Tokens:
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        selected: dict[str, Any] = {name: None if value is None else value[rows] for name, value in values.items()}
        return Tokens(**selected)


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """Some paths, their tokens, and which of them are of which kind: int64 places among all tokens.

    Attributes:
        paths: In the order of their tokens.
        tokens: Of all of them.
        guided: z of posterior paths under a dense form.
        plain: Cross-entropy: z of the sampled form, and continuations.
        prior: The policy gradient's.
        seen: float32 (T,), the student's log pi, filled as the loss is computed.
    """

    paths: Sequence[TrainingPath]
    tokens: Tokens
    guided: Tensor
    plain: Tensor
    prior: Tensor
    seen: Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "seen", torch.full_like(self.tokens.old, torch.nan))

    @classmethod
    def of(
        cls, paths: Sequence[TrainingPath], old_logprobs: dict[int, Tensor], config: DistillConfig, device: torch.device
    ) -> MicroBatch:
        """The paths' tokens on a device.

        Args:
            paths: Of the micro-batch.
            old_logprobs: Path index → log pi_old (T,); what is missing is what the student says now.
            config: Which terms there are.
            device: Where the tensors go.
        """
        lengths = torch.tensor([len(path.completion_ids) for path in paths])

        def per_token(values: Sequence[float]) -> Tensor:
            return torch.repeat_interleave(torch.tensor(values), lengths).to(device)

        def joined(parts: Sequence[Tensor]) -> Tensor:
            return torch.cat(list(parts)).to(device)

        unknown = {path.index: torch.full((len(path.completion_ids),), torch.nan) for path in paths}
        is_prior = per_token([float(path.is_prior) for path in paths]) > 0
        in_thinking = joined([torch.arange(int(n)) < p.thinking_tokens for n, p in zip(lengths, paths, strict=True)])
        gated = [len(path.completion_ids) if path.gated_tokens is None else path.gated_tokens for path in paths]
        is_gated = joined([torch.arange(int(n)) < tokens for n, tokens in zip(lengths, gated, strict=True)])
        guided = ~is_prior & in_thinking if config.is_dense else torch.zeros_like(is_prior)
        stored = [path.teacher for path in paths if path.teacher is not None] if config.reads_teacher else []
        tokens = Tokens(
            targets=joined([torch.as_tensor(path.completion_ids, dtype=torch.long) for path in paths]),
            gate=per_token([path.gate for path in paths]) * is_gated,
            other_gate=per_token([path.other_gate for path in paths]),
            advantage=per_token([path.advantage for path in paths]),
            old=joined([old_logprobs.get(path.index, unknown[path.index]) for path in paths]),
            sampler=joined([torch.as_tensor(path.sampler_logprobs) for path in paths]),
        )
        if stored:
            tokens = replace(
                tokens,
                top_ids=_spread([torch.tensor(teacher.ids, dtype=torch.long) for teacher in stored], guided),
                top_logprobs=_spread([torch.tensor(teacher.logprobs) for teacher in stored], guided),
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
        noted = [path for path in self.paths if path.posterior_prompt_ids is not None]
        if teacher is not None and not noted:
            teacher.hidden([])  # sharded ranks compute together
        elif teacher is not None:
            is_noted = torch.tensor([path.posterior_prompt_ids is not None for path in self.paths])
            lengths = torch.tensor([len(path.completion_ids) for path in self.paths])
            places = is_noted.repeat_interleave(lengths).nonzero().flatten().to(self.tokens.targets.device)
            hidden = teacher.hidden(noted)
            teacher_hidden = hidden.new_zeros((len(self.tokens.targets), hidden.shape[-1])).index_copy(
                0, places, hidden
            )
        reference_hidden = None if reference is None else reference.hidden(self.paths)
        return replace(self, tokens=replace(self.tokens, teacher=teacher_hidden, reference=reference_hidden))


def _spread(parts: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Rows of `parts`, end to end, at the places of the mask (T,), zeros elsewhere: (T, k)."""
    rows = torch.cat(list(parts)).to(mask.device)
    return rows.new_zeros((len(mask), rows.shape[-1])).index_copy(0, mask.nonzero().flatten(), rows)
