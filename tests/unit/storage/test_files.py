"""What cannot be written is told under the name that it was to have, not under the temporary one."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from vpgea.storage.files import commit, publish_folder, require_commits, said_of, write_bytes, write_json, write_named
from vpgea.storage.shards import write_table

WRITERS: dict[str, Callable[[Path], object]] = {
    "bytes": lambda path: write_bytes(path, b"x"),
    "named": lambda path: write_named(path, b"x"),
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


def test_a_link_stays_and_the_file_that_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "there", tmp_path / "link"
    link.symlink_to(target)
    for content in (b"new", b"newer"):  # also where it leads to nothing yet
        write_named(link, content)
        assert (link.is_symlink(), target.read_bytes()) == (True, content)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder", "link", "there"]


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o400])
def test_what_is_replaced_keeps_its_mode(mode: int, tmp_path: Path) -> None:
    target, link = tmp_path / "there", tmp_path / "link"
    target.touch()
    target.chmod(mode)
    link.symlink_to(target)
    write_named(link, b"new")
    assert (target.read_bytes(), stat.S_IMODE(target.stat().st_mode)) == (b"new", mode)


def test_a_link_that_cannot_be_followed_stays(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(link)
    with pytest.raises(OSError, match="symbolic links") as told:
        write_named(link, b"page")
    assert told.value.filename == str(link)
    assert link.is_symlink()


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    named, (reading, writing) = tmp_path / "pipe", os.pipe()
    os.mkfifo(named)
    waiting = os.open(named, os.O_RDWR)
    for path, descriptor in ((named, waiting), (Path(f"/dev/fd/{writing}"), reading)):
        write_named(path, b"page")
        assert path.is_fifo()
        assert os.read(descriptor, 9) == b"page"
    for descriptor in (waiting, reading, writing):
        os.close(descriptor)


def test_an_open_file_without_a_name_is_written_to(tmp_path: Path) -> None:
    with (tmp_path / "gone").open("w+b") as stream:
        (tmp_path / "gone").unlink()
        write_named(Path(f"/dev/fd/{stream.fileno()}"), b"page")
        assert stream.read() == b"page"
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_given_once(tmp_path: Path) -> None:
    for content, is_new in ((b"first", True), (b"second", False)):
        assert commit(tmp_path / "a", partial(Path.write_bytes, data=content)) is is_new
    assert (tmp_path / "a").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
