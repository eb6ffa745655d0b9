"""Arrow shards: committed once, never half, and every damage is noticed and named."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vpgea.errors import UsageError
from vpgea.storage.files import read_json, require_commits, sweep_temporaries, temporary_path, write_json
from vpgea.storage.shards import (
    iterate_rows,
    read_sidecar,
    read_table,
    shard_files,
    sidecar_path,
    table_from_rows,
    verify,
    write_table,
    write_table_anew,
)

ROOT = Path(__file__).parents[3]
SCHEMA = pa.schema(
    [
        pa.field("name", pa.large_string(), nullable=False),
        pa.field("ids", pa.large_list(pa.int32()), nullable=False),
        pa.field("logprobs", pa.large_list(pa.float32())),
    ],
    metadata={b"vpgea.schema_version": b"1"},
)
ROWS: list[dict[str, Any]] = [
    {"name": "a", "ids": np.array([1, 2, 3], np.int32), "logprobs": np.array([-0.5, -1.0, -2.0], np.float32)},
    {"name": "é😀", "ids": [], "logprobs": None},
    {"name": "", "ids": [7], "logprobs": [0.0]},
]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "chunk-00000.arrow"
    write_table(path, table_from_rows(ROWS, SCHEMA))
    return path


def test_what_is_written_is_read(shard: Path) -> None:
    table = read_table(shard)
    assert table.schema.equals(SCHEMA, check_metadata=True)
    expected = [
        {"name": "a", "ids": [1, 2, 3], "logprobs": [-0.5, -1.0, -2.0]},
        {"name": "é😀", "ids": [], "logprobs": None},
        {"name": "", "ids": [7], "logprobs": [0.0]},
    ]
    assert table.to_pylist() == expected
    assert list(iterate_rows([shard, shard])) == expected * 2
    assert read_table(shard, columns=["name"]).column_names == ["name"]


def test_the_sidecar_describes_the_file_and_nothing_else_is_left(shard: Path) -> None:
    sidecar = verify(shard)
    assert sidecar.rows == 3
    assert sidecar.bytes == shard.stat().st_size
    assert sorted(path.name for path in shard.parent.iterdir()) == ["chunk-00000.arrow", "chunk-00000.json"]


def test_an_empty_table_is_a_shard_too(tmp_path: Path) -> None:
    path = tmp_path / "chunk-00000.arrow"
    assert write_table(path, table_from_rows([], SCHEMA)).rows == 0
    assert read_table(path).schema.equals(SCHEMA)


def test_a_null_where_none_may_stand_is_a_broken_invariant() -> None:
    with pytest.raises(AssertionError, match="name"):
        table_from_rows([{"name": None, "ids": [], "logprobs": None}], SCHEMA)


def test_the_first_writer_wins(shard: Path) -> None:
    before = shard.read_bytes()
    other = [{**ROWS[0], "name": "late"}]
    assert write_table(shard, table_from_rows(other, SCHEMA)) == read_sidecar(shard)
    assert shard.read_bytes() == before
    assert read_table(shard).num_rows == 3


@pytest.mark.parametrize("all_columns", [False, True])
def test_rows_of_fewer_columns_stay_unless_all_are_asked_for(tmp_path: Path, all_columns: bool) -> None:
    table, path, record = table_from_rows(ROWS, SCHEMA), tmp_path / "chunk-00000.arrow", tmp_path / "record.json"
    stored = table.select(table.column_names[:-1])
    write_table(path, stored)
    write_json(record, {})
    write_table_anew(path, table, told_by=record, all_columns=all_columns)
    assert read_table(path).equals(table if all_columns else stored)
    assert record.exists() != all_columns, "what told of other rows is gone"


def test_a_writer_killed_between_file_and_sidecar_is_mended_by_the_next(shard: Path) -> None:
    sidecar = read_sidecar(shard)
    sidecar_path(shard).unlink()
    assert write_table(shard, table_from_rows(ROWS[:1], SCHEMA)) == sidecar


_TWIN = """
import sys, pyarrow as pa
from pathlib import Path
from vpgea.storage.shards import write_table
folder, name = Path(sys.argv[1]), sys.argv[2]
tables = [pa.table({"writer": [name] * 2000, "row": range(2000)}) for _ in range(20)]
print("ready", flush=True)
sys.stdin.readline()
for index, table in enumerate(tables):
    write_table(folder / f"chunk-{index:05d}.arrow", table)
