"""What each phase would do and cost, before it runs: from its plan, its input folder or its training set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from vpgea.config.contradictions import require_consistent, require_followable_price
from vpgea.config.schema import RunConfig, with_values
from vpgea.engines.lease import engine_kind
from vpgea.engines.sglang.server.places import places_of
from vpgea.estimate import hardware
from vpgea.estimate.estimator import Estimator
from vpgea.estimate.phase_estimate import PhaseEstimate, whole_run
from vpgea.filtering.cost import Lengths, Paths, RolloutLengths
from vpgea.modeling.device import devices_of
from vpgea.modeling.load import require_attention
from vpgea.modeling.local_model import LocalModel
from vpgea.modeling.shape import read_shape
from vpgea.phases.evaluate import EvalPlan, as_rollout
from vpgea.phases.filter import require_filterable
from vpgea.phases.rollout import RolloutPlan, samples_per_question
from vpgea.phases.schedule import round_questions
from vpgea.prompts.views import SHOWN_QUESTIONS, PromptPreview, Views, load_views
from vpgea.questions.load import Question
from vpgea.runs.complete_phase import CompletePhase, chunk_paths
from vpgea.runs.history import planned_evaluations
from vpgea.storage.rows import iterate_rows
from vpgea.storage.schemas import POSTERIOR, PRIOR, SampleRow, View
from vpgea.training.batching import micro_batches
from vpgea.training.data import TrainingPath, TrainingSet
from vpgea.training.requirements import require_trainable


@dataclass(frozen=True, kw_only=True)
class RolloutCounts:
    """What a rollout or an evaluation draws. rejected: question id → why."""

    questions: int
    rejected_overlong: int
    rejected_control_tokens: int
    rejected: dict[str, str]
    samples: int


@dataclass(frozen=True)
class FilterCounts:
    """What a filter looks at. candidates: posterior paths that came to an end."""

    questions: int
    samples: int
    candidates: int


@dataclass(frozen=True)
class DistillCounts:
    """What a distillation trains on: paths that carry a gradient, and optimiser steps."""

    questions: int
    prior_paths: int
    posterior_paths: int
    steps: int


@dataclass(frozen=True, kw_only=True)
class LoopCounts:
    """What a loop has before it; what is rejected is of the first round."""

    questions: int
    questions_of_first_round: int
    rejected_overlong: int
    rejected_control_tokens: int
    rejected: dict[str, str]
    held_out_questions: int
    rounds: int


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a phase would do and cost. bound: in words, what the estimates' tokens are or bound. remarks: of
    the prompts."""

    estimator: Estimator
    counts: RolloutCounts | FilterCounts | DistillCounts | LoopCounts
    prompts: list[PromptPreview]
    estimates: list[PhaseEstimate]
    bound: str
    remarks: list[str] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        """Of the prompts, and one for every phase that needs more memory than there is."""
        machine = self.estimator.hardware
        memory = [warning for estimate in self.estimates if (warning := memory_warning(estimate, machine))]
        return [*self.remarks, *memory]


def forecast_rollout(plan: RolloutPlan) -> Forecast:
    """The part of the rollout that a plan would draw; an upper bound, since completions run to their cap."""
    questions, estimator = _usable(plan), _estimator(plan.config, plan.model)
    prior, posterior = (_prompt_tokens(plan.views, questions, view) for view in (PRIOR, POSTERIOR))
    return Forecast(
        estimator=estimator,
        counts=_rollout_counts(plan),
        prompts=plan.views.previews(questions),
        remarks=plan.remarks,
        estimates=[estimator.rollout(prior, posterior)],
        bound="an upper bound: every completion runs to rollout.max_new_tokens",
    )


def forecast_eval(config: RunConfig, planned: EvalPlan) -> Forecast:
    """The part of an evaluation that a plan would draw; an upper bound, since completions run to their cap."""
    plan = planned.sampling
    usable, estimator = _usable(plan), _estimator(config, plan.model)
    return Forecast(
        estimator=estimator,
        counts=_rollout_counts(plan),
        prompts=[preview for preview in plan.views.previews(usable) if preview.view == PRIOR],
        estimates=[estimator.evaluation(_prompt_tokens(plan.views, usable, PRIOR))],
        bound="an upper bound: every completion runs to eval.max_new_tokens",
    )


