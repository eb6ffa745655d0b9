"""Rows against what their folder says that it was made from: a shard that is whole may still be another run's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vpgea.runs.layout import SETS
from vpgea.runs.manifest import Manifest
from vpgea.storage.schemas import IDENTITY, POSTERIOR, PRIOR, SampleKey
from vpgea.storage.shards import damaged, read_table

_OF_INPUTS = {"model_fingerprint": "model", "template_fingerprint": "template"}
_COPIED = ("status", "crossview_answer_ids")  # of a measurement, as the selection has it
_OF_IDENTITY = {
    "round": "round",
    **{name: f"rollout.{name}" for name in ("temperature", "top_p", "top_k", "max_new_tokens")},
}


def require_own_rows(path: Path, table: pa.Table, manifest: Manifest) -> None:
    """See that a rollout's or an evaluation's rows are all there, of its round, weights, prompts, sampling and seed.

    Raises:
        DamagedError: A row is not, or some are lost.
    """
    wanted: dict[str, object] = {column: manifest.inputs.get(name) for column, name in _OF_INPUTS.items()}
    wanted |= {column: manifest.identity.get(name) for column, name in _OF_IDENTITY.items()}
    for column, value in wanted.items():
        found = pc.unique(table[column]).to_pylist() if column in table.column_names else []
        if value is not None and any(each != _stored(value) for each in found):
            raise damaged(path, f"it has rows with {column} {found[0]}, and {value} is what its folder was made with")
    if not set(IDENTITY) <= set(table.column_names):
        return
    keys = [SampleKey(*key) for key in zip(*(table[name].to_pylist() for name in IDENTITY), strict=True)]
    require_all_samples(path, keys, manifest)
    seed = manifest.identity.get("rollout.seed")
    seeds = table["seed"].to_pylist() if "seed" in table.column_names else None
    if isinstance(seed, int) and seeds not in (None, [key.seed(seed) for key in keys]):
        raise damaged(path, f"its samples were not drawn with the seed {seed} of its folder")


def require_all_samples(path: Path, keys: Iterable[SampleKey], manifest: Manifest) -> None:
    """See that a shard of a rollout or an evaluation has every sample of each of its questions, once.

    Args:
        path: Of the shard.
        keys: Of its rows.
        manifest: Of its folder; that of an import says no numbers of samples.

    Raises:
        DamagedError: Some are lost, or stand twice.
    """
    counts = {view: manifest.identity.get(f"rollout.{view}_samples") for view in (PRIOR, POSTERIOR)}
    drawn = sorted((view, index) for view, count in counts.items() if isinstance(count, int) for index in range(count))
    samples: dict[str, list[tuple[str, int]]] = {}
    for key in keys:
        samples.setdefault(key.question_id, []).append((key.view, key.sample_index))
    for question, found in samples.items() if drawn else ():
        if sorted(found) != drawn:
            wanted = " and ".join(f"{count} {view}" for view, count in counts.items() if count)
            raise damaged(path, f"it has not the {wanted} samples of question {question} that were drawn, each once")


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
