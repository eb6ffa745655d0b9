"""`vpgea inspect`: look into a phase folder, a loop's folder or one shard."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vpgea.errors import UsageError
from vpgea.report.text import with_interval
from vpgea_cli.options import JsonOption, go_offline
from vpgea_cli.output import Output, aligned
from vpgea_cli.phase import share

if TYPE_CHECKING:
    from vpgea.runs.records import RoundLine

ROWS = 5
WATCH_SECONDS = 2.0
_TEXT = 80  # characters of a completion in the head; what is left out is counted


def command(
    path: Annotated[Path, typer.Argument(help="Folder of a rollout, filter, eval, distill or loop, or one shard.")],
    *,
    head: Annotated[
        int | None,
        typer.Option("--head", min=0, help=f"Rows to show (default {ROWS}); of a distill folder, last steps."),
    ] = None,
    stats: Annotated[
        bool, typer.Option("--stats", help="Lengths, grades, reasons, gates per view, in place of rows.")
    ] = False,
    sample: Annotated[
        str | None, typer.Option("--sample", metavar="QUESTION_ID/VIEW/INDEX", help="One sample, token by token.")
    ] = None,
    question: Annotated[
        str | None, typer.Option("--question", metavar="ID", help="All samples of one question.")
    ] = None,
    rejected: Annotated[
        str | None, typer.Option("--rejected", metavar="REASON", help="Of a filter: paths rejected for this reason.")
    ] = None,
    diff: Annotated[
        tuple[str, str] | None, typer.Option("--diff", metavar="A B", help="Two samples, word by word.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Of a loop: rows of its rounds as they are finished.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a folder or shard holds: its origin, its rows, its statistics, or one sample token by token."""
    go_offline(True)  # to look at something must not download a model
    output = Output(as_json=as_json)
    filters = question is not None or rejected is not None
    _require_one_view({"--sample": sample, "--diff": diff, "--watch": watch, "--stats": stats, "--question": filters})
    if head is not None and (sample is not None or diff is not None or watch):
        raise UsageError(
            "--head counts rows", why="--sample, --diff and --watch do not show rows of a table", mend="leave it out"
        )
    if sample is not None:
        _show_sample(path, sample, output)
    elif diff is not None:
        _show_difference(path, diff, output)
    elif watch:
        _watch(path, output)
    elif filters:
        _show_picked(path, question, rejected, ROWS if head is None and question is None else head, output)
    else:
        _show_folder(path, head, stats, output)


def _require_one_view(given: Mapping[str, object]) -> None:
    wanted = [name for name, value in given.items() if value]
    if len(wanted) > 1:
        raise UsageError(
            f"{wanted[0]} and {wanted[1]} are two views",
            why="one is shown at a time",
            mend="leave out one or the other",
        )


def _show_folder(path: Path, head: int | None, stats: bool, output: Output) -> None:
    from vpgea.inspection import folders as inspection

    source = inspection.open_source(path)
    found: dict[str, Any] = {"overview": inspection.overview(source)}
    has_rows = source.kind not in ("distill", "loop")
    if stats and has_rows:
        found["statistics"] = inspection.statistics(source)
    if head is not None or not stats:
        if source.kind != "loop" or head is not None:
            found["head"] = inspection.head(source, ROWS if head is None else head)
    elif source.kind == "distill":
        found["head"] = inspection.head(source, ROWS)
    if output.as_json:
        output.result(found)
        return
    sections = [_overview_text(found["overview"])]
    sections += [_statistics_text(found["statistics"])] if "statistics" in found else []
    sections += [_head_text(source.kind, found["head"])] if "head" in found else []
    output.result("\n\n".join(section for section in sections if section))


def _show_picked(path: Path, question: str | None, reason: str | None, count: int | None, output: Output) -> None:
    from vpgea.inspection.folders import open_source
    from vpgea.inspection.picking import picked

    source = open_source(path)
    rows = picked(source, question=question, reason=reason, count=count)
    if output.as_json:
        output.result({"path": str(path), "rows": rows})
        return
    asked = next((row for row in rows if question is not None and row.get("question")), None)
    start = [f"question  {asked['question']}", f"reference  {asked['answer']}", ""] if asked else []
    output.result("\n".join([*start, _head_text(source.kind, rows)]))


