"""`vpgea regrade`: an evaluation's stored samples graded again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vpgea.report.text import with_interval
from vpgea_cli.options import (
    JsonOption,
    ModelOption,
    OfflineOption,
    OutputDirOption,
    OverwriteOption,
    QuietOption,
    SetOption,
    resolve_options,
)
from vpgea_cli.output import Output
from vpgea_cli.phase import inherited_from, required, running

if TYPE_CHECKING:
    from vpgea.runs.records import EvalResults

_DIFFERENCES = 10  # samples shown; results.json has all


def command(
    source: Annotated[Path, typer.Argument(metavar="EVAL_DIR", help="Folder that `vpgea eval` wrote.")],
    *,
    output_dir: OutputDirOption = None,
    grader: Annotated[
        str | None,
        typer.Option("--grader", help="math, choice, exact or package.module:function; the recorded one by default."),
    ] = None,
    model: ModelOption = None,
    sets: SetOption = None,
    overwrite: OverwriteOption = False,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Grade stored samples again into a new folder, and show what other graders make of them."""
    output = Output(quiet=quiet, as_json=as_json)
    target = required(output_dir)
    options = {"grading.grader": grader, "model.path": model}
    config = resolve_options(options, sets=sets, inherited=inherited_from(source, "eval")).config
    with running(output, offline=offline) as stop:
        from vpgea.phases.regrade import regrade
        from vpgea.runs.complete_phase import CompletePhase
        from vpgea.storage.records import json_of

        evaluation = CompletePhase.open(source, "eval")
        with output.progress(len(evaluation.chunks()), "regrade: chunks") as progress:
            results = regrade(config, evaluation, target, overwrite=overwrite, stop=stop, progress=progress)
        _show(results, output)
        output.result({"path": str(target), **json_of(results)})


def _show(results: EvalResults, output: Output) -> None:
    found = results.regraded
    assert found is not None, "regrade says so"
    rows = [
        (name, with_interval(one.value, one.low, one.high), f"{found.not_graded[name]:,}")
        for name, one in found.accuracy.items()
    ]
    title = f"accuracy by grader: {results.questions:,} questions, {results.samples:,} samples, 95 % intervals"
    output.table(title, ("grader", "accuracy", "not graded"), rows)
    differing = found.disagreements
    if differing:
        shown = differing[:_DIFFERENCES]
        cells = [(one.question_id, str(one.sample_index), *one.verdicts.values()) for one in shown]
        title = f"samples on which they differ, {len(shown)} of {len(differing):,} (results.json has all)"
        output.table(title, ("question", "sample", *found.accuracy), cells)
