"""Samples of a loop's rounds for reading: prior before, posterior with its log-ratios, prior after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from vpgea.inspection.folders import open_source
from vpgea.inspection.samples import Strings, pieces_of, strings_of
from vpgea.report.model import Trace, TracedQuestion
from vpgea.report.sources import LoopRun
from vpgea.report.traces import AFTER, BEFORE, POSTERIOR_COLUMN, SAMPLES, rows_of
from vpgea.runs.complete_phase import chunk_paths
from vpgea.runs.layout import PARTS, SUMMARY, Step
from vpgea.runs.manifest import Manifest
from vpgea.runs.records import FilterSummary
from vpgea.storage.records import read_record
from vpgea.storage.rows import Bool, Float32, Ids, Int32, Logprobs, Text, Words, from_table
from vpgea.storage.schemas import POSTERIOR, PRIOR, SampleKey
from vpgea.storage.shards import damaged, read_table

ROUNDS = 10  # of a run, evenly spread, the first and the last among them
QUESTIONS = 20  # of a round

PRIOR_SAMPLES = 2

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Selected:
    """The columns of SelectionRow that are read."""

    key: SampleKey
    completion_ids: Ids
    logprobs: Logprobs
    thinking_tokens: Int32
    cut_off: Bool
    status: Text
    reasons: Words
    advantage: Float32 | None
    gate: Float32 | None
    completion: Text
    learnt_tokens: Int32 | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Scored:
    """The columns of measurements that every version has."""

    key: SampleKey
    other_view_logprobs: Logprobs | None
    extracted: Text | None


@dataclass(frozen=True)
class _Measured:
    """other: log-probabilities under the other view. dependence: (D in nats, its token), where it was measured."""

    other: np.ndarray | None
    extracted: str | None
    dependence: tuple[float, int] | None


@dataclass(frozen=True, kw_only=True)
class _Round:
    """A round's samples of some questions. asked: question → its text and answer, as far as the rollout is there."""

    index: int
    rows: dict[str, list[_Selected]]
    measured: dict[SampleKey, _Measured]
    asked: dict[str, tuple[str, str]]
    strings: Strings | None


def traced_rounds(loop: LoopRun) -> tuple[list[TracedQuestion], int, list[str]]:
    """Of some rounds: per reason of a rejection a question that has it, then the first by their ids.

    Returns:
        Questions; how many samples all rounds have; what could not be shown, and why.
    """
    done = [line.round for line in loop.lines if line.round is not None]
    kept = [index for index in done if (Step(index, "filter").folder(loop.folder) / SUMMARY).is_file()]
    available = sum(_sampled(loop, index) for index in kept)
    spread = sorted({round(place) for place in np.linspace(0, len(kept) - 1, min(ROUNDS, len(kept)))}) if kept else []
    notes: list[str] = []
    chosen = {index: _choose(loop, index) for index in (kept[place] for place in spread)}
    wanted = sorted({key for keys, _ in chosen.values() for key in keys})
    rounds = {index: _read(loop, index, wanted, notes) for index in chosen}
    found = [
        _question(loop, rounds, index, key)
        for index, (keys, _) in chosen.items()
        for key in keys
        if key in rounds[index].rows
    ]
    if len(done) > len(kept):
        notes.append(f"{len(done) - len(kept)} rounds of {loop.folder} have no filter folder any more")
    return found, available, list(dict.fromkeys(notes))


def _sampled(loop: LoopRun, index: int) -> int:
    counts = read_record(Step(index, "filter").folder(loop.folder) / SUMMARY, FilterSummary).counts
    return counts.get("prior_sampled", 0) + counts.get("posterior_sampled", 0)


def _choose(loop: LoopRun, index: int) -> tuple[list[str], set[str]]:
    """Questions to show of a round, and all that it has."""
    by_reason: dict[str, str] = {}
    every: set[str] = set()
    for path in open_source(Step(index, "filter").folder(loop.folder)).selection():
        table = read_table(path, columns=("question_id", "view", "reasons"))
        for question, view, reasons in zip(*(column.to_pylist() for column in table.columns), strict=True):
            every.add(question)
            for reason in reasons if view == POSTERIOR else ():
                by_reason[reason] = min(question, by_reason.get(reason, question))
    first = [by_reason[reason] for reason in sorted(by_reason)]
    return list(dict.fromkeys([*first, *sorted(every)]))[:QUESTIONS], every


