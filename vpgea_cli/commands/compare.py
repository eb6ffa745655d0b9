"""`vpgea compare`: evaluations held against one another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vpgea.errors import UsageError, did_you_mean
from vpgea.report.comparison_text import FORMATS, as_text, bin_rows, change_rows, figure_rows, flip_text
from vpgea_cli.options import JsonOption, QuietOption
from vpgea_cli.output import Output

if TYPE_CHECKING:
    from vpgea.phases.compare import Comparison, SetComparison

_CHANGES = 10  # questions shown for a pair; --json has all


def command(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="BASE RUN...",
            help="Evaluation folders, folders of several evaluations, or RUN@base, RUN@best, RUN@3 of a loop's folder.",
        ),
    ],
    *,
    form: Annotated[str, typer.Option("--format", help="text, csv, markdown or latex.")] = "text",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare evaluations with the first of them: paired gains, flips, and a verdict in words."""
    output = Output(quiet=quiet, as_json=as_json)
    if form not in FORMATS:
        mend = did_you_mean(form, FORMATS, f"give {', '.join(FORMATS)}")
        raise UsageError(f"no such format: {form}", why="there is none of that name", mend=mend)
    from vpgea.phases.compare import compare
    from vpgea.storage.records import json_of

    found = compare(runs)
    for name in found.left_out:
        output.warn(f"set {name} is not in all runs, and is left out")
    if as_json:
        output.result(json_of(found))
        return
    if form != "text":
        output.result(as_text(found, form))
        return
    for one in found.sets:
        _show(one, output)
    _warn(found, output)
    output.result(found.verdict)


def _show(one: SetComparison, output: Output) -> None:
    title = f"{one.name}: " if one.name else ""
    names = [run.name for run in one.runs]
    output.table(f"{title}{one.questions:,} questions, 95 % intervals", ("", *names), figure_rows(one))
    for pair in one.pairs:
        shown = change_rows(pair, _CHANGES)
        output.info(f"{title}{pair.run}: {pair.verdict}")
        output.info(f"{title}{pair.run}: {flip_text(pair)}")
        head = f"{title}{pair.run}: questions that changed most, {len(shown)} of {len(pair.questions):,} (--json: all)"
        output.table(head, ("question", "accuracy", "tokens"), shown)
    if one.difficulty:
        head = f"{title}by how hard a question is, told by every second sample of the base: accuracy, tokens"
        output.table(head, ("base", "questions", *names), bin_rows(one))


def _warn(found: Comparison, output: Output) -> None:
    for one in found.sets:
        for pair in one.pairs:
            if pair.alone:
                output.warn(f"{pair.alone} questions are in one of {found.base} and {pair.run} only; not paired")
        for run in one.runs:
            for warning in dict.fromkeys(metric.warning for metric in run.metrics.values() if metric.warning):
                names = [name for name, metric in run.metrics.items() if metric.warning == warning]
                output.warn(f"{run.name}: {', '.join(names)}: {warning}")