def _show_difference(path: Path, names: tuple[str, str], output: Output) -> None:
    """As wdiff writes it: [-only in the first-] {+only in the second+}."""
    from vpgea.inspection.differences import stretches
    from vpgea.inspection.folders import open_source
    from vpgea.inspection.samples import parse_key, sample_detail
    from vpgea_cli import sample_text

    source = open_source(path)
    details = [sample_detail(source, parse_key(name)) for name in names]
    found = list(stretches(*(detail.completion or "" for detail in details)))
    if output.as_json:
        samples = [{"id": one.id, "verdict": one.verdict, "tokens": len(one.tokens)} for one in details]
        output.result({"path": str(path), "samples": samples, "stretches": [vars(one) for one in found]})
    elif sys.stdout.isatty():
        sample_text.print_difference(details, found)
    else:
        output.result(sample_text.plain_difference(details, found))


def _watch(path: Path, output: Output) -> None:
    """Until the run is finished, or Ctrl-C."""
    from vpgea.inspection.folders import open_source, read_manifest, run_config
    from vpgea.phases.schedule import ended_early
    from vpgea.runs.history import finished_lines
    from vpgea_cli.commands.loop import COLUMNS, row

    source = open_source(path)
    if source.kind != "loop":
        raise UsageError(
            f"{path} is a {source.kind} folder", why="--watch follows the rounds of a loop", mend="give a loop's folder"
        )
    shown = 0
    with output.live_table(f"rounds of {path}", COLUMNS) as add:
        while True:
            lines = finished_lines(path)
            for line in lines[shown:]:
                add(row(line))
            shown = len(lines)
            config = run_config(path, read_manifest(path))
            if shown > config.loop.rounds or ended_early(config, lines) is not None:
                break
            time.sleep(WATCH_SECONDS)
    output.result({"path": str(path), "rounds": [line.as_json() for line in lines]})


def _show_sample(path: Path, name: str, output: Output) -> None:
    from vpgea.inspection.folders import open_source
    from vpgea.inspection.samples import parse_key, sample_detail
    from vpgea_cli import sample_text

    key = parse_key(name)
    detail = sample_detail(open_source(path), key)
    if output.as_json:
        output.result({"path": str(path), "sample": detail.as_dict()})
    elif sys.stdout.isatty():
        sample_text.print_coloured(detail)
    else:
        output.result(sample_text.plain(detail))


def _overview_text(found: Mapping[str, Any]) -> str:
    """What it is, where it came from, how far it is."""
    if "complete" not in found:
        extent = f"{found['rows']:,} rows, {found['bytes']:,} bytes"
        return f"{found['path']}: a shard of {found['kind']}, {extent}"
    lines = [f"{found['path']}: {found['kind']}, {'complete' if found['complete'] else 'not complete'}"]
    if "parts" in found:
        lines += _parts_lines(found)
    lines += ["", f"fingerprint  {found['fingerprint']}, of these inputs:", *_pairs(found["inputs"])]
    if found["configuration"]:
        lines += ["", "configuration that differs from the defaults:", *_pairs(found["configuration"])]
    if "summary" in found:
        lines += ["", "summary:", *_pairs(_flat(found["summary"]))]
    if "results" in found:
        metrics = found["results"]["metrics"]
        figures = {
            name: with_interval(metric["value"], metric["low"], metric["high"]) for name, metric in metrics.items()
        }
        lines += ["", "results, 95 % intervals:", *_pairs(figures)]
    if "rounds" in found:
        lines += ["", *_rounds_lines(found["rounds"])]
    if "seconds" in found:
        lines += ["", "seconds:", *_pairs(found["seconds"])]
    return "\n".join(lines)


def _parts_lines(found: Mapping[str, Any]) -> list[str]:
    """One line per part, the missing ones counted."""
    begun = found["parts"]
    lines = [
        f"  part {part['part']}: {'complete' if part['complete'] else 'not complete'}"
        + (f", {part['shards']} shards, {part['rows']:,} rows, {part['bytes']:,} bytes" if "rows" in found else "")
        + (f", {part['kept']['completions']:,} completions of unfinished chunks" if "kept" in part else "")
        for part in begun
    ]
    missing = found["parts_expected"] - len(begun)
    lines += [f"  {missing} of {found['parts_expected']} parts have not begun"] if missing else []
    if "weights" in found:
        weights = [f"{name} ({size:,} bytes)" for name, size in found["weights"].items()]
        lines.append(f"  {found['steps']} optimiser steps made; weights: {', '.join(weights) or 'none'}")
    if "selected" in found:
        lines.append(f"  selected: {found['selected']:,} rows, rejected: {found['rejected']:,} rows")
    return lines


