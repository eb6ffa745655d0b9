"""`vpgea experiment`: objectives, prices and seeds as loops of equal cost, compared on questions that none has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
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
    from vpgea.experiment.runs import EvaluationCost, Workshop
    from vpgea.runs.records import RoundLine


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
        tests = shop.require_ready()
        if dry_run:
            _show_runs(experiment, part, tests if part.count == 1 else [], output)
        else:
            _run(shop, part, output)


def _show_runs(experiment: Experiment, part: Part, tests: Sequence[EvaluationCost], output: Output) -> None:
    """What would run, and what that may sample. tests: none where a shard alone would run, which compares nothing."""
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
    if tests:
        output.table(
            "tests",
            ("setting", "test", "questions", "samples", "evaluations", "sampled tokens, at most"),
            [
                (one.setting, one.test, one.questions, one.samples, one.evaluations, f"{one.tokens_at_most:,}")
                for one in tests
            ],
        )
    known = [bound for bound in bounds if bound is not None]
    sampled = sum(known) if len(known) == len(runs) else None
    tested = sum(one.tokens_at_most for one in tests)
    said = f"{len(runs)} runs"
    said += "" if sampled is None else f" that sample about {sampled:,} tokens, and the held-out questions"
    said += f"; the tests sample at most {tested:,}" if tests else ""
    output.result(
        {
            "runs": [run.name for run in runs],
            "sampled_tokens": sampled,
            "reference": experiment.reference,
            "tests": [{**asdict(one), "tokens_at_most": one.tokens_at_most} for one in tests],
        }
        if output.as_json
        else said
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
    from vpgea.experiment.findings import REPORT, findings_of
    from vpgea.experiment.text import AGAINST, HEAD, KEPT, against_rows, figure_rows, kept_rows, page, title_of

    found = findings_of(shop, ended)
    found.write(shop.folder, page(shop.experiment.file.name, found))
    for one in found.settings:
        output.table(f"{title_of(one)}, 95 % intervals", HEAD, figure_rows(one))
        if rows := against_rows(one):
            output.table(f"{title_of(one)}, against {found.reference}", AGAINST, rows)
    for name in dict.fromkeys(one.name for one in found.settings):
        if rows := kept_rows([one for one in found.settings if one.name == name]):
            output.table("kept and forgotten" + (f" in {name}" if name else ""), KEPT, rows)
    for name in dict.fromkeys(name for one in found.settings for name in one.without_round):
        output.warn(f"{name} has no finished round, and counts as the base")
    output.result({"path": str(shop.folder / REPORT), **found.record})
