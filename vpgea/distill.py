"""Phase 3: the training step. Learns from a filter folder and publishes an adapter or a model."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vpgea.config import DistillConfig, ModelConfig, RunConfig, identity_of
from vpgea.errors import QualityGateError, UsageError, VpgeaError
from vpgea.modeling.checkpoint_files import write_checksums
from vpgea.modeling.load import load_model, model_fingerprint, model_folder
from vpgea.modeling.logprobs import next_token_logits, token_logprobs
from vpgea.progress import NullProgress, Progress
from vpgea.runs import Manifest, PhaseFolder, content_fingerprint, flat_config, open_complete, part_folders
from vpgea.shards import read_json, write_bytes, write_json
from vpgea.stopping import StopRequest
from vpgea.training.checkpoint import load_checkpoint, publish_folder, save_checkpoint
from vpgea.training.data import Step, TrainingPath, TrainingSet, micro_batches
from vpgea.training.loggers import Log, step_log
from vpgea.training.losses import FrozenLogits, LossTerms, step_loss
from vpgea.training.roles import Roles

# Largest difference between a log-probability in memory and after reloading, by the dtype that was stored. bfloat16
# and float16 round the weights themselves when they are stored, so that only a gross error can be seen there.
RELOAD_TOLERANCE = {torch.float32: 1e-4, torch.float16: 0.05, torch.bfloat16: 0.5}
_CANARY_PATHS = 4
_TOKENIZER_FILES = (
    *("tokenizer*", "chat_template*", "special_tokens_map.json", "added_tokens.json"),
    *("vocab*", "merges.txt", "generation_config.json"),
)


def distill(
    config: RunConfig,
    filter_dir: Path,
    output_dir: Path,
    *,
    resume: bool = True,
    overwrite: bool = False,
    stop: StopRequest | None = None,
    progress: Progress | None = None,
    log: Log | None = None,
) -> dict[str, Any]:
    """Train on a complete filter folder; return the summary. A stop writes a checkpoint first.

    `log` receives every line of metrics.jsonl as it is written, besides the logger of the configuration.
    Raises UsageError (other weights, other inputs), QualityGateError (nothing to learn from, the published weights
    differ after reloading), VpgeaError (a gradient that is not finite) and Stopped.
    """
    stop, progress = stop or StopRequest(), progress or NullProgress()
    open_complete(filter_dir, "filter")
    manifest = Manifest(
        phase="distill",
        identity=identity_of(config, "distill", "model"),
        inputs={
            "filter": content_fingerprint(filter_dir),
            "model": model_fingerprint(config.model),
            **_reference_input(config),
        },
        config=flat_config(config),
    )
    if not overwrite and PhaseFolder(output_dir, manifest).is_complete:
        done = PhaseFolder.open(output_dir, manifest, resume=resume)  # refuses what another configuration wrote
        shutil.rmtree(done.part / "checkpoints", ignore_errors=True)  # killed just before they were dropped
        return trained(output_dir)
    data = _training_set(config, filter_dir, manifest)
    roles = Roles(config)  # before the folder is touched: a refused configuration leaves nothing behind
    folder = PhaseFolder.open(output_dir, manifest, resume=resume, overwrite=overwrite)
    trainer = Trainer(config, data, roles, folder)
    with step_log(config, output_dir) as logger:
        trainer.run(stop, progress, [logger, log] if log else [logger])
    summary = trainer.publish()
    folder.complete(summary)
    shutil.rmtree(trainer.checkpoints, ignore_errors=True)
    return summary


def trained(output_dir: Path) -> dict[str, Any]:
    """The summary of a complete distill folder."""
    summary: dict[str, Any] = read_json(part_folders(output_dir)[0] / "COMPLETE")["summary"]
    return summary


def trained_model(config: RunConfig, output_dir: Path) -> ModelConfig:
    """Where the next phase finds the weights that a distill folder published."""
    change = (
        {"adapter": str(output_dir / "adapter")}
        if config.distill.train == "lora"
        else {"path": str(output_dir / "model"), "adapter": None}
    )
    return config.model.model_copy(update=change)


class Trainer:
    """The optimiser steps of one distill folder."""

    def __init__(self, config: RunConfig, data: TrainingSet, roles: Roles, folder: PhaseFolder) -> None:
        self.config, self.distill, self.data, self.roles = config, config.distill, data, roles
        self.output, self.checkpoints = folder.root, folder.part / "checkpoints"
        self.metrics = folder.root / "metrics.jsonl"
        self.trainable = self.roles.trainable
        self.optimizer = torch.optim.AdamW(
            self.trainable.values(),
            lr=self.distill.learning_rate,
            betas=(self.distill.adam_betas[0], self.distill.adam_betas[1]),
            weight_decay=self.distill.weight_decay,
        )
        self.old_logprobs = self._old_logprobs(folder.part / "old_logprobs.safetensors")
        state = load_checkpoint(self.checkpoints, self.trainable, self.optimizer)
        self.next_step = 0 if state is None else int(state["step"])
        self.trained_tokens = 0 if state is None else int(state["trained_tokens"])
        _keep_lines(self.metrics, self.next_step)

    def run(self, stop: StopRequest, progress: Progress, logs: Sequence[Log]) -> None:
        """All steps that are left. On a stop the present step is finished and a checkpoint written."""
        progress.advance(self.next_step)
        while self.next_step < self.data.total_steps:
            line = self.train_step(self.data.step(self.next_step))
            self.next_step += 1
            _append_line(self.metrics, line)
            for log in logs:
                log(line)
            progress.note(f"loss {line['loss']:.4f}")
            progress.advance(1, tokens=line["tokens"])
            every = self.distill.checkpoint_every
            at_end = self.next_step == self.data.total_steps
            if at_end or stop.requested or (every and self.next_step % every == 0):
                self.save()
            stop.check("the checkpoint is written")

    def train_step(self, step: Step) -> dict[str, Any]:
        """One optimiser step over all micro-batches; returns its line of metrics."""
        began = time.perf_counter()
        rate = learning_rate(self.distill, self.next_step, self.data.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        terms = LossTerms()
        self.optimizer.zero_grad(set_to_none=True)
        self.accumulate(step, terms)
        gradient_norm = float(torch.nn.utils.clip_grad_norm_(self.trainable.values(), self.distill.max_grad_norm))
        if not math.isfinite(gradient_norm):
            raise VpgeaError(
                f"the gradient of step {self.next_step} is not finite",
                why=f"loss {terms.loss}, gradient norm {gradient_norm}; the weights are those of the step before",
                mend="lower distill.learning_rate, or use --set model.dtype=float32",
            )
        self.optimizer.step()  # passes over parameters without a gradient: without paths nothing moves or decays
        self.trained_tokens += terms.tokens
        return {
            "step": self.next_step,
            **asdict(terms),
            "gradient_norm": gradient_norm,
            "learning_rate": rate,
            "questions": step.normalisers.N_q,
            "paths": len(step.paths),
            "seconds": round(time.perf_counter() - began, 4),
        }

    def accumulate(self, step: Step, terms: LossTerms) -> None:
        """Add the step's gradient to the parameters, micro-batch by micro-batch."""
        trained_tokens = sum(len(path.completion_ids) for path in step.paths)
        frozen = FrozenLogits(reference=self.roles.reference_logits, teacher=self.roles.teacher_logits)
        for batch in micro_batches(step.paths, self.distill.micro_batch_size):
            loss = step_loss(
                batch,
                self.roles.student_logits(batch),
                frozen,
                self.old_logprobs,
                self.distill,
                step.normalisers,
                trained_tokens,
                terms,
            )
            loss.backward()

    def save(self) -> None:
        state = {"trained_tokens": self.trained_tokens}
        save_checkpoint(self.checkpoints, self.next_step, self.trainable, self.optimizer, state)

    def publish(self) -> dict[str, Any]:
        """Write the adapter or model, reload it as a user would, compare, and only then let it appear."""
        name = "adapter" if self.roles.is_lora else "model"
        temporary = self.output / f".{name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        paths = self.data.paths[:_CANARY_PATHS]
        in_memory = self.roles.frozen_student_logits(paths).cpu()  # before saving, which rounds full weights
        self.roles.save(temporary)
        _copy_tokenizer(self.config.model, temporary)
        reloaded = self.config.model.model_copy(
            update={"adapter": str(temporary)} if self.roles.is_lora else {"path": str(temporary), "adapter": None}
        )
        difference = self._compare_reloaded(paths, in_memory, reloaded, temporary)
        write_checksums(temporary)  # a server that is told to load the folder is only told so when they still hold
        publish_folder(temporary, self.output / name)
        summary = {
            "steps": self.data.total_steps,
            "paths": len(self.data.paths),
            "trained_tokens": self.trained_tokens,
            "truncated_support": self.data.truncated_support,  # no importance weights then
            "reload_difference": difference,
            "engine_mismatch": engine_mismatch(self.data.paths, self.old_logprobs),
            "output": name,
            "model_fingerprint": model_fingerprint(trained_model(self.config, self.output)),
        }
        write_json(self.output / "summary.json", summary)
        return summary

    def _compare_reloaded(
        self, paths: list[TrainingPath], in_memory: Tensor, reloaded: ModelConfig, folder: Path
    ) -> float:
        """Largest log-probability difference on canary paths, which are published beside the weights.

        in_memory: logits (T, V) of their completions as trained.
        """
        sequences = [[*path.prompt_ids.tolist(), *path.completion_ids.tolist()] for path in paths]
        starts = [len(path.prompt_ids) for path in paths]
        targets = torch.cat([torch.as_tensor(path.completion_ids, dtype=torch.long) for path in paths])
        model = load_model(reloaded)
        with torch.inference_mode():
            logits = next_token_logits(model, sequences, starts, self.roles.device)
        stored = token_logprobs(logits.cpu(), targets)
        difference = float((token_logprobs(in_memory, targets) - stored).abs().max())
        tolerance = RELOAD_TOLERANCE[self.roles.compute_dtype]
        if not difference <= tolerance:
            raise QualityGateError(
                f"the weights written to {folder} differ from those that were trained",
                why=f"log-probabilities differ by {difference:.2g} after reloading, {tolerance:g} is allowed",
                mend="run the command again; if it stays, please report the model's architecture",
            )
        values = torch.split(stored, [len(path.completion_ids) for path in paths])
        canary = [
            {"ids": ids, "start": start, "logprobs": part.tolist()}
            for ids, start, part in zip(sequences, starts, values, strict=True)
        ]
        write_json(folder / "vpgea_canary.json", {"dtype": str(self.roles.compute_dtype), "paths": canary})
        return difference

    def _old_logprobs(self, file: Path) -> dict[int, Tensor]:
        """log pi_old (T,) of every prior path under the weights at the start; kept for resumed runs."""
        prior = [path for path in self.data.paths if path.is_prior]
        if not prior:
            return {}
        if not file.is_file():
            temporary = file.with_suffix(".tmp")
            save_file(self._score(prior), temporary)
            temporary.replace(file)
        return {int(index): logprobs for index, logprobs in load_file(file).items()}

    def _score(self, paths: Sequence[TrainingPath]) -> dict[str, Tensor]:
        """log pi (T,) of every completion in the prior view, by index of the path."""
        scored: dict[str, Tensor] = {}
        for batch in micro_batches(paths, self.distill.micro_batch_size):
            targets = torch.cat([torch.as_tensor(path.completion_ids, dtype=torch.long) for path in batch])
            logits = self.roles.frozen_student_logits(batch)
            logprobs = token_logprobs(logits, targets.to(logits.device)).cpu()
            lengths = [len(path.completion_ids) for path in batch]
            for path, part in zip(batch, torch.split(logprobs, lengths), strict=True):
                scored[str(path.index)] = part.clone()
        return scored


