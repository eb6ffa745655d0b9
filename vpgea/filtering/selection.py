"""From measurements to a selected set: the checks' judgements, utilities, advantages and gates."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vpgea.config.schema import RunConfig
from vpgea.errors import DamagedError
from vpgea.filtering import elbo, utility
from vpgea.filtering.checks.base import UNDECIDED, Check
from vpgea.filtering.checks.note_dependence import sound_beginning
from vpgea.filtering.checks.registry import CHECKS
from vpgea.filtering.gate_factors import gate_factors
from vpgea.filtering.log_ratios import path_stats
from vpgea.filtering.measurements import measurement_schema
from vpgea.filtering.reference_lengths import ReferenceLengths, own_reference_lengths
from vpgea.filtering.report import summary
from vpgea.filtering.samples import JudgedSample, by_question
from vpgea.grading.base import Status
from vpgea.prompts.views import Views
from vpgea.questions.load import Question
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.layout import REFERENCE_LENGTHS, SETS, SUMMARY
from vpgea.runs.records import FilterSummary
from vpgea.storage.files import write_json
from vpgea.storage.records import json_of
from vpgea.storage.rows import IntArray, read_rows, to_table
from vpgea.storage.schemas import IDENTITY, POSTERIOR, PRIOR, SampleKey, SampleRow, SelectionRow, View
from vpgea.storage.shards import read_table, write_table_anew


def select(
    config: RunConfig,
    views: Views,
    rollout: CompletePhase,
    measured: CompletePhase,
    checks: Sequence[Check] = CHECKS,
    *,
    as_first_version: bool = False,
) -> FilterSummary:
    """Write selected/, rejected/, reference_lengths.json and summary.json; return the summary.

    as_first_version: give questions without a reference length the data set's, as the folder was begun.
    """
    pairs = paired_chunks(rollout, measured)
    samples = read_samples(config, pairs, checks)
    verdicts = Verdicts(config, samples, checks)
    for sample in samples:
        sample.reasons = verdicts.reasons(sample)
    own = known = own_reference_lengths(samples)
    given = ReferenceLengths(questions={}, default=own.default)
    if config.filter.reference_lengths is not None:
        given = ReferenceLengths.read(Path(config.filter.reference_lengths))
        known = given if as_first_version else given.extended(own)
    references = known.floored(config.filter.min_reference_tokens)
    questions = by_question(samples)
    targets = _target_lengths(questions) if config.filter.utility.kind == "step" else {}
    for question_id, group in questions.items():
        _value(config, group, references.of(question_id), targets.get(question_id, math.inf))
    if config.filter.advantage.gate == "mean":
        _even_gates(samples)
    by_key = {sample.key: sample for sample in samples}
    for rollout_path, _ in pairs:
        _write_sets(views, rollout_path, measured.root, by_key, noted_prior=config.rollout.noted_prior)
    sources = {"given": given, "own": known}
    origin = Counter(
        next((name for name, one in sources.items() if key in one.questions), "default") for key in questions
    )
    found = summary(
        config,
        samples,
        references,
        checks,
        reference_counts={name: origin[name] for name in (*sources, "default")},
    )
    write_json(measured.root / REFERENCE_LENGTHS, (own if as_first_version else known).model_dump())
    found = replace(found, selection=measured.selection())
    write_json(measured.root / SUMMARY, json_of(found))
    return found


class Verdicts:
    """The enabled checks, ready to judge the samples of a phase."""

    def __init__(self, config: RunConfig, samples: Sequence[JudgedSample], checks: Sequence[Check]) -> None:
        enabled = [check for check in checks if check.is_enabled(config.filter)]
        self.judges = [(check.reads_content, check.judge(config, samples)) for check in enabled]
        self.needs_content = any(check.reads_content for check in enabled) and not config.filter.accept_undecided

    def reasons(self, sample: JudgedSample) -> list[str]:
        """Why a sample is not learnt from; empty when it is accepted. Prior samples need only a valid grade."""
        if not sample.status.valid:
            return [sample.status.value]
        if sample.view == PRIOR:
            return []
        if sample.cut_off or sample.status == Status.WRONG:
            return ["cut-off" if sample.cut_off else "wrong"]
        judged = [(reads_content, judge(sample)) for reads_content, judge in self.judges]
        reasons = [reason for _, found in judged for reason in found or ()]
        if self.needs_content and all(found is None for reads_content, found in judged if reads_content):
            reasons.append(UNDECIDED)
        return list(dict.fromkeys(reasons))


def paired_chunks(rollout: CompletePhase, measured: CompletePhase) -> list[tuple[Path, Path]]:
    """Each chunk of the rollout with its measurements. Raises DamagedError where one lacks the other."""
    chunks, others = rollout.chunks(), measured.chunks()
    if [path.name for path in chunks] != [path.name for path in others]:
        raise _of_another(measured.root, f"it has {len(others)} chunks, and the rollout has {len(chunks)}")
    return list(zip(chunks, others, strict=True))


def read_samples(
    config: RunConfig, pairs: Sequence[tuple[Path, Path]], checks: Sequence[Check] = CHECKS
) -> list[JudgedSample]:
    """The samples of these chunks with their measurements, before anything is judged.

    Raises:
        DamagedError: Measurements are of other samples, or of shorter ones.
    """
    columns = measurement_schema(checks).names
    return [sample for pair in pairs for sample in _samples(config, *pair, columns)]


def _samples(
    config: RunConfig, rollout_path: Path, measured_path: Path, columns: Sequence[str]
) -> Iterator[JudgedSample]:
    """One chunk's samples joined with their measurements; what an earlier version did not measure is null.

    Raises:
        DamagedError: These are of other samples, or of shorter ones.
    """
    rows = read_rows(rollout_path, SampleRow)
    measurements = read_table(measured_path).to_pylist()
    if [row.key for row in rows] != [SampleKey(*(stored.get(name) for name in IDENTITY)) for stored in measurements]:
        raise _of_another(measured_path, "its rows are not those of the chunk of this name")
    for row, stored in zip(rows, measurements, strict=True):
        measured = {**dict.fromkeys(columns), **stored}
        thinking, other = row.thinking_tokens, measured.pop("other_view_logprobs")
        if other is not None and len(other) < thinking:
            why = f"{thinking} tokens of {row.key.question_id} have {len(other)} log-probabilities"
            raise _of_another(measured_path, why)
        own = row.logprobs[:thinking].astype(np.float64)
        learnt, log_ratio, stats = sound_beginning(config.filter, measured), None, None
        if learnt is not None and not 0 < learnt < thinking:
            raise _of_another(measured_path, f"it has a token {learnt} in {thinking} tokens of {row.key.question_id}")
        if other is not None and thinking > 0:
            log_q, log_pi = (own, other) if row.key.view == POSTERIOR else (other, own)
            log_ratio = elbo.path_log_ratio(log_q, log_pi, thinking)
            kept = slice(thinking if learnt is None else learnt)
            stats = path_stats(log_q[kept], log_pi[kept], config.filter.plausibility)
        answer_tokens = measured["answer_tokens"]
        answer_length = len(row.completion_ids) - thinking if answer_tokens is None else answer_tokens
        yield JudgedSample(
            key=row.key,
            status=Status(measured["status"]),
            cut_off=row.cut_off,
            unended=row.cut_off and row.finish_reason != "length",
            length=thinking + answer_length,
            measured=measured,
            log_ratio=log_ratio,
            own_logprob=float(np.mean(own)) if thinking else None,
            thinking_tokens=thinking,
            stats=stats,
            completion_tokens=len(row.completion_ids),
            learnt_tokens=learnt,
        )


def _of_another(path: Path, why: str) -> DamagedError:
    mend = "move the filter's folder away and run the same command again: it is measured anew"
    return DamagedError(f"{path} does not measure this rollout", why=why, mend=mend)


def _target_lengths(questions: Mapping[str, Sequence[JudgedSample]]) -> dict[str, float]:
    valid = {key: [s for s in group if s.view == PRIOR and s.status.valid] for key, group in questions.items()}
    return utility.target_lengths({key: ([s.r for s in own], [s.length for s in own]) for key, own in valid.items()})


def _even_gates(samples: Sequence[JudgedSample]) -> None:
    """Every accepted path has the mean of their gates."""
    accepted = [sample for sample in samples if sample.view == POSTERIOR and not sample.reasons]
    mean = float(np.mean([sample.gate for sample in accepted])) if accepted else 0.0
    for sample in accepted:
        sample.gate = mean


def _value(config: RunConfig, group: Sequence[JudgedSample], reference: float, target: float) -> None:
    """Utilities of a question's samples, then advantages and gates."""
    prior = [sample for sample in group if sample.view == PRIOR]
    posterior = [sample for sample in group if sample.view == POSTERIOR]
    correct_lengths = [sample.length for sample in prior if sample.r == 1]
    values = utility.utility(
        config.filter.utility,
        [sample.r for sample in group],
        [sample.priced_length for sample in group],
        reference,
        correct_lengths,
        target,
    )
    for sample, value in zip(group, values, strict=True):
        sample.utility = float(value)
    advantages, gates = utility.advantages_and_gates(
        [sample.utility for sample in prior],
        [sample.status.valid for sample in prior],
        [sample.utility for sample in posterior],
        [not sample.reasons for sample in posterior],
        config=config.filter.advantage,
        factors=gate_factors(config.filter.advantage, posterior),
    )
    for sample, advantage in zip(prior, advantages, strict=True):
        sample.advantage = float(advantage)
    for sample, gate in zip(posterior, gates, strict=True):
        sample.gate = float(gate)


