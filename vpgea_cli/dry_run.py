"""What `--dry-run` shows: the configuration, the prompts and what the phase would cost. Nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from vpgea.config.schema import RunConfig, leaves, value_of
from vpgea.config.strict_yaml import scalar
from vpgea.engines.lease import placement
from vpgea.estimate.estimator import Estimator
from vpgea.estimate.phase_estimate import PhaseEstimate
from vpgea.estimate.phases import Forecast, forecast_eval, size_text
from vpgea.phases.evaluate import EvalPlan
from vpgea.phases.widths import Width
from vpgea.protocols.asking import Asked
from vpgea.questions.question import Question
from vpgea.report.prompt_text import prompt_text
from vpgea.runs.parts import Part
from vpgea_cli.output import Output, aligned, duration


def show_evaluation(
    config: RunConfig,
    questions: Sequence[Question],
    part: Part,
    width: Width | None,
    output: Output,
    *,
    asked: Asked | None = None,
) -> None:
    """What an evaluation would cost; with a width, the first number of samples of it."""
    show(forecast_eval(config, EvalPlan.make(config, questions, part=part, asked=asked)), output)
    if width is not None:
        first, most = config.eval.samples, width.max_samples
        output.info(f"that is for {first} samples per question; --until-width may go on to {most}")


def show(forecast: Forecast, output: Output) -> None:
    """The one result: an object with --json, else a page of text."""
    for warning in forecast.warnings:
        output.warn(warning)
    output.result(_as_object(forecast) if output.as_json else _as_text(forecast))


def _as_object(forecast: Forecast) -> dict[str, object]:
    return {
        "dry_run": True,
        "config": _changed(forecast.estimator.config),
        **asdict(forecast.counts),
        "prompts": [asdict(prompt) for prompt in forecast.prompts],
        "estimates": [{**asdict(estimate), "peak_memory": estimate.peak_memory} for estimate in forecast.estimates],
        "bound": forecast.bound,
        "devices": placement(forecast.estimator.config),
        "machine": asdict(forecast.estimator.hardware),
    }


def _as_text(forecast: Forecast) -> str:
    estimator = forecast.estimator
    settings = [[key, scalar(value)] for key, value in _changed(estimator.config).items()]
    counts = [[name, _count(value)] for name, value in asdict(forecast.counts).items()]
    costs = [*_estimate_table(forecast.estimates), "", *_notes(estimator, forecast.bound)]
    parts = [
        "\n".join(["--- configuration, where it is not the default ---", *aligned(settings)]),
        *map(prompt_text, forecast.prompts),
        "\n".join(["--- counts ---", *aligned(counts)]),
        "\n".join([f"--- rough estimate, {estimator.hardware.name} ---", *costs]),
        "nothing was written",
    ]
    return "\n\n".join(parts)


def _changed(config: RunConfig) -> dict[str, object]:
    """Dotted key → value of everything that is not at its default."""
    defaults = RunConfig()
    return {key: value_of(config, key) for key, _ in leaves() if value_of(config, key) != value_of(defaults, key)}


def _estimate_table(estimates: Sequence[PhaseEstimate]) -> list[str]:
    """Lines of a table with one row per phase, and one line per phase with the parts of its peak memory."""
    rows = [["phase", "sampled", "processed", "trained", "TFLOP", "disk", "peak memory", "time"]]
    for phase in estimates:
        tokens = [f"{count:,}" for count in (phase.sampled_tokens, phase.processed_tokens, phase.trained_tokens)]
        sizes = [size_text(phase.disk_bytes), size_text(phase.peak_memory)]
        rows.append([phase.phase, *tokens, f"{phase.flops / 1e12:,.3g}", *sizes, duration(phase.seconds)])
    memory = [
        f"memory of {phase.phase}: " + ", ".join(f"{name} {size_text(size)}" for name, size in phase.memory.items())
        for phase in estimates
    ]
    return [*aligned(rows), *memory]


def _notes(estimator: Estimator, bound: str) -> list[str]:
    shape, machine = estimator.shape, estimator.hardware
    where = "; ".join(f"{what}: {text}" for what, text in placement(estimator.config).items())
    return [
        f"devices: {where}",
        *_server_note(estimator),
        f"tokens: {bound}",
        f"model: {shape.parameters:,} parameters, {size_text(shape.stored_bytes)} on disk, vocabulary "
        f"{shape.vocabulary:,}, {shape.kv_bytes_per_token(estimator.dtype_bytes):,} bytes of cache per token",
        f"time: from {machine.flops / 1e9:,.0f} GFLOP/s and {machine.bandwidth / 1e9:,.1f} GB/s measured now, and "
        f"{machine.overhead_s * 1e3:g} ms per layer and forward pass; expect it to be off by a factor of two or more",
    ]


def _server_note(estimator: Estimator) -> list[str]:
    """What a server of the run's own has room for."""
    if (serving := estimator.serving) is None:
        return []
    cap = estimator.config.rollout.max_new_tokens
    return [
        f"server: keys and values of {serving.pool // serving.kv:,} tokens, so {serving.together(cap):,} sequences of "
        f"rollout.max_new_tokens={cap:,} at a time; a shorter one leaves its room to another"
    ]


def _count(value: object) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {why}" for key, why in value.items()) or "-"
    return f"{value:,}"