def forecast_filter(config: RunConfig, rollout_dir: Path) -> Forecast:
    """The checks of a rollout's samples. Their lengths are known, and which of them are correct is not."""
    rows = list(iterate_rows(chunk_paths(rollout_dir), SampleRow))
    questions = {row.key.question_id: Question.from_row(row) for row in rows}
    model = LocalModel.resolve(config.model)
    made_from = CompletePhase.open(rollout_dir, "rollout").manifest
    asked = list(questions.values())
    views, estimator = (
        load_views(model, config.views, config.grading.grader, begun=made_from.inputs, questions=asked),
        _estimator(config, model),
    )
    prompts = {
        view: dict(zip(questions, _prompt_tokens(views, asked, view).tolist(), strict=True))
        for view in (PRIOR, POSTERIOR)
    }
    chosen = {
        "prior": [row for row in rows if row.key.view == PRIOR],
        "posterior": [row for row in rows if row.key.view == POSTERIOR],
        "candidates": [row for row in rows if row.key.view == POSTERIOR and not row.cut_off],
    }

    def behind(view: View, name: str) -> Paths:
        return Paths(
            _array(prompts[view][row.key.question_id] for row in chosen[name]),
            _array(row.thinking_tokens for row in chosen[name]),
        )

    known = RolloutLengths(
        prompts=_array(prompts[PRIOR].values()),
        prior=behind(PRIOR, "prior"),
        posterior=behind(PRIOR, "posterior"),
        candidates=behind(PRIOR, "candidates"),
        noted_prior=behind(POSTERIOR, "prior"),
        noted_posterior=behind(POSTERIOR, "posterior"),
        noted_candidates=behind(POSTERIOR, "candidates"),
        completion_tokens=sum(len(row.completion_ids) for row in rows),
    )
    answers = [len(row.completion_ids) - row.thinking_tokens for row in rows if not row.cut_off]
    expected = replace(estimator.filter(known, float(np.mean(answers or [0]))), phase="filter, expected")
    return Forecast(
        estimator=estimator,
        counts=FilterCounts(len(questions), len(rows), len(chosen["candidates"])),
        prompts=views.previews(asked),
        estimates=[estimator.filter(known), expected],
        bound="the samples' own lengths, as if every path that ended were correct; in the first line every "
        "continuation runs to its cap, in the second it is as long as the rollout's mean answer",
    )


def forecast_distill(config: RunConfig, data: TrainingSet, *, warn: Callable[[str], None] | None = None) -> Forecast:
    """The training step over the paths that carry a gradient; their lengths are known.

    warn: of a training that was begun, as `require_trainable` has it.
    """
    require_consistent(config)
    model = LocalModel.resolve(config.model)
    require_trainable(config, model, warn=warn)
    views, estimator = load_views(model, config.views, config.grading.grader), _estimator(config, model)
    shown: dict[tuple[int, View], PromptPreview] = {}
    for path in data.paths:
        for view, ids in ((PRIOR, path.prompt_ids), (POSTERIOR, path.posterior_prompt_ids)):
            if ids is not None and (path.question, view) not in shown:
                shown[path.question, view] = views.stored_preview(data.questions[path.question], view, ids.tolist())
    first = sorted({question for question, _ in shown})[:SHOWN_QUESTIONS]
    prior = sum(path.is_prior for path in data.paths)
    return Forecast(
        estimator=estimator,
        counts=DistillCounts(len(data.questions), prior, len(data.paths) - prior, data.total_steps),
        prompts=[shown[key] for key in sorted(shown, key=lambda key: (key[0], key[1] != PRIOR)) if key[0] in first],
        estimates=[_training(estimator, data)],
        bound="the selected paths' own lengths",
    )


def forecast_loop(
    config: RunConfig,
    questions: Sequence[Question],
    held_out: Sequence[Question],
    *,
    warn: Callable[[str], None] | None = None,
) -> Forecast:
    """One round's phases and the whole of the run; an upper bound, since completions run to their cap.

    warn: of a run that was begun, as `require_trainable` has it.
    """
    require_followable_price(config)
    first = round_questions(questions, 0, config.loop.questions_per_round, config.rollout.seed)
    plan = RolloutPlan.make(config, first)
    require_filterable(config, plan.model)
    require_trainable(config, plan.model, warn=warn)
    estimator = _estimator(config, plan.model)
    usable, rounds = _usable(plan), config.loop.rounds
    measured = _usable(RolloutPlan.make(as_rollout(config), held_out))
    evaluation = estimator.evaluation(_prompt_tokens(plan.views, measured, PRIOR))
    prior, posterior = (_prompt_tokens(plan.views, usable, view) for view in (PRIOR, POSTERIOR))
    one_round = estimator.round(prior, posterior)
    evaluations = len(planned_evaluations(config.loop))
    counts = LoopCounts(
        questions=len(questions),
        questions_of_first_round=len(usable),
        **plan.rejection_counts,
        rejected=plan.rejected,
        held_out_questions=len(held_out),
        rounds=rounds,
    )
    return Forecast(
        estimator=estimator,
        counts=counts,
        prompts=plan.views.previews(usable),
        remarks=plan.remarks,
        estimates=[*one_round, evaluation, whole_run(one_round, evaluation, config.loop)],
        bound=f"one round, then the whole run: {rounds} rounds and {evaluations} evaluations, "
        "the base model's among them; an upper bound, since every completion runs to its cap, every path is checked "
        "and every path is trained on",
    )


