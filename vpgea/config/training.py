"""Phase 3 in the configuration: the loss, the optimiser and how it is laid out in memory."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from vpgea.config.fields import Section, Share, execution, identity

PRIOR_KL = ("forward-kl", "reverse-kl")  # of pg_form, those that are a KL


class LoraConfig(Section):
    """The adapter."""

    rank: int = identity(16, "rank of the adapter", ge=1)
    alpha: float = identity(32.0, "scale of the adapter", gt=0)
    dropout: float = identity(0.0, "dropout inside the adapter", ge=0, lt=1)
    targets: list[str] = identity(["all-linear"], "module names, or all-linear")


class DistillConfig(Section):
    """Phase 3: the training step."""

    train: Literal["lora", "full"] = identity("lora", "train an adapter or all weights")
    lora: LoraConfig = Field(default_factory=LoraConfig)
    kl_form: Literal["sampled", "dense-cv", "dense", "reverse"] = identity(
        "sampled",
        "gated forward KL on sampled tokens, its unbiased dense form, or the leaky ablations: dense, and reverse",
        experimental=("reverse",),
    )
    teacher: Literal["round", "current", "frozen", "ema", "stored"] = identity(
        "round",
        "weights behind the dense forms: at rollout, now, the base model's, a moving average; "
        "or what the filter stored of those at rollout",
        experimental=("frozen", "ema"),
    )
    ema_decay: float = identity(
        0.99, "teacher=ema: how much of the average is kept at each step", experimental=True, ge=0, lt=1
    )
    answer_from: Literal["none", "crossview", "posterior"] = identity(
        "none",
        "crossview: cross-entropy on one correct prior-view continuation of each accepted path; posterior: on the "
        "answer that it was sampled with, the note in sight",
        experimental=("crossview", "posterior"),
    )
    kl_weight: float = identity(1.0, "w_kl", ge=0)
    pg_weight: float = identity(1.0, "w_pg", ge=0)
    pg_form: Literal["clipped", "cross-entropy", "credited", "forward-kl", "reverse-kl"] = identity(
        "clipped",
        "J: the doubly clipped surrogate of ratio x A | A log pi | with the posterior q as teacher: the surrogate of "
        "A times the clipped q / pi_old or its inverse | - A KL(q || pi) | - A KL(pi || q)",
        absent="clipped",
        experimental=("cross-entropy", "credited", "forward-kl", "reverse-kl"),
    )
    credit_clip: float = identity(
        0.2,
        "epsilon_c of pg_form credited: a token has at least 1 - epsilon_c and at most 1 + epsilon_c of its A",
        absent=0.2,
        experimental=True,
        gt=0,
        lt=1,
    )
    reference_weight: float = identity(0.01, "w_ref", ge=0)
    reference: str | None = execution(
        None, "reference model of full fine-tuning (LoRA: the adapter off); null: the model at the start"
    )
    reference_kl: Literal["exact", "k2"] = identity(
        "exact", "KL to the base model: over the vocabulary, or k2", experimental=("k2",)
    )
    clip_low: float = identity(0.2, "epsilon_l of the importance ratio", gt=0, lt=1)
    clip_high: float = identity(0.28, "epsilon_h of the importance ratio", gt=0)
    dual_clip: float = identity(3.0, "bound for negative advantages", gt=1)
    mismatch_cap: float = identity(2.0, "cap C on trainer/engine probability", gt=0)
    mask_truncated: bool = identity(False, "leave cut-off prior samples out of the policy gradient", experimental=True)
    kl_clip: float | None = identity(
        None,
        "a token's KL to the posterior (sampled: -log pi) counts no more than this, in nats; not with dense-cv",
        experimental=True,
        gt=0,
    )
    epochs: int = identity(1, "passes over the selected questions", ge=1, le=16)
    questions_per_step: int = identity(16, "questions per optimiser step", ge=1)
    max_tokens_per_batch: int = execution(
        8192, "tokens of a forward pass, prompts included; a longer path goes by itself; memory, never the loss", ge=1
    )
    packing: bool = execution(True, "lay sequences end to end; false: pad them to the longest of their batch")
    gradient_checkpointing: bool = execution(False, "keep one hidden state per layer and compute the rest again")
    compile: bool = execution(False, "compile the decoder's layers: a slow start, then faster steps")
    parallel: Literal["auto", "ddp", "fsdp"] = execution(
        "auto", "several ranks: a copy each, or everything sharded; auto: ddp for an adapter, fsdp for all weights"
    )
    optimizer: Literal["adamw", "adafactor"] = identity(
        "adamw",
        "adafactor keeps rows and columns of the second moment: next to no memory, one rank or ddp",
        experimental=("adafactor",),
    )
    optimizer_state: Literal["carried", "fresh"] = identity(
        "carried",
        "carried: a training of published weights goes on with the moments and the schedule of the one before; "
        "fresh: each begins anew",
        absent="fresh",
    )
    learning_rate: float = identity(2e-5, "peak learning rate", gt=0)
    schedule: Literal["constant", "linear", "cosine"] = identity("constant", "after the warm-up")
    warmup_steps: int = identity(0, "linear warm-up", ge=0)
    final_learning_rate: Share = identity(0.0, "where linear and cosine end, as a share of the peak")
    weight_decay: float = identity(0.0, "decoupled weight decay", ge=0)
    adam_betas: list[float] = identity([0.9, 0.95], "AdamW's betas", min_length=2, max_length=2)
    max_grad_norm: float = identity(1.0, "gradient norm is clipped to this", gt=0)
    seed: int = identity(0, "order of the data", ge=0)
    checkpoint_every: int = execution(50, "optimiser steps between checkpoints; 0: only at the end or a stop", ge=0)
    max_bad_steps: int = identity(
        3, "steps in a row whose gradient is not finite and which are left out; then the run fails", ge=1
    )
    max_reference_kl: float | None = identity(
        None, "training ends early once a step's KL to the base model exceeds this, nats per token", gt=0
    )
    entropy_floor: Share = identity(
        0.3, "alarm when entropy falls below this share of that of the run's start; 0: never"
    )
    stop_on_collapse: bool = identity(False, "end training at that alarm")
    log_to: list[Literal["tensorboard", "wandb", "trackio"]] = execution(
        [], "besides metrics.jsonl, where the steps' figures go (needs the package of that name)"
    )
    log_project: str = execution("vpgea", "project name at wandb and trackio")

    @model_validator(mode="after")
    def _guards_fit(self) -> DistillConfig:
        if self.kl_clip is not None and self.kl_form == "dense-cv":
            raise ValueError("kl_clip cannot be combined with kl_form dense-cv: clipped terms no longer cancel")
        if self.kl_form == "reverse" and self.teacher == "stored":
            raise ValueError(
                "kl_form reverse cannot be combined with teacher stored: it needs every token's probability"
            )
        if self.has_teacher_on_prior and self.teacher == "stored":
            raise ValueError(
                f"pg_form {self.pg_form} cannot be combined with teacher stored, which posterior paths alone have"
            )
        if self.optimizer == "adafactor" and self.parallel == "fsdp":
            raise ValueError("adafactor cannot be combined with parallel fsdp: it works on whole matrices; use ddp")
        if self.max_reference_kl is not None and self.reference_weight == 0:
            raise ValueError("max_reference_kl needs the reference's forward pass: set reference_weight above 0")
        return self

    @property
    def is_sharded(self) -> bool:
        """Whether several ranks share the weights out among them."""
        by_default = self.train == "full" and self.optimizer != "adafactor"  # which works on whole matrices
        return self.parallel == "fsdp" or (self.parallel == "auto" and by_default)

    @property
    def reads_teacher(self) -> bool:
        """Whether a term takes the teacher from the filter's folder."""
        return self.is_dense and self.teacher == "stored"

    @property
    def runs_teacher(self) -> bool:
        """Whether a term needs a forward pass of the teacher."""
        return self.has_teacher_on_prior or (self.is_dense and self.teacher != "stored")

    @property
    def has_teacher_on_prior(self) -> bool:
        """Whether the posterior is the teacher of prior samples."""
        return self.pg_form in ("credited", *PRIOR_KL) and self.pg_weight > 0

    @property
    def is_dense(self) -> bool:
        """Whether the forward KL runs over the vocabulary, and so needs a teacher."""
        return self.kl_form != "sampled" and self.kl_weight > 0
