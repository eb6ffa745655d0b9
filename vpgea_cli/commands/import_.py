"""`vpgea import`: another tool's evaluation as one of ours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vpgea.errors import UsageError
from vpgea_cli.options import (
    JsonOption,
    OfflineOption,
    OutputDirOption,
    OverwriteOption,
    QuietOption,
    ResumeOption,
    resolve_options,
)
from vpgea_cli.output import Output
from vpgea_cli.phase import required, running

if TYPE_CHECKING:
    from vpgea.config.schema import RunConfig
    from vpgea.phases.import_log import ImportPlan
    from vpgea.questions.load import LoadedQuestions
    from vpgea.runs.records import ImportSummary


def command(
    source: Annotated[Path, typer.Argument(help="Log of another tool: a file, or the folder that it wrote.")],
    *,
    output_dir: OutputDirOption = None,
    tool: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TOOL",
            help="lm-eval, inspect, lighteval, evalscope, verl, openai or table; else recognised by its content.",
        ),
    ] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", help="The recorded score that is the verdict, where there are several.")
    ] = None,
    questions: Annotated[
        str | None,
        typer.Option("--questions", help="Question file that samples are matched with, by id or text; else the log's."),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="Model whose tokenizer counts tokens; else the recorded counts.")
    ] = None,
    regrade: Annotated[
        bool, typer.Option("--regrade", help="Grade here where there is a reference; else recorded grades are kept.")
    ] = False,
    grader: Annotated[
        str | None, typer.Option("--grader", help="With --regrade: math, choice, exact or package.module:function.")
    ] = None,
    max_unreadable: Annotated[
        float, typer.Option("--max-unreadable", min=0, max=1, help="Exit 3 when a larger share of rows is no sample.")
    ] = 0.01,
    resume: ResumeOption = True,
    overwrite: OverwriteOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read the log through and say what is in it.")] = False,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Read another tool's evaluation into a folder as `vpgea eval` writes it, so that every other command can look."""
    if grader is not None and not regrade:
        raise UsageError("--grader is given without --regrade", why="recorded grades are kept", mend="add --regrade")
    config = resolve_options({"grading.grader": grader}).config
    output = Output(quiet=quiet, as_json=as_json)
    target = None if dry_run else required(output_dir)
    with running(output, offline=offline) as stop:
        from vpgea.phases.import_log import ImportPlan, import_log
        from vpgea.storage.records import json_of

        plan = ImportPlan.make(
            config,
            source,
            tool=tool,
            metric=metric,
            questions=None if questions is None else _load(config, questions, output, offline=offline),
            tokenizer=tokenizer,
            regrade=regrade,
            max_unreadable=max_unreadable,
        )
        output.warn_all(plan.remarks())
        if target is None:
            output.info(f"nothing was written; {plan.survey.samples:,} samples are in {source}")
            output.result(_shown(plan))
            return
        with output.progress(plan.survey.samples, "import: samples") as progress:
            summary, results = import_log(
                plan, target, resume=resume, overwrite=overwrite, stop=stop, progress=progress
            )
        _tell(summary, output)
        from vpgea_cli.commands.eval import show_metrics

        show_metrics(results, output)
        output.result({"path": str(target), "complete": True, "import": json_of(summary), **json_of(results)})


def _load(config: RunConfig, questions: str, output: Output, *, offline: bool) -> LoadedQuestions:
    from vpgea.questions.load import load_questions

    data = config.data.model_copy(update={"dataset": questions})
    loaded = load_questions(data, grader=config.grading.grader, offline=offline)
    output.warn_all(loaded.said())
    return loaded


def _shown(plan: ImportPlan) -> dict[str, object]:
    """What a dry run prints: the identity that the evaluation would have, and what was counted."""
    survey = plan.survey
    return {
        "identity": plan.manifest.identity,
        "files": plan.files,
        "rows": survey.rows,
        "samples": survey.samples,
        "questions": len(survey.per_question),
        "unreadable": survey.unreadable,
        "repeated": survey.repeated,
        "without_tokens": survey.without_tokens,
        "without_end": survey.without_end,
        "without_reference": survey.without_reference,
    }


def _tell(summary: ImportSummary, output: Output) -> None:
    tool = " ".join(filter(None, (summary.tool, summary.version)))
    by = ", ".join(f"{count:,} by {who}" for who, count in summary.graded_by.items() if count)
    output.info(
        f"{summary.samples:,} samples of {summary.questions:,} questions from {tool}; graded: {by}; its protocol is "
        "foreign: no difference from another evaluation is one of the models alone"
    )
    if summary.regraded_otherwise:
        output.warn(f"our grader says otherwise than the recorded score of {summary.regraded_otherwise} samples")
