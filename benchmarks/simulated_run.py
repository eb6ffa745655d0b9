"""A run without a model: real shards, sidecars, manifests and markers in the real layout, with a few tiny rows each."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from vpgea.config.resolve import dump_yaml, flat_config
from vpgea.config.schema import RunConfig, identity_of
from vpgea.filtering.measurements import MEASUREMENTS
from vpgea.metrics.bootstrap import Estimate
from vpgea.modeling.local_model import LocalModel
from vpgea.phases.rollout import RolloutPlan
from vpgea.questions.load import Question, chunk_questions
from vpgea.runs.layout import CONFIG, SETS, SUMMARY, round_dir, round_record
from vpgea.runs.manifest import Manifest
from vpgea.runs.parts import Part
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.runs.records import DistillSummary, EvalResults, FilterSummary, RoundLine
from vpgea.runs.round_lines import TrainingFigures, line_of
from vpgea.storage import files
from vpgea.storage.files import write_bytes, write_json
from vpgea.storage.records import json_of
from vpgea.storage.schemas import GRADED, POSTERIOR, PRIOR, SAMPLES, SELECTION, View
from vpgea.storage.shards import table_from_rows, write_table

QUESTIONS_PER_CHUNK = 4
PARTS = 8  # of each phase, as an array of jobs would have
_CHUNKS_PER_EVAL_CHUNK = 64
_SECTIONS = {
    "rollout": ("model", "data", "views", "rollout"),
    "filter": ("grading", "filter"),
    "distill": ("distill", "model"),
    "eval": ("model", "data", "views", "rollout", "grading", "eval"),
    "loop": ("model", "data", "views", "rollout", "grading", "filter", "distill", "eval", "loop"),
}
_SCHEMAS = {"rollout": SAMPLES, "filter": MEASUREMENTS, "eval": GRADED}
VALUES: dict[str, Any] = {  # where the first value of a type will not do
    "prompt_ids": list(range(8)),
    "completion_ids": list(range(8)),
    "logprobs": [-0.5] * 8,
    "other_view_logprobs": [-0.5] * 4,
    "thinking_tokens": 4,
    "status": "correct",
    "answerability": 1.0,
    "answerability_valid": 8,
    "reasons": [],
}


FILTER_SUMMARY = FilterSummary(
    counts={
        "posterior_sampled": 1,
        "posterior_accepted": 1,
        "posterior_pseudo_efficient": 0,
        "posterior_rejected_undecided": 0,
    },
    plausibility_limits="off",
    needs_no_thinking=[],
    elbo="not available (simulated)",
    checks={},
    tokens={"rollout_tokens": 0, "check_tokens": 0, "score_tokens": 0},
)
DISTILL_SUMMARY = DistillSummary(
    steps=1,
    paths=1,
    trained_tokens=1,
    skipped_steps=0,
    alarms=0,
    ended_early=None,
    truncated_support=False,
    reload_difference=0.0,
    engine_mismatch=None,
    output="adapter",
    model_fingerprint="0" * 16,
)


def run_config(rounds: int = 1) -> RunConfig:
    """The defaults, with chunks of few questions and one sample of each view."""
    config = RunConfig()
    sampling = {"prior_samples": 1, "posterior_samples": 1, "questions_per_chunk": QUESTIONS_PER_CHUNK}
    return config.model_copy(
        update={
            "rollout": config.rollout.model_copy(update=sampling),
            "loop": config.loop.model_copy(update={"rounds": rounds}),
        }
    )


def questions_of(chunks: Iterable[int]) -> list[Question]:
    """Those that stand in these chunks."""
    numbers = [chunk * QUESTIONS_PER_CHUNK + index for chunk in chunks for index in range(QUESTIONS_PER_CHUNK)]
    return [Question(f"q-{number:08d}", f"What is {number} + 1?", str(number + 1)) for number in numbers]


def manifest_of(phase: str, part: int = 0, parts: int = 1) -> Manifest:
    config = run_config()
    identity = identity_of(config, *_SECTIONS[phase])
    return Manifest(
        phase=phase,
        identity=identity,
        inputs={"model": "0" * 16, "questions": "0" * 32},
        config=flat_config(config),
        part=Part(part, parts),
    )


class _Views:
    """What plans and selections ask of the views, without a tokenizer."""

    def prior_prompt(self, question: Question) -> list[int]:
        return VALUES["prompt_ids"]

    posterior_prompt = prior_prompt

    def prompt(self, question: Question, view: View) -> list[int]:
        return self.prior_prompt(question)


VIEWS: Any = _Views()


def plan_of(chunks: int) -> RolloutPlan:
    """The plan of a rollout's first part, as RolloutPlan.make leaves it."""
    cut = chunk_questions(questions_of(range(chunks)), QUESTIONS_PER_CHUNK)
    return RolloutPlan(
        config=run_config(),
        model=LocalModel(config=run_config().model, folder=Path("nowhere"), adapter=None),
        views=VIEWS,
        chunks=cut,
        rejected={},
        manifest=manifest_of("rollout", 0, PARTS),
        round_index=0,
    )