def _write_sets(
    views: Views,
    rollout_path: Path,
    output_dir: Path,
    by_key: Mapping[SampleKey, JudgedSample],
    *,
    noted_prior: bool,
) -> None:
    """Split one rollout chunk into the selected and the rejected set, everything that training needs with it."""
    sets: dict[str, list[SelectionRow]] = {name: [] for name in SETS}
    prompts: dict[tuple[str, View], IntArray] = {}

    def prompt(question: Question, view: View) -> IntArray:
        key = question.id, view
        if key not in prompts:
            prompts[key] = np.array(views.prompt(question, view), np.int32)
        return prompts[key]

    for row in read_rows(rollout_path, SampleRow):
        sample = by_key[row.key]
        question = Question.from_row(row)
        noted = row.prompt_ids if row.key.view == POSTERIOR else None
        if noted is None and noted_prior:
            noted = prompt(question, POSTERIOR)
        selection = SelectionRow(
            key=row.key,
            prompt_ids=prompt(question, PRIOR),
            posterior_prompt_ids=noted,
            completion_ids=row.completion_ids,
            logprobs=row.logprobs,
            thinking_tokens=row.thinking_tokens,
            cut_off=row.cut_off,
            crossview_answer_ids=sample.measured["crossview_answer_ids"],
            status=sample.status.value,
            reasons=tuple(sample.reasons),
            utility=None if np.isnan(sample.utility) else sample.utility,
            advantage=sample.advantage,
            gate=sample.gate,
            completion=row.completion,
            origin=row.origin,
            learnt_tokens=sample.learnt_tokens if sample.is_in_part else None,
        )
        sets["rejected" if sample.reasons else "selected"].append(selection)
    for name, rows in sets.items():
        (output_dir / name).mkdir(exist_ok=True)
        shard = output_dir / name / rollout_path.name
        write_table_anew(shard, to_table(rows, SelectionRow), told_by=output_dir / SUMMARY)
