"""All bytes of a model's files: what a fingerprint's samples pass over is seen here."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from vpgea.modeling import contents
from vpgea.modeling.contents import Contents, cached_checksum, folder_content
from vpgea.modeling.fingerprint import fingerprint_of
from vpgea.storage.files import file_checksum


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """2 MiB of weights, of which a fingerprint samples half."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    save_file({"weight": np.ones(1 << 19, np.float32)}, folder / "model.safetensors")
    return folder


def change_between_samples(weights: Path) -> None:
    """One byte that no sample holds: the 16 blocks of 64 KiB stand 126 KiB apart."""
    content = bytearray(weights.read_bytes())
    content[100 * 1024] ^= 1
    weights.write_bytes(content)


def test_a_change_in_place_is_another_content_of_the_same_fingerprint(model: Path) -> None:
    fingerprint, content = fingerprint_of([model]), folder_content(model)
    change_between_samples(model / "model.safetensors")
    assert fingerprint_of([model]) == fingerprint
    assert folder_content(model) != content


def test_a_cached_checksum_is_not_believed_once_the_file_was_touched(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its size and its time of modification were put back."""
    weights = model / "model.safetensors"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(contents, "CACHED_FROM", 1)
    monkeypatch.setattr(contents, "SETTLED_S", -1)
    before, stat = cached_checksum(weights), weights.stat()
    (record,) = (tmp_path / "cache").rglob("*.json")
    assert cached_checksum(weights) == before
    record.write_text(record.read_text().replace(before, "0" * 64))
    contents.READ_HERE.clear()  # as another process
    assert cached_checksum(weights) == "0" * 64, "it was taken from the cache"
    change_between_samples(weights)
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert cached_checksum(weights) == file_checksum(weights)


def test_a_file_just_written_and_a_small_one_are_read_again(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cached_checksum(model / "model.safetensors")
    monkeypatch.setattr(contents, "CACHED_FROM", 1)
    cached_checksum(model / "model.safetensors")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("home", ["unknown", "a file", "denied"])
def test_without_a_cache_to_use_a_file_is_read_again(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    """No home can be told, its cache is no folder, or nothing in it may be read."""

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    def denied(*_: object) -> None:
        raise PermissionError("denied")

    weights, cache = model / "model.safetensors", tmp_path / "cache"
    monkeypatch.setattr(contents, "CACHED_FROM", 1)
    monkeypatch.setattr(contents, "SETTLED_S", -1)
    if home == "unknown":
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(Path, "home", unknown)
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    if home == "a file":
        cache.touch()
    if home == "denied":
        monkeypatch.setattr(contents, "read_record", denied)
    assert cached_checksum(weights) == file_checksum(weights)


def test_contents_are_read_when_asked_for_and_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, read, wanted = Contents({"model": model}).with_known(selection="abc"), list[Path](), folder_content(model)

    def reading(folder: Path) -> str:
        read.append(folder)
        return wanted

    monkeypatch.setattr(contents, "folder_content", reading)
    assert list(found) == ["model", "selection"]
    assert len(found) == 2
    assert not read
    assert dict(found) == dict(found) == {"model": wanted, "selection": "abc"}
    assert read == [model]


def test_a_file_is_read_once_by_a_process_until_it_is_touched(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "SETTLED_S", -1)
    weights, read = model / "model.safetensors", list[Path]()

    def reading(file: Path) -> str:
        read.append(file)
        return file_checksum(file)

    monkeypatch.setattr(contents, "file_checksum", reading)
    before = cached_checksum(weights)
    assert cached_checksum(weights) == before
    assert read == [weights]
    change_between_samples(weights)
    assert cached_checksum(weights) == file_checksum(weights) != before
