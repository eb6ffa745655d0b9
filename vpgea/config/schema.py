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

from vpgea.config.devices import DevicesText
from vpgea.config.fields import Section, Share, execution, identity
from vpgea.config.filtering import FilterConfig
from vpgea.config.objectives import Name as Objective
from vpgea.config.training import DistillConfig

PRICE_SPAN = 10.0  # a price of length that follows a target stays within so many times, and that part of, its start


class ModelConfig(Section):
    """The model that is made shorter."""

    path: str = execution("", "Hugging Face id or local folder of the model")
    revision: str | None = execution(None, "branch, tag or commit of a Hugging Face id")
    adapter: str | None = execution(None, "peft adapter folder on top of the model")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = identity(
        "auto", "dtype of the weights; auto: bfloat16 on a GPU, float32 on a CPU"
    )
    device: str = execution("auto", "torch device; auto: cuda where there is one, else cpu")
    devices: DevicesText = execution(
        "auto",
        "a server or a rank on each: cpu, cpu:N, N for so many GPUs, 0,2,5 for these; auto: device, all GPUs, or cpu",
    )
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
    note: Literal["answer", "none", "wrong", "other", "concise"] = identity(
        "answer",
        "what the posterior's note says: the reference answer | no answer | another value | another question's answer: "
        "controls | in its place, to be concise",
        absent="answer",
        experimental=("none", "wrong", "other", "concise"),
    )
    max_prompt_tokens: int = identity(4096, "longer prompts are rejected and counted, never cut", ge=1)


class RolloutConfig(Section):
    """Phase 1: samples from both views."""

    prior_samples: int = identity(8, "samples per question from the plain prompt (G)", ge=0)
    posterior_samples: int = identity(8, "samples per question from the prompt with the note (K)", ge=0)
    noted_prior: bool = identity(
        False,
        "prior samples have the posterior's prompt beside their own, for distill.pg_form with the posterior as teacher",
        absent=False,
        experimental=True,
    )
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
    keep_servers: bool = execution(
        False, "own servers stay up while a loop trains, and are given the new weights instead of a restart"
    )
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

    grader: str = identity("math", "math, choice, exact, a protocol's pattern, or package.module:function of your own")
    relative_tolerance: float = identity(1e-6, "two decimals closer than this are the same answer", ge=0)
    deadline_s: float = execution(
        10.0, "seconds of its own CPU time (or of waiting) that a worker may take for one answer", gt=0
    )
    memory_mb: int = execution(1024, "address space of one worker above its start, MiB", ge=64)
    workers: int = execution(2, "isolated worker processes", ge=1)
    max_grade_errors: float = execution(
        0.02, "exit 3 when a larger share of the samples ends in error or timeout", ge=0, le=1
    )


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
    eval_every: int = identity(
        1, "measure each so-many-th round and the last; the price of length follows the newest of these", absent=1, ge=1
    )
    keep_rounds: int | None = execution(
        None, "prune older rounds to this many: optimiser states first, then weights; null: keep all", ge=1
    )
    accuracy_margin: Share = identity(
        0.01, "delta: length is priced at 0 while accuracy is below base - delta, by more than chance"
    )
    cap_decay: float = identity(
        1.0,
        "rollout.max_new_tokens is multiplied with this from round to round; 1: it stays",
        absent=1.0,
        experimental=True,
        gt=0,
        le=1,
    )
    token_target: float | None = identity(
        None,
        "mean held-out tokens to come to: length is priced at 0 once they are reached, or as price_step says",
        gt=0,
    )
    price_step: float = identity(
        0.0,
        "after each measured round the price of length is multiplied with exp(price_step min(tokens / token_target - "
        "1, 1)), within a tenth and ten times what it began with; 0: it stays, and is 0 once the target is reached",
        absent=0.0,
        experimental=True,
        ge=0,
    )
    max_accuracy_drop: Share | None = execution(
        None, "the loop ends after a round whose held-out accuracy is further than this below the base's"
    )
    max_sampled_tokens: int | None = execution(
        None, "the loop ends after the round by which so many tokens were sampled, by rollouts and for checks", ge=1
    )


class RunConfig(Section):
    """A whole run."""

    objective: Objective | None = execution(
        None, "name of what is optimised, which sets the keys that make it; null: what the keys say"
    )
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
