"""What `--dry-run` shows: the configuration, the prompts and what the phase would cost. Nothing is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from vpgea.config.schema import RunConfig, leaves, value_of
from vpgea.config.strict_yaml import scalar
from vpgea.estimate import hardware
from vpgea.estimate.estimator import Estimator, PhaseEstimate, whole_run
from vpgea.filtering.cost import Lengths, Paths, RolloutLengths
from vpgea.modeling.load import torch_device, torch_dtype
from vpgea.modeling.shape import read_shape
from vpgea.phases.evaluate import as_rollout
from vpgea.phases.rollout import RolloutPlan, samples_per_question
from vpgea.phases.schedule import held_out_data, round_questions
from vpgea.prompts.views import SHOWN_QUESTIONS, PromptPreview, Views, load_views
from vpgea.questions.load import Question, load_questions
from vpgea.runs.complete_phase import chunk_paths
from vpgea.storage.schemas import POSTERIOR, PRIOR, View
from vpgea.storage.shards import read_table
from vpgea.training.batching import micro_batches
from vpgea.training.data import TrainingPath, TrainingSet
from vpgea_cli.output import Output, aligned, duration
from vpgea_cli.prompt_text import prompt_text

_COLUMNS = ("question_id", "question", "answer", "options", "view", "completion_ids", "thinking_tokens", "cut_off")


def show_rollout(plan: RolloutPlan, output: Output) -> None:
    """The part of the rollout that this command would draw; an upper bound, since completions run to their cap."""
    questions = _usable(plan)
    estimator = _estimator(plan.config)
    _show(
        output,
        estimator,
        {
            "questions": len(questions),
            **plan.rejection_counts,
            "rejected": plan.rejected,
            "samples": len(questions) * samples_per_question(plan.config.rollout),
        },
        plan.views.previews(questions),
        [estimator.rollout(_prompts(plan.views, questions, PRIOR), _prompts(plan.views, questions, POSTERIOR))],
        "an upper bound: every completion runs to rollout.max_new_tokens",
    )


def show_filter(config: RunConfig, rollout_dir: Path, output: Output) -> None:
    """The checks of a rollout's samples. Their lengths are known, and which of them are correct is not."""
    rows = [row for path in chunk_paths(rollout_dir) for row in read_table(path, columns=_COLUMNS).to_pylist()]
    questions = {row["question_id"]: Question.from_row(row) for row in rows}
    views, estimator = load_views(config), _estimator(config)
    prompts = {
        view: dict(zip(questions, _prompts(views, list(questions.values()), view).tolist(), strict=True))
        for view in (PRIOR, POSTERIOR)
    }
    chosen = {
        "prior": [row for row in rows if row["view"] == PRIOR],
        "posterior": [row for row in rows if row["view"] == POSTERIOR],
        "candidates": [row for row in rows if row["view"] == POSTERIOR and not row["cut_off"]],
    }

    def behind(view: View, name: str) -> Paths:
        return Paths(
            _array(prompts[view][row["question_id"]] for row in chosen[name]),
            _array(row["thinking_tokens"] for row in chosen[name]),
        )

    lengths = RolloutLengths(
        prompts=_array(prompts[PRIOR].values()),
        **{name: behind(PRIOR, name) for name in chosen},
        **{f"noted_{name}": behind(POSTERIOR, name) for name in chosen},
    )
    upper = estimator.filter(lengths)
    answers = [len(row["completion_ids"]) - row["thinking_tokens"] for row in rows if not row["cut_off"]]
    expected = replace(estimator.filter(lengths, float(np.mean(answers or [0]))), phase="filter, expected")
    _show(
        output,
        estimator,
        {"questions": len(questions), "samples": len(rows), "candidates": len(chosen["candidates"])},
        views.previews(list(questions.values())),
        [upper, expected],
        "the samples' own lengths, as if every path that ended were correct; in the first line every continuation runs "
        "to its cap, in the second it is as long as the rollout's mean answer",
    )