def begin_run(run_dir: Path, rounds: int) -> None:
    """The run folder before its first round, the base model's evaluation done."""
    PhaseFolder.open(run_dir, manifest_of("loop"))
    write_bytes(run_dir / CONFIG, dump_yaml(run_config(rounds)).encode())
    write_phase(run_dir / "base" / "eval", "eval", 0, 1)
    write_json(round_record(run_dir, None), round_line(None).as_json())


def write_round(run_dir: Path, index: int, chunks: int) -> None:
    """A finished round of so many chunks."""
    folder = round_dir(run_dir, index)
    write_phase(folder / "rollout", "rollout", 0, chunks)
    write_phase(folder / "filter", "filter", 0, chunks)
    tables = [(folder / "filter" / name, _table(SELECTION, [0])) for name in SETS]
    for place, table in tables:
        place.mkdir()
        for chunk in range(chunks):
            write_table(place / f"chunk-{chunk:05d}.arrow", table)
    write_json(folder / "filter" / SUMMARY, json_of(FILTER_SUMMARY))
    training = PhaseFolder.open(folder / "distill", manifest_of("distill"))
    write_json(folder / "distill" / SUMMARY, json_of(DISTILL_SUMMARY))
    training.complete(json_of(DISTILL_SUMMARY))
    write_phase(folder / "eval", "eval", 0, -(-chunks // _CHUNKS_PER_EVAL_CHUNK))
    write_json(round_record(run_dir, index), round_line(index, e3=1 + index / 1000).as_json())


def flush_no_more() -> None:
    """Shards from here on in this process are written by the same code, but not flushed to disk one by one."""
    files.fsync = lambda path: None


def write_phase(root: Path, phase: str, first: int, last: int) -> None:
    """Chunks first to last (excluded) of a phase in all of its parts, and its markers."""
    parts = [PhaseFolder.open(root, manifest_of(phase, part, PARTS)) for part in range(PARTS)]
    for chunk in range(first, last):
        write_table(parts[chunk % PARTS].chunk(chunk), _table(_SCHEMAS[phase], [chunk]))
    for part in parts:
        part.complete({"questions": (last - first) * QUESTIONS_PER_CHUNK // PARTS})


def some_value(field: pa.Field, row: dict[str, Any]) -> Any:
    """What the row has for a field; else null where it may be, or the first value of its type."""
    if field.name in row:
        return row[field.name]
    if field.nullable:
        return None
    if pa.types.is_integer(field.type) or pa.types.is_floating(field.type):
        return 0
    return False if pa.types.is_boolean(field.type) else [] if pa.types.is_large_list(field.type) else "x"


def _table(schema: pa.Schema, chunks: Iterable[int]) -> pa.Table:
    rows = [
        {**VALUES, "question_id": question.id, "view": view, "question": question.text, "answer": question.answer}
        for question in questions_of(chunks)
        for view in (PRIOR, POSTERIOR)
    ]
    return table_from_rows([{field.name: some_value(field, row) for field in schema} for row in rows], schema)


def round_results(index: int | None, *, accuracy: float = 0.5, tokens: float = 1000.0, e3: float = 1.0) -> EvalResults:
    """The evaluation of a round with these figures, without intervals."""
    figures = {"accuracy": accuracy, "tokens": tokens, "truncation_rate": 0.0}
    return EvalResults(
        questions=1,
        rejected_overlong=0,
        rejected_control_tokens=0,
        samples=1,
        not_graded=0,
        baseline=None,
        metrics={
            name: Estimate(value=value, low=None, high=None, n=1)
            for name, value in (figures | ({} if index is None else {"e3": e3, "accuracy_gain": 0.0})).items()
        },
    )


def round_line(index: int | None, **figures: float) -> RoundLine:
    """The line of a round with these figures of `round_results` and the simulated training."""
    training = TrainingFigures.of(FILTER_SUMMARY, DISTILL_SUMMARY, price=0.1, reference_kl=0.0)
    made_with = None if index is None else training
    return line_of(index, round_results(index, **figures), made_with, seconds=1.0, times={"eval": {"sampling": 1.0}})
