"""`vpgea loop`: rounds of rollout, filter, distill and a quick evaluation."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vpgea_cli.options import (
    ConfigOption,
    DatasetOption,
    DryRunOption,
    JsonOption,
    LimitOption,
    ModelOption,
    NumSamplesOption,
    OfflineOption,
    OutputDirOption,
    OverwriteOption,
    QuietOption,
    ResumeOption,
    SeedOption,
    SetOption,
    VerboseOption,
    resolve_options,
)
from vpgea_cli.output import Output
from vpgea_cli.phase import required, running

COLUMNS = ("round", "accuracy", "tokens", "truncated", "e3", "accepted", "pseudo-efficient", "KL", "seconds")


def command(
    *,
    model: ModelOption = None,
    dataset: DatasetOption = None,
    eval_dataset: Annotated[
        str | None, typer.Option("--eval-dataset", help="Held-out questions, measured after every round.")
    ] = None,
    output_dir: OutputDirOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    rounds: Annotated[int | None, typer.Option("--rounds", help="Rounds in all; may be raised later.")] = None,
    questions_per_round: Annotated[
        int | None, typer.Option("--questions-per-round", help="Questions drawn for each round.")
    ] = None,
    num_samples: NumSamplesOption = None,
    limit: LimitOption = None,
    seed: SeedOption = None,
    keep_rounds: Annotated[
        int | None, typer.Option("--keep-rounds", help="Keep the weights of only so many rounds, and of the best.")
    ] = None,
    resume: ResumeOption = True,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Rounds of rollout, filter, distill and evaluation; run it again to continue where it stopped."""
    resolved = resolve_options(
        {
            "model.path": model,
            "data.dataset": dataset,
            "data.limit": limit,
            "loop.eval_dataset": eval_dataset,
            "loop.rounds": rounds,
            "loop.questions_per_round": questions_per_round,
            "loop.keep_rounds": keep_rounds,
            "rollout.prior_samples": num_samples,
            "rollout.posterior_samples": num_samples,
            "rollout.seed": seed,
            "distill.seed": seed,
        },
        config=config,
        sets=sets,
    )
    output = Output(quiet=quiet, verbose=verbose, as_json=as_json)
    with running(output, offline=offline) as stop:
        from vpgea.loop import Loop, best_round

        if dry_run:
            from vpgea_cli.dry_run import show_loop

            show_loop(resolved.config, output, offline=offline)
            return
        target = required(output_dir)
        loop = Loop.open(
            resolved.config,
            target,
            resume=resume,
            overwrite=overwrite,
            offline=offline,
            reporter=output,
            stop=stop,
        )
        lines: list[dict[str, Any]] = []

        def on_round(line: dict[str, Any]) -> None:
            lines.append(line)
            output.table("rounds", COLUMNS, [row(line) for line in lines])

        loop.run(on_round)
        output.result({"path": str(target), "best_round": best_round(target, resolved.config), "rounds": lines})


def row(line: dict[str, Any]) -> list[str]:
    """One round as cells; the base model's has no selection."""

    def number(name: str, style: str) -> str:
        return "-" if line.get(name) is None else format(line[name], style)

    interval = "" if line.get("e3_low") is None else f" [{line['e3_low']:.2f}, {line['e3_high']:.2f}]"
    return [
        "base" if line["round"] is None else str(line["round"]),
        number("accuracy", ".3f"),
        number("tokens", ",.1f"),
        number("truncated", ".1%"),
        number("e3", ".2f") + interval,
        number("accepted_share", ".1%"),
        number("pseudo_efficient_share", ".1%"),
        number("kl", ".2f"),
        number("seconds", ".0f"),
    ]
