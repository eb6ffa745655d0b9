"""What the phases cost, before they run: tokens, arithmetic, disk, memory and time.

Tokens and bytes are upper bounds, or follow from lengths that are known. Times are rough: one rate for multiplying,
one for moving bytes, one overhead per layer and forward pass (vpgea/estimate/hardware.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vpgea.config.schema import RunConfig
from vpgea.engines.transformers import score_tokens
from vpgea.estimate.hardware import Hardware
from vpgea.estimate.phase_estimate import PhaseEstimate
from vpgea.estimate.serving import SERVER_PASS_S, Serving
from vpgea.filtering.checks.base import Check
from vpgea.filtering.checks.registry import CHECKS
from vpgea.filtering.cost import ANSWER_TOKENS, Cost, Lengths, Paths, RolloutLengths
from vpgea.modeling.device import torch_dtype
from vpgea.modeling.head import CHUNK_LOGITS
from vpgea.modeling.shape import ModelShape
from vpgea.phases.evaluate import as_rollout
from vpgea.phases.rollout import open_samples
from vpgea.storage.sizes import (
    LOGPROB_BYTES,
    SHARD_BYTES,
    journal_bytes,
    measurements_bytes,
    samples_bytes,
    selection_bytes,
    teacher_bytes,
)

_CACHE_TRAFFIC = 1  # a step reads the cache to attend
_ADAM_BYTES = 16  # float32 weight, gradient and two moments of every trained parameter
_CHECKPOINTS = 3  # at one time: the newest two, and the next one under its temporary name
# What the backward pass of a layer has beside what was kept for it, as a multiple of that; and where it was computed
# again just before, in float32 and in shorter dtypes, whose adapters cast. Seen on a CPU.
_LAYER_BACKWARD, _RECOMPUTED_LAYER, _RECOMPUTED_SHORT = 1.0, 1.2, 2.5
_PROGRAM_BYTES = 500 * 10**6  # Python with torch, transformers and peft; a CUDA context takes about the same

# Bytes alive per row and vocabulary entry at the worst moment of sampling, seen with torch 2.13 on a CPU in float32 and
# bfloat16, and what top-k or top-p add to it.
_SAMPLING_BYTES, _TRUNCATION_BYTES = 26, 8


@dataclass(frozen=True)
class _Work:
    """Arithmetic, bytes that must be moved, and forward passes."""

    flops: float = 0.0
    moved_bytes: float = 0.0
    passes: float = 0.0

    def __add__(self, other: _Work) -> _Work:
        return _Work(self.flops + other.flops, self.moved_bytes + other.moved_bytes, self.passes + other.passes)

    def times(self, factor: float) -> _Work:
        return _Work(self.flops * factor, self.moved_bytes * factor, self.passes * factor)


class Estimator:
    """The formulas for one configuration, model and machine."""

    def __init__(
        self, config: RunConfig, shape: ModelShape, hardware: Hardware, checks: Sequence[Check] = CHECKS
    ) -> None:
        self.config, self.shape, self.hardware = config, shape, hardware
        self.checks = [check for check in checks if check.is_enabled(config.filter)]
        self.dtype_bytes = torch_dtype(config.model).itemsize
        self.weights = shape.parameters * self.dtype_bytes
        self.kv = shape.kv_bytes_per_token(self.dtype_bytes)
        self.serving = Serving.of(config, self.weights, self.kv, hardware, _PROGRAM_BYTES)

    # --- phases -----------------------------------------------------------------------------------------------

    def rollout(
        self,
        prior: Lengths,
        posterior: Lengths,
        prior_tokens: float | None = None,
        posterior_tokens: float | None = None,
    ) -> PhaseEstimate:
        """Phase 1. Every prompt is run once; a batch makes as many steps as its longest completion, taken as the cap.

        Args:
            prior: Prompt tokens of each question in the prior view (N,).
            posterior: The same in the posterior view (N,).
            prior_tokens: Mean completion; None: the cap.
            posterior_tokens: The same in the posterior view.
        """
        options = self.config.rollout
        views = [
            (prompts, count, round(options.max_new_tokens if tokens is None else tokens))
            for prompts, count, tokens in (
                (prior, options.prior_samples, prior_tokens),
                (posterior, options.posterior_samples, posterior_tokens),
            )
            if count
        ]
        prompts = np.concatenate([prior[:0], *(prompts for prompts, _, _ in views)])
        paths = Paths(
            np.concatenate([prior[:0], *(np.repeat(prompts, count) for prompts, count, _ in views)]),
            np.concatenate([prior[:0], *(np.full(len(prompts) * count, tokens) for prompts, count, tokens in views)]),
        )
        batches = -(-len(paths.prompt) // options.batch_size)
        work = [self._decode(paths, options.max_new_tokens), self._read(prompts, batches)]
        longest, samples = _longest(prompts), min((count for _, count, _ in views), default=1)
        waiting = open_samples(self.config, len(paths.prompt))
        journals = journal_bytes(waiting, int(np.sort(paths.completion)[::-1][:waiting].sum()))
        return PhaseEstimate(
            phase="rollout",
            sampled_tokens=int(paths.completion.sum()),
            processed_tokens=int(prompts.sum()),
            trained_tokens=0,
            flops=sum(part.flops for part in work),
            disk_bytes=samples_bytes(len(paths.prompt), int(paths.prompt.sum()), int(paths.completion.sum()))
            + self._chunks(len(prior)) * SHARD_BYTES
            + journals,
            scratch_bytes=journals,
            memory=self._sampling_memory(longest, longest + options.max_new_tokens, len(paths.prompt), samples),
            seconds=sum(map(self._engine_seconds, work)) / self.hardware.devices,
        )

    def evaluation(self, prompts: Lengths, mean_tokens: float | None = None) -> PhaseEstimate:
        """A rollout of the prior view alone, with the evaluation's own numbers."""
        own = Estimator(as_rollout(self.config), self.shape, self.hardware).rollout(prompts, prompts[:0], mean_tokens)
        return replace(own, phase="eval")

    def round(
        self,
        prior: Lengths,
        posterior: Lengths,
        prior_tokens: float | None = None,
        posterior_tokens: float | None = None,
    ) -> list[PhaseEstimate]:
        """Rollout, filter and distill of questions with these prompts (N,): everything is checked and trained on."""
        options, on_prior = self.config.rollout, self.config.distill.has_teacher_on_prior
        lengths = [
            round(options.max_new_tokens if tokens is None else tokens) for tokens in (prior_tokens, posterior_tokens)
        ]
        views = ((options.prior_samples, lengths[0]), (options.posterior_samples, lengths[1]))
        drawn, guided = (_repeated(prior, count, tokens) for count, tokens in views)
        noted, noted_guided = (_repeated(posterior, count, tokens) for count, tokens in views)
        known = RolloutLengths(
            prompts=prior,
            prior=drawn,
            posterior=guided,
            candidates=guided,
            noted_prior=noted,
            noted_posterior=noted_guided,
            noted_candidates=noted_guided,
            completion_tokens=int(drawn.completion.sum() + guided.completion.sum()),
        )
        return [
            self.rollout(prior, posterior, prior_tokens, posterior_tokens),
            self.filter(known),
            self.distill(drawn, guided, np.concatenate([noted_guided.end, noted.end[: len(noted.end) * on_prior]])),
        ]

    def filter(self, lengths: RolloutLengths, answer_tokens: float | None = None) -> PhaseEstimate:
        """Phase 2 over a rollout's samples.

        Args:
            lengths: which paths are correct is not known before, so that every candidate is counted.
            answer_tokens: mean length of an answer behind z; else every continuation runs to its cap.
        """
        options, batch = self.config.filter, self.config.rollout.batch_size
        costs = [check.cost(self.config, lengths) for check in self.checks]
        costs.append(Cost(scored=(lengths.posterior.end + ANSWER_TOKENS,)))  # for the ELBO, always
        if options.teacher_top_k:
            costs.append(Cost(scored=(lengths.noted_posterior.end,)))
        drawn = [continuations for cost in costs for continuations in cost.continuations]
        work, sampled, processed = [], 0, 0
        for kind in drawn:
            count = len(kind.starts) * kind.samples
            length = kind.cap if answer_tokens is None else min(kind.cap, round(answer_tokens))
            work.append(self._decode(_repeated(kind.starts, kind.samples, length), kind.cap))
            work.append(self._read(kind.starts, -(-count // batch)))
            sampled, processed = sampled + count * length, processed + int(kind.starts.sum())
        ends = np.concatenate([scored for cost in costs for scored in cost.scored])
        most = score_tokens(on_gpu=self.hardware.on_gpu)
        together = max(_longest(ends), min(most, batch * _longest(ends), int(ends.sum())))
        work.append(self._read(ends, ends.sum() / max(together, 1)))
        peaks = [
            self._sampling_memory(
                _longest(kind.starts), _longest(kind.starts) + kind.cap, len(kind.starts) * kind.samples, kind.samples
            )
            for kind in drawn
        ]
        chunks = max(self._chunks(len(lengths.prompts)), 1)
        continued = sum(len(kind.starts) * kind.samples for kind in drawn)
        journals = journal_bytes(-(-continued // chunks), -(-sampled // chunks))
        return PhaseEstimate(
            phase="filter",
            sampled_tokens=sampled,
            processed_tokens=processed + int(ends.sum()),
            trained_tokens=0,
            flops=sum(part.flops for part in work),
            disk_bytes=self._filter_disk(lengths, answer_tokens) + journals,
            scratch_bytes=journals,
            memory=max([self._scoring_memory(together, ends), *peaks], key=lambda memory: sum(memory.values())),
            seconds=sum(map(self._engine_seconds, work)) / self.hardware.devices,
        )

    def _filter_disk(self, known: RolloutLengths, answer_tokens: float | None) -> int:
        """The measurements, both sets of the selection, and the teacher's tokens where they are stored."""
        checks = self.config.filter
        cap = checks.answerability.max_new_tokens
        answer = cap if answer_tokens is None else min(cap, round(answer_tokens))
        answers = len(known.candidates.prompt) * answer * checks.answerability.enabled  # one behind each path
        thinking = int(known.posterior.completion.sum())
        rows = len(known.prior.prompt) + len(known.posterior.prompt)
        prompts = int(known.prior.prompt.sum() + known.posterior.prompt.sum() + known.noted_posterior.prompt.sum())
        prompts += int(known.noted_prior.prompt.sum()) * self.config.rollout.noted_prior
        shards = self._chunks(len(known.prompts)) * (3 + bool(checks.teacher_top_k))
        size = measurements_bytes(rows, int(known.prior.completion.sum()) + thinking, answers)
        size += selection_bytes(rows, prompts, known.completion_tokens, answers)
        if checks.teacher_top_k:
            size += teacher_bytes(len(known.posterior.prompt), thinking, checks.teacher_top_k)
        return size + shards * SHARD_BYTES

    def _chunks(self, questions: int) -> int:
        return -(-questions // self.config.rollout.questions_per_chunk)

    def distill(
        self, prior: Paths, posterior: Paths, taught: Lengths, batch_tokens: int | None = None
    ) -> PhaseEstimate:
        """Phase 3 over the paths that carry a gradient, on the hardware's ranks; memory is that of one of them.

        A pass forward costs F; backward 2 F, or F where only an adapter's gradients are wanted (weights stay as they
        are, activations are differentiated). The reference and the dense forms' teacher cost F each, and so do the
        log-probabilities of prior paths under the old weights, once.

        Args:
            prior: Paths of the prior view.
            posterior: Paths of the posterior view.
            taught: Tokens of what a teacher reads, if there is one: the posterior's prompt and a completion each.
            batch_tokens: Of the largest micro-batch, padding included, where it is known.
        """
        options = self.config.distill
        is_full = options.train == "full"
        ends = np.concatenate([prior.end, posterior.end])
        batch = max(_longest(ends), min(options.max_tokens_per_batch, int(ends.sum())))
        forward = self._read(ends, ends.sum() / max(batch, 1))
        factor = (3.0 if is_full else 2.0) + (options.reference_weight > 0) + options.gradient_checkpointing
        work = forward.times(factor * options.epochs) + self._read(prior.end, prior.end.sum() / max(batch, 1))
        if options.runs_teacher:
            work += self._read(taught, taught.sum() / max(batch, 1)).times(options.epochs)
        trained = self.shape.parameters if is_full else self.shape.lora_parameters(options.lora)
        # a model that is rounded when it is published has its float32 weights beside it, for the next round
        published = self.weights + 4 * trained * (self.dtype_bytes < 4) if is_full else 4 * trained
        # float32 each: AdamW's two moments, the average of a teacher; and in checkpoints the weights
        carried = (
            4 * trained * (2 * (options.optimizer == "adamw") + (options.runs_teacher and options.teacher == "ema"))
        )
        state = 4 * trained + carried
        if options.optimizer_state == "carried":
            published += carried
        return PhaseEstimate(
            phase="distill",
            sampled_tokens=0,
            processed_tokens=int(prior.end.sum()) + int(taught.sum()) * options.runs_teacher,
            trained_tokens=int(prior.completion.sum() + posterior.completion.sum()) * options.epochs,
            flops=work.flops,
            disk_bytes=_CHECKPOINTS * state + published + LOGPROB_BYTES * int(prior.completion.sum()),
            scratch_bytes=_CHECKPOINTS * state,
            memory=self._training_memory(trained, batch if batch_tokens is None else batch_tokens),
            seconds=self._seconds(work) / self.hardware.ranks,
        )

    # --- arithmetic and time ----------------------------------------------------------------------------------

    def flops(self, start: Lengths, end: Lengths) -> float:
        """2 M per token, and 4 x layers x heads x head_dim per token and token of context before it.

        M: matmul_parameters. The second term is the attention's two products (arXiv 2001.08361, table 1).
        """
        shape = self.shape
        context = (end.astype(float) ** 2 - start.astype(float) ** 2).sum() / 2
        attention = 4 * shape.layers * shape.heads * shape.head_dim * context
        return 2.0 * shape.matmul_parameters * float((end - start).sum()) + float(attention)

    def _read(self, ends: Lengths, passes: float) -> _Work:
        """Whole sequences forward: prompts, prefixes, scored and trained paths. Every pass reads the weights once."""
        return _Work(self.flops(np.zeros_like(ends), ends), passes * self.weights, passes)

    def _decode(self, paths: Paths, cap: int) -> _Work:
        """Token by token: every step reads the weights, and every token its own cache.

        transformers goes batch by batch, each to its cap; a server puts another sequence where one has ended.
        """
        steps = -(-len(paths.prompt) // self.config.rollout.batch_size) * cap
        if self.serving is not None and len(paths.prompt):
            together = self.serving.together(float(paths.end.mean()))
            steps = max(-(-int(paths.completion.sum()) // together), _longest(paths.completion))
        context = (paths.end.astype(float) ** 2 - paths.prompt.astype(float) ** 2).sum() / 2
        moved = steps * self.shape.matmul_parameters * self.dtype_bytes + _CACHE_TRAFFIC * self.kv * context
        return _Work(self.flops(paths.prompt, paths.end), float(moved), steps)

    def _seconds(self, work: _Work) -> float:
        """Of transformers, which trains."""
        return self._busy(work) + work.passes * self.shape.layers * self.hardware.overhead_s

    def _engine_seconds(self, work: _Work) -> float:
        """Of what samples and scores."""
        return self._seconds(work) if self.serving is None else self._busy(work) + work.passes * SERVER_PASS_S

    def _busy(self, work: _Work) -> float:
        return max(work.flops / self.hardware.flops, work.moved_bytes / self.hardware.bandwidth)

    # --- memory -----------------------------------------------------------------------------------------------

    def _sampling_memory(self, prompt: int, end: int, sequences: int, samples: int) -> dict[str, int]:
        """Peak of a batch that runs to its cap, `samples` of it behind each prompt; prompts are run once.

        A layer has a quarter of room ahead at most; while one grows or lets rows go, it is there up to three times.
        """
        if self.serving is not None:
            return self.serving.memory(end)
        options = self.config.rollout
        rows = min(options.batch_size, sequences)
        truncated = options.top_p < 1 or options.top_k > 0
        cache = rows * end * self.kv
        return {
            "program": _PROGRAM_BYTES,
            "weights": self.weights,
            "KV cache": cache * 5 // 4 + 2 * cache // self.shape.layers,
            "logits": rows * self.shape.vocabulary * (_SAMPLING_BYTES + _TRUNCATION_BYTES * truncated),
            "activations": -(-rows // samples) * prompt * self._forward_bytes_per_token(),
        }

    def _scoring_memory(self, tokens: int, ends: Lengths) -> dict[str, int]:
        """Peak of one scoring pass, which has no cache; a server scores with one."""
        if self.serving is not None:
            return self.serving.memory(_longest(ends))
        return {
            "program": _PROGRAM_BYTES,
            "weights": self.weights,
            "logits": self._chunk_logits(tokens) * (self.dtype_bytes + 2),
            "activations": tokens * self._forward_bytes_per_token(),
        }

    def _chunk_logits(self, tokens: int) -> int:
        """Logits that exist at a time."""
        return min(max(CHUNK_LOGITS, self.shape.vocabulary), tokens * self.shape.vocabulary)

    def _forward_bytes_per_token(self) -> int:
        """Without gradient one layer is alive: its hidden states in and out, and the two wide vectors of its MLP."""
        return (4 * self.shape.hidden + 2 * self.shape.intermediate) * self.dtype_bytes

    def _training_memory(self, trained: int, tokens: int) -> dict[str, int]:
        """Weights, optimiser, frozen copies in float32, and what one micro-batch of `tokens` keeps, on one rank.

        Full fine-tuning keeps its float32 weights with the optimiser, and autocast a copy of them in its own dtype. The
        head works chunk by chunk: logits and their gradient, the logits of each frozen role, and, where the head is
        trained, the sum of its gradient and one chunk's. With gradient checkpointing one layer at a time keeps what all
        would; of the others there is their input.
        """
        options, shape = self.config.distill, self.shape
        is_full = options.train == "full"
        reference = options.reference_weight > 0
        copies = (reference + (options.runs_teacher and options.teacher in ("round", "ema"))) if is_full else 0
        autocast = self.weights if is_full and self.dtype_bytes < 4 else 0
        logits = self._chunk_logits(tokens) * self.dtype_bytes * (2 + reference + options.runs_teacher)
        head = 8 * shape.vocabulary * shape.hidden if is_full else 0
        recomputed = options.gradient_checkpointing
        again = _RECOMPUTED_LAYER if self.dtype_bytes == 4 else _RECOMPUTED_SHORT
        layers = 1 + again if recomputed else shape.layers + _LAYER_BACKWARD
        inputs = shape.layers * shape.hidden * self.dtype_bytes if recomputed else 0
        shards = self.hardware.ranks if options.is_sharded else 1
        serving = self.serving if self.hardware.on_gpu and self.config.sglang.keep_servers else None
        kept = {} if serving is None else {"server that stays": serving.kept}
        return kept | {
            "program": _PROGRAM_BYTES,
            "weights": ((autocast if is_full else self.weights) + copies * 4 * shape.parameters) // shards,
            "gradients and optimiser": _ADAM_BYTES * trained // shards,
            "activations": round(tokens * (layers * self.saved_bytes_per_token() + inputs)),
            "logits": logits + head,
        }

    def saved_bytes_per_token(self) -> int:
        """What one layer keeps of a token for the backward pass; nothing is recomputed.

        Both norms keep their input in float32 and what they give on; attention keeps queries, keys and values before
        and after rotation, and its output; the MLP its gate, up, activated gate and product. An adapter keeps a
        float32 copy of the input of each matrix that it stands on; under autocast the residual stream, queries and
        keys stay float32 beside their copies.
        """
        shape, options = self.shape, self.config.distill
        width, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        values = 3 * shape.hidden + 3 * width + 4 * kv + 4 * shape.intermediate
        saved = values * self.dtype_bytes + 2 * 4 * shape.hidden
        if self.dtype_bytes == 4:
            return saved
        if options.train == "full":
            return saved + 4 * (2 * shape.hidden + width + 2 * kv)
        return saved + 4 * sum(columns for _, columns in shape.targeted(options.lora)) // shape.layers


def _repeated(prompts: Lengths, count: int, tokens: int) -> Paths:
    """`count` paths of `tokens` tokens behind each prompt."""
    return Paths(np.repeat(prompts, count), np.full(len(prompts) * count, tokens))


def _longest(lengths: Lengths) -> int:
    return int(lengths.max(initial=0))
