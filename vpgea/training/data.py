"""What a distillation step is made of: the selected and rejected sets of a filter folder, cut into optimiser steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vpgea.config.training import DistillConfig
from vpgea.errors import UsageError
from vpgea.objective.forward_kl import other_gates_mean
from vpgea.objective.normalisers import Normalisers
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.layout import SETS, TEACHER_SHARD
from vpgea.storage.rows import FloatArray, IntArray, iterate_rows, read_rows
from vpgea.storage.schemas import POSTERIOR, PRIOR, SampleKey, SelectionRow, TeacherRow
from vpgea.storage.shards import damaged, shard_files


@dataclass(frozen=True)
class StoredTeacher:
    """The posterior view's k likeliest tokens along z, memory-mapped.

    Attributes:
        ids: int32 (|z|, k).
        logprobs: float32 (|z|, k).
    """

    ids: IntArray
    logprobs: FloatArray

    def first(self, tokens: int) -> StoredTeacher:
        return StoredTeacher(self.ids[:tokens], self.logprobs[:tokens])


@dataclass(frozen=True, kw_only=True)
class TrainingPath:
    """One sample as the trainer sees it: ids under the prior prompt and one weight per term.

    Attributes:
        index: Its place among all paths of the training set.
        question: Number of its question, in the order of their ids.
        is_prior: Which view sampled it.
        prompt_ids: int32 (P,), of the prior view.
        completion_ids: int32 (T,); of a posterior path z alone, with `answer_from: crossview` z and a
            continuation, with `posterior` z and its own y; of one that is learnt in part what of z has some gradient.
        sampler_logprobs: float32 (T,) under the view that sampled it; NaN where they are not the model's own (truncated
            support, tokens of a continuation).
        thinking_tokens: |z|, or what of it is among the completion's.
        posterior_prompt_ids: int32, of posterior paths, and of prior ones whose teacher is the posterior.
        teacher: Of posterior paths, where a term reads it.
        gate: g of a posterior path.
        gated_tokens: How many leading tokens have that gate, the others 0; None: all.
        other_gate: b of a posterior path, `other_gates_mean`.
        advantage: A of a prior path.
    """

    index: int
    question: int
    is_prior: bool
    prompt_ids: IntArray
    completion_ids: IntArray
    sampler_logprobs: FloatArray
    thinking_tokens: int
    posterior_prompt_ids: IntArray | None = None
    teacher: StoredTeacher | None = None
    gate: float = 0.0
    gated_tokens: int | None = None
    other_gate: float = 0.0
    advantage: float = 0.0

    @property
    def length(self) -> int:
        """Tokens of the sequence that goes through the model."""
        return len(self.prompt_ids) + len(self.completion_ids)


@dataclass(frozen=True)
class OptimizerStep:
    """One optimiser step: the paths that carry a gradient, and the constants that its sums are divided by."""

    paths: list[TrainingPath]
    normalisers: Normalisers


@dataclass(frozen=True)
class _QuestionSizes:
    """What a question adds to a step's constants, its rejected paths included."""

    thinking_tokens: int
    posterior_paths: int
    prior_tokens: int


class TrainingSet:
    """Every question of the filter's output, the paths that carry a gradient, and the order of the steps."""

    def __init__(self, filtered: CompletePhase, config: DistillConfig, *, by_round: bool = True) -> None:
        """by_round: each round draws another order; else, as an earlier version did, all draw the same."""
        self.config = config
        rows = _load_rows(filtered)
        round_index = rows[0].key.round if by_round else 0
        self._seed_words = [round_index] if round_index else []  # the first round's seeds are those of all versions
        self.model_fingerprint = rows[0].origin.model_fingerprint
        self.truncated_support = rows[0].origin.truncated
        self.questions = list(dict.fromkeys(row.key.question_id for row in rows))
        number = {question: index for index, question in enumerate(self.questions)}
        self.sizes = _sizes(rows, number, config)
        self.K = max((size.posterior_paths for size in self.sizes), default=0)
        self.paths = _paths(rows, number, config, _stored_teachers(filtered) if config.reads_teacher else None)
        self.by_question: list[list[TrainingPath]] = [[] for _ in self.questions]
        for path in self.paths:
            self.by_question[path.question].append(path)

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.questions) // self.config.questions_per_step)

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.config.epochs

    @property
    def torch_seed(self) -> int:
        """Of what the model draws in training, such as an adapter's dropout."""
        words = [self.config.seed, *self._seed_words]
        return int(np.random.SeedSequence(words).generate_state(1)[0]) if self._seed_words else self.config.seed

    def step(self, index: int) -> OptimizerStep:
        """The paths and constants of one optimiser step; a pure function of the data, seed, round and index."""
        epoch, position = divmod(index, self.steps_per_epoch)
        seed = [self.config.seed, epoch, *self._seed_words]
        order = np.random.default_rng(seed).permutation(len(self.questions))
        size = self.config.questions_per_step
        chosen = order[position * size : (position + 1) * size]
        sizes = [self.sizes[question] for question in chosen]
        posterior_paths = sum(size.posterior_paths for size in sizes)
        return OptimizerStep(
            paths=[path for question in chosen for path in self.by_question[question]],
            normalisers=Normalisers(
                N_q=len(chosen),
                K=self.K,
                mean_length=sum(size.thinking_tokens for size in sizes) / posterior_paths if posterior_paths else 0.0,
                pg_tokens=sum(size.prior_tokens for size in sizes),
            ),
        )


