"""`vpgea report`: evaluations and loops as one page for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vpgea.errors import UsageError, did_you_mean
from vpgea_cli.options import JsonOption, QuietOption, go_offline
from vpgea_cli.output import Output, writing_to
from vpgea_cli.phase import required

FORMATS = ("html", "json", "csv", "latex")
_FILES = {"json": "report.json", "csv": "figures.csv", "latex": "table.tex"}


def command(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Loop folders, or evaluations as `vpgea compare` takes them; the first evaluation is the base.",
        ),
    ],
    *,
    out: Annotated[Path | None, typer.Option("--output", "-o", help="File to write, such as report.html.")] = None,
    form: Annotated[
        str, typer.Option("--format", help="html, json, csv or latex; without -o the last three go to stdout.")
    ] = "html",
    plots: Annotated[
        Path | None,
        typer.Option("--plots", metavar="DIR", help="Every figure as SVG; as PNG too where matplotlib is installed."),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write one self-contained page: verdict, figures, training, and samples side by side."""
    output = Output(quiet=quiet, as_json=as_json)
    if form not in FORMATS:
        mend = did_you_mean(form, FORMATS, f"give {', '.join(FORMATS)}")
        raise UsageError(f"no such format: {form}", why="there is none of that name", mend=mend)
    if form == "html" and plots is None:
        required(out, "--output")
    go_offline(True)  # to look at something must not download a model
    from vpgea.report.build import report
    from vpgea.report.page import page
    from vpgea.report.plots import write_plots
    from vpgea.storage.files import write_named

    found = report(runs)
    written: dict[str, object] = {}
    if plots is not None:
        with writing_to(plots):
            written["plots"] = [str(path) for path in write_plots(found, plots, output.info)]
    if form == "html":
        text = page(found) if out is not None else ""
    else:
        text = next((one.text for one in found.downloads if one.name == _FILES[form]), "")
        if not text:
            raise UsageError(
                f"nothing to write as {form}",
                why="there is no finished evaluation",
                mend="take json, which has the rounds",
            )
    if out is not None:
        data = text.encode()
        with writing_to(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            write_named(out, data)
        output.result(
            {"path": str(out), "bytes": len(data), "verdict": found.verdict[0] if found.verdict else "", **written}
        )
    elif form == "html":
        output.result({"path": str(plots), **written})
    else:
        output.result(json.loads(text) if form == "json" else text.rstrip("\n"))