def show_distill(config: RunConfig, data: TrainingSet, output: Output) -> None:
    """The training step over the paths that carry a gradient; their lengths are known."""
    estimator, views = _estimator(config), load_views(config)
    prior = [path for path in data.paths if path.is_prior]
    posterior = [path for path in data.paths if not path.is_prior]
    shown: dict[tuple[int, View], PromptPreview] = {}
    for path in data.paths:
        for view, ids in ((PRIOR, path.prompt_ids), (POSTERIOR, path.posterior_prompt_ids)):
            if ids is not None:
                key = (path.question, view)
                shown.setdefault(key, views.stored_preview(data.questions[path.question], view, ids.tolist()))
    first = sorted({question for question, _ in shown})[:SHOWN_QUESTIONS]
    _show(
        output,
        estimator,
        {
            "questions": len(data.questions),
            "prior_paths": len(prior),
            "posterior_paths": len(posterior),
            "steps": data.total_steps,
        },
        [shown[key] for key in sorted(shown, key=lambda key: (key[0], key[1] != PRIOR)) if key[0] in first],
        [_training(estimator, data)],
        "the selected paths' own lengths",
    )


def training_memory_warning(config: RunConfig, data: TrainingSet) -> str | None:
    """What to say before a training that will not fit: on a CPU the system would end it without a word."""
    device = torch_device(config.model)
    machine = hardware.Hardware(
        name="this device", flops=1.0, bandwidth=1.0, overhead_s=0.0, memory_bytes=hardware.free_memory(device)
    )
    return _too_large(_training(Estimator(config, read_shape(config.model), machine), data), machine)


def _training(estimator: Estimator, data: TrainingSet) -> PhaseEstimate:
    """The training step over the paths that carry a gradient."""
    posterior = [path for path in data.paths if not path.is_prior]
    return estimator.distill(
        _training_paths([path for path in data.paths if path.is_prior]),
        _training_paths(posterior),
        _array(0 if path.posterior_prompt_ids is None else len(path.posterior_prompt_ids) for path in posterior),
        _largest_batch(estimator.config, data, estimator.shape.hidden),
    )


def show_loop(config: RunConfig, output: Output, *, offline: bool) -> None:
    """One round's phases and the whole of the run; an upper bound, since completions run to their cap."""
    loaded = load_questions(config.data, offline=offline)
    output.skipped_rows(loaded.skipped)
    held_out = load_questions(held_out_data(config), offline=offline).questions
    first = round_questions(loaded.questions, 0, config.loop.questions_per_round, config.rollout.seed)
    plan, estimator = RolloutPlan.make(config, first), _estimator(config)
    questions = _usable(plan)
    rounds = config.loop.rounds
    evaluation = estimator.evaluation(
        _prompts(plan.views, _usable(RolloutPlan.make(as_rollout(config), held_out)), PRIOR)
    )
    one_round = estimator.round(_prompts(plan.views, questions, PRIOR), _prompts(plan.views, questions, POSTERIOR))
    _show(
        output,
        estimator,
        {
            "questions": len(loaded.questions),
            "questions_of_first_round": len(questions),
            **plan.rejection_counts,
            "rejected": plan.rejected,
            "held_out_questions": len(held_out),
            "rounds": rounds,
        },
        plan.views.previews(questions),
        [*one_round, evaluation, whole_run(one_round, evaluation, rounds)],
        f"one round, then the whole run: {rounds} rounds and the base model's evaluation; an upper bound, since every "
        "completion runs to its cap, every path is checked and every path is trained on",
    )


def changed(config: RunConfig) -> dict[str, Any]:
    """Dotted key → value of everything that is not at its default."""
    defaults = RunConfig()
    return {key: value_of(config, key) for key, _ in leaves() if value_of(config, key) != value_of(defaults, key)}


