"""A report of evaluations and loops: everything that it shows, from what stands in their folders."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import fields

from vpgea.phases.compare import Comparison, hold
from vpgea.report.audits import audit_sections
from vpgea.report.comparison import comparison_sections, verdicts
from vpgea.report.comparison_text import as_text
from vpgea.report.lengths import lengths_section
from vpgea.report.model import Download, Report, Section, Traces
from vpgea.report.protocol import protocol_section
from vpgea.report.published import published_figures
from vpgea.report.round_traces import PRIOR_SAMPLES, QUESTIONS, ROUNDS, traced_rounds
from vpgea.report.sources import LoopRun, Sources, open_sources
from vpgea.report.traces import SAMPLES, evaluated_questions
from vpgea.report.training import training_section
from vpgea.runs.records import RoundLine
from vpgea.storage.records import json_of


def report(names: Sequence[str]) -> Report:
    """What there is to show of evaluations and loop folders; the first evaluation is the base.

    Args:
        names: As `open_sources` reads them, one or more.

    Raises:
        UsageError: They were measured otherwise, have no set of questions in common, or nothing was measured yet.
    """
    sources = open_sources(names)
    comparison = hold(list(sources.evaluations), list(sources.evaluations.values())) if sources.evaluations else None
    sections: list[Section] = []
    verdict = list(sources.notes)
    if comparison is not None:
        verdict = [*verdicts(comparison), *sources.notes]
        sections += comparison_sections(comparison, published_figures(sources))
        sections += [lengths_section(sources)]
    sections += [training_section(loop, number) for number, loop in enumerate(sources.loops)]
    if comparison is not None:
        sections += [*audit_sections(sources), protocol_section(sources)]
    return Report(
        title=" and ".join(names),
        verdict=verdict,
        sections=sections,
        traces=_traces(sources, comparison),
        downloads=list(_downloads(comparison, sources.loops)),
    )


def _traces(sources: Sources, comparison: Comparison | None) -> Traces:
    questions, available, notes = ([], 0, []) if comparison is None else evaluated_questions(sources, comparison.sets)
    for loop in sources.loops:
        more, counted, said = traced_rounds(loop)
        questions, available, notes = [*questions, *more], available + counted, [*notes, *said]
    rule = (
        f"Of evaluations: the questions that changed most (of one alone the first by their ids), the first {SAMPLES} "
        "samples of each run. "
    )
    if sources.loops:
        rule += (
            f"Of training: of at most {ROUNDS} rounds, evenly spread, {QUESTIONS} questions: one for every reason of a "
            f"rejection, then the first by their ids; of each {SAMPLES} posterior and {PRIOR_SAMPLES} prior samples, "
            "different fates first. Evaluations of its other rounds are in none: name them as RUN@K. "
        )
    rule += "vpgea inspect FOLDER --sample ID shows any other."
    return Traces(
        questions=questions,
        columns=("prior, before", "posterior, with the note", "prior, after"),
        rule=rule,
        available=available,
        notes=notes,
    )


def _downloads(comparison: Comparison | None, loops: Sequence[LoopRun]) -> list[Download]:
    found = []
    if comparison is not None:
        found = [
            Download("figures.csv", "text/csv", as_text(comparison, "csv") + "\n"),
            Download("table.tex", "text/x-tex", as_text(comparison, "latex") + "\n"),
            Download("table.md", "text/markdown", as_text(comparison, "markdown") + "\n"),
        ]
    if any(loop.lines for loop in loops):
        found.append(Download("rounds.csv", "text/csv", _rounds(loops)))
    everything = json.dumps(finite(as_json(comparison, loops)), ensure_ascii=False, indent=1)
    return [*found, Download("report.json", "application/json", everything + "\n")]


def _rounds(loops: Sequence[LoopRun]) -> str:
    """A line for each round of each loop, the base model's without a number."""
    text = io.StringIO()
    names = [field.name for field in fields(RoundLine) if field.name != "times"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("run", *names))
    for loop in loops:
        for line in loop.lines:
            writer.writerow((loop.folder, *(getattr(line, name) for name in names)))
    return text.getvalue()


def as_json(comparison: Comparison | None, loops: Sequence[LoopRun]) -> dict[str, object]:
    """The figures behind a report: the comparison as `vpgea compare --json` has it, and the lines of rounds."""
    return {
        "comparison": None if comparison is None else json_of(comparison),
        "loops": {str(loop.folder): [line.as_json() for line in loop.lines] for loop in loops},
    }


def finite(value: object) -> object:
    """For strict JSON, which knows no NaN."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
