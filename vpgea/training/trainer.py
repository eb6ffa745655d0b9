"""The optimiser steps of one distill folder, on one rank or many."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vpgea.config.schema import RunConfig
from vpgea.errors import UsageError, VpgeaError, is_out_of_memory
from vpgea.runs.layout import CHECKPOINTS, MADE_FROM, METRICS, OLD_LOGPROBS
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.runs.progress import Progress
from vpgea.runs.stopping import StopRequest
from vpgea.storage.files import write_bytes
from vpgea.training.batching import rank_batches
from vpgea.training.carried import Carried
from vpgea.training.checkpoint import load_checkpoint, load_optimizer, save_checkpoint, save_optimizer
from vpgea.training.data import OptimizerStep, TrainingPath, TrainingSet
from vpgea.training.guards import Guards, per_1000_tokens
from vpgea.training.loggers import Log
from vpgea.training.losses import Loss, LossTerms, StepContext, Tally
from vpgea.training.micro_batch import MicroBatch
from vpgea.training.old_logprobs import OldLogprobs
from vpgea.training.optimizer import learning_rate, make_optimizer
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
        first_entropy: float | None = None,
        carried: Carried | None = None,
        rounds_left: int = 1,
    ) -> None:
        """Take up a checkpoint, where there is one, else what is carried over from the training before.

        Args:
            config: Of the run.
            data: What is learned.
            roles: The student and the models beside it.
            folder: The distill folder.
            ranks: All that train together.
            epistemic: Ids of the tokens that are counted as words of reflection.
            first_entropy: What the guards compare with, in nats; None: that of the first step here.
            carried: State of the optimiser to begin with.
            rounds_left: Rounds like this one, itself included, over which a schedule falls.
        """
        self.distill, self.data, self.roles = config.distill, data, roles
        self.ranks = ranks or Ranks()
        self.checkpoints = folder.part / CHECKPOINTS
        self.metrics = folder.root / METRICS
        self.trainable = roles.trainable
        self.optimizer = make_optimizer(self.distill, list(self.trainable.values()))
        self.guards = Guards(config=self.distill, first_entropy=first_entropy)
        self.next_step = self.trained_tokens = self.steps_before = 0
        self._rounds_left = rounds_left
        self._epistemic = np.empty(0, np.int64) if epistemic is None else epistemic
        self.old_logprobs = OldLogprobs(folder.part / OLD_LOGPROBS, data, roles, self.ranks)
        state = load_checkpoint(self.checkpoints, self._saved_tensors(), self.optimizer, self.ranks)
        self.made_from = folder.manifest.fingerprint
        if state is not None:
            _require_own(self.checkpoints, state, self.made_from)
            self.old_logprobs.require(state.get("old_logprobs"))
            self.next_step, self.trained_tokens = int(state["step"]), int(state["trained_tokens"])
            self.guards.restore(state["guards"])
            self.steps_before = int(state.get("steps_before", 0))
        elif carried is not None:
            self._carry_over(carried)
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

    def train_step(self, step: OptimizerStep) -> dict[str, Any]:
        """One optimiser step over all micro-batches; returns its line of metrics."""
        began = time.perf_counter()
        total = self.steps_before + self.data.total_steps * self._rounds_left
        rate = learning_rate(self.distill, self.steps_before + self.next_step, total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        terms = self.accumulate(step)
        if not step.paths:  # sharded weights have gradients of zeros, by which momentum and decay would act
            self.optimizer.zero_grad(set_to_none=True)
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

    def accumulate(self, step: OptimizerStep) -> LossTerms:
        """Add the step's gradient, of all ranks' micro-batches, to the parameters; return its terms."""
        tally = Tally(self.roles.device)
        trained_tokens = sum(len(path.completion_ids) for path in step.paths)
        context = StepContext(self.distill, step.normalisers, trained_tokens, tally)
        loss = Loss(context, self.roles.teacher, self.roles.reference)
        batches = rank_batches(step.paths, self.distill, self.roles.hidden_size, self.ranks)
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
        if self.next_step == 0:
            self.old_logprobs.complete(step, seen)
        self.ranks.sum(tally.values)
        return tally.terms()

    def _backward(self, loss: Loss, paths: Sequence[TrainingPath]) -> dict[int, Tensor]:
        """One micro-batch, forward and backward; returns log pi (T,) of its prior paths by index."""
        batch = MicroBatch.of(paths, self.old_logprobs.values, self.distill, self.roles.device)
        batch = batch.with_frozen(loss.teacher, loss.reference)
        with ExitStack() as heads:
            for role in self.roles.frozen:
                heads.enter_context(role.whole_head())
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

    def _sum_gradients(self) -> None:
        """Every rank's gradient becomes the sum over ranks: the loss is divided by constants of the whole step.

        Where no rank has one, none appears: the optimiser passes over the parameter, as in a single process.
        """
        if self.ranks.world == 1:
            return
        parameters = list(self.trainable.values())
        reached = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.float32)
        counts = self.ranks.sum(reached.to(self.roles.device)).tolist()
        parameters = [parameter for parameter, ranks in zip(parameters, counts, strict=True) if ranks]
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.ranks.sum_all([parameter.grad for parameter in parameters if parameter.grad is not None])

    def _clip_gradient(self) -> float:
        norm = torch.nn.utils.clip_grad_norm_(self.trainable.values(), self.distill.max_grad_norm)
        return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)

    def _saved_tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds: the trained weights, and the average of an `ema` teacher."""
        return self.trainable | self._average()

    def _average(self) -> dict[str, Tensor]:
        """The tensors of an `ema` teacher."""
        if self.distill.teacher != "ema" or self.roles.teacher is None:
            return {}
        return {f"ema.{name}": pair[0] for name, pair in zip(self.trainable, self.roles.ema_pairs(), strict=True)}

    def _carry_over(self, carried: Carried) -> None:
        """Go on with the moments, the average of an `ema` teacher, the schedule and the count of bad steps."""
        state = load_optimizer(carried.folder, self.trainable, self._average(), self.optimizer, self.ranks)
        if state["optimizer"] != self.distill.optimizer:
            raise UsageError(
                f"{carried.folder} is of another optimiser",
                why=f"it was written by {state['optimizer']}, and distill.optimizer is {self.distill.optimizer}",
                mend="use the same one, or --set distill.optimizer_state=fresh",
            )
        self.steps_before, self.guards.bad_steps = int(state["steps"]), int(state["bad_steps"])

    def save_optimizer(self, folder: Path) -> None:
        """Write what the next training carries over. Collective."""
        state = {
            "optimizer": self.distill.optimizer,
            "steps": self.steps_before + self.next_step,
            "bad_steps": self.guards.bad_steps,
        }
        save_optimizer(folder, self.trainable, self._average(), self.optimizer, state, self.ranks)

    def save(self) -> None:
        """Write a checkpoint of the present step."""
        state = {
            "trained_tokens": self.trained_tokens,
            "steps_before": self.steps_before,
            "guards": self.guards.state(),
            "old_logprobs": self.old_logprobs.checksum,
            MADE_FROM: self.made_from,
        }
        save_checkpoint(self.checkpoints, self.next_step, self._saved_tensors(), self.optimizer, state, self.ranks)

    def release(self) -> None:
        """Let go of gradients and the optimiser's state, once nothing is left to train."""
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.state.clear()
        self.optimizer.param_groups.clear()
        self.trainable = {}


def _require_own(checkpoints: Path, state: Mapping[str, Any], made_from: str) -> None:
    """A checkpoint that is whole may still be another training's; those of earlier versions do not say whose."""
    if state.get(MADE_FROM) not in (None, made_from):
        raise UsageError(
            f"the checkpoints in {checkpoints} are of another training",
            why=f"the newest was made from {state[MADE_FROM]}, and this training from {made_from}",
            mend="restore this training's own, or delete them: the training then begins anew",
        )


def _append_line(path: Path, line: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def _keep_lines(path: Path, steps: int) -> None:
    """Drop the lines of steps that will be made again, so that metrics.jsonl has each step once."""
    if path.is_file():
        lines = path.read_bytes().splitlines(keepends=True)[:steps]
        write_bytes(path, b"".join(lines))
