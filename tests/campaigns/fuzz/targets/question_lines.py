"""Question files as text: jsonl, jsonl.gz and json."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st

from tests.campaigns.fuzz.probe import Edit, Probe, as_json, damaged, edits, odd_json, odd_objects
from tests.campaigns.fuzz.targets.question_data import ROWS, load, loadings


class File(NamedTuple):
    """A question file before it is put together."""

    suffix: str
    lines: list[bytes]
    ends: bytes
    mark: bytes
    damages: list[Edit]
    loading: dict[str, Any]


_lines = st.one_of(
    *(st.builds(as_json, odd_objects(row), escaped=st.booleans()) for row in ROWS),
    st.sampled_from([as_json(row) for row in ROWS]),
    odd_json,
)
_files = st.builds(
    File,
    st.sampled_from([".jsonl", ".jsonl", ".jsonl", ".jsonl.gz", ".json", ".JSONL", ".csv"]),
    st.lists(_lines, max_size=5),
    st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\r", b"\x0b"]),
    st.sampled_from([b"", b"", b"", b"\xef\xbb\xbf", b"\xff\xfe"]),
    st.one_of(st.just([]), st.lists(edits, max_size=2)),
    loadings,
)


def _content(file: File) -> bytes:
    if file.suffix == ".json":
        return file.mark + b"[" + b",".join(file.lines) + b"]"
    return file.mark + b"".join(line + file.ends for line in file.lines)


@contextmanager
def probe(folder: Path) -> Iterator[Probe]:
    """Files of a few questions, of which some are odd, and a few bytes damaged."""

    def check(file: File) -> str:
        content = _content(file)
        if file.suffix.endswith("gz"):
            content = gzip.compress(content, compresslevel=1, mtime=0)
        path = folder / f"questions{file.suffix}"
        path.write_bytes(damaged(content, file.damages))
        return load(path, file.loading)

    yield Probe(_files, check)
