"""Measuring a model on questions: prior-view samples, graded, with intervals clustered by question."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vpgea.config.schema import RunConfig, identity_of
from vpgea.engines.lease import EngineLease, lent, opening
from vpgea.grading.base import Grade
from vpgea.grading.registry import reads_letters
from vpgea.grading.samples import grade_rows, require_few_errors
from vpgea.grading.values import find_value, value_is_distinct, value_of
from vpgea.metrics import bootstrap
from vpgea.metrics.curves import budget_curve, budgets_below
from vpgea.metrics.resampling import drawn_by
from vpgea.phases.comparable import AskedColumns, require_comparable
from vpgea.phases.ends import tell_ends
from vpgea.phases.protocol_results import protocol_card, protocol_figures
from vpgea.phases.rollout import Drawing, RolloutPlan
from vpgea.prompts.benchmark import BenchmarkTurns
from vpgea.prompts.views import Views
from vpgea.protocols.asking import Asked
from vpgea.questions.clusters import Numbering
from vpgea.questions.load import Question
from vpgea.runs.chunks import Made, run_chunks
from vpgea.runs.clock import Clock
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.journals import Journals
from vpgea.runs.layout import CHUNK, LOGS, PROTOCOL, RESULTS
from vpgea.runs.manifest import BY_PROTOCOL, Manifest
from vpgea.runs.parts import WHOLE, Part
from vpgea.runs.phase_folder import PhaseFolder, begun_inputs
from vpgea.runs.progress import NullProgress, Progress
from vpgea.runs.records import EvalResults
from vpgea.runs.stopping import StopRequest
from vpgea.storage.files import write_json
from vpgea.storage.records import json_of
from vpgea.storage.rows import Bool, FinishReason, Ids, Int32, Text, Texts, iterate_rows, to_table
from vpgea.storage.schemas import GradedRow, SampleRow

_LONGEST_ANSWER = 1000  # characters of an answer that is read as a value


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _ScoredColumns:
    """The columns of GradedRow and ImportedRow that figures are made of; only the latter has nulls."""

    question_id: Text
    question: Text
    answer: Text
    options: Texts
    completion_ids: Ids | None
    thinking_tokens: Int32 | None
    finish_reason: FinishReason | None
    cut_off: Bool
    status: Text
    extracted: Text | None
    first_correct_tokens: Int32 | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _RecordedColumns:
    """Of an imported evaluation: its samples may have a count of tokens without their ids."""

    scored: _ScoredColumns
    recorded_tokens: Int32 | None


@dataclass(frozen=True)
class EvalPlan:
    """Everything that is known before the first sample: what is drawn, and what it is compared with."""

    sampling: RolloutPlan
    manifest: Manifest
    baseline: CompletePhase | None

    @classmethod
    def make(
        cls,
        config: RunConfig,
        questions: Sequence[Question],
        *,
        part: Part = WHOLE,
        begun: Mapping[str, str] | None = None,
        asked: Asked | None = None,
    ) -> EvalPlan:
        """Plan the samples of a part, and look at the baseline.

        Args:
            config: The whole configuration.
            questions: To measure on.
            part: Of the chunks.
            begun: The inputs of what is gone on with; else those of the baseline, where there is one.
            asked: The questions as a benchmark's protocol asks them; None: by the template of the training.

        Raises:
            UsageError: What a rollout's plan raises, or the baseline was measured otherwise.
        """
        baseline = None if config.eval.baseline is None else CompletePhase.open(Path(config.eval.baseline), "eval")
        if begun is None and baseline is not None:
            begun = baseline.manifest.inputs
        turns = None if asked is None else BenchmarkTurns(asked.turns, asked.protocol.system)
        sampling = RolloutPlan.make(as_rollout(config), questions, part=part, begun=begun, asked=turns)
        manifest = Manifest(
            phase="eval",
            identity={
                **sampling.manifest.identity,
                **identity_of(config, "grading", "eval"),
                **({} if asked is None else asked.identity),
            },
            inputs=sampling.manifest.inputs | ({} if asked is None else {BY_PROTOCOL: asked.fingerprint}),
            config=sampling.manifest.config,
            contents=sampling.manifest.contents,
            part=part,
        )
        if baseline is not None:
            rows = (AskedColumns(question_id=one.id, question=one.text, answer=one.answer) for one in questions)
            require_comparable(baseline, manifest, "this evaluation", asked=rows)
        return cls(sampling, manifest, baseline)


def evaluate(
    config: RunConfig,
    questions: Sequence[Question],
    output_dir: Path,
    *,
    part: Part = WHOLE,
    lease: EngineLease | None = None,
    resume: bool = True,
    overwrite: bool = False,
    stop: StopRequest | None = None,
    progress: Progress | None = None,
    continued: Mapping[str, str] | None = None,
    asked: Asked | None = None,
) -> EvalResults | None:
    """Sample, grade and score; return the results once all parts are there (else None).

    continued: inputs of the run that the evaluation is a part of. asked: the questions by a benchmark's protocol.

    Raises:
        UsageError: Another baseline.
        QualityGateError: Too many grader errors.
        EngineError: The engine fails.
        Stopped: A stop was requested.
    """
    stop, progress, clock = stop or StopRequest(), progress or NullProgress(), Clock()
    begun = (None if overwrite else begun_inputs(output_dir)) or continued
    planned = EvalPlan.make(config, questions, part=part, begun=begun, asked=asked)
    plan, baseline = planned.sampling, planned.baseline
    folder = PhaseFolder.open(output_dir, planned.manifest, resume=resume, overwrite=overwrite)
    with folder.writing(), clock.kept(folder):  # from here on: also while an engine starts
        missing = folder.missing(plan.own_chunks)
        with Journals(folder, missing, stop, progress) as journals:
            drawing = Drawing(plan, missing, journals, stop)
            if missing:
                before = plan.questions_in(plan.own_chunks) - plan.questions_in(missing)
                progress.advance(before + drawing.finished)
                with lent(lease, output_dir / LOGS, stop) as engines:
                    with clock.on("grading"):
                        graders = engines.graders(config)
                    with clock.on(opening(plan.config)):
                        engine = engines.get(plan.config, plan.model)

                    def work() -> Made:
                        for chunk, rows in clock.each("sampling", drawing.chunks(engine, progress)):
                            with clock.on("grading"):
                                grades = grade_rows(plan.views, graders, rows, journals)
                            graded = [
                                graded_row(plan.views, config.grading.grader, *pair)
                                for pair in zip(rows, grades, strict=True)
                            ]
                            yield chunk, {CHUNK: to_table(graded, GradedRow)}

                    run_chunks(folder, missing, stop, work, journals)
        shards = [folder.chunk(chunk) for chunk in plan.own_chunks]
        tell_ends(shards, plan.views, config.eval.max_new_tokens, progress)
        if not missing:
            progress.advance(plan.questions_in(plan.own_chunks))  # after they were read: what is damaged is not done
        require_few_errors(config, shards)
        if not folder.complete({"questions": len(questions), **plan.rejection_counts}):
            return None
        found = results(config, CompletePhase.open(output_dir, "eval"), baseline, plan.rejection_counts)
        if asked is not None:
            write_json(output_dir / PROTOCOL, json_of(protocol_card(config, plan, asked, found)))
        write_json(output_dir / RESULTS, json_of(found))
    return found


def require_ready(
    config: RunConfig,
    questions: Sequence[Question],
    output_dir: Path,
    *,
    part: Part = WHOLE,
    resume: bool = True,
    overwrite: bool = False,
    asked: Asked | None = None,
) -> None:
    """Raise what `evaluate` would raise before its first sample, and write nothing.

    Raises:
        UsageError: It cannot be planned, or the folder was begun with something else.
    """
    begun = None if overwrite else begun_inputs(output_dir)
    planned = EvalPlan.make(config, questions, part=part, begun=begun, asked=asked)
    PhaseFolder.require_open(output_dir, planned.manifest, resume=resume, overwrite=overwrite)


def as_rollout(config: RunConfig) -> RunConfig:
    """The configuration whose rollout draws the evaluation's samples: the prior view alone."""
    rollout = config.rollout.model_copy(
        update={
            "prior_samples": config.eval.samples,
            "posterior_samples": 0,
            "noted_prior": False,
            "max_new_tokens": config.eval.max_new_tokens,
            "temperature": config.eval.temperature,
            "top_p": config.eval.top_p,
            "top_k": 0,
            "seed": config.eval.seed,
        }
    )
    return config.model_copy(update={"rollout": rollout})


