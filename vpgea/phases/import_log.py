"""Another tool's evaluation as one of ours: its samples in shards, its grades told apart from ours, its gaps kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpgea.config.schema import ModelConfig, RunConfig, identity_of
from vpgea.errors import QualityGateError, UsageError
from vpgea.foreign.numbering import KnownQuestions, Numbered, Survey, numbered, repeats
from vpgea.foreign.recognise import read_log
from vpgea.foreign.sample import ForeignLog
from vpgea.grading.base import Grade, Status
from vpgea.grading.pool import check_error_share
from vpgea.grading.samples import grader_pool
from vpgea.modeling.local_model import LocalModel
from vpgea.phases.evaluate import results
from vpgea.phases.imported_rows import NO_VERDICT, OURS, RECORDED, RowMaker
from vpgea.questions.load import LoadedQuestions
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.layout import RESULTS, SUMMARY
from vpgea.runs.manifest import FOREIGN_TOOL, Manifest
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.runs.progress import NullProgress, Progress
from vpgea.runs.records import EvalResults, ImportSummary
from vpgea.runs.stopping import StopRequest
from vpgea.storage.files import file_checksum, without_surrogates, write_json
from vpgea.storage.records import json_of
from vpgea.storage.rows import Text, iterate_rows, to_table
from vpgea.storage.schemas import ImportedRow
from vpgea.storage.shards import write_table

PROTOCOL = "foreign"  # of every import: nobody can know that it was asked as another evaluation was
MAX_UNREADABLE = 0.01
_CHUNK = 512  # samples of a shard
_NONE_REJECTED = {"rejected_overlong": 0, "rejected_control_tokens": 0}  # what is rejected is rejected before sampling


@dataclass(frozen=True, slots=True)
class _Verdict:
    status: Text
    detail: Text | None
    graded_by: Text
    recorded_status: Text | None


@dataclass(frozen=True, kw_only=True)
class ImportPlan:
    """Everything that is known before anything is written: the log was read once, and is read again.

    Attributes:
        files: Each file that was read → its SHA-256.
        known: The questions that samples are matched with; None: the log's own.
        is_regraded: By the configuration's grader, where there is a reference.
    """

    config: RunConfig
    log: ForeignLog
    metric: str | None
    files: dict[str, str]
    survey: Survey
    known: KnownQuestions | None
    tokenizer: Any | None
    is_regraded: bool
    manifest: Manifest

    @classmethod
    def make(
        cls,
        config: RunConfig,
        source: Path,
        *,
        tool: str | None = None,
        metric: str | None = None,
        questions: LoadedQuestions | None = None,
        tokenizer: str | None = None,
        regrade: bool = False,
        max_unreadable: float = MAX_UNREADABLE,
    ) -> ImportPlan:
        """Read a log through.

        Args:
            config: Of it, the grading, and the draws behind intervals.
            source: File or folder.
            tool: Which wrote it; None: recognised.
            metric: The recorded score that is the verdict, where there are several.
            questions: What samples are matched with; their texts and references then go before the log's.
            tokenizer: Hub id or folder of the model whose tokenizer counts tokens.
            regrade: Grade anew where there is a reference.
            max_unreadable: The share of rows that may be no samples.

        Raises:
            UsageError: There is no such log, or what was asked for does not fit it.
            QualityGateError: Too many rows are no samples.
        """
        log = read_log(source, tool)
        files = _checksums(log.files)
        chosen = log.verdict_metric(metric, is_needed=not regrade)
        known = None if questions is None else KnownQuestions(questions.questions)
        survey = Survey()
        for _ in numbered(log.samples(chosen), survey, known):
            pass
        _require_readable(source, survey, max_unreadable)
        model = None if tokenizer is None else LocalModel.resolve(ModelConfig(path=tokenizer))
        identity = {
            FOREIGN_TOOL: log.tool,
            "foreign.version": log.version,
            "foreign.model": log.model,
            "foreign.metric": chosen,
            "foreign.protocol": dict(log.protocol),
            "foreign.tokenizer": None if model is None else _vocabulary(model.tokenizer),
            "foreign.regraded": regrade,
            "eval.max_new_tokens": log.sampling.cap,
            "eval.temperature": log.sampling.temperature,
            "eval.top_p": log.sampling.top_p,
            **(identity_of(config, "grading") if regrade else {}),
        }
        manifest = Manifest(
            phase="eval",
            identity=_writable(identity),
            inputs={"log": _digest(files), "questions": survey.questions_fingerprint},
            config=identity_of(config, "grading") if regrade else {},
        )
        return cls(
            config=config,
            log=log,
            metric=chosen,
            files=files,
            survey=survey,
            known=known,
            tokenizer=None if model is None else model.tokenizer,
            is_regraded=regrade,
            manifest=manifest,
        )

    @property
    def chunks(self) -> int:
        return -(-self.survey.samples // _CHUNK)

    def remarks(self) -> list[str]:
        """What people should be told of the log before they believe a figure."""
        survey, said = self.survey, list(self.log.remarks)
        if survey.unreadable:
            listed = [f"  {row.place}: {row.reason}" for row in survey.listed]
            more = survey.unreadable - len(survey.listed)
            more_line = [f"  ... and {more} more"] if more else []
            said.append("\n".join([f"{survey.unreadable} rows are no samples and were left out:", *listed, *more_line]))
        if survey.repeated:
            said.append(f"{survey.repeated} rows repeat a sample word for word and were left out")
        if self.tokenizer is None and survey.without_tokens:
            said.append(
                f"{survey.without_tokens} of {survey.samples} samples have no count of tokens: no figure of tokens is "
                "made; --tokenizer MODEL counts them"
            )
        if self.tokenizer is None and survey.contradicting:
            said.append(
                f"of {survey.contradicting} of {survey.samples} samples more thinking than tokens is recorded: "
                "no figure of thinking is made; --tokenizer MODEL counts them"
            )
        if survey.without_end:
            said.append(
                f"of {survey.without_end} of {survey.samples} samples it is not recorded how they ended: no figure of "
                "truncation is made"
            )
        fewest, most = repeats(survey.per_question)
        if fewest != most:
            said.append(f"questions have from {fewest} to {most} samples")
        return said


def import_log(
    plan: ImportPlan,
    output_dir: Path,
    *,
    resume: bool = True,
    overwrite: bool = False,
    stop: StopRequest | None = None,
    progress: Progress | None = None,
) -> tuple[ImportSummary, EvalResults]:
    """Write the log's samples as an evaluation's folder.

    Raises:
        UsageError: The folder holds something else, or the log was changed meanwhile.
        QualityGateError: Our grader fails on too many answers.
        Stopped: A stop was requested; shards that are there stay.
    """
    stop, progress = stop or StopRequest(), progress or NullProgress()
    folder = PhaseFolder.open(output_dir, plan.manifest, resume=resume, overwrite=overwrite)
    with folder.writing():
        missing = set(folder.missing(range(plan.chunks)))
        with ExitStack() as stack:
            graders = stack.enter_context(grader_pool(plan.config)) if plan.is_regraded and missing else None
            maker = RowMaker(
                log=plan.log,
                metric=plan.metric,
                tokenizer=plan.tokenizer,
                graders=graders,
                is_opened_by_prompt=plan.survey.opened_unseen > 0,
                stop=stop,
            )
            stop.begin()
            samples = numbered(plan.log.samples(plan.metric), Survey(), plan.known) if missing else iter(())
            for chunk, group in enumerate(_groups(samples)):
                if chunk in missing:
                    rows = to_table(maker.rows(group), ImportedRow)
                    folder.require_ours()
                    write_table(folder.chunk(chunk), rows)
                    stop.unit_done(more=chunk + 1 < plan.chunks)
                    stop.check("the shards that are whole are kept")
                progress.advance(len(group))
        _require_unchanged(plan)
        shards = [folder.chunk(chunk) for chunk in range(plan.chunks)]
        summary = _summary(plan, list(iterate_rows(shards, _Verdict)))
        folder.complete(json_of(summary))
        found = results(_with_cap(plan), CompletePhase.open(output_dir, "eval"), None, _NONE_REJECTED)
        write_json(output_dir / SUMMARY, json_of(summary))
        write_json(output_dir / RESULTS, json_of(found))
    return summary, found


def _writable(identity: dict[str, object]) -> dict[str, object]:
    """As a manifest can hold it: what a log states may have half of a surrogate pair."""
    written: dict[str, object] = json.loads(without_surrogates(json.dumps(identity, ensure_ascii=False)))
    return written


def _groups(samples: Iterable[Numbered]) -> Iterator[list[Numbered]]:
    """The samples of each shard."""
    group: list[Numbered] = []
    for sample in samples:
        group.append(sample)
        if len(group) == _CHUNK:
            yield group
            group = []
    if group:
        yield group


def _summary(plan: ImportPlan, verdicts: list[_Verdict]) -> ImportSummary:
    """What was read, and by whom it is graded.

    Raises:
        QualityGateError: Our grader failed on too many answers.
    """
    ours = [one for one in verdicts if one.graded_by == OURS]
    grades = [Grade(Status(one.status), detail=one.detail) for one in ours]
    check_error_share(grades, plan.config.grading.max_grade_errors)
    recorded = [one for one in verdicts if one.graded_by == RECORDED]
    judged = sum(one.status != NO_VERDICT for one in recorded)
    survey, log = plan.survey, plan.log
    apart = sum(one.recorded_status not in (None, one.status) for one in ours)
    return ImportSummary(
        tool=log.tool,
        version=log.version,
        model=log.model,
        metric=plan.metric,
        protocol=PROTOCOL,
        files=plan.files,
        rows=survey.rows,
        samples=survey.samples,
        questions=len(survey.per_question),
        samples_per_question=list(repeats(survey.per_question)),
        unreadable=survey.unreadable,
        listed={row.place: row.reason for row in survey.listed},
        repeated=survey.repeated,
        without_tokens=0 if plan.tokenizer is not None else survey.without_tokens,
        without_end=survey.without_end,
        without_reference=survey.without_reference,
        graded_by={"vpgea": len(ours), "recorded": judged, "nobody": len(recorded) - judged},
        regraded_otherwise=apart if plan.is_regraded else None,
    )


def _with_cap(plan: ImportPlan) -> RunConfig:
    """The configuration whose budgets of tokens lie below the cap that the log states."""
    cap = plan.log.sampling.cap
    if cap is None:
        return plan.config
    return plan.config.model_copy(update={"eval": plan.config.eval.model_copy(update={"max_new_tokens": cap})})


def _require_readable(source: Path, survey: Survey, most: float) -> None:
    if survey.unreadable_share > most:
        first = survey.listed[0]
        raise QualityGateError(
            f"{survey.unreadable} of {survey.rows} rows of {source} are no samples; {most:.1%} may be",
            why=f"the first: {first.place}: {first.reason}",
            mend="mend the log, name its tool with --from, or allow more with --max-unreadable",
        )
    if not survey.samples:
        raise UsageError(f"{source} holds no samples", why=f"it has {survey.rows} rows", mend="give another log")


def _require_unchanged(plan: ImportPlan) -> None:
    """A log that grew while it was read would be neither its first nor its second reading."""
    for path, checksum in zip(plan.log.files, plan.files.values(), strict=True):
        if file_checksum(path) != checksum:
            raise UsageError(
                f"{path} was changed while it was read",
                why="its checksum is another than at the first reading",
                mend="wait until nothing writes to it, then import it with --overwrite",
            )


def _checksums(files: Sequence[Path]) -> dict[str, str]:
    """SHA-256 of each file, by its name below the folder that holds them all."""
    folder = Path(os.path.commonpath([path.absolute().parent for path in files]))
    return {path.absolute().relative_to(folder).as_posix(): file_checksum(path) for path in files}


def _digest(files: dict[str, str]) -> str:
    """Of the files' contents and names."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]


def _vocabulary(tokenizer: Any) -> str:
    """Fingerprint of what a tokenizer counts: its vocabulary."""
    return hashlib.sha256(json.dumps(tokenizer.get_vocab(), sort_keys=True).encode()).hexdigest()[:16]