"""


def test_twins_that_race_leave_whole_shards_of_one_writer_each(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    twins = [
        subprocess.Popen(
            [sys.executable, "-c", _TWIN, str(tmp_path), name],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for name in ("castor", "pollux", "helen")
    ]
    for twin in twins:
        assert twin.stdout is not None
        assert twin.stdout.readline() == b"ready\n"
        twin.stdout.close()
    for twin in twins:
        assert twin.stdin is not None
        twin.stdin.close()  # all are ready: off they go
    assert [twin.wait(timeout=60) for twin in twins] == [0, 0, 0]
    files = shard_files(tmp_path)
    assert len(files) == 20
    for file in files:
        table = read_table(file)
        assert len(table["writer"].unique()) == 1
        assert table["row"].to_pylist() == list(range(2000))
    assert len(list(tmp_path.iterdir())) == 40


# --- damage ---------------------------------------------------------------------------------------------------------


def test_a_flipped_bit_anywhere_is_noticed(shard: Path) -> None:
    whole = shard.read_bytes()
    rng = random.Random(0)
    for position in [0, len(whole) - 1, *rng.sample(range(len(whole)), 60)]:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << rng.randrange(8)
        shard.write_bytes(bytes(damaged))
        with pytest.raises(UsageError, match=r"chunk-00000\.arrow"):
            read_table(shard)
    shard.write_bytes(whole)
    assert read_table(shard).num_rows == 3


def test_a_flipped_bit_in_the_sidecar_is_noticed_where_it_matters(shard: Path) -> None:
    side = sidecar_path(shard)
    whole = side.read_bytes()
    start = whole.index(b'"rows"')
    for position in range(start, len(whole) - 3):
        if whole[position : position + 1] in b" \n":
            continue
        side.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        with pytest.raises(UsageError, match="chunk-00000"):
            read_table(shard)


@pytest.mark.parametrize("size", [0, 1, 100, -1])
def test_a_truncated_or_empty_file_is_noticed(shard: Path, size: int) -> None:
    whole = shard.read_bytes()
    shard.write_bytes(whole[:size])
    with pytest.raises(UsageError, match="damaged shard") as error:
        read_table(shard)
    assert str(shard) in error.value.what
    assert "--repair" in error.value.mend


def test_a_file_that_is_gone_is_noticed(shard: Path) -> None:
    shard.unlink()
    with pytest.raises(UsageError, match="damaged shard") as error:
        read_table(shard)
    assert "gone" in error.value.why


def test_a_sidecar_that_is_gone_is_noticed(shard: Path) -> None:
    sidecar_path(shard).unlink()
    with pytest.raises(UsageError, match=r"chunk-00000\.json"):
        read_table(shard)
    with pytest.raises(UsageError, match="damaged shard"):
        shard_files(shard.parent)


def _rewrite_with_its_sidecar(shard: Path, content: bytes) -> None:
    shard.write_bytes(content)
    sidecar = {"file": shard.name, "rows": 3, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    write_json(sidecar_path(shard), sidecar)


def test_a_file_that_is_no_arrow_file_is_noticed_even_with_the_right_checksum(shard: Path) -> None:
    _rewrite_with_its_sidecar(shard, b"ARROW1\0\0 not really ARROW1")
    with pytest.raises(UsageError, match="damaged shard"):
        read_table(shard)


@pytest.mark.parametrize(
    ("values", "before", "after"),
    [
        (pa.array(["\N{DEGREE SIGN}"] * 3, pa.large_string()), "\N{DEGREE SIGN}".encode(), b"\xc2\xc2"),
        (pa.array([1, 2, 3], pa.int64()), (64).to_bytes(4, "little"), (7).to_bytes(4, "little")),  # bits of an integer
        (
            pa.array([[1], [2], [3]], pa.large_list(pa.int8())),
            (2).to_bytes(8, "little"),
            (1 << 40).to_bytes(8, "little"),
        ),
    ],
    ids=["text that is not UTF-8", "a type that does not exist", "an offset into nowhere"],
)
def test_what_arrow_does_not_check_by_itself_is_noticed(
    tmp_path: Path, values: pa.Array, before: bytes, after: bytes
) -> None:
    """The offset would end the process when the values are read."""
    shard = tmp_path / "chunk-00000.arrow"
    write_table(shard, pa.table({"column": values}))
    content = shard.read_bytes()
    assert before in content
    _rewrite_with_its_sidecar(shard, content.replace(before, after))
    with pytest.raises(UsageError, match="damaged shard"):
        read_table(shard)


def test_a_column_that_is_not_there_is_named(shard: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_table(shard, columns=["name", "seed"])
    assert "seed" in caught.value.why


@pytest.mark.parametrize("change", [{"rows": None}, {"bytes": "9"}, {"sha256": 3}])
def test_a_sidecar_of_another_form_is_named(shard: Path, change: dict[str, Any]) -> None:
    write_json(sidecar_path(shard), read_json(sidecar_path(shard)) | change)
    with pytest.raises(UsageError, match="damaged shard"):
        read_sidecar(shard)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b"\xff\xfe", b'"text"', b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}", b'{"a": "\\ud800"}'],
    ids=len,
)
def test_json_that_is_none_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"state\.json"):
        read_json(path)


def without_links(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def no_links(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", no_links)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_hard_links_a_rename_commits_and_the_first_writer_still_wins(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_links(monkeypatch, number)
    require_commits(tmp_path)
    assert list(tmp_path.iterdir()) == []
    path = tmp_path / "chunk-00000.arrow"
    write_table(path, table_from_rows(ROWS, SCHEMA))
    before = path.read_bytes()
    write_table(path, table_from_rows(ROWS[:1], SCHEMA))
    assert path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["chunk-00000.arrow", "chunk-00000.json"]


def test_a_file_system_that_can_do_neither_is_named_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_links(monkeypatch, errno.EPERM)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())  # a C library without renameat2
    for attempt in (
        lambda: require_commits(tmp_path),
        lambda: write_table(tmp_path / "chunk-00000.arrow", table_from_rows(ROWS, SCHEMA)),
    ):
        with pytest.raises(UsageError, match="cannot commit") as error:
            attempt()
        assert "made no hard link (Operation not permitted)" in error.value.why
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_is_no_file_system_without_links(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_links(monkeypatch, number)
    with pytest.raises(OSError, match=os.strerror(number)) as error:
        write_table(tmp_path / "chunk-00000.arrow", table_from_rows(ROWS, SCHEMA))
    assert error.value.errno == number
    assert list(tmp_path.iterdir()) == []


# --- temporaries ----------------------------------------------------------------------------------------------------


def test_the_sweep_takes_only_what_dead_writers_of_this_host_left(tmp_path: Path) -> None:
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    dead, host = int(gone.stdout), socket.gethostname()
    stale = temporary_path(tmp_path / "chunk-00000.arrow", dead)
    in_another_container = f"{host}+1"
    kept = [
        temporary_path(tmp_path / "chunk-00001.arrow"),
        tmp_path / f".chunk-00002.arrow~another-host~{dead}~abc.tmp",
        tmp_path / f".chunk-00003.arrow~{in_another_container}~{dead}~abc.tmp",
        tmp_path / f".chunk-00004.arrow~{host}~{dead}~abc.tmp",  # as version 0.1.0 wrote it, from any container
        temporary_path(tmp_path / "chunk-00005.arrow", 1),  # alive, and not ours
        tmp_path / ".someone-elses.tmp",
        tmp_path / "notes~of~mine~x.tmp",
    ]
    for path in [stale, *kept]:
        path.touch()
    sweep_temporaries(tmp_path)
    assert not stale.exists()
    assert all(path.exists() for path in kept)


def test_write_json_replaces_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    for value in ({"a": "é"}, {"b": [1, 2.5, None]}):
        write_json(path, value)
        assert read_json(path) == value
        assert json.loads(path.read_text(encoding="utf-8")) == value
    assert [file.name for file in tmp_path.iterdir()] == ["state.json"]
