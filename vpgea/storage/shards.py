"""Arrow shards: written once, committed atomically, checked and memory-mapped when read.

The first writer of a shard wins, a twin that finds the name taken discards its own. A sidecar holds rows, bytes and
checksum.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from vpgea.errors import DamagedError
from vpgea.storage.files import commit, file_checksum, read_json, write_json
from vpgea.storage.records import from_json, json_of, require_name


@dataclass(frozen=True)
class Sidecar:
    """What stands beside a shard, in NAME.json: it is what makes the shard count as committed."""

    file: str
    rows: int
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if not require_name(self.file).endswith(".arrow"):
            raise ValueError(f"{self.file!r} is not the name of a shard")


def write_table(path: Path, table: pa.Table) -> Sidecar:
    """Commit a table as an Arrow IPC file with its sidecar.

    Returns:
        The sidecar of what is committed; when another writer committed first, that of what stays: theirs.
    """

    def write(temporary: Path) -> None:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=4096)

    commit(path, write)
    return write_sidecar(path)


def write_table_anew(path: Path, table: pa.Table, *, told_by: Path, all_columns: bool = False) -> Sidecar:
    """The same for what is derived again: other rows that stand there go, equal ones stay as they are.

    Args:
        path: Of the shard.
        table: Its rows.
        told_by: The record that speaks of the rows which stand there: it goes before they do.
        all_columns: Rows that lack some of the columns, as those of earlier versions do, go as well.
    """
    was_there = path.is_file()
    sidecar = write_table(path, table)
    if not was_there or _is_alike(read_table(path), table, all_columns=all_columns):
        return sidecar
    for stale in (told_by, sidecar_path(path), path):
        stale.unlink(missing_ok=True)
    return write_table(path, table)


def _is_alike(stored: pa.Table, table: pa.Table, *, all_columns: bool) -> bool:
    """Whether rows are equal in the columns that are stored: earlier versions had fewer."""
    names = table.column_names if all_columns else stored.column_names
    return set(names) <= set(table.column_names) and bool(table.select(names).equals(stored))


def write_sidecar(path: Path) -> Sidecar:
    """Describe a committed shard from what is on disk."""
    with pa.memory_map(str(path)) as source:
        rows = _table(path, source).num_rows
    sidecar = Sidecar(path.name, rows, path.stat().st_size, file_checksum(path))
    write_json(sidecar_path(path), json_of(sidecar))
    return sidecar


def sidecar_path(path: Path) -> Path:
    return path.with_suffix(".json")


def read_table(path: Path, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a committed shard, memory-mapped, after comparing it with its sidecar.

    Raises:
        DamagedError: They differ, one of them is missing, or a column is not there once.
    """
    sidecar = verify(path)
    with pa.memory_map(str(path)) as source:
        table = _table(path, source)
    if table.num_rows != sidecar.rows:
        raise damaged(path, f"it has {table.num_rows} rows, and its sidecar says {sidecar.rows}")
    for name in columns or ():
        if table.schema.names.count(name) != 1:
            raise damaged(path, f"it has not exactly one column {name}")
    return table.select(list(columns)) if columns is not None else table


def verify(path: Path) -> Sidecar:
    """The sidecar of a shard that is whole.

    Raises:
        DamagedError: It is not; the file is named.
    """
    sidecar = read_sidecar(path)
    actual = path.stat().st_size if path.is_file() else None
    if actual != sidecar.bytes or file_checksum(path) != sidecar.sha256:
        state = "the file is gone" if actual is None else f"{actual} bytes whose checksum is not the recorded one"
        raise damaged(path, f"{state} ({sidecar.bytes} bytes were committed)")
    return sidecar


def read_sidecar(path: Path) -> Sidecar:
    """The sidecar of a shard.

    Raises:
        DamagedError: It is missing or does not say what one says.
    """
    value = read_json(sidecar_path(path))
    try:
        sidecar = from_json(Sidecar, value, sidecar_path(path))
    except DamagedError as error:
        raise damaged(path, f"its sidecar does not state its rows, bytes and checksum: {error.why}") from error
    if sidecar.file != path.name:
        raise damaged(path, f"its sidecar {sidecar_path(path).name} is that of {sidecar.file}")
    return sidecar


def damaged(path: Path, why: str) -> DamagedError:
    """The error for a shard that is not as it was committed."""
    return DamagedError(
        f"damaged shard: {path}",
        why=why,
        mend="`vpgea doctor FOLDER --repair` on the phase folder or run that it belongs to makes only that again",
    )


def shard_files(folder: Path) -> list[Path]:
    """Shards of a finished folder, in order.

    Raises:
        DamagedError: One has lost its sidecar.
    """
    names = _listing(folder)
    paths = sorted((folder / name for name in names if name.endswith(".arrow")), key=shard_order)
    for path in paths:
        if sidecar_path(path).name not in names:
            raise damaged(path, f"its sidecar {sidecar_path(path).name} is gone")
    return paths


def committed(folder: Path) -> set[str]:
    """Names of the shards in a folder that have their sidecars; none where there is no folder."""
    names = _listing(folder)
    return {name for name in names if name.endswith(".arrow") and f"{name.removesuffix('.arrow')}.json" in names}


def shard_order(path: Path) -> tuple[int, str]:
    """Sort key: by kind and number, also where the number has outgrown its five digits."""
    return len(path.name), path.name


def iterate_rows(tables: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Rows of several shards as dictionaries, one shard in memory at a time."""
    for path in tables:
        yield from read_table(path).to_pylist()


def table_from_rows(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows to a table with exactly this schema; numpy arrays may stand in list columns."""
    columns = []
    for field in schema:
        values = [row[field.name] for row in rows]
        columns.append(pa.array(values, type=field.type))
        assert field.nullable or columns[-1].null_count == 0, field.name
    return pa.Table.from_arrays(columns, schema=schema)


def _listing(folder: Path) -> set[str]:
    """One call for all names: asking a shared file system for each of them costs far more."""
    try:
        return set(os.listdir(folder))  # noqa: PTH208 - names, not paths
    except FileNotFoundError:
        return set()


def _table(path: Path, source: pa.NativeFile) -> pa.Table:
    """What a mapped file holds. Offsets and UTF-8 are validated: bad ones would read wild memory, and may crash."""
    try:
        table = pa.ipc.open_file(source).read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: a column name that is not UTF-8
        raise damaged(path, str(error).splitlines()[0]) from error
    return table
