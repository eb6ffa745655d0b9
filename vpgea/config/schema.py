"""The one documented model of a run: every phase and the loop resolve to it.

Importable without torch. Every field is marked *identity* (it changes results, so it is part of a phase's
fingerprint) or *execution* (it does not: paths, concurrency, number of rounds). What a path points at is
fingerprinted by content where a phase reads it, so paths themselves are execution.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

from vpgea.config.fields import Section, Share, execution, identity


class ModelConfig(Section):
    """The model that is made shorter."""

    path: str = execution("", "Hugging Face id or local folder of the model")
    revision: str | None = execution(None, "branch, tag or commit of a Hugging Face id")
    adapter: str | None = execution(None, "peft adapter folder on top of the model")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = identity(
        "auto", "dtype of the weights; auto: bfloat16 on a GPU, float32 on a CPU"
    )
    device: str = execution("auto", "torch device; auto: cuda where there is one, else cpu")
    threads: int | None = execution(None, "CPU threads for torch; null: torch's own choice", ge=1)
    trust_remote_code: bool = execution(False, "run Python code that comes with the model (recorded when on)")


class FieldMapping(Section):
    """Names of the columns in the question file."""

    id: str | None = identity("id", "column with a unique id; absent in the file: made from the content")
    question: str = identity("question", "column with the question's text")
    answer: str = identity("answer", "column with the reference answer")
    options: str | None = identity("options", "column with the list of choices; absent in the file: none")


class DataConfig(Section):
    """The questions."""

    dataset: str = execution("", "question file (jsonl, jsonl.gz, parquet, arrow), folder, or Hugging Face id")
    subset: str | None = identity(None, "configuration name of a Hugging Face data set")
    split: str = identity("train", "split of a Hugging Face data set or folder")
    fields: FieldMapping = Field(default_factory=FieldMapping, description="names of the columns")
    limit: int | None = identity(None, "use only the first so many questions", ge=1)
    skip_bad_rows: bool = identity(False, "leave out, count and list rows that cannot be used; else they are errors")


class ViewsConfig(Section):
    """How a question becomes a prompt in either view."""

    template: str = execution("default", "name of a built-in template or path of a YAML file")
    chat_template_kwargs: dict[str, bool | int | str] = identity(
        {}, "arguments for the model's chat template, e.g. enable_thinking"
    )
    end_of_thinking: str | None = identity("</think>", "text that ends the thinking")
    max_prompt_tokens: int = identity(4096, "longer prompts are rejected and counted, never cut", ge=1)


class RolloutConfig(Section):
    """Phase 1: samples from both views."""

    prior_samples: int = identity(8, "samples per question from the plain prompt (G)", ge=0)
    posterior_samples: int = identity(8, "samples per question from the prompt with the note (K)", ge=0)
    max_new_tokens: int = identity(4096, "cap on a completion's tokens", ge=1)
    temperature: float = identity(1.0, "sampling temperature; 0 is greedy", ge=0)
    top_p: float = identity(1.0, "nucleus sampling; 1 is off", gt=0, le=1)
    top_k: int = identity(0, "top-k sampling; 0 is off", ge=0)
    seed: int = identity(0, "seed of the run; every sample's own seed is derived from it", ge=0)
    questions_per_chunk: int = identity(32, "questions per committed shard file", ge=1)
    engine: Literal["auto", "transformers", "sglang"] = execution(
        "auto", "what samples and scores; auto: sglang with a server's URL or on a GPU where it is installed"
    )
    batch_size: int = execution(64, "sequences that the transformers engine advances together", ge=1)


class SglangConfig(Section):
    """The SGLang server or servers: one started for the run, or those behind URLs."""

    server_url: str | None = execution(
        None, "URLs with commas between them, or a file or folder that lists them and is read again; null: own server"
    )
    python: str | None = execution(
        None, "Python of the environment that holds SGLang; null: .venv-sglang here, else the present environment"
    )
    options: list[str] = execution([], "more options for the own server, as its command line takes them")
    start_timeout_s: float = execution(900.0, "seconds that the own server may take until it generates", gt=0)
    request_timeout_s: float = execution(3600.0, "deadline of one generation or scoring call", gt=0)
    stall_timeout_s: float = execution(
        60.0, "a server that does nothing with its requests for so long is left, and they go elsewhere", gt=0
    )
    patience_s: float = execution(120.0, "seconds without any server that answers before the run gives up", gt=0)
    max_concurrency: int = execution(1024, "most requests under way at one server; fewer where it has no room", ge=1)

    @model_validator(mode="after")
    def _no_secrets(self) -> SglangConfig:
        """A configuration is written into manifests; here, and not at the field, so that the error does not show it."""
        if any(option.replace("_", "-").startswith(("--api-k", "--admin-api-k")) for option in self.options):
            raise ValueError("options hold a key, and would be written into manifests: vpgea makes a server's keys")
        marked = bool(self.server_url) and any(mark in str(self.server_url) for mark in ("?", "#", "@"))
        if marked and ("://" in str(self.server_url) or not Path(str(self.server_url)).exists()):
            raise ValueError(
                "server_url holds a user name, a password, a query or a fragment, and would be written into manifests: "
                "give the URL alone, and the keys in VPGEA_SERVER_API_KEY and VPGEA_SERVER_ADMIN_KEY"
            )
        return self


class GradingConfig(Section):
    """How answers are graded."""

    grader: str = identity("math", "math, choice, exact, or package.module:function of your own")
    relative_tolerance: float = identity(1e-6, "two decimals closer than this are the same answer", ge=0)
    deadline_s: float = execution(
        10.0, "seconds of its own CPU time (or of waiting) that a worker may take for one answer", gt=0
    )
    memory_mb: int = execution(1024, "address space of one worker above its start, MiB", ge=64)
    workers: int = execution(2, "isolated worker processes", ge=1)
    max_grade_errors: float = execution(
        0.02, "exit 3 when a larger share of the samples ends in error or timeout", ge=0, le=1
    )


class AnswerabilityConfig(Section):
    """Does the path alone lead the prior view to the answer?"""

    enabled: bool = identity(True, "check it")
    samples: int = identity(8, "continuations per path (m)", ge=1)
    threshold: Share = identity(0.875, "share of valid continuations that must be correct")
    lift: float = identity(0.0, "must exceed the share without any thinking by this much", ge=-1, le=1)
    max_new_tokens: int = identity(512, "cap on one continuation's tokens", ge=1)


class NoteDependenceConfig(Section):
    """Was some token of the path written because of what the note says?"""

    enabled: bool = identity(True, "check it", absent=False)
    notes: int = identity(3, "notes with another answer that the path is scored under (k)", absent=3, ge=1)
    threshold: float = identity(
        1.0, "nats by which the note may make a token likelier than no note and other notes do", absent=1.0, gt=0
    )


class DerivationConfig(Section):
    """Cut before the value first appears: does the prior view get there by itself?"""

    enabled: bool = identity(True, "check it")
    samples: int = identity(4, "continuations per path", ge=1)
    threshold: Share = identity(0.5, "share of continuations that must state the value next")
    window: int = identity(16, "tokens after the cut, beyond the value's own, in which it must appear", ge=0)


class PlausibilityConfig(Section):
    """Is the path one that the prior view could have written?"""

    enabled: bool = identity(True, "check it")
    window: int = identity(8, "tokens in the sliding window of log q - log pi", ge=1)
    quantile: Share = identity(0.995, "per-path quantile of log q - log pi that is compared")
    calibration_quantile: Share = identity(
        0.99, "a path is implausible beyond this quantile of the prior's own correct paths"
    )
    slack: float = identity(2.0, "nats by which a limit may be exceeded", ge=0)


class LeaksConfig(Section):
    """Phrases that betray the note."""

    enabled: bool = identity(True, "check it")
    phrases: list[str] = identity([], "more regular expressions, besides those of the template")


class UtilityConfig(Section):
    """What a correct path of some length is worth."""

    kind: Literal["exponential", "linear", "sigmoid"] = identity(
        "exponential",
        "r exp(-lambda c) | r - lambda r min(c, c_max) | r (1 - lambda sigmoid(z-scored length))",
        experimental=("linear", "sigmoid"),
    )
    length_price: float = identity(0.1, "lambda: the price of length", ge=0)
    c_max: float = identity(4.0, "cap on relative length for the linear form", experimental=True, gt=0)

    @model_validator(mode="after")
    def _linear_stays_positive(self) -> UtilityConfig:
        if self.kind == "linear" and self.length_price * self.c_max >= 1:
            raise ValueError("length_price * c_max must stay below 1: a correct path would be worth nothing")
        if self.kind == "sigmoid" and self.length_price > 1:
            raise ValueError("length_price must be at most 1 with the sigmoid form")
        return self


class AdvantageConfig(Section):
    """Baselines, advantages and gates."""

    group: Literal["prior", "joint"] = identity("prior", "whose mean utility is the baseline", experimental=("joint",))
    normalise: Literal["std", "none"] = identity("std", "divide by the spread of the prior's utilities, or not")
    std_min: float = identity(0.1, "floor of that spread (sigma_min)", gt=0)
    gate_max: float = identity(2.0, "cap on a posterior path's gate (A_max)", gt=0)
    gate: Literal["advantage", "plausible"] = identity(
        "advantage", "plausible: gates shrink with the mean log-ratio of the views", experimental=("plausible",)
    )
    plausible_slack: float = identity(0.1, "kappa of the plausible gate, nats per token", experimental=True, ge=0)


class FilterConfig(Section):
    """Phase 2: grading and the cross-view evaluation."""

    answerability: AnswerabilityConfig = Field(default_factory=AnswerabilityConfig)
    note_dependence: NoteDependenceConfig = Field(default_factory=NoteDependenceConfig)
    derivation: DerivationConfig = Field(default_factory=DerivationConfig)
    plausibility: PlausibilityConfig = Field(default_factory=PlausibilityConfig)
    leaks: LeaksConfig = Field(default_factory=LeaksConfig)
    accept_undecided: bool = identity(
        False, "learn also from paths that neither note dependence nor derivation could judge", absent=True
    )
    early_exits: bool = identity(False, "diagnostic: answerability at 25, 50 and 75 % of each path", experimental=True)
    counterfactual: bool = identity(False, "diagnostic: the path's log-probability under another question's answer")
    teacher_top_k: int = identity(
        0, "store the posterior view's so many likeliest tokens along its paths, for distill.teacher=stored", ge=0
    )
    utility: UtilityConfig = Field(default_factory=UtilityConfig)
    advantage: AdvantageConfig = Field(default_factory=AdvantageConfig)
    min_reference_tokens: int = identity(16, "floor of the reference length L_ref", ge=1)
    reference_lengths: str | None = execution(None, "JSON file with the base model's L_ref per question")
    min_selected: int = execution(1, "exit 3 when fewer paths and advantages are left to learn from", ge=0)


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
    kl_form: Literal["sampled", "dense-cv", "dense"] = identity(
        "sampled", "gated forward KL on sampled tokens, its unbiased dense form, or the leaky ablation"
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
    answer_from: Literal["none", "crossview"] = identity(
        "none",
        "crossview: cross-entropy on one correct prior-view continuation of each accepted path",
        experimental=("crossview",),
    )
    kl_weight: float = identity(1.0, "w_kl", ge=0)
    pg_weight: float = identity(1.0, "w_pg", ge=0)
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
        "a token's forward KL (sampled: -log pi) counts no more than this, in nats; not with dense-cv",
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
        return self.is_dense and self.teacher != "stored"

    @property
    def is_dense(self) -> bool:
        """Whether the forward KL runs over the vocabulary, and so needs a teacher."""
        return self.kl_form != "sampled" and self.kl_weight > 0


class EvalConfig(Section):
    """Measuring a model on questions."""

    samples: int = identity(1, "samples per question", ge=1)
    max_new_tokens: int = identity(4096, "cap on a completion's tokens", ge=1)
    temperature: float = identity(1.0, "sampling temperature; 0 is greedy", ge=0)
    top_p: float = identity(1.0, "nucleus sampling; 1 is off", gt=0, le=1)
    seed: int = identity(1, "seed of the samples", ge=0)
    baseline: str | None = execution(None, "folder of the base model's evaluation on the same questions")
    bootstrap: int = identity(2000, "bootstrap draws behind every interval", ge=100)


class LoopConfig(Section):
    """Rounds of rollout, filter, distill and a quick evaluation."""

    rounds: int = execution(10, "rounds in all; may be raised later", ge=1)
    questions_per_round: int | None = identity(None, "questions drawn for each round; null: all", ge=1)
    eval_dataset: str = execution("", "held-out questions for the evaluation after each round")
    eval_limit: int | None = identity(None, "use only the first so many held-out questions", ge=1)
    keep_rounds: int | None = execution(
        None, "prune older rounds to this many: optimiser states first, then weights; null: keep all", ge=1
    )
    accuracy_margin: Share = identity(
        0.01, "delta: length is priced at 0 while accuracy is below base - delta, by more than chance"
    )
    token_target: float | None = identity(None, "length is priced at 0 once the mean tokens reach this", gt=0)
    max_accuracy_drop: Share | None = execution(
        None, "the loop ends after a round whose held-out accuracy is further than this below the base's"
    )


class RunConfig(Section):
    """A whole run."""

    model: ModelConfig = Field(default_factory=ModelConfig, description="the model")
    data: DataConfig = Field(default_factory=DataConfig, description="the questions")
    views: ViewsConfig = Field(default_factory=ViewsConfig, description="prompts of the two views")
    rollout: RolloutConfig = Field(default_factory=RolloutConfig, description="phase 1")
    sglang: SglangConfig = Field(default_factory=SglangConfig, description="the SGLang servers")
    grading: GradingConfig = Field(default_factory=GradingConfig, description="grading")
    filter: FilterConfig = Field(default_factory=FilterConfig, description="phase 2")
    distill: DistillConfig = Field(default_factory=DistillConfig, description="phase 3")
    eval: EvalConfig = Field(default_factory=EvalConfig, description="evaluation")
    loop: LoopConfig = Field(default_factory=LoopConfig, description="the rounds")


def leaves(section: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, pydantic FieldInfo) for every leaf field, in order of definition."""
    for name, field in section.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from leaves(annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def value_of(config: BaseModel, key: str) -> Any:
    """The value at a dotted key."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def later_fields() -> dict[str, Any]:
    """Dotted key → what a phase folder that lacks it was made with, for the identity fields that came later."""
    return {key: extra["absent"] for key, field in leaves() if "absent" in (extra := field.json_schema_extra)}


def with_values(config: Section, values: Mapping[str, Any]) -> Any:
    """A copy with other values at these dotted keys."""
    own: dict[str, Any] = {key: value for key, value in values.items() if "." not in key}
    for name in {key.partition(".")[0] for key in values if "." in key}:
        inner = {key.partition(".")[2]: value for key, value in values.items() if key.startswith(f"{name}.")}
        own[name] = with_values(getattr(config, name), inner)
    return config.model_copy(update=own)


def identity_of(config: RunConfig, *sections: str) -> dict[str, Any]:
    """Dotted key → value of the identity fields of the named sections (`rollout`, `filter.utility`, ...)."""
    return {
        key: value_of(config, key)
        for key, field in leaves()
        if field.json_schema_extra["role"] == "identity" and any(key.startswith(f"{section}.") for section in sections)
    }
