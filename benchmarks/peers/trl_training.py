"""Train with TRL's own trainers on given samples, to be run in TRL's environment (constraints/trl.txt).

    .venv-trl/bin/python benchmarks/peers/trl_training.py SPEC.json RESULT.json

`Spec` has the fields of SPEC.json. A line of its `samples` is {"prompt_ids", "teacher_prompt_ids", "completion_ids"};
the file is gone through in its order, again from the start where the steps take more, and every step takes the same
number. That each micro-batch holds just the ids of its samples is asserted. RESULT.json has seconds, trained completion
tokens and the loss of every optimiser step (without collating the micro-batches, which Trainer does before the step
begins), peak memory of the process, and the reason where it failed. Where memory may run out, run it under `ulimit -v`:
what is killed leaves no result.

Defaults stand where the spec says nothing: AdamW, linear decay of the learning rate, gradients clipped at 1. With
float32 weights bf16 is off, which TRL would turn on; with bfloat16 weights it is on, as TRL has it: autocast, float32
logits, adapters in float32.

`sft`: cross entropy over the completion, summed and divided by the tokens of the whole optimiser step. The head is
applied in tiles of the vocabulary, recomputed in the backward pass, so the logits never exist in whole; entropy and
accuracy are computed with it, always. Without Triton, so on a CPU, it is applied to prompts and padding too. Of
`sft_options` these work on a CPU:

    padding_free                    one row per micro-batch; attention keeps the samples apart, the loss is the same
    packing, with max_length        samples put together in rows of at most that length (`bfd`, `bfd_split`; `wrapped`
                                    lets samples see each other); a micro-batch is then of rows, a step of more samples
    gradient_checkpointing_kwargs   {"selective": true} keeps attention's outputs
    bf16                            false with bfloat16 weights: no autocast
    loss_type                       "dft" is another objective; "chunked_nll" an old name of the default

and that do not: use_liger_kernel and use_kernels (packages for GPUs), activation_offloading.

`sdft`: KL(teacher ‖ student) over the full vocabulary, mean over a sample's completion, then over samples. All logits
of both sides along the completions exist at once, and their softmaxes. Only generation is replaced, and the teacher
takes one forward pass more; `sdft_options` may say which it is, `teacher_model_kind`:

    base    (default) the initial weights: with LoRA the model without its adapter, otherwise a second model in memory
    live    the student as it is
    ema     an average of the student: a second adapter with LoRA, otherwise a second model

Completions are padded to the longest of the optimiser step; with `steps_per_generation` 1, which is the accumulation by
default, to the longest of the micro-batch, like SFT's.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from itertools import cycle, islice
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # read on import; keeps TRL's telemetry off the network too

import torch
from datasets import Dataset
from peft import LoraConfig
from torch import Tensor
from transformers import AutoTokenizer, Trainer, TrainerCallback
from trl import SFTConfig, SFTTrainer
from trl.experimental.sdft import SDFTConfig, SDFTTrainer
from trl.experimental.sdft.sdft_trainer import (
    DemonstrationTeacherContextBuilder,
)

Sample = dict[str, list[int]]


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What SPEC.json says. lora: rank, alpha and targets; None for full fine-tuning. options: over TRL's config."""

    trainer: str
    model: str
    samples: str
    dtype: str
    micro_batch_size: int
    accumulation: int
    steps: int
    lora: dict[str, Any] | None
    learning_rate: float
    gradient_checkpointing: bool
    threads: int
    sft_options: dict[str, Any] = field(default_factory=dict)
    sdft_options: dict[str, Any] = field(default_factory=dict)

    def read_samples(self) -> list[Sample]:
        """As many as the steps take: the file in its order, again from its start where it ends before."""
        lines = Path(self.samples).read_text(encoding="utf-8").splitlines()
        return list(islice(cycle(map(json.loads, lines)), self.steps * self.accumulation * self.micro_batch_size))


class Record(TrainerCallback):
    """What every optimiser step took and trained. The trainer tells it of each micro-batch."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self.steps: list[dict[str, Any]] = []
        self._upcoming = iter(samples)
        self._began, self._tokens, self._loss = 0.0, 0, 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began, self._tokens, self._loss = time.perf_counter(), 0, 0.0

    def on_step_end(self, *_: Any, **__: Any) -> None:
        seconds = time.perf_counter() - self._began
        self.steps.append({"seconds": seconds, "tokens": self._tokens, "loss": self._loss})

    def take(self, count: int) -> list[Sample]:
        """The samples that the next micro-batch must be made of."""
        return list(islice(self._upcoming, count))

    def add(self, tokens: int, loss: float) -> None:
        self._tokens += tokens
        self._loss += loss


class _Recorded(Trainer):
    """To stand before one of TRL's trainers among the bases."""

    record: Record

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Tensor | None = None
    ) -> Tensor:
        tokens = self.trained_tokens(inputs, self.record.take(self.args.per_device_train_batch_size))
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        self.record.add(tokens, loss.item())  # both trainers scale it for the accumulation themselves
        return loss

    def trained_tokens(self, inputs: dict[str, Tensor], samples: Sequence[Sample]) -> int:
        """How many tokens a micro-batch trains, once it is certain to be made of the samples and nothing else."""
        raise NotImplementedError


class GivenSFT(_Recorded, SFTTrainer):
    """TRL's SFTTrainer, which takes the ids as they are."""

    def trained_tokens(self, inputs: dict[str, Tensor], samples: Sequence[Sample]) -> int:
        ids, labels = inputs["input_ids"], inputs["labels"]
        trained = labels[labels != -100]
        if not self.args.packing:  # which reorders them
            ids = ids[inputs["attention_mask"].bool()] if "attention_mask" in inputs else ids[0]
            _require_same(ids, samples, "prompt_ids", "completion_ids")
            _require_same(trained, samples, "completion_ids")
        return trained.numel()


