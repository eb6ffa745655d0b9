"""JSON records: read strictly, written with the bytes that they had."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from vpgea.errors import DamagedError
from vpgea.storage.files import json_bytes, read_json, write_json
from vpgea.storage.records import json_of, read_entry, read_record


@dataclass(frozen=True)
class Inner:
    value: float | None
    names: list[str]


@dataclass(frozen=True)
class Outer:
    count: int
    inner: Inner | str
    by_name: dict[str, Inner]
    anything: object
    word: Literal["inside", "outside"]
    added_later: int = 0


WHOLE: dict[str, Any] = {
    "count": 3,
    "inner": {"value": 1, "names": ["a"]},
    "by_name": {"x": {"value": None, "names": []}},
    "anything": [1, {"b": None}],
    "word": "outside",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "record.json"


def test_what_is_read_is_written_again_byte_for_byte(path: Path) -> None:
    value = {**WHOLE, "added_later": 7}
    write_json(path, value)
    assert json_bytes(json_of(read_record(path, Outer))) == path.read_bytes()
    assert json.loads(json_bytes(json_of(read_record(path, Outer)))) == value


def test_only_an_entry_with_a_default_may_be_missing(path: Path) -> None:
    write_json(path, WHOLE)
    assert read_record(path, Outer).added_later == 0
    for name in WHOLE:
        write_json(path, {key: value for key, value in WHOLE.items() if key != name})
        with pytest.raises(DamagedError) as error:
            read_record(path, Outer)
        assert str(path) in error.value.what
        assert f"no entry '{name}'" in error.value.why


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"count": 3.0}, "count"),
        ({"count": True}, "count"),
        ({"count": None}, "count"),
        ({"inner": 5}, "inner"),
        ({"inner": {"value": "1", "names": []}}, "inner"),
        ({"by_name": {"x": {"value": 1, "names": [2]}}}, "names"),
        ({"by_name": []}, "by_name"),
        ({"word": "beside"}, "word"),
        ({"word": ["inside"]}, "word"),
        ({"extra": 1}, "extra"),
    ],
)
def test_an_entry_of_another_type_or_name_is_damage(path: Path, change: dict[str, Any], named: str) -> None:
    write_json(path, WHOLE | change)
    with pytest.raises(DamagedError) as error:
        read_record(path, Outer)
    assert named in error.value.why


def test_one_entry_of_a_file_of_others(path: Path) -> None:
    write_json(path, {"weight_map": {"a": "b"}, "metadata": {}})
    assert read_entry(path, "weight_map", dict[str, str]) == {"a": "b"}
    for content in ({}, {"weight_map": {"a": 1}}, {"weight_map": None}):
        write_json(path, content)
        with pytest.raises(DamagedError, match=r"record\.json"):
            read_entry(path, "weight_map", dict[str, str])


def test_a_file_that_is_gone_is_damage_of_its_own_name(path: Path) -> None:
    with pytest.raises(DamagedError, match="file not found"):
        read_json(path)
