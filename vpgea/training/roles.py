"""The student and the frozen models beside it: reference, teacher, and the weights the paths were sampled from."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vpgea.config.schema import RunConfig
from vpgea.modeling.held import HeldModel
from vpgea.modeling.load import load_model
from vpgea.modeling.local_model import LocalModel
from vpgea.modeling.packing import ATTENTION
from vpgea.modeling.policy import BASE, Policy, checked_policy
from vpgea.storage.files import read_json, write_json
from vpgea.training.checkpoint import full_state
from vpgea.training.data import TrainingPath
from vpgea.training.ranks import Ranks
from vpgea.training.sharding import shard, whole_head
from vpgea.training.students import beginning, full_student, lora_student

_STUDENT, _TEACHER = "default", "round_teacher"
_NO_PATH = ([[1, 1]], [1])  # the shortest sequence there is, for a rank without work


class Roles:
    """Holds the student and gives the frozen roles.

    With LoRA the reference is the adapter switched off and the round's teacher a second, frozen adapter; with full
    fine-tuning both are frozen copies, made only when a term needs them. Full fine-tuning keeps float32 weights and
    computes in the model's dtype: bfloat16 weights would round small updates away.
    """

    def __init__(
        self,
        config: RunConfig,
        model: LocalModel,
        ranks: Ranks | None = None,
        *,
        masters: LocalModel | None = None,
        seed: int | None = None,
        held: HeldModel | None = None,
    ) -> None:
        """Make the student, and what stands beside it.

        Args:
            config: Of the run.
            model: To be trained.
            ranks: All that train together.
            masters: Float32 weights to begin with instead.
            seed: If not distill.seed.
            held: Weights in memory, which are taken if they are those; else they are read.
        """
        distill = config.distill
        self.model = model
        self.is_sharded = ranks is not None and ranks.world > 1 and distill.is_sharded
        self.device = model.device
        self.is_lora = distill.train == "lora"
        self.compute_dtype = model.dtype
        self._packing = distill.packing
        loaded = (held or HeldModel()).take(beginning(config, model, masters))
        torch.manual_seed(distill.seed if seed is None else seed)  # loading draws where weights are made before read
        self.student = self._policy(lora_student(config, model, loaded) if self.is_lora else full_student(loaded))
        kind = distill.teacher if distill.runs_teacher else None
        needs_reference = distill.reference_weight > 0
        base = self._base(config) if needs_reference or kind == "frozen" else None
        self.reference = _Frozen(self, base, BASE, posterior=False) if base and needs_reference else None
        self.teacher = self._make_teacher(config, kind, base)
        if distill.gradient_checkpointing:
            self.student.causal.gradient_checkpointing_enable({"use_reentrant": False})
        if distill.compile:
            for layer in self.student.layers:
                layer.compile(dynamic=True)
        self.student.train()
        if ranks is not None and self.is_sharded:
            self._shard(ranks)

    @property
    def trainable(self) -> dict[str, Tensor]:
        """Name → parameter, in the model's order."""
        named = self.student.model.named_parameters()
        return {name: parameter for name, parameter in named if parameter.requires_grad}

    def student_forward(self, paths: Sequence[TrainingPath], use: Callable[[Tensor], Tensor]) -> Tensor:
        """use(hidden) of the student's hidden states (T, H) before all completion tokens, in the prior view."""
        with self.autocast():
            return self.student(*sequences_of(paths), use)

    @torch.no_grad()
    def student_logprobs(self, paths: Sequence[TrainingPath]) -> Tensor:
        """log pi (T,) of all completion tokens in the prior view, in eval mode."""
        with eval_mode(self.student), self.autocast():
            return self.student.logprobs(*sequences_of(paths))

    def autocast(self) -> AbstractContextManager[Any]:
        """Full fine-tuning's float32 weights compute in the model's dtype; sharded ones are cast when gathered."""
        if self.is_lora or self.is_sharded or self.compute_dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.compute_dtype)

    @property
    def hidden_size(self) -> int:
        """Width of the model."""
        return int(self.student.causal.config.get_text_config().hidden_size)

    def whole_weights(self, ranks: Ranks) -> dict[str, Tensor] | None:
        """Collective. Name → whole tensor of what is published, on rank 0's CPU; None where nothing is sharded."""
        return full_state(self.trainable, ranks) if self.is_sharded else None

    @property
    def frozen(self) -> list[_Frozen]:
        """The roles beside the student, in the order in which they compute."""
        return [role for role in (self.teacher, self.reference) if role is not None]

    def idle_backward(self) -> None:
        """Take part in the collective calls of a micro-batch that only other ranks have."""
        for role in self.frozen:
            role.hidden([])
        with ExitStack() as heads:
            for role in self.frozen:
                heads.enter_context(role.whole_head())
            nothing = self.student(*_NO_PATH, lambda hidden: self.student.logits(hidden).sum() * 0.0)
        nothing.backward()

    @torch.no_grad()
    def idle_forward(self) -> None:
        """Take part in a scoring pass that only other ranks have."""
        self.student(*_NO_PATH, self.student.logits)

    def _shard(self, ranks: Ranks) -> None:
        """Share out every policy there is, each once."""
        dtype = None if self.is_lora or self.compute_dtype == torch.float32 else self.compute_dtype
        for policy in dict.fromkeys([self.student, *(role.policy for role in self.frozen)]):
            shard(policy, ranks, dtype)

    def _policy(self, model: Any) -> Policy:
        policy = checked_policy(model, packing=self._packing)
        if self._packing:
            policy.causal.set_attn_implementation(ATTENTION)
        return policy

    def _base(self, config: RunConfig) -> Policy:
        """The policy that is the base model: the student's without its adapter, or one of its own."""
        if self.is_lora:
            return self.student
        reference = reference_model(config)
        if reference is None:
            return self._copy(self.student)
        return self._policy(load_model(reference).requires_grad_(False))

    def _copy(self, policy: Policy) -> Policy:
        return Policy(copy.deepcopy(policy.model).requires_grad_(False).eval(), packing=self._packing)

    def _make_teacher(self, config: RunConfig, kind: str | None, base: Policy | None) -> _Frozen | None:
        if kind is None:
            return None
        if kind == "frozen":
            assert base is not None
            return _Frozen(self, base, BASE, posterior=True)
        if kind == "current":
            return _Frozen(self, self.student, _STUDENT, posterior=True)
        if not self.is_lora:
            is_start = base is not None and config.distill.reference is None and kind == "round"
            return _Frozen(self, base if is_start and base else self._copy(self.student), BASE, posterior=True)
        model = self.student.model
        model.add_adapter(_TEACHER, model.peft_config[_STUDENT])
        weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
        with torch.no_grad():
            for name, parameter in weights.items():
                if f".{_TEACHER}." in name:
                    parameter.copy_(weights[name.replace(f".{_TEACHER}.", f".{_STUDENT}.")])
        model.set_adapter(_STUDENT)
        return _Frozen(self, self.student, _TEACHER, posterior=True)

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the `ema` teacher after a step: teacher <- decay x teacher + (1 - decay) x student."""
        for teacher, student in self.ema_pairs():
            teacher.lerp_(student.to(teacher.dtype), 1 - decay)

    def ema_pairs(self) -> list[tuple[Tensor, Tensor]]:
        """(teacher's, student's) tensor of every weight that is trained."""
        assert self.teacher is not None
        named = dict(self.teacher.policy.model.named_parameters())
        return [
            (named[name.replace(f".{_STUDENT}.", f".{_TEACHER}.") if self.is_lora else name], parameter)
            for name, parameter in self.trainable.items()
        ]

    def release(self) -> None:
        """Let go of all weights, once they are saved: reloading them to compare is not to need twice the memory."""
        del self.student
        self.reference = self.teacher = None

    @property
    def rounds_when_saved(self) -> bool:
        """Whether what is published is less exact than what was trained."""
        return not self.is_lora and self.compute_dtype != torch.float32

    def save_masters(self, folder: Path, weights: dict[str, Tensor] | None) -> None:
        """Write the student's float32 weights, before `save` rounds them. weights: of `whole_weights`."""
        self.student.model.save_pretrained(str(folder), state_dict=weights)

    def save(self, folder: Path, weights: dict[str, Tensor] | None) -> None:
        """Write the student as a peft adapter or a Hugging Face folder that plain transformers loads.

        weights: of `whole_weights`. Full weights are rounded to the model's dtype in place, so nothing can be trained
        afterwards.
        """
        if self.is_lora:
            self.student.model.save_pretrained(str(folder), selected_adapters=[_STUDENT], state_dict=weights)
        elif weights is None:
            self.student.model.to(self.compute_dtype).save_pretrained(str(folder))
        else:
            rounded = {name: tensor.to(self.compute_dtype) for name, tensor in weights.items()}
            self.student.model.save_pretrained(str(folder), state_dict=rounded)
            described = read_json(folder / "config.json")  # of the float32 shards
            write_json(folder / "config.json", {**described, "dtype": str(self.compute_dtype).removeprefix("torch.")})


