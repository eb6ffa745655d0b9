"""`vpgea experiment`: objectives, prices and seeds as loops of equal cost, compared on questions that none has seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vpgea.runs.parts import Part
from vpgea_cli.options import (
    DryRunOption,
    JsonOption,
    OfflineOption,
    OutputDirOption,
    QuietOption,
    ShardOption,
    VerboseOption,
)
from vpgea_cli.output import Output
from vpgea_cli.phase import required, running

if TYPE_CHECKING:
    from vpgea.experiment.grid import Experiment, Run
    from vpgea.experiment.runs import Workshop
    from vpgea.runs.records import RoundLine

REPORT, RESULTS, ROUNDS = "report.md", "results.json", "rounds.arrow"


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The experiment: docs/experiment.md.")],
    *,
    output_dir: OutputDirOption = None,
    shard: ShardOption = "0/1",
    dry_run: DryRunOption = False,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Run objectives, prices and seeds, choose prices on held-out questions, compare on test questions."""
    from vpgea.experiment.grid import read_experiment
    from vpgea.experiment.runs import Workshop

    output = Output(quiet=quiet, verbose=verbose, as_json=as_json)
    part = Part.parse(shard)
    experiment = read_experiment(file)
    with running(output, offline=offline) as stop:
        folder = (output_dir or Path()) if dry_run else required(output_dir)
        shop = Workshop(experiment, folder, offline=offline, reporter=output, stop=stop)
        shop.require_ready()
        if dry_run:
            _show_runs(experiment, part, output)
        else:
            _run(shop, part, output)


def _show_runs(experiment: Experiment, part: Part, output: Output) -> None:
    """What would run, and what that may sample."""
    runs = part.of(experiment.runs)
    bounds = [run.config.loop.max_sampled_tokens for run in runs]
    output.table(
        f"{len(runs)} of {len(experiment.runs)} runs",
        ("run", "rounds at most", "sampled tokens, about"),
        [
            (run.name, run.config.loop.rounds, "-" if bound is None else f"{bound:,}")
            for run, bound in zip(runs, bounds, strict=True)
        ],
    )
    known = [bound for bound in bounds if bound is not None]
    output.result(
        {
            "runs": [run.name for run in runs],
            "sampled_tokens": sum(known) if len(known) == len(runs) else None,
            "reference": experiment.reference,
        }
        if output.as_json
        else f"{len(runs)} runs"
        + (f" that sample about {sum(known):,} tokens, and the evaluations" if len(known) == len(runs) else "")
    )


def _run(shop: Workshop, part: Part, output: Output) -> None:
    from vpgea_cli.commands.loop import row

    runs = part.of(shop.experiment.runs)

    def tell(run: Run, lines: Sequence[RoundLine]) -> None:
        if lines:  # none where its base could not be measured
            output.info(f"{run.name}: {'  '.join(row(lines[-1])[:5])}")

    ended = shop.train(runs, tell)
    if part.count > 1:
        output.info(f"{len(runs)} runs are done; without --shard the command compares them once all are")
        output.result({"path": str(shop.folder), "runs": [run.name for run in runs], "ended": ended})
        return
    _compare(shop, ended, output)


def _compare(shop: Workshop, ended: dict[str, str], output: Output) -> None:
    from vpgea.experiment.results import choose, results_of, rounds_table
    from vpgea.experiment.text import AGAINST, HEAD, against_rows, figure_rows, page
    from vpgea.storage.files import write_bytes, write_json
    from vpgea.storage.records import json_of
    from vpgea.storage.shards import write_table_anew

    runs, folder = shop.experiment.runs, shop.folder
    lines = {run.name: shop.lines_of(run) for run in runs}
    chosen = choose(runs, lines)
    found = results_of(shop, lines, chosen)
    write_table_anew(folder / ROUNDS, rounds_table(runs, lines, chosen), told_by=folder / RESULTS)
    record = {
        "reference": shop.experiment.reference,
        "ended": ended,
        "settings": [json_of(one) for one in found],
    }
    write_json(folder / RESULTS, record)
    write_bytes(folder / REPORT, page(shop.experiment, found).encode())
    for one in found:
        title = f"{one.name}: " if one.name else ""
        output.table(f"{title}{one.questions:,} test questions, 95 % intervals", HEAD, figure_rows(one))
        if rows := against_rows(one):
            output.table(f"{title}against {shop.experiment.reference}", AGAINST, rows)
        for name in one.without_round:
            output.warn(f"{name} has no finished round, and counts as the base")
    output.result({"path": str(folder / REPORT), **record})