def _show(
    output: Output,
    estimator: Estimator,
    counts: Mapping[str, Any],
    prompts: Sequence[PromptPreview],
    estimates: Sequence[PhaseEstimate],
    bound: str,
) -> None:
    """The one result: an object with --json, else a page of text."""
    config, machine = estimator.config, estimator.hardware
    for estimate in estimates:
        if too_large := _too_large(estimate, machine):
            output.warn(too_large)
    if output.as_json:
        output.result(
            {
                "dry_run": True,
                "config": changed(config),
                **counts,
                "prompts": [asdict(prompt) for prompt in prompts],
                "estimates": [{**asdict(estimate), "peak_memory": estimate.peak_memory} for estimate in estimates],
                "bound": bound,
                "machine": asdict(machine),
            }
        )
        return
    parts = [
        "\n".join(["--- configuration, where it is not the default ---", *aligned(_key_rows(config))]),
        *map(prompt_text, prompts),
        "\n".join(["--- counts ---", *aligned([[name, _count(value)] for name, value in counts.items()])]),
        "\n".join(
            [f"--- rough estimate, {machine.name} ---", *estimate_table(estimates), "", *_notes(estimator, bound)]
        ),
        "nothing was written",
    ]
    output.result("\n\n".join(parts))


def _too_large(estimate: PhaseEstimate, machine: hardware.Hardware) -> str | None:
    if estimate.peak_memory <= machine.memory_bytes:
        return None
    ways = {
        "distill": "lower distill.max_tokens_per_batch, use --gradient-checkpointing, --dtype bfloat16 or an adapter",
    }
    return (
        f"{estimate.phase} would need {_bytes(estimate.peak_memory)} of memory, and {machine.name} has "
        f"{_bytes(machine.memory_bytes)} free: {ways.get(estimate.phase, 'lower rollout.batch_size or the caps')}"
    )


def estimate_table(estimates: Sequence[PhaseEstimate]) -> list[str]:
    """Lines of a table with one row per phase, and one line per phase with the parts of its peak memory."""
    rows = [["phase", "sampled", "processed", "trained", "TFLOP", "disk", "peak memory", "time"]]
    for one in estimates:
        tokens = [f"{count:,}" for count in (one.sampled_tokens, one.processed_tokens, one.trained_tokens)]
        figures = [f"{one.flops / 1e12:,.3g}", _bytes(one.disk_bytes), _bytes(one.peak_memory), duration(one.seconds)]
        rows.append([one.phase, *tokens, *figures])
    memory = [
        f"memory of {one.phase}: " + ", ".join(f"{name} {_bytes(size)}" for name, size in one.memory.items())
        for one in estimates
    ]
    return [*aligned(rows), *memory]


def _notes(estimator: Estimator, bound: str) -> list[str]:
    shape, machine = estimator.shape, estimator.hardware
    return [
        f"tokens: {bound}",
        f"model: {shape.parameters:,} parameters, {_bytes(shape.stored_bytes)} on disk, vocabulary "
        f"{shape.vocabulary:,}, {shape.kv_bytes_per_token(estimator.dtype_bytes):,} bytes of cache per token",
        f"time: from {machine.flops / 1e9:,.0f} GFLOP/s and {machine.bandwidth / 1e9:,.1f} GB/s measured now, and "
        f"{machine.overhead_s * 1e3:g} ms per layer and forward pass; expect it to be off by a factor of two or more",
    ]


def _estimator(config: RunConfig) -> Estimator:
    """With the model's header and this machine's measured rates; no weights are loaded."""
    shape = read_shape(config.model)
    return Estimator(config, shape, hardware.measure(torch_device(config.model), torch_dtype(config.model)))


def _usable(plan: RolloutPlan) -> list[Question]:
    """The questions of this part that are not rejected."""
    return [question for chunk in plan.own_chunks for question in plan.chunks[chunk]]


def _prompts(views: Views, questions: Sequence[Question], view: View) -> Lengths:
    """Tokens of each question's prompt, (N,)."""
    render = views.prior_prompt if view == PRIOR else views.posterior_prompt
    return _array(len(render(question)) for question in questions)


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


def _training_paths(paths: Sequence[TrainingPath]) -> Paths:
    return Paths(_array(len(path.prompt_ids) for path in paths), _array(len(path.completion_ids) for path in paths))


def _array(values: Iterable[int]) -> Lengths:
    return np.fromiter(values, dtype=np.int64)


def _key_rows(config: RunConfig) -> list[list[str]]:
    return [[key, scalar(value)] for key, value in changed(config).items()]


def _count(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {why}" for key, why in value.items()) or "-"
    return f"{value:,}"


def _bytes(size: float) -> str:
    """`512 B`, `1.5 kB`, `16.2 GB`: powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"