def _rounds_lines(rounds: Sequence[Mapping[str, Any]]) -> list[str]:
    from vpgea.runs.records import RoundLine
    from vpgea_cli.commands.loop import COLUMNS, row

    lines = [RoundLine(**line) for line in rounds]
    if not lines:
        return ["no round is finished yet"]
    return [*aligned([COLUMNS, *map(row, lines)]), *_times_lines(lines)]


def _times_lines(rounds: Sequence[RoundLine]) -> list[str]:
    """Where the time of each round went, and of all; rounds of earlier versions did not say."""
    from vpgea.runs.clock import ROUND_COLUMNS, columns_of

    times = [(line.round, columns_of(line.times)) for line in rounds if line.times is not None]
    if not times:
        return []
    total = {name: sum(seconds[name] for _, seconds in times) for name in ROUND_COLUMNS}
    labelled = [("base" if index is None else str(index), seconds) for index, seconds in times]
    table = [
        [label, *(f"{seconds[name]:,.1f}" for name in ROUND_COLUMNS), f"{sum(seconds.values()):,.1f}"]
        for label, seconds in [*labelled, ("all", total)]
    ]
    return ["", "seconds of each round:", *aligned([["round", *ROUND_COLUMNS, "total"], *table])]


def _head_text(kind: str, rows: Sequence[Mapping[str, Any]]) -> str:
    if kind == "distill":
        return _steps_text(rows)
    if not rows:
        return ""
    wanted = ("status", "reasons", "advantage", "gate", "finish_reason", "cut_off", "thinking_tokens")
    names = [name for name in wanted if name in rows[0]]
    cells = [
        [
            f"{row['question_id']}/{row['view']}/{row['sample_index']}",
            *(_cell(row[name]) for name in names),
            _tokens(row),
            _shortened(row.get("completion") or ""),
        ]
        for row in rows
    ]
    return "\n".join(aligned([["sample", *names, "tokens", "completion"], *cells]))


def _steps_text(lines: Sequence[Mapping[str, Any]]) -> str:
    if not lines:
        return "no optimiser step is made yet"
    names = list(lines[0])
    return "\n".join(["last steps:", *aligned([names, *([_cell(line[name]) for name in names] for line in lines)])])


def _statistics_text(found: Mapping[str, Any]) -> str:
    """Per view the counts, then one table of distributions."""
    lines: list[str] = []
    for view, figures in found["views"].items():
        lines += [f"{view}: {figures['samples']:,} samples of {figures['questions']:,} questions"]
        lines += _pairs(_counts(figures))
        spreads = {name: value for name, value in figures.items() if isinstance(value, Mapping) and "n" in value}
        header = ["", "n", "mean", "min", "q05", "q25", "median", "q75", "q95", "max"]
        cells = [[name, *(_cell(spread.get(column)) for column in header[1:])] for name, spread in spreads.items()]
        lines += [f"  {line}" for line in aligned([header, *cells])] if cells else []
        lines.append("")
    return "\n".join(lines).rstrip() or "no samples yet"


def _counts(figures: Mapping[str, Any]) -> dict[str, str]:
    """Counts with their share of the samples, and accuracy."""
    total = figures["samples"]
    counted: dict[str, str] = {}
    for group in ("finish_reasons", "grades", "reasons"):
        for name, count in figures.get(group, {}).items():
            counted[f"{group}: {name}"] = f"{count:,} ({share(count, total)})"
    for name in ("cut_off", "accepted", "in_part", "advantage_not_zero", "gate_not_zero"):
        if name in figures:
            counted[name.replace("_", " ")] = f"{figures[name]:,} ({share(figures[name], total)})"
    if figures.get("accuracy") is not None:
        counted["accuracy"] = f"{figures['accuracy']:.3f} of those that could be graded"
    return counted


def _pairs(values: Mapping[str, Any]) -> list[str]:
    return [f"  {line}" for line in aligned([[name, _cell(value)] for name, value in values.items()])] if values else []


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _tokens(row: Mapping[str, Any]) -> str:
    """Of the completion; an imported one may have a recorded count, or none."""
    ids = row.get("completion_ids")
    return _cell(row.get("recorded_tokens") if ids is None else len(ids))


def _cell(value: Any) -> str:
    if value is None or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Iterable) and not isinstance(value, str | Mapping):
        return ", ".join(map(str, value))
    return str(value)


def _shortened(text: str) -> str:
    """One line of a completion; how much is left out is said."""
    line = text.replace("\n", "↵").replace("\t", "⇥")
    return line if len(line) <= _TEXT else f"{line[:_TEXT]} … ({len(line) - _TEXT} more characters)"
