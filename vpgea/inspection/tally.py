"""What a phase's rows add up to, a shard at a time: its JSON records are held against it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vpgea.filtering.measurements import check_numbers
from vpgea.metrics.bootstrap import SampleTable
from vpgea.questions.clusters import Numbering
from vpgea.runs.layout import CHUNK, SETS
from vpgea.storage.schemas import POSTERIOR, PRIOR

_LEARNT = "learnt_tokens"
_GRADES = {"correct": 1.0, "wrong": 0.0}
_Asked = dict[str, tuple[str, list[str]]]  # of each question its text and choices, by its id


@dataclass(kw_only=True)
class Tally:
    """Of one phase's folder; no row is kept, of an evaluation's samples the few numbers that its figures are made of.

    Attributes:
        parts: Per part, what its marker may count.
        counts: Of a filter's selection, under the names of its summary.
        tokens: Of a filter's checks, sampled and scored; of its paths that are learnt in part, learnt and masked.
        checks: Per measurement its sum and the number of samples that have it.
    """

    parts: dict[str, Counter[str]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    checks: dict[str, tuple[float, int]] = field(default_factory=dict)
    _samples: list[tuple[str, list[str], _Asked, dict[str, npt.NDArray[Any]]]] = field(default_factory=list)

    def add(self, path: Path, table: pa.Table) -> None:
        """A shard's rows, by where it stands and which columns it has."""
        if path.parent.name in SETS:
            self._select(path.parent.name, table)
        elif path.name.startswith(f"{CHUNK}-"):
            part = self.parts.setdefault(path.parent.name, Counter())
            part["chunks"] += 1
            if "finish_reason" in table.column_names:
                self._sample(part, path.name, table)
            if "check_tokens" in table.column_names:
                self._measure(table)

    def samples(self, numbers: Numbering, *, is_imported: bool) -> SampleTable | None:
        """An evaluation's samples, in the order in which its figures were made of them; None: there are no grades.

        `numbers` gives each question and its record their numbers, and grows; is_imported: as for these.
        """
        if not self._samples:
            return None
        shards = sorted(self._samples, key=lambda shard: (len(shard[0]), shard[0]))  # by the number in the name

        def column(name: str) -> npt.NDArray[Any]:
            return np.concatenate([one[name] for *_, one in shards])

        places = [numbers.of(key, *asked[key], is_imported=is_imported) for _, keys, asked, _ in shards for key in keys]
        return SampleTable(
            question=[question for question, _ in places],
            record=[record for _, record in places],
            correct=column("correct"),
            tokens=column("tokens"),
            truncated=column("truncated"),
            unended=column("unended"),
            thinking=column("thinking"),
        )

    def _sample(self, part: Counter[str], name: str, table: pa.Table) -> None:
        ids = table["question_id"].to_pylist()
        reasons = table["finish_reason"].to_pylist()
        at_cap = np.array([reason == "length" for reason in reasons], bool)
        unended = np.array(table["cut_off"].to_pylist(), bool) & ~at_cap
        part.update(
            questions=len(set(ids)), samples=len(ids), at_cap=int(at_cap.sum()), no_end_of_thinking=int(unended.sum())
        )
        if "status" in table.column_names:
            grades = [_GRADES.get(status, float("nan")) for status in table["status"].to_pylist()]
            counts = pc.list_value_length(table["completion_ids"])
            if "recorded_tokens" in table.column_names:  # of an import, where a count may stand without ids
                counts = pc.coalesce(counts, table["recorded_tokens"])
            is_told = np.array([reason is not None for reason in reasons], bool)
            columns = {
                "correct": np.array(grades),
                "tokens": _numbers(counts),
                "truncated": np.where(is_told, at_cap, np.nan),
                "unended": np.where(is_told, unended, np.nan),
                "thinking": _numbers(table["thinking_tokens"]),
            }
            texts = zip(table["question"].to_pylist(), table["options"].to_pylist(), strict=True)
            asked = dict(zip(reversed(ids), reversed([*texts]), strict=True))  # the first text of each
            self._samples.append((name, ids, asked, columns))

    def _select(self, name: str, table: pa.Table) -> None:
        if _LEARNT in table.column_names:  # which earlier versions did not write
            self._select_in_part(table)
        names = ("view", "status", "cut_off", "advantage", "gate")
        for view, status, cut_off, advantage, gate in zip(*(table[one].to_pylist() for one in names), strict=True):
            if view == PRIOR:
                kind = "cut_off" if cut_off else "wrong"
                grade = kind if status == "wrong" else status if status == "correct" else "not_graded"
                self.counts.update([f"{PRIOR}_sampled", f"{PRIOR}_{grade}"])
                self.counts[f"{PRIOR}_with_advantage"] += bool(advantage)
            elif view == POSTERIOR:
                self.counts[f"{POSTERIOR}_sampled"] += 1
                self.counts[f"{POSTERIOR}_accepted"] += name == SETS[0]
                self.counts[f"{POSTERIOR}_gated"] += bool(gate)

    def _select_in_part(self, table: pa.Table) -> None:
        """What is in a set by its beginning alone is no accepted path."""
        in_part = table.filter(pc.is_valid(table[_LEARNT]))
        learnt, thinking = (sum(in_part[name].to_pylist()) for name in (_LEARNT, "thinking_tokens"))
        self.counts[f"{POSTERIOR}_in_part"] += in_part.num_rows
        self.counts[f"{POSTERIOR}_accepted"] -= in_part.num_rows
        self.tokens.update(in_part_learnt=learnt, in_part_masked=thinking - learnt)

    def _measure(self, table: pa.Table) -> None:
        for name in ("check_tokens", "score_tokens"):
            self.tokens[name] += sum(table[name].to_pylist())
        for name in {*check_numbers(), "answer_position"} & set(table.column_names):
            values = [value for value in table[name].to_pylist() if value is not None]
            total, count = self.checks.get(name, (0.0, 0))
            self.checks[name] = total + sum(values), count + len(values)


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """A column of numbers, NaN for null."""
    return np.array([np.nan if value is None else value for value in column.to_pylist()], np.float64)
