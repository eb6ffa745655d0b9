"""The JSON beside shards: manifests, COMPLETE and sidecars of odd forms."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from hypothesis import strategies as st

from tests.campaigns.fuzz.probe import ACCEPTED, Edit, Probe, as_json, damaged, edits, odd_json, odd_objects, odd_values
from vpgea.runs import phase_folder
from vpgea.runs.complete_phase import CompletePhase
from vpgea.storage.files import read_json
from vpgea.storage.shards import read_table, write_table

_MANIFEST = phase_folder.Manifest(
    phase="rollout", identity={"seed": 1}, inputs={"questions": "ab"}, config={"rollout.seed": 1}
)
_PART = Path("parts", "0-of-1")
_FILES = {
    "manifest": Path("manifest.json"),
    "part": _PART / "manifest.json",
    "complete": Path("COMPLETE"),
    "part complete": _PART / "COMPLETE",
    "sidecar": _PART / "chunk-00000.json",
}


class Folder(NamedTuple):
    """A file of a good phase folder, what stands in it instead (None: nothing), and what is done to its bytes."""

    file: str
    content: bytes | None
    damages: list[Edit]
    reader: str


def _make(root: Path) -> None:
    folder = phase_folder.PhaseFolder.open(root, _MANIFEST)
    write_table(folder.chunk(0), pa.table({"round": [0, 1]}))
    folder.complete({"rows": 2})


def _read(root: Path) -> None:
    for path in CompletePhase.open(root, "rollout").chunks():
        read_table(path)


def _write(root: Path) -> None:
    phase_folder.PhaseFolder.open(root, _MANIFEST).complete({"rows": 2})


_READERS: dict[str, Callable[[Path], None]] = {"read": _read, "resume": _write}


def _contents(valid: dict[str, Any]) -> st.SearchStrategy[bytes | None]:
    """The good object, one that is odd itself or in an object within it, anything else, or nothing."""
    return st.one_of(_odd_within(valid).map(as_json), odd_values.map(as_json), odd_json, st.none())


def _odd_within(valid: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    within: list[st.SearchStrategy[dict[str, Any]]] = [
        st.builds(dict, st.just(valid), **{key: _odd_within(value)})
        for key, value in valid.items()
        if isinstance(value, dict) and value
    ]
    return st.one_of(odd_objects(valid), *within)


@contextmanager
def probe(folder: Path) -> Iterator[Probe]:
    """A complete phase folder of one shard in which one file is odd, read or continued."""
    good, root = folder / "good", folder / "phase"
    _make(good)
    inputs = st.one_of(
        *(
            st.builds(
                Folder,
                st.just(name),
                _contents(read_json(good / file)),
                st.one_of(st.just([]), st.lists(edits, max_size=2)),
                st.sampled_from(sorted(_READERS)),
            )
            for name, file in _FILES.items()
        )
    )

    def check(odd: Folder) -> str:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(good, root)
        path = root / _FILES[odd.file]
        if odd.content is None:
            path.unlink()
        else:
            path.write_bytes(damaged(odd.content, odd.damages))
        _READERS[odd.reader](root)
        return ACCEPTED

    yield Probe(inputs, check)
