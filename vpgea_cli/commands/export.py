"""`vpgea export`: the weights of a run as a folder of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vpgea_cli.options import (
    JsonOption,
    OfflineOption,
    OutputDirOption,
    OverwriteOption,
    QuietOption,
    go_offline,
)
from vpgea_cli.output import Output
from vpgea_cli.phase import required


def command(
    source: Annotated[Path, typer.Argument(help="Folder that `vpgea loop` or `vpgea distill` wrote.")],
    *,
    output_dir: OutputDirOption = None,
    round_name: Annotated[
        str | None, typer.Option("--round", metavar="K|best", help="Round of a loop folder; best is the default.")
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Merge the adapter into its base: a plain model folder.")
    ] = False,
    model: Annotated[
        str | None, typer.Option("--model", help="Where the adapter's base model is, if it has moved.")
    ] = None,
    overwrite: OverwriteOption = False,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Copy the adapter or model of a run to a folder, or merge the adapter into its base; checked, all or nothing."""
    output = Output(quiet=quiet, as_json=as_json)
    target = required(output_dir)
    go_offline(offline)
    from vpgea.phases.export import export

    record = export(
        source, target, round_name=round_name, merge=merge, base=model, overwrite=overwrite, say=output.info
    )
    of_round = "" if record["round"] is None else f" of round {record['round']}"
    output.info(f"{record['kind']}{of_round}, fingerprint {record['model_fingerprint']}")
    output.result({"path": str(target), **record})
