"""Arrow shards with damaged bytes, behind a sidecar of the good ones, or behind one that fits the damage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from hypothesis import strategies as st

from tests.campaigns.fuzz.probe import ACCEPTED, Edit, Probe, damaged, edits
from vpgea.filtering.measurements import MEASUREMENTS
from vpgea.storage.files import file_checksum, write_json
from vpgea.storage.records import json_of
from vpgea.storage.schemas import SAMPLES, TEACHER
from vpgea.storage.shards import read_table, sidecar_path, table_from_rows, write_sidecar, write_table

_ROWS = 3
_SCHEMAS = {"samples": SAMPLES, "measurements": MEASUREMENTS, "teacher": TEACHER}


class Shard(NamedTuple):
    """Of which kind, what is done to its bytes, and how its sidecar comes about."""

    kind: str
    damages: list[Edit]
    sidecar: str
    columns: list[str] | None


def _value(kind: pa.DataType) -> object:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [_value(kind.value_type)] * 3
    if pa.types.is_large_string(kind):
        return "é text"
    return True if pa.types.is_boolean(kind) else 1


_shards = st.builds(
    Shard,
    st.sampled_from(sorted(_SCHEMAS)),
    st.lists(edits, max_size=3),
    st.sampled_from(["stale", "fitting", "fitting", "written"]),
    st.one_of(st.none(), st.just(["question_id", "sample_index"])),
)


@contextmanager
def probe(folder: Path) -> Iterator[Probe]:
    """stale: of the good shard. fitting: bytes and checksum of the damaged one. written: as a resumed run makes it."""
    good, sidecars = {}, {}
    for kind, schema in _SCHEMAS.items():
        row = {field.name: _value(field.type) for field in schema}
        path = folder / f"good-{kind}.arrow"
        sidecars[kind] = write_table(path, table_from_rows([row] * _ROWS, schema))
        good[kind] = path.read_bytes()
    path = folder / "chunk-00000.arrow"

    def check(shard: Shard) -> str:
        path.write_bytes(damaged(good[shard.kind], shard.damages))
        if shard.sidecar == "written":
            write_sidecar(path)
        else:
            sidecar = json_of(sidecars[shard.kind])
            if shard.sidecar == "fitting":
                sidecar |= {"bytes": path.stat().st_size, "sha256": file_checksum(path)}
            write_json(sidecar_path(path), sidecar)
        read_table(path, columns=shard.columns).to_pylist()
        return ACCEPTED

    yield Probe(_shards, check)