def engine_mismatch(paths: Sequence[TrainingPath], old: dict[int, Tensor]) -> dict[str, float] | None:
    """How far the engine's log-probabilities of the prior samples are from the trainer's of the same weights, in nats.

    old: path index → float32 (T,). None without prior samples, and where sampling was tempered or truncated.
    """
    prior = [path for path in paths if path.is_prior]
    pairs = [torch.as_tensor(path.sampler_logprobs).double() - old[path.index].double() for path in prior]
    difference = torch.cat(pairs) if pairs else torch.empty(0)
    difference = difference[~difference.isnan()]
    if not difference.numel():
        return None
    return {
        "mean": float(difference.mean()),
        "mean_absolute": float(difference.abs().mean()),
        "largest": float(difference.abs().max()),
    }


def learning_rate(config: DistillConfig, step: int, total: int) -> float:
    """Linear warm-up to the peak, then constant, linear or cosine decay to 0 at `total`."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    share = (step - config.warmup_steps) / max(total - config.warmup_steps, 1)
    decay = {"constant": 1.0, "linear": 1 - share, "cosine": 0.5 * (1 + math.cos(math.pi * share))}
    return config.learning_rate * decay[config.schedule]


def _training_set(config: RunConfig, filter_dir: Path, manifest: Manifest) -> TrainingSet:
    """What there is to learn, drawn from the weights that are to be trained."""
    read_json(filter_dir / "summary.json")  # written last: without it the selection may be half there
    data = TrainingSet(filter_dir, config.distill)
    if data.model_fingerprint != manifest.inputs["model"]:
        raise UsageError(
            f"{filter_dir} holds samples of other weights",
            why=f"they were drawn from {data.model_fingerprint}, the configured model is {manifest.inputs['model']}",
            mend="give the model (--model) and adapter (--set model.adapter=...) that the rollout was drawn from",
        )
    if not data.paths:
        raise QualityGateError(
            f"nothing to learn from in {filter_dir}",
            why="no path has a gate and no prior sample an advantage",
            mend="loosen the filter's thresholds or draw more samples",
        )
    return data


def _reference_input(config: RunConfig) -> dict[str, str]:
    if config.distill.reference is None:
        return {}
    reference = ModelConfig(**{**config.model.model_dump(), "path": config.distill.reference, "adapter": None})
    return {"reference": model_fingerprint(reference)}


def _copy_tokenizer(model: ModelConfig, folder: Path) -> None:
    """The base's tokenizer and generation files, byte for byte: what was published must render the same prompts."""
    source = model_folder(model)
    for pattern in _TOKENIZER_FILES:
        for file in source.glob(pattern):
            shutil.copyfile(file, folder / file.name)


def _append_line(path: Path, line: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def _keep_lines(path: Path, steps: int) -> None:
    """Drop the lines of steps that will be made again, so that metrics.jsonl has each step once."""
    if path.is_file():
        lines = path.read_bytes().splitlines(keepends=True)[:steps]
        write_bytes(path, b"".join(lines))
