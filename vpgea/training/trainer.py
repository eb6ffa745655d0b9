"""The optimiser steps of one distill folder, on one rank or many."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vpgea.config.schema import DistillConfig, RunConfig
from vpgea.errors import UsageError, VpgeaError, is_out_of_memory
from vpgea.runs.layout import CHECKPOINTS, METRICS, OLD_LOGPROBS
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.runs.progress import Progress
from vpgea.runs.records import EngineMismatch
from vpgea.runs.stopping import StopRequest
from vpgea.storage.files import file_checksum, write_bytes
from vpgea.training.batching import micro_batches
from vpgea.training.checkpoint import load_checkpoint, save_checkpoint
from vpgea.training.data import Step, TrainingPath, TrainingSet
from vpgea.training.guards import Guards, per_1000_tokens
from vpgea.training.loggers import Log
from vpgea.training.losses import Loss, LossTerms, StepContext, Tally
from vpgea.training.micro_batch import MicroBatch
from vpgea.training.ranks import Ranks
from vpgea.training.roles import Roles
from vpgea.training.sharding import only_last_reduces


class Trainer:
    """Takes the steps, keeps checkpoints, writes metrics.jsonl. All ranks take every step together."""

    def __init__(
        self,
        config: RunConfig,
        data: TrainingSet,
        roles: Roles,
        folder: PhaseFolder,
        ranks: Ranks | None = None,
        *,
        epistemic: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """epistemic: ids of the tokens that are counted as words of reflection."""
        self.distill, self.data, self.roles = config.distill, data, roles
        self.ranks = ranks or Ranks()
        self.checkpoints = folder.part / CHECKPOINTS
        self.metrics = folder.root / METRICS
        self.trainable = roles.trainable
        self.optimizer = make_optimizer(self.distill, list(self.trainable.values()))
        self.guards = Guards(config=self.distill)
        self.next_step = self.trained_tokens = 0
        self._epistemic = np.empty(0, np.int64) if epistemic is None else epistemic
        self._old_file = folder.part / OLD_LOGPROBS
        self._old_sum = file_checksum(self._old_file) if self._old_file.is_file() else None
        self.old_logprobs = self._old_logprobs()
        state = load_checkpoint(self.checkpoints, self._saved_tensors(), self.optimizer, self.ranks)
        if state is not None:
            self._require_old_logprobs(state.get("old_logprobs"))
            self.next_step, self.trained_tokens = int(state["step"]), int(state["trained_tokens"])
            self.guards.restore(state["guards"])
        if self.ranks.is_first:
            _keep_lines(self.metrics, self.next_step)

    @property
    def is_done(self) -> bool:
        """Whether all steps are taken, or a guard has ended the training."""
        return self.next_step >= self.data.total_steps or self.guards.ended is not None

    def run(self, stop: StopRequest, progress: Progress, logs: Sequence[Log]) -> None:
        """All steps that are left. On a stop the present step is finished and a checkpoint written."""
        progress.advance(self.next_step)
        stop.begin()
        while not self.is_done:
            line = self.train_step(self.data.step(self.next_step))
            self.next_step += 1
            if self.ranks.is_first:
                _append_line(self.metrics, line)
            for log in logs:
                log(line)
            progress.note(f"ALARM: {line['alarm']}" if line["alarm"] else f"loss {line['loss']:.4f}")
            progress.advance(1, tokens=line["tokens"])
            every = self.distill.checkpoint_every
            stop.unit_done(more=not self.is_done)
            stopping = self.ranks.any(stop.requested)  # one rank's signal is every rank's, at the same step
            if self.is_done or stopping or (every and self.next_step % every == 0):
                self.save()
            if stopping:
                stop.request("what another rank was told")
                stop.check("the checkpoint is written")

    def train_step(self, step: Step) -> dict[str, Any]:
        """One optimiser step over all micro-batches; returns its line of metrics."""
        began = time.perf_counter()
        rate = learning_rate(self.distill, self.next_step, self.data.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        terms = self.accumulate(step)
        gradient_norm = self._clip_gradient()
        is_usable = self.guards.is_usable(self.next_step, terms.loss, gradient_norm)
        if is_usable:
            self.optimizer.step()  # passes over parameters without a gradient: without paths nothing moves or decays
            if self.distill.teacher == "ema" and self.roles.teacher is not None:
                self.roles.follow(self.distill.ema_decay)
        entropy = terms.entropy / terms.pg_tokens if terms.pg_tokens and is_usable else None
        alarm = self.guards.watch(entropy, terms.reference_kl) if is_usable else None
        self.trained_tokens += terms.tokens
        prior = [path for path in step.paths if path.is_prior]
        posterior = [path for path in step.paths if not path.is_prior]
        return {
            "step": self.next_step,
            **asdict(terms),
            "entropy": entropy,
            "epistemic_prior": per_1000_tokens(prior, self._epistemic),
            "epistemic_posterior": per_1000_tokens(posterior, self._epistemic),
            "gradient_norm": gradient_norm,
            "skipped": not is_usable,
            "alarm": alarm,
            "learning_rate": rate,
            "questions": step.normalisers.N_q,
            "paths": len(step.paths),
            "seconds": round(time.perf_counter() - began, 4),
        }

    def accumulate(self, step: Step) -> LossTerms:
        """Add the step's gradient, of all ranks' micro-batches, to the parameters; return its terms."""
        tally = Tally(self.roles.device)
        trained_tokens = sum(len(path.completion_ids) for path in step.paths)
        context = StepContext(self.distill, step.normalisers, trained_tokens, tally)
        loss = Loss(context, self.roles.teacher, self.roles.reference)
        batches = self._batches(step.paths)
        seen: dict[int, Tensor] = {}
        for number, paths in enumerate(batches):
            with only_last_reduces(self.roles.student, is_last=number == len(batches) - 1):
                if paths:
                    try:
                        seen |= self._backward(loss, paths)
                    except Exception as error:
                        if not is_out_of_memory(error):
                            raise
                        raise self._out_of_memory(paths) from error
                elif self.roles.is_sharded:
                    self.roles.idle_backward()
        if not self.roles.is_sharded:
            self._sum_gradients()
        self._keep_old_logprobs(step, seen)
        self.ranks.sum(tally.values)
        return tally.terms()

    def _backward(self, loss: Loss, paths: Sequence[TrainingPath]) -> dict[int, Tensor]:
        """One micro-batch, forward and backward; returns log pi (T,) of its prior paths by index."""
        batch = MicroBatch.of(paths, self.old_logprobs, self.distill, self.roles.device)
        batch = batch.with_frozen(loss.teacher, loss.reference)
        with ExitStack() as whole:
            for role in self.roles.frozen:
                whole.enter_context(role.whole_head())
            share = self.roles.student_forward(paths, lambda hidden: loss(self.roles.student, hidden, batch))
        share.backward()
        parts = torch.split(batch.seen, [len(path.completion_ids) for path in paths])
        return {path.index: part for path, part in zip(paths, parts, strict=True) if path.is_prior}

    def _out_of_memory(self, paths: Sequence[TrainingPath]) -> VpgeaError:
        tokens, longest = sum(path.length for path in paths), max(path.length for path in paths)
        ways = [] if self.distill.gradient_checkpointing else ["use --gradient-checkpointing"]
        if len(paths) > 1:
            ways.insert(0, f"lower --max-tokens-per-batch to {max(longest, tokens // 2):,} or less")
        if self.roles.compute_dtype == torch.float32:
            ways.append("use --dtype bfloat16")
        ways.append("train fewer layers (--lora-target)" if self.roles.is_lora else "train an adapter (--lora)")
        return VpgeaError(
            f"out of memory in step {self.next_step}",
            why=f"a micro-batch of {len(paths)} paths and {tokens:,} tokens, the longest of {longest:,}, does not fit",
            mend=f"{' or '.join(ways)}; what is saved so far is kept",
        )

    def _batches(self, paths: Sequence[TrainingPath]) -> list[list[TrainingPath]]:
        """This rank's micro-batches, as many as every other rank's."""
        batches = micro_batches(
            paths,
            self.distill.max_tokens_per_batch,
            packing=self.distill.packing,
            hidden=self.roles.hidden_size,
            ranks=self.ranks.world,
        )
        return [row[self.ranks.rank] for row in batches]

    def _sum_gradients(self) -> None:
        """Every rank's gradient becomes the sum over ranks: the loss is divided by constants of the whole step."""
        if self.ranks.world == 1:
            return
        for parameter in self.trainable.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.ranks.sum_all([parameter.grad for parameter in self.trainable.values() if parameter.grad is not None])

    def _clip_gradient(self) -> float:
        norm = torch.nn.utils.clip_grad_norm_(self.trainable.values(), self.distill.max_grad_norm)
        return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)

    def _saved_tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds: the trained weights, and the average of an `ema` teacher."""
        if self.distill.teacher != "ema" or self.roles.teacher is None:
            return self.trainable
        average = {f"ema.{name}": pair[0] for name, pair in zip(self.trainable, self.roles.ema_pairs(), strict=True)}
        return self.trainable | average

    def save(self) -> None:
        """Write a checkpoint of the present step."""
        state = {"trained_tokens": self.trained_tokens, "guards": self.guards.state(), "old_logprobs": self._old_sum}
        save_checkpoint(self.checkpoints, self.next_step, self._saved_tensors(), self.optimizer, state, self.ranks)

    def release(self) -> None:
        """Let go of gradients and the optimiser's state, once nothing is left to train."""
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.state.clear()
        self.optimizer.param_groups.clear()
        self.trainable = {}

    # --- log pi_old -------------------------------------------------------------------------------------------

    def _old_logprobs(self) -> dict[int, Tensor]:
        """log pi_old (T,) of prior paths under the weights at the start; kept for resumed runs.

        Those of the first step are what its own forward pass says, unless dropout changes that: they are missing here
        and are added there.
        """
        if self._old_file.is_file():
            return _by_index(self._old_file)
        first = set() if self.distill.lora.dropout else {path.index for path in self.data.step(0).paths}
        later = [path for path in self.data.paths if path.is_prior and path.index not in first]
        scored: dict[int, Tensor] = {}
        for paths in self._batches(later):
            if paths:
                parts = self.roles.student_logprobs(paths).cpu().split([len(path.completion_ids) for path in paths])
                scored |= {path.index: part for path, part in zip(paths, parts, strict=True)}
            elif self.roles.is_sharded:
                self.roles.idle_forward()
        return self._from_all_ranks(later, scored)

    def _keep_old_logprobs(self, step: Step, seen: dict[int, Tensor]) -> None:
        """After the first step's forward passes: its own log-probabilities complete log pi_old, and go to disk."""
        if self._old_file.is_file() or self.next_step > 0:
            return
        new = [path for path in step.paths if path.is_prior and path.index not in self.old_logprobs]
        self.old_logprobs |= self._from_all_ranks(new, seen)
        if self.ranks.is_first and self.old_logprobs:
            temporary = self._old_file.with_suffix(".tmp")
            save_file({str(index): part for index, part in self.old_logprobs.items()}, temporary)
            temporary.replace(self._old_file)
            self._old_sum = file_checksum(self._old_file)
        self.ranks.barrier()

    def _require_old_logprobs(self, recorded: str | None) -> None:
        """They cannot be scored again once the weights have moved."""
        if recorded not in (None, self._old_sum):
            raise _damaged(self._old_file, "its checksum is not the one in the checkpoint")

    def _from_all_ranks(self, paths: Sequence[TrainingPath], own: dict[int, Tensor]) -> dict[int, Tensor]:
        """Every rank's parts on every rank, on the CPU: path index → float32 (T,)."""
        lengths = [len(path.completion_ids) for path in paths]
        flat = torch.zeros(sum(lengths), device=self.roles.device)
        for path, part in zip(paths, flat.split(lengths), strict=True):
            if path.index in own:
                part.copy_(own[path.index])
        parts = self.ranks.sum(flat).cpu().split(lengths)
        return {path.index: part.clone() for path, part in zip(paths, parts, strict=True)}