def training_memory_warning(config: RunConfig, data: TrainingSet) -> str | None:
    """What to say before a training that will not fit: on a CPU the system would end it without a word.

    What servers that stay hold is not free any more.
    """
    config = with_values(config, {"sglang.keep_servers": False})
    model = LocalModel.resolve(config.model)
    free = hardware.free_memory(model.device)
    machine = hardware.Hardware(name="this device", flops=1.0, bandwidth=1.0, overhead_s=0.0, memory_bytes=free)
    machine = _on_all_devices(config, machine)
    return memory_warning(_training(Estimator(config, read_shape(model), machine), data), machine)


def memory_warning(estimate: PhaseEstimate, machine: hardware.Hardware) -> str | None:
    """What a phase needs, what there is and what helps; None where it fits."""
    if estimate.peak_memory <= machine.memory_bytes:
        return None
    ways = {
        "distill": "lower distill.max_tokens_per_batch, use --gradient-checkpointing, --dtype bfloat16 or an adapter",
    }
    if "KV pool" in estimate.memory:
        ways[estimate.phase] = "lower the caps, or give each server more devices (-- --tp 2)"
    return (
        f"{estimate.phase} would need {size_text(estimate.peak_memory)} of memory, and {machine.name} has "
        f"{size_text(machine.memory_bytes)} free: {ways.get(estimate.phase, 'lower rollout.batch_size or the caps')}"
    )


def size_text(size: float) -> str:
    """`512 B`, `1.5 kB`, `16.2 GB`: powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"


def _training(estimator: Estimator, data: TrainingSet) -> PhaseEstimate:
    noted = [(path.posterior_prompt_ids, path.completion_ids) for path in data.paths]
    return estimator.distill(
        _training_paths([path for path in data.paths if path.is_prior]),
        _training_paths([path for path in data.paths if not path.is_prior]),
        _array(len(prompt) + len(completion) for prompt, completion in noted if prompt is not None),
        _largest_batch(estimator.config, data, estimator.shape.hidden),
    )


def _largest_batch(config: RunConfig, data: TrainingSet, hidden: int) -> int:
    """Tokens of the largest micro-batch, padding included."""
    options = config.distill
    largest = 0
    for index in range(data.steps_per_epoch):
        paths = data.step(index).paths
        for (batch,) in micro_batches(paths, options.max_tokens_per_batch, packing=options.packing, hidden=hidden):
            lengths = [path.length for path in batch]
            largest = max(largest, sum(lengths) if options.packing else len(lengths) * max(lengths))
    return largest


def _estimator(config: RunConfig, model: LocalModel) -> Estimator:
    """With the model's header and this machine's measured rates; no weights are loaded.

    Raises:
        UsageError: What samples and scores in process could not load it.
    """
    if engine_kind(config) == "transformers":
        require_attention(model.base)
    machine = _on_all_devices(config, hardware.measure(model.device, model.dtype))
    return Estimator(config, read_shape(model), machine)


def _on_all_devices(config: RunConfig, machine: hardware.Hardware) -> hardware.Hardware:
    """One device's rates as those of all that the run has here. Processes on the CPU share its memory, and its speed
    is that of all of them."""
    devices = devices_of(config.model)
    if devices[0].type == "cpu":
        return replace(machine, memory_bytes=machine.memory_bytes // len(devices))
    own = engine_kind(config) == "sglang" and not config.sglang.server_url
    return replace(machine, devices=len(places_of(config)) if own else 1, ranks=len(devices))


def _usable(plan: RolloutPlan) -> list[Question]:
    """The questions of this part that are not rejected."""
    return [question for chunk in plan.own_chunks for question in plan.chunks[chunk]]


def _rollout_counts(plan: RolloutPlan) -> RolloutCounts:
    usable = len(_usable(plan))
    return RolloutCounts(
        questions=usable,
        **plan.rejection_counts,
        rejected=plan.rejected,
        samples=usable * samples_per_question(plan.config.rollout),
    )


def _prompt_tokens(views: Views, questions: Sequence[Question], view: View) -> Lengths:
    """Tokens of each question's prompt, (N,)."""
    return _array(len(views.prompt(question, view)) for question in questions)


def _training_paths(paths: Sequence[TrainingPath]) -> Paths:
    return Paths(_array(len(path.prompt_ids) for path in paths), _array(len(path.completion_ids) for path in paths))


def _array(values: Iterable[int]) -> Lengths:
    return np.fromiter(values, dtype=np.int64)
