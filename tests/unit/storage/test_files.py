"""What cannot be written is told under the name that it was to have, not under the temporary one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from vpgea.storage.files import commit, publish_folder, require_commits, said_of, write_bytes, write_json
from vpgea.storage.shards import write_table

WRITERS: dict[str, Callable[[Path], object]] = {
    "bytes": lambda path: write_bytes(path, b"x"),
    "record": lambda path: write_json(path, {}),
    "commit": lambda path: commit(path, lambda temporary: temporary.touch()),
    "shard": lambda path: write_table(path, pa.table({"a": [1]})),
    "folder": lambda path: publish_folder(path.with_name(".temporary"), path),
    "probe": require_commits,
}


@pytest.mark.parametrize("what", WRITERS)
@pytest.mark.parametrize(("parent", "error"), [("missing", FileNotFoundError), ("file", NotADirectoryError)])
def test_an_error_names_what_was_to_be_written(what: str, parent: str, error: type[OSError], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / parent / "a.arrow"
    with pytest.raises(error) as told:
        WRITERS[what](path)
    assert told.value.filename == str(path)


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as told:
        write_bytes(tmp_path, b"x")
    assert str(told.value) == f"[Errno 21] Is a directory: '{tmp_path}'"
    assert list(tmp_path.parent.glob(".*.tmp")) == []


def test_an_error_of_something_else_stays_as_it_is(tmp_path: Path) -> None:
    for error in (OSError(28, "No space left on device"), FileNotFoundError(2, "No such file", "model.json")):
        with pytest.raises(OSError, match="No s") as told, said_of(tmp_path / "a", tmp_path / ".a.tmp"):
            raise error
        assert told.value is error