def make_optimizer(config: DistillConfig, parameters: list[Tensor]) -> torch.optim.Optimizer:
    """AdamW in one fused kernel, or Adafactor (arXiv 1804.04235)."""
    if config.optimizer == "adafactor":
        return torch.optim.Adafactor(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    return torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        betas=(config.adam_betas[0], config.adam_betas[1]),
        weight_decay=config.weight_decay,
        fused=True,
    )


def learning_rate(config: DistillConfig, step: int, total: int) -> float:
    """Linear warm-up to the peak, then constant, or linear or cosine decay to the final share of it at `total`."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    share = (step - config.warmup_steps) / max(total - config.warmup_steps, 1)
    decay = {"constant": 1.0, "linear": 1 - share, "cosine": 0.5 * (1 + math.cos(math.pi * share))}
    final = config.final_learning_rate if config.schedule != "constant" else 0.0
    return config.learning_rate * (final + (1 - final) * decay[config.schedule])


def engine_mismatch(paths: Sequence[TrainingPath], old: dict[int, Tensor]) -> EngineMismatch | None:
    """How far the engine's log-probabilities of the prior samples are from the trainer's of the same weights, in nats.

    old: path index → float32 (T,). None without prior samples, and where sampling was tempered or truncated.
    """
    prior = [path for path in paths if path.is_prior]
    pairs = [torch.as_tensor(path.sampler_logprobs).double() - old[path.index].double() for path in prior]
    difference = torch.cat(pairs) if pairs else torch.empty(0)
    difference = difference[~difference.isnan()]
    if not difference.numel():
        return None
    magnitude = difference.abs()
    return EngineMismatch(
        mean=float(difference.mean()), mean_absolute=float(magnitude.mean()), largest=float(magnitude.max())
    )


def _by_index(file: Path) -> dict[int, Tensor]:
    try:
        return {int(index): logprobs for index, logprobs in load_file(file).items()}
    except (SafetensorError, ValueError) as error:
        raise _damaged(file, str(error)) from error


def _damaged(file: Path, why: str) -> UsageError:
    mend = "`vpgea doctor FOLDER --repair` on the distill folder begins the training anew; or restore the file"
    return UsageError(f"damaged log-probabilities: {file}", why=why, mend=mend)


def _append_line(path: Path, line: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def _keep_lines(path: Path, steps: int) -> None:
    """Drop the lines of steps that will be made again, so that metrics.jsonl has each step once."""
    if path.is_file():
        lines = path.read_bytes().splitlines(keepends=True)[:steps]
        write_bytes(path, b"".join(lines))