def _read(loop: LoopRun, index: int, questions: Sequence[str], notes: list[str]) -> _Round:
    source = open_source(Step(index, "filter").folder(loop.folder))
    rows: dict[str, list[_Selected]] = {}
    for path in source.selection():
        for row in _typed(path, rows_of(path, questions), _Selected):
            rows.setdefault(row.key.question_id, []).append(row)
    measured: dict[SampleKey, _Measured] = {}
    for path in source.measurements():
        table = rows_of(path, questions)
        places = zip(*(_column(table, name) for name in ("note_dependence", "note_dependence_token")), strict=True)
        for one, (value, token) in zip(_typed(path, table, _Scored), places, strict=True):
            where = None if value is None or token is None else (float(value), int(token))
            measured[one.key] = _Measured(one.other_view_logprobs, one.extracted, where)
    asked: dict[str, tuple[str, str]] = {}
    rollout = Step(index, "rollout").folder(loop.folder)
    for path in chunk_paths(rollout) if (rollout / PARTS).is_dir() else []:
        table = rows_of(path, questions).select(["question_id", "question", "answer"])
        asked |= {
            key: (text, answer) for key, text, answer in zip(*(c.to_pylist() for c in table.columns), strict=True)
        }
    example = next((row for group in rows.values() for row in group), None)
    strings = _strings(loop, source.manifest, example, notes)
    return _Round(index=index, rows=rows, measured=measured, asked=asked, strings=strings)


def _typed(path: Path, table: pa.Table, kind: type[R]) -> list[R]:
    try:
        return from_table(table, kind)
    except ValueError as error:
        raise damaged(path, str(error)) from error


def _column(table: pa.Table, name: str) -> list[float | None]:
    return table[name].to_pylist() if name in table.column_names else [None] * table.num_rows


def _strings(loop: LoopRun, manifest: Manifest | None, example: _Selected | None, notes: list[str]) -> Strings | None:
    """Of the round's own model, or, where its weights are gone, of the run's: both must give the stored text."""
    if example is None:
        return None
    said: list[str] = []
    for one in (manifest, open_source(loop.folder).manifest):
        if (found := strings_of(one, example.completion_ids.tolist(), example.completion, said)) is not None:
            return found
    notes += [f"log-ratios are not shown by token: {text}" for text in said[-1:]]
    return None


def _question(loop: LoopRun, rounds: dict[int, _Round], index: int, key: str) -> TracedQuestion:
    own = rounds[index]
    later = next((one for number, one in reversed(rounds.items()) if number > index and key in one.rows), None)
    traces = list(_traces(own, key, PRIOR, BEFORE)) + list(_traces(own, key, POSTERIOR, POSTERIOR_COLUMN))
    traces += [] if later is None else list(_traces(later, key, PRIOR, AFTER))
    text, answer = own.asked.get(key, ("", ""))
    return TracedQuestion(
        group=f"{loop.folder}, round {index}", question_id=key, question=text, answer=answer, change="", traces=traces
    )


def _traces(one: _Round, key: str, view: str, column: int) -> Iterator[Trace]:
    rows = sorted((row for row in one.rows[key] if row.key.view == view), key=lambda row: row.key)
    for row in _varied(rows, SAMPLES if view == POSTERIOR else PRIOR_SAMPLES):
        yield _trace(one, row, column)


def _varied(rows: Sequence[_Selected], most: int) -> list[_Selected]:
    """One of every fate before a second of any."""
    seen: dict[tuple[str, ...], int] = {}
    ranks = []
    for row in rows:
        seen[row.reasons] = seen.get(row.reasons, -1) + 1
        ranks.append(seen[row.reasons])
    order = sorted(range(len(rows)), key=lambda place: (ranks[place], place))[:most]
    return [rows[place] for place in sorted(order)]


def _trace(one: _Round, row: _Selected, column: int) -> Trace:
    measured = one.measured.get(row.key, _Measured(None, None, None))
    ids = row.completion_ids.tolist()
    pieces = [row.completion] if one.strings is None else pieces_of(one.strings, ids, row.completion)
    ratios: list[float] = []
    if measured.other is not None and one.strings is not None:
        shared = min(len(measured.other), len(row.logprobs))
        sign = 1 if row.key.view == POSTERIOR else -1
        ratios = (sign * (row.logprobs[:shared] - measured.other[:shared])).tolist()
    facts = {"answer found": measured.extracted or "none", "thinking tokens": f"{row.thinking_tokens:,}"}
    for name, value in (("advantage", row.advantage), ("gate", row.gate)):
        facts |= {} if value is None else {name: f"{value:.3f}"}
    if row.learnt_tokens is not None:
        facts["learnt"] = f"the first {row.learnt_tokens:,} tokens"
    if measured.dependence is not None:
        facts["note dependence"] = f"{measured.dependence[0]:.2f} nats, token {measured.dependence[1]}"
    has_pieces = one.strings is not None
    return Trace(
        column=column,
        source=f"round {one.index}",
        name=f"{row.key.view}/{row.key.sample_index}",
        status=row.status,
        tokens=len(ids),
        truncated=row.cut_off,
        facts=facts,
        reasons=row.reasons,
        pieces=pieces,
        thinking=row.thinking_tokens if has_pieces else 0,
        ratios=ratios,
        marked=measured.dependence[1] if measured.dependence is not None and has_pieces else None,
    )
