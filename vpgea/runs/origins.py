"""Rows against what their folder says that it was made from: a shard that is whole may still be another run's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vpgea.runs.layout import SETS
from vpgea.runs.manifest import Manifest
from vpgea.storage.schemas import IDENTITY, SampleKey
from vpgea.storage.shards import damaged, read_table

_OF_INPUTS = {"model_fingerprint": "model", "template_fingerprint": "template"}
_COPIED = ("status", "crossview_answer_ids")  # of a measurement, as the selection has it
_OF_IDENTITY = {
    "round": "round",
    **{name: f"rollout.{name}" for name in ("temperature", "top_p", "top_k", "max_new_tokens")},
}


def require_own_rows(path: Path, table: pa.Table, manifest: Manifest) -> None:
    """See that a rollout's or an evaluation's rows are of its round, weights, prompts, sampling and seed.

    Raises:
        DamagedError: A row is not.
    """
    wanted: dict[str, object] = {column: manifest.inputs.get(name) for column, name in _OF_INPUTS.items()}
    wanted |= {column: manifest.identity.get(name) for column, name in _OF_IDENTITY.items()}
    for column, value in wanted.items():
        found = pc.unique(table[column]).to_pylist() if column in table.column_names else []
        if value is not None and any(each != _stored(value) for each in found):
            raise damaged(path, f"it has rows with {column} {found[0]}, and {value} is what its folder was made with")
    seed = manifest.identity.get("rollout.seed")
    if isinstance(seed, int) and {"seed", *IDENTITY} <= set(table.column_names):
        columns = zip(*(table[name].to_pylist() for name in IDENTITY), strict=True)
        if [SampleKey(*key).seed(seed) for key in columns] != table["seed"].to_pylist():
            raise damaged(path, f"its samples were not drawn with the seed {seed} of its folder")


def require_measured(filter_dir: Path, chunk: Path) -> None:
    """See that what was selected and rejected of a filter's chunk are the samples that were measured in it.

    Raises:
        DamagedError: They are others.
    """
    places = [filter_dir / name / chunk.name for name in SETS]
    measured, *sets = (read_table(path) for path in (chunk, *places))
    columns = [name for name in (*IDENTITY, *_COPIED) if all(name in one.column_names for one in (measured, *sets))]
    if sorted(key for one in sets for key in _rows(one, columns)) != sorted(_rows(measured, columns)):
        raise damaged(places[0], "it and its rejected counterpart hold other samples or grades than were measured")


def _stored(value: object) -> object:
    """As a row has it: floats in 32 bits."""
    return float(np.float32(value)) if isinstance(value, float) else value


def _rows(table: pa.Table, columns: Sequence[str]) -> list[str]:
    return [repr(row) for row in zip(*(table[name].to_pylist() for name in columns), strict=True)]
