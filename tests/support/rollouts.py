"""Rollouts of the tiny model, for tests that draw or read them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vpgea.config.schema import RunConfig
from vpgea.phases.rollout import Drawn, RolloutPlan, rollout
from vpgea.questions.load import load_questions
from vpgea.runs.complete_phase import chunk_paths
from vpgea.runs.parts import WHOLE, Part
from vpgea.storage.rows import from_table
from vpgea.storage.schemas import SAMPLES, SampleRow
from vpgea.storage.shards import iterate_rows, table_from_rows


def plan_of(config: RunConfig, *, part: Part = WHOLE, round_index: int = 0) -> RolloutPlan:
    return RolloutPlan.make(config, load_questions(config.data).questions, part=part, round_index=round_index)


def run(config: RunConfig, folder: Path, *, part: Part = WHOLE, **options: Any) -> Drawn:
    return rollout(plan_of(config, part=part), folder, **options)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return list(iterate_rows(chunk_paths(folder)))


def as_samples(rows: Sequence[dict[str, Any]]) -> list[SampleRow]:
    """Rows written down as dictionaries, as they would be read from a shard."""
    return from_table(table_from_rows(rows, SAMPLES), SampleRow)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in chunk_paths(folder)}


def committed(folder: Path) -> int:
    return len(list(folder.glob("parts/*/chunk-*.arrow")))
