"""The journals of a part: when they are written, who reads them, and when they go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from vpgea.errors import Stopped, UsageError
from vpgea.inspection.folders import open_source, overview
from vpgea.runs.journals import EVERY_S, Journals
from vpgea.runs.manifest import Manifest
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.runs.progress import NullProgress
from vpgea.runs.stopping import StopRequest
from vpgea.storage.journal import KeptRow, read_journal
from vpgea.storage.shards import write_table
from vpgea_cli.main import run

MANIFEST = Manifest(phase="rollout", identity={"seed": 0}, inputs={"model": "abc"}, config={})
OTHER = Manifest(phase="rollout", identity={"seed": 1}, inputs={"model": "abc"}, config={})
NOTHING = np.zeros(1, np.int32)


class Warned(NullProgress):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def kept(name: str) -> KeptRow:
    return KeptRow(request=name, completion_ids=NOTHING, logprobs=NOTHING.astype(np.float32), finish_reason="stop")


def add(journals: Journals, chunk: int, *names: str) -> None:
    for name in names:
        journals.add(chunk, kept(name), engine="transformers", logprobs_of="sampler")


def opened(folder: PhaseFolder, *missing: int, steady: Callable[[], float] = lambda: 0.0) -> Journals:
    return Journals(folder, missing or (0, 1), StopRequest(), NullProgress(), steady)


def files(folder: PhaseFolder) -> list[Path]:
    return sorted(folder.part.glob("*.journal"))


def read(folder: PhaseFolder, chunk: int, progress: NullProgress | None = None) -> list[str]:
    journals = Journals(folder, (0, 1), StopRequest(), progress or NullProgress())
    return sorted(row.request for _, row in journals.read(chunk))


def test_rows_wait_for_some_seconds_at_most_and_then_they_are_on_disk(tmp_path: Path) -> None:
    folder, now = PhaseFolder.open(tmp_path, MANIFEST), [100.0]
    with opened(folder, steady=lambda: now[0]) as journals:
        now[0] += EVERY_S / 2
        add(journals, 0, "a")
        add(journals, 1, "b")
        assert files(folder) == [], "a chunk that is whole soon has no journal"
        now[0] += EVERY_S / 2
        journals.tick()
        assert [read(folder, chunk) for chunk in (0, 1)] == [["a"], ["b"]]
        add(journals, 0, "c")
        assert read(folder, 0) == ["a"]
    assert read(folder, 0) == ["a", "c"], "the end of the block leaves nothing unwritten"
    assert len(files(folder)) == 2


def test_a_stop_that_is_heard_leaves_nothing_unwritten(tmp_path: Path) -> None:
    folder, stop = PhaseFolder.open(tmp_path, MANIFEST), StopRequest()
    with Journals(folder, (0,), stop, NullProgress()) as journals:
        add(journals, 0, "a")
        stop.request("a test")
        with pytest.raises(Stopped):
            stop.check()
        assert read(folder, 0) == ["a"]


def test_every_writer_has_its_own_file_and_a_committed_chunk_has_none(tmp_path: Path) -> None:
    folder = PhaseFolder.open(tmp_path, MANIFEST)
    for name in ("a", "b"):
        with opened(folder) as journals:
            add(journals, 0, name)
            add(journals, 1, name)
    assert read(folder, 0) == ["a", "b"]
    with opened(folder) as journals, opened(folder) as twin:
        add(journals, 0, "c")
        add(twin, 0, "d")
        journals.flush()
        twin.flush()
        journals.committed(0)
        assert len([path for path in files(folder) if "-00000-" in path.name]) == 1, "the twin has its own open"
    assert {path.name[:11] for path in files(folder)} == {"chunk-00001"}


def test_a_journal_that_a_kill_left_beside_its_shard_goes(tmp_path: Path) -> None:
    folder = PhaseFolder.open(tmp_path, MANIFEST)
    with opened(folder) as journals:
        add(journals, 0, "a")
        add(journals, 1, "b")
    write_table(folder.chunk(0), pa.table({"row": [1]}))
    opened(folder, *folder.missing((0, 1)))
    assert read(folder, 0) == []
    assert read(folder, 1) == ["b"]


def test_a_journal_of_other_inputs_or_another_chunk_is_never_used(tmp_path: Path) -> None:
    folder = PhaseFolder.open(tmp_path / "one", MANIFEST)
    other = PhaseFolder.open(tmp_path / "other", OTHER)
    with opened(other) as journals:
        add(journals, 0, "a")
    source, progress = files(other)[0], Warned()
    (folder.part / source.name).write_bytes(source.read_bytes())
    (other.part / source.name.replace("-00000-", "-00001-")).write_bytes(source.read_bytes())
    assert read(folder, 0, progress) == []
    assert read(other, 1, progress) == []
    assert [text.endswith("is of other inputs, and is not used") for text in progress.warnings] == [True, True]
    assert read(other, 0) == ["a"]


def test_damage_is_said_and_a_torn_end_is_not(tmp_path: Path) -> None:
    folder, progress = PhaseFolder.open(tmp_path, MANIFEST), Warned()
    with opened(folder) as journals:
        add(journals, 0, "a")
        journals.flush()
        add(journals, 0, "b")
    path = files(folder)[0]
    content = bytearray(path.read_bytes())
    path.write_bytes(content[:-1])
    assert read_journal(path).torn > 0
    assert read(folder, 0, progress) == ["a"]
    assert progress.warnings == []
    content[-1] ^= 1
    path.write_bytes(content)
    assert read(folder, 0, progress) == ["a"]
    assert len(progress.warnings) == 1
    assert progress.warnings[0].startswith(f"{path.name} is damaged behind 1 completions")


def test_no_journal_is_begun_in_a_folder_that_became_another_runs(tmp_path: Path) -> None:
    folder = PhaseFolder.open(tmp_path, MANIFEST)

    def write() -> None:
        with opened(folder) as journals:
            add(journals, 0, "a")
            PhaseFolder.open(tmp_path, OTHER, overwrite=True)

    with pytest.raises(UsageError, match="is another run's now"):
        write()
    assert files(folder) == []


def test_overwrite_clears_journals_and_other_inputs_do_not(tmp_path: Path) -> None:
    """Finished samples are something that was made: a folder that holds them is not free for other inputs."""
    folder = PhaseFolder.open(tmp_path, MANIFEST)
    with opened(folder) as journals:
        add(journals, 0, "a")
    with pytest.raises(UsageError, match="seed differs"):
        PhaseFolder.open(tmp_path, OTHER)
    assert read(folder, 0) == ["a"]
    PhaseFolder.open(tmp_path, OTHER, overwrite=True)
    assert files(folder) == []


def test_inspect_counts_what_is_kept_and_doctor_finds_nothing_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = PhaseFolder.open(tmp_path, MANIFEST)
    with opened(folder) as journals:
        add(journals, 0, "a", "b")
        add(journals, 1, "c")
    path = files(folder)[1]
    path.write_bytes(path.read_bytes()[:-3])
    assert run(["inspect", str(tmp_path)]) == 0
    assert "0 shards, 0 rows, 0 bytes, 2 completions of unfinished chunks" in capsys.readouterr().out
    found = overview(open_source(tmp_path))
    assert found["parts"][0]["kept"] == {"completions": 2, "torn_bytes": read_journal(path).torn, "damaged_journals": 0}
    assert run(["doctor", str(tmp_path)]) == 0
