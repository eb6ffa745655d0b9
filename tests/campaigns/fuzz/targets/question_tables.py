"""Question files as tables, parquet and arrow, whose bytes are damaged: the C++ readers meet them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from tests.campaigns.fuzz.probe import Edit, Probe, damaged, edits
from tests.campaigns.fuzz.targets.question_data import load, loadings

_TABLE = pa.table(
    {
        "id": ["a", "b", "c"],
        "question": ["1 + 1?", "Which?", "Half of 5?"],
        "answer": pa.array(["2", "B", "2.5"]).dictionary_encode(),
        "options": [None, ["x", "y"], []],
        "answer_index": pa.array([None, 1, None], pa.int8()),
    }
)
_KINDS = ("plain.parquet", "zstd.parquet", "file.arrow", "stream.arrow", "lz4.arrow")


class Table(NamedTuple):
    """A good file by its kind, and what is done to its bytes."""

    kind: str
    damages: list[Edit]
    loading: dict[str, Any]


def _good(folder: Path) -> dict[str, bytes]:
    pq.write_table(_TABLE, folder / "plain.parquet", compression="none")
    pq.write_table(_TABLE, folder / "zstd.parquet", compression="zstd", data_page_version="2.0")
    for name, compression in (("file.arrow", None), ("lz4.arrow", "lz4")):
        options = pa.ipc.IpcWriteOptions(compression=compression)
        with pa.ipc.new_file(str(folder / name), _TABLE.schema, options=options) as writer:
            writer.write_table(_TABLE)
    with pa.ipc.new_stream(str(folder / "stream.arrow"), _TABLE.schema) as writer:
        writer.write_table(_TABLE)
    return {kind: (folder / kind).read_bytes() for kind in _KINDS}


@contextmanager
def probe(folder: Path) -> Iterator[Probe]:
    """Good tables with up to three places damaged."""
    good = _good(folder)

    def check(table: Table) -> str:
        path = folder / f"questions{Path(table.kind).suffix}"
        path.write_bytes(damaged(good[table.kind], table.damages))
        return load(path, table.loading)

    yield Probe(st.builds(Table, st.sampled_from(_KINDS), st.lists(edits, max_size=3), loadings), check)