class _GivenTeacherPrompt(DemonstrationTeacherContextBuilder):
    def _compose_teacher_prompt(self, prompt: list[int], privileged_context: list[int]) -> list[int]:
        return privileged_context


class IdsSDFT(SDFTTrainer):
    """TRL's SDFTTrainer on prompts of ids, where it would tokenise.

    A row's `prompt` is the student's prompt and its `privileged_context` the teacher's whole prompt, both as ids.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.teacher_context_builder = _GivenTeacherPrompt(self)

    def _tokenize_prompts(self, prompts: list[list[int]]) -> list[list[int]]:
        return prompts


class GivenSDFT(_Recorded, IdsSDFT):
    """With the samples' completions where it would generate."""

    def sample_rollouts(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._completions = [row["completion_ids"] for row in inputs]
        return super().sample_rollouts(inputs)

    def _generate(self, prompt_ids: list[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
        return prompt_ids, self._completions

    def trained_tokens(self, inputs: dict[str, Tensor], samples: Sequence[Sample]) -> int:
        for ids, mask, *fields in (
            ("prompt_ids", "prompt_mask", "prompt_ids"),
            ("completion_ids", "completion_mask", "completion_ids"),
            ("teacher_input_ids", "teacher_attention_mask", "teacher_prompt_ids", "completion_ids"),
        ):
            _require_same(inputs[ids][inputs[mask].bool()], samples, *fields)
        return int(inputs["completion_mask"].sum())


def make_trainer(spec: Spec, samples: Sequence[Sample], folder: str) -> _Recorded:
    """TRL's trainer as the spec wants it; TRL loads the model itself."""
    common: dict[str, Any] = {
        "output_dir": folder,
        "model_init_kwargs": {"dtype": spec.dtype},
        "per_device_train_batch_size": spec.micro_batch_size,
        "gradient_accumulation_steps": spec.accumulation,
        "max_steps": spec.steps,
        "learning_rate": spec.learning_rate,
        "gradient_checkpointing": spec.gradient_checkpointing,
        "optim": "adamw_torch_fused",
        "bf16": spec.dtype == "bfloat16",  # TRL's default is True with float32 weights too
        "use_cpu": not torch.cuda.is_available(),
        "save_strategy": "no",
        "report_to": "none",
    }
    lora = spec.lora and LoraConfig(
        r=spec.lora["rank"],
        lora_alpha=spec.lora["alpha"],
        target_modules=spec.lora["targets"],
        task_type="CAUSAL_LM",
    )
    rows: list[dict[str, Any]]
    options: dict[str, Any]
    shared = {
        "model": spec.model,
        "processing_class": AutoTokenizer.from_pretrained(spec.model),
        "peft_config": lora,
    }
    if spec.trainer == "sft":
        rows = [
            {
                "input_ids": [*sample["prompt_ids"], *sample["completion_ids"]],
                "completion_mask": [0] * len(sample["prompt_ids"]) + [1] * len(sample["completion_ids"]),
            }
            for sample in samples
        ]
        options = {"train_sampling_strategy": "sequential", "max_length": None, "completion_only_loss": True}
        config = SFTConfig(**{**common, **options, **spec.sft_options})
        return GivenSFT(args=config, train_dataset=Dataset.from_list(rows), **shared)
    if spec.trainer == "sdft":
        rows = [
            {
                "prompt": sample["prompt_ids"],
                "privileged_context": sample["teacher_prompt_ids"],
                "completion_ids": sample["completion_ids"],
            }
            for sample in samples
        ]
        options = {
            "shuffle_dataset": False,
            "num_generations": 1,
            "distillation_mode": "full_logits",
            "distillation_alpha": 0.0,
        }
        config = SDFTConfig(**{**common, **options, **spec.sdft_options})
        return GivenSDFT(args=config, train_dataset=Dataset.from_list(rows), **shared)
    raise ValueError(f"no trainer called {spec.trainer!r}")


def train(spec: Spec) -> dict[str, Any]:
    """What RESULT.json says."""
    torch.set_num_threads(spec.threads)
    samples = spec.read_samples()
    record = Record(samples)
    before, failed = None, None
    try:
        with tempfile.TemporaryDirectory(prefix="trl-training-") as folder:
            trainer = make_trainer(spec, samples, folder)
            trainer.record = record
            trainer.add_callback(record)  # after TRL's own, whose work at the end of a step counts
            before = _memory("VmRSS")
            trainer.train()
    except Exception as error:
        traceback.print_exc()
        failed = f"{type(error).__name__}: {error}".splitlines()[0]
    return {
        "versions": {name: metadata.version(name) for name in ("trl", "torch", "transformers", "peft", "accelerate")},
        "steps": record.steps,
        "max_rss_bytes": _memory("VmHWM"),
        "rss_before_training_bytes": before,
        "failed": failed,
    }


def _require_same(ids: Tensor, samples: Iterable[Sample], *fields: str) -> None:
    expected = [token for sample in samples for field in fields for token in sample[field]]
    assert ids.tolist() == expected, f"not the samples' {' and '.join(fields)}"


def _memory(name: str) -> int:
    """Of this process. VmHWM is its peak, like ru_maxrss, except that a process does not inherit it from its parent."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", type=Path, metavar="SPEC.json")
    parser.add_argument("result", type=Path, metavar="RESULT.json")
    arguments = parser.parse_args()
    result = train(Spec(**json.loads(arguments.spec.read_text(encoding="utf-8"))))
    arguments.result.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return int(result["failed"] is not None)


if __name__ == "__main__":
    sys.exit(main())