class _Frozen:
    """A role that is not trained: some policy with some adapter or none, in one of the views, in eval mode."""

    def __init__(self, roles: Roles, policy: Policy, adapter: str | None, *, posterior: bool) -> None:
        self._roles, self.policy, self._adapter, self._posterior = roles, policy, adapter, posterior

    @torch.no_grad()
    def hidden(self, paths: Sequence[TrainingPath]) -> Tensor:
        """See FrozenRole.hidden. Where weights are sharded every rank must call it, with or without paths."""
        if not paths:
            return self.policy(*_NO_PATH, lambda hidden: hidden[:0]) if self._roles.is_sharded else torch.empty(0)
        with eval_mode(self.policy), self.policy.adapter(self._adapter), self._roles.autocast():
            hidden: Tensor = self.policy(*sequences_of(paths, posterior=self._posterior), lambda hidden: hidden)
            return hidden

    def whole_head(self) -> AbstractContextManager[None]:
        """Around calls of `logits` where the weights are sharded and no forward pass of this policy runs."""
        return nullcontext() if self.policy is self._roles.student else whole_head(self.policy)

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Tensor:
        """See FrozenRole.logits."""
        with eval_mode(self.policy.head):
            return self.policy.logits(hidden, adapter=self._adapter)


def reference_model(config: RunConfig) -> LocalModel | None:
    """The model of distill.reference; None where the reference is what is trained, as it was at the start."""
    if config.distill.reference is None:
        return None
    return LocalModel.resolve(config.model.model_copy(update={"path": config.distill.reference, "adapter": None}))


def sequences_of(paths: Sequence[TrainingPath], *, posterior: bool = False) -> tuple[list[list[int]], list[int]]:
    """Ids of prompt and completion, and where each completion starts."""
    prompts = [(path.posterior_prompt_ids if posterior else path.prompt_ids) for path in paths]
    assert all(prompt is not None for prompt in prompts), "a prior path has no posterior view"
    listed = [prompt.tolist() for prompt in prompts if prompt is not None]
    sequences = [prompt + path.completion_ids.tolist() for prompt, path in zip(listed, paths, strict=True)]
    return sequences, [len(prompt) for prompt in listed]


@contextmanager
def eval_mode(model: torch.nn.Module) -> Iterator[None]:
    """Without dropout while the block runs."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