def _stored_teachers(filtered: CompletePhase) -> dict[SampleKey, StoredTeacher]:
    """What the filter stored of each sample.

    Raises:
        UsageError: It stored nothing.
    """
    found = {}
    for shard in filtered.chunks(TEACHER_SHARD):
        for row in read_rows(shard, TeacherRow):
            ids, logprobs = row.top_ids.reshape(-1, row.top_k), row.top_logprobs.reshape(-1, row.top_k)
            found[row.key] = StoredTeacher(ids, logprobs)
    if not found:
        raise UsageError(
            f"{filtered.root} holds no teacher",
            why="distill.teacher is stored, and filter.teacher_top_k was 0",
            mend="filter the rollout again with --store-teacher-topk 64, or use distill.teacher=round",
        )
    return found


def _load_rows(filtered: CompletePhase) -> list[SelectionRow]:
    files = [file for name in SETS for file in shard_files(filtered.root / name)]
    _require_all(filtered, files)
    rows = sorted(iterate_rows(files, SelectionRow), key=lambda row: row.key)
    if not rows:
        raise UsageError(
            f"nothing to learn from in {filtered.root}", why="it holds no samples", mend="run `vpgea filter` again"
        )
    for name in ("model_fingerprint", "template_fingerprint", "temperature", "top_p", "top_k"):
        values = Counter(str(getattr(row.origin, name)) for row in rows)
        if len(values) > 1:
            raise UsageError(
                f"{filtered.root} mixes samples of different origin",
                why=f"{name} has the values {', '.join(values)}",
                mend="filter and distil each rollout by itself",
            )
    return rows


def _require_all(filtered: CompletePhase, files: Sequence[Path]) -> None:
    """Every chunk has a selected and a rejected shard; one that is gone would be learned without, unnoticed."""
    wanted = [filtered.root / name / chunk.name for chunk in filtered.chunks() for name in SETS]
    if lost := sorted(set(wanted) - set(files)):
        raise damaged(lost[0], "it is gone")


def _sizes(rows: Sequence[SelectionRow], number: dict[str, int], config: DistillConfig) -> list[_QuestionSizes]:
    totals = np.zeros((len(number), 3), dtype=np.int64)
    for row in rows:
        if row.key.view == POSTERIOR:
            totals[number[row.key.question_id]] += (row.thinking_tokens, 1, 0)
        elif row.status in ("correct", "wrong") and not (row.cut_off and config.mask_truncated):
            totals[number[row.key.question_id]] += (0, 0, len(row.completion_ids))
    return [_QuestionSizes(int(z), int(paths), int(prior)) for z, paths, prior in totals]


def _paths(
    rows: Sequence[SelectionRow],
    number: dict[str, int],
    config: DistillConfig,
    teachers: Mapping[SampleKey, StoredTeacher] | None,
) -> list[TrainingPath]:
    """Paths with some gradient, in the order of the rows. Rejected paths count for the control variate alone."""
    other_gates = iter(_other_gates(rows, number))
    paths: list[TrainingPath] = []
    for row in rows:
        question, ids = number[row.key.question_id], row.completion_ids.copy()
        logprobs, thinking = row.logprobs.copy(), row.thinking_tokens
        if row.origin.truncated:
            logprobs = np.full_like(logprobs, np.nan)
        gate, other, advantage = row.gate or 0.0, 0.0, row.advantage or 0.0
        is_prior = row.key.view == PRIOR
        if is_prior:
            if not advantage or config.pg_weight == 0 or (row.cut_off and config.mask_truncated):
                continue
        else:
            other = next(other_gates) if config.kl_form == "dense-cv" else 0.0
            if config.kl_weight == 0 or not (gate or other):
                continue
            is_whole = row.learnt_tokens is None
            if row.learnt_tokens is not None and not other:  # else the control variate goes over all of z
                thinking = row.learnt_tokens
            if config.answer_from != "posterior" or not is_whole:
                ids, logprobs = ids[:thinking], logprobs[:thinking]
            if (
                config.answer_from == "crossview"
                and is_whole
                and gate
                and row.crossview_answer_ids is not None
                and row.crossview_answer_ids.size
            ):
                ids = np.concatenate([ids, row.crossview_answer_ids])
                logprobs = np.pad(logprobs, (0, len(ids) - len(logprobs)), constant_values=np.nan)
        paths.append(
            TrainingPath(
                index=len(paths),
                question=question,
                is_prior=is_prior,
                prompt_ids=row.prompt_ids.copy(),
                completion_ids=ids,
                sampler_logprobs=logprobs,
                thinking_tokens=thinking,
                posterior_prompt_ids=_posterior_prompt(row) if config.has_teacher_on_prior or not is_prior else None,
                teacher=None if is_prior or teachers is None else teachers[row.key].first(thinking),
                gate=float(gate),
                gated_tokens=row.learnt_tokens,
                other_gate=float(other),
                advantage=float(advantage),
            )
        )
    return paths


def _other_gates(rows: Sequence[SelectionRow], number: dict[str, int]) -> list[float]:
    """b_j of every posterior row, in their order, rejected ones included."""
    posterior = [row for row in rows if row.key.view == POSTERIOR]
    gates = torch.tensor([row.gate or 0.0 for row in posterior], dtype=torch.float64)
    questions = torch.tensor([number[row.key.question_id] for row in posterior], dtype=torch.int64)
    values: list[float] = other_gates_mean(gates, questions).tolist()
    return values


def _posterior_prompt(row: SelectionRow) -> IntArray:
    if row.posterior_prompt_ids is None:  # of a prior sample: of a posterior path the filter always writes it
        raise UsageError(
            "prior samples were drawn without the prompt with the note",
            why=f"rollout.noted_prior was false, e.g. for question {row.key.question_id}, and distill.pg_form has the "
            "posterior as their teacher",
            mend="draw the rollout with rollout.noted_prior=true, or use distill.pg_form=clipped",
        )
    return row.posterior_prompt_ids.copy()