def results(
    config: RunConfig, evaluation: CompletePhase, baseline: CompletePhase | None, rejection_counts: dict[str, int]
) -> EvalResults:
    """Every figure of an evaluation with its interval, against the baseline where there is one."""
    numbers = Numbering()
    table = sample_table(evaluation, numbers)
    base_table = None if baseline is None else sample_table(baseline, numbers)
    draws, seed = config.eval.bootstrap, config.eval.seed
    estimates = bootstrap.evaluate(table, base_table, draws=draws, seed=seed)
    estimates |= protocol_figures(evaluation, draws=draws, seed=seed)
    budgets = budgets_below(config.eval.max_new_tokens)
    return EvalResults(
        questions=len(set(np.asarray(table.question).tolist())),
        rejected_overlong=rejection_counts["rejected_overlong"],
        rejected_control_tokens=rejection_counts["rejected_control_tokens"],
        samples=len(np.asarray(table.question)),
        not_graded=int(np.isnan(np.asarray(table.correct, np.float64)).sum()),
        baseline=None if baseline is None else str(baseline.root),
        metrics=estimates,
        budget_curve=budget_curve(table, budgets, draws=draws, seed=seed),
        drawn_by=drawn_by(),
    )


def sample_table(evaluation: CompletePhase, numbers: Numbering) -> bootstrap.SampleTable:
    """The samples of an evaluation; `numbers` gives each question and its record their numbers, and grows.

    What another tool's log does not say is NaN.
    """
    rows, tokens = _scored(evaluation)
    correct = {"correct": 1.0, "wrong": 0.0}
    nan = float("nan")
    asked = {row.question_id: row for row in rows}
    distinct = {key: value_is_distinct(row.answer, row.question, options=row.options) for key, row in asked.items()}
    has_place = [distinct[row.question_id] for row in rows]
    firsts = [row.first_correct_tokens if has else None for row, has in zip(rows, has_place, strict=True)]
    vote = _value_voted_for if evaluation.manifest.identity.get("grading.grader") == "math" else str
    answers = [None if row.extracted is None else vote(row.extracted) for row in rows]
    # another tool's log may say what is right, and not what was answered: then there is no vote
    are_told = all(row.extracted is not None for row in rows if row.status == "correct")
    is_imported = evaluation.manifest.is_imported
    places = [numbers.of(row.question_id, row.question, row.options, is_imported=is_imported) for row in rows]
    return bootstrap.SampleTable(
        question=[question for question, _ in places],
        record=[record for _, record in places],
        correct=[correct.get(row.status, nan) for row in rows],
        tokens=tokens,
        truncated=[nan if row.finish_reason is None else row.finish_reason == "length" for row in rows],
        unended=[nan if row.finish_reason is None else row.finish_reason != "length" and row.cut_off for row in rows],
        answers=answers if are_told else None,
        first_correct=None if not any(firsts) else [nan if first is None else float(first) for first in firsts],
        has_place=has_place,
        thinking=[nan if row.thinking_tokens is None else row.thinking_tokens for row in rows],
    )


