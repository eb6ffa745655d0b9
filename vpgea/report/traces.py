"""Which samples a report holds for reading, and what it says of each: of evaluations, and of a loop's rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vpgea.inspection.samples import Strings, strings_of
from vpgea.phases.compare import SetComparison
from vpgea.report.model import Trace, TracedQuestion
from vpgea.report.sources import Sources
from vpgea.runs.complete_phase import CompletePhase
from vpgea.storage.rows import FinishReason, Ids, Int32, Text, from_table
from vpgea.storage.schemas import SampleKey
from vpgea.storage.shards import damaged, read_sidecar, read_table

SAMPLES = 4  # of a question in one column
_QUESTIONS = 400  # of all sets together
BEFORE, POSTERIOR_COLUMN, AFTER = range(3)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Evaluated:
    """The columns of GradedRow and ImportedRow that are read; only the latter has nulls."""

    key: SampleKey
    question: Text
    answer: Text
    completion_ids: Ids | None
    thinking_tokens: Int32 | None
    finish_reason: FinishReason | None
    completion: Text
    status: Text
    extracted: Text | None
    first_correct_tokens: Int32 | None


def evaluated_questions(sources: Sources, sets: Sequence[SetComparison]) -> tuple[list[TracedQuestion], int, list[str]]:
    """Samples of the evaluations side by side: the questions that changed most first.

    Returns:
        Questions; how many samples there are in all; why strings are missing.
    """
    found: list[TracedQuestion] = []
    available, notes = 0, list[str]()
    for one in sets:
        runs = {run: each[one.name] for run, each in sources.evaluations.items()}
        available += sum(read_sidecar(path).rows for each in runs.values() for path in each.chunks())
        found += _of_set(one, runs, _QUESTIONS // len(sets), notes)
    return found, available, list(dict.fromkeys(notes))


def _of_set(one: SetComparison, runs: dict[str, CompletePhase], most: int, notes: list[str]) -> list[TracedQuestion]:
    changes = {change.question_id: change for change in one.pairs[0].questions} if one.pairs else {}
    wanted = list(changes)[:most] or _first_ids(next(iter(runs.values())), most)
    asked: dict[str, tuple[str, str]] = {}
    traces: dict[str, list[Trace]] = {key: [] for key in wanted}
    for column, (name, evaluation) in zip((BEFORE, *[AFTER] * len(runs)), runs.items(), strict=False):
        strings: Strings | None = None
        for number, row in enumerate(_rows(evaluation, wanted)):
            if not number and row.completion_ids is not None:
                strings = strings_of(evaluation.manifest, row.completion_ids.tolist(), row.completion, notes)
            asked.setdefault(row.key.question_id, (row.question, row.answer))
            traces[row.key.question_id].append(_trace(row, column, name, strings))
    group = one.name or "held-out questions"
    return [
        TracedQuestion(
            group=group,
            question_id=key,
            question=asked[key][0],
            answer=asked[key][1],
            change=_change(*changes[key].accuracy) if key in changes else "",
            traces=sorted(traces[key], key=lambda trace: trace.column),
        )
        for key in wanted
        if key in asked
    ]


def _change(before: float, after: float) -> str:
    return "more often right" if after > before else "less often right" if after < before else "as often right"


def _first_ids(evaluation: CompletePhase, most: int) -> list[str]:
    found: set[str] = set()
    for path in evaluation.chunks():
        found.update(read_table(path, columns=("question_id",))["question_id"].to_pylist())
    return sorted(found)[:most]


def rows_of(path: Path, questions: Sequence[str], *, below: int | None = None) -> pa.Table:
    """A shard's rows of these questions; below: of the first so many samples alone."""
    table = read_table(path)
    mask = pc.is_in(table["question_id"], value_set=pa.array(questions, table["question_id"].type))
    if below is not None:
        mask = pc.and_(mask, pc.less(table["sample_index"], below))
    return table.filter(mask)


def _rows(evaluation: CompletePhase, questions: Sequence[str]) -> list[_Evaluated]:
    found = []
    for path in evaluation.chunks():
        try:
            found += from_table(rows_of(path, questions, below=SAMPLES), _Evaluated)
        except ValueError as error:
            raise damaged(path, str(error)) from error
    return sorted(found, key=lambda row: row.key)


def _trace(row: _Evaluated, column: int, source: str, strings: Strings | None) -> Trace:
    ids = None if row.completion_ids is None else row.completion_ids.tolist()
    pieces, thinking = [row.completion], 0
    if strings is not None and ids is not None and row.thinking_tokens:
        path = strings.decode(ids[: row.thinking_tokens])
        if row.completion.startswith(path):
            pieces, thinking = [path, row.completion[len(path) :]], 1
    facts = {"answer found": row.extracted or "none"}
    facts |= {} if row.thinking_tokens is None else {"thinking tokens": f"{row.thinking_tokens:,}"}
    facts |= {} if row.first_correct_tokens is None else {"first correct": f"token {row.first_correct_tokens:,}"}
    return Trace(
        column=column,
        source=source,
        name=f"{row.key.view}/{row.key.sample_index}",
        status=row.status,
        tokens=None if ids is None else len(ids),
        truncated=row.finish_reason == "length",
        facts=facts,
        reasons=(),
        pieces=pieces,
        thinking=thinking,
        ratios=(),
    )