def _scored(evaluation: CompletePhase) -> tuple[list[_ScoredColumns], list[float]]:
    """The rows of an evaluation, and the tokens of each completion, NaN where they were not counted."""
    if not evaluation.manifest.is_imported:
        rows = list(iterate_rows(evaluation.chunks(), _ScoredColumns))
        return rows, [float("nan") if row.completion_ids is None else len(row.completion_ids) for row in rows]
    recorded = list(iterate_rows(evaluation.chunks(), _RecordedColumns))
    counts = [
        row.recorded_tokens if row.scored.completion_ids is None else len(row.scored.completion_ids) for row in recorded
    ]
    return [row.scored for row in recorded], [float("nan") if count is None else count for count in counts]


def _value_voted_for(answer: str) -> Hashable:
    """`0.5` and `1/2` are one vote; a text too long to be an answer is its own."""
    return value_of(answer) if len(answer) <= _LONGEST_ANSWER else answer


def graded_row(views: Views, grader: str, sample: SampleRow, grade: Grade) -> GradedRow:
    """A sample with its grade, as an evaluation stores it."""
    return GradedRow(
        sample=sample,
        status=grade.status.value,
        extracted=grade.extracted,
        detail=grade.detail,
        first_correct_tokens=None if reads_letters(grader) else _first_correct(views, sample),
    )


def _first_correct(views: Views, row: SampleRow) -> int | None:
    """Number of leading completion tokens up to and with the first of the reference's value; None if it never stands
    there. Multiple choice has none: a letter is a word of its own in any text."""
    ids = row.completion_ids.tolist()
    offset = find_value(views.decode(ids), row.answer, question=row.question)
    return None if offset is None else views.tokens_before(ids, offset) + 1
