"""Phase folders: continue with the same inputs, refuse others by name, delete nothing that is not ours."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from vpgea.config.resolve import flat_config
from vpgea.config.schema import RunConfig, identity_of, leaves
from vpgea.errors import DamagedError, UsageError
from vpgea.runs.complete_phase import CompletePhase, chunk_paths
from vpgea.runs.layout import PROTOCOL, RESULTS, chunk_number
from vpgea.runs.manifest import Manifest, fingerprint_of
from vpgea.runs.parts import Part
from vpgea.runs.phase_folder import PhaseFolder, complete_phase
from vpgea.storage.files import read_json, temporary_path, write_json
from vpgea.storage.shards import sidecar_path, write_table

SNAPSHOT = Path(__file__).parents[2] / "data" / "identity_fields.txt"
PHASES = {  # the sections of the configuration that enter each phase's fingerprint
    "rollout": ("model", "data", "views", "rollout"),
    "filter": ("grading", "filter"),
    "distill": ("distill", "model"),
    "eval": ("model", "data", "views", "rollout", "grading", "eval"),
    "loop": ("model", "data", "views", "rollout", "grading", "filter", "distill", "eval", "loop"),
}
MANIFEST = Manifest(
    phase="rollout",
    identity={"rollout.seed": 0, "data.limit": None},
    inputs={"model": "abc"},
    config={"rollout.seed": 0},
)


def fill(folder: PhaseFolder, *chunks: int) -> None:
    for chunk in chunks:
        write_table(folder.chunk(chunk), pa.table({"chunk": [chunk]}))


def finished(root: Path, chunks: int = 2) -> PhaseFolder:
    folder = PhaseFolder.open(root, MANIFEST)
    fill(folder, *range(chunks))
    assert folder.complete({"chunks": chunks})
    return folder


def test_the_same_fingerprint_continues(tmp_path: Path) -> None:
    first = PhaseFolder.open(tmp_path / "out", MANIFEST)
    fill(first, 0)
    again = PhaseFolder.open(tmp_path / "out", MANIFEST)
    assert again.missing([0, 1]) == [1]
    assert not again.is_complete


@pytest.mark.parametrize(
    ("now", "what", "why"),
    [
        (
            replace(MANIFEST, identity={"rollout.seed": 1, "data.limit": None}),
            "rollout.seed differs",
            "was 0 and is now 1",
        ),
        (replace(MANIFEST, identity={**MANIFEST.identity, "data.limit": 5}), "data.limit differs", "None and is now 5"),
        (replace(MANIFEST, inputs={"model": "xyz"}), "the model differs", "'abc' and is now 'xyz'"),
    ],
)
def test_a_different_one_names_the_field_and_three_ways_out(tmp_path: Path, now: Manifest, what: str, why: str) -> None:
    fill(PhaseFolder.open(tmp_path / "out", MANIFEST), 0)
    assert now.fingerprint != MANIFEST.fingerprint
    with pytest.raises(UsageError) as error:
        PhaseFolder.open(tmp_path / "out", now)
    assert what in error.value.what
    assert why in error.value.why
    assert all(way in error.value.mend for way in ("restore it", "--output-dir", "--overwrite"))


def test_another_phase_is_refused_by_name(tmp_path: Path) -> None:
    PhaseFolder.open(tmp_path / "out", MANIFEST)
    with pytest.raises(UsageError) as error:
        PhaseFolder.open(tmp_path / "out", replace(MANIFEST, phase="filter"))
    assert "rollout folder" in error.value.why


def test_execution_fields_do_not_matter(tmp_path: Path) -> None:
    PhaseFolder.open(tmp_path / "out", MANIFEST)
    PhaseFolder.open(tmp_path / "out", replace(MANIFEST, config={"rollout.batch_size": 5}))


def test_no_resume_refuses_a_folder_with_data(tmp_path: Path) -> None:
    PhaseFolder.open(tmp_path / "out", MANIFEST, resume=False)
    with pytest.raises(UsageError, match="cannot write to"):
        PhaseFolder.open(tmp_path / "out", MANIFEST, resume=False)


def test_an_existing_empty_folder_will_do(tmp_path: Path) -> None:
    assert PhaseFolder.open(tmp_path, MANIFEST).part.is_dir()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["notes.txt", "parts/notes.txt", "parts/of-mine/x"])
def test_a_folder_of_someone_else_is_left_alone(tmp_path: Path, name: str, overwrite: bool) -> None:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="cannot write to"):
        PhaseFolder.open(tmp_path, MANIFEST, overwrite=overwrite)
    assert file.read_text(encoding="utf-8") == "mine"


def test_overwrite_deletes_no_foreign_file_beside_our_own(tmp_path: Path) -> None:
    folder = finished(tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="--overwrite will not delete") as error:
        PhaseFolder.open(tmp_path / "out", MANIFEST, overwrite=True)
    assert "notes.txt" in error.value.why
    assert folder.missing([0]) == []
    PhaseFolder.open(tmp_path / "out", MANIFEST)  # going on beside it is no harm


def test_the_card_of_a_protocol_is_an_evaluation_s_own(tmp_path: Path) -> None:
    evaluation = replace(MANIFEST, phase="eval")
    PhaseFolder.open(tmp_path / "out", evaluation)
    for name in (RESULTS, PROTOCOL):
        (tmp_path / "out" / name).write_text("{}", encoding="utf-8")
    PhaseFolder.open(tmp_path / "out", evaluation, overwrite=True)
    assert not [name for name in (RESULTS, PROTOCOL) if (tmp_path / "out" / name).exists()]


def test_overwrite_of_one_part_does_not_delete_the_others(tmp_path: Path) -> None:
    parts = [PhaseFolder.open(tmp_path / "out", replace(MANIFEST, part=Part(index, 2))) for index in range(2)]
    fill(parts[0], 0)
    with pytest.raises(UsageError, match="one of 2 parts"):
        PhaseFolder.open(tmp_path / "out", replace(MANIFEST, part=Part(1, 2)), overwrite=True)
    assert parts[0].missing([0]) == []


def test_a_changed_number_of_parts_is_refused(tmp_path: Path) -> None:
    PhaseFolder.open(tmp_path / "out", replace(MANIFEST, part=Part(0, 2)))
    with pytest.raises(UsageError, match="was started with 2 parts") as error:
        PhaseFolder.open(tmp_path / "out", replace(MANIFEST, part=Part(0, 3)))
    assert "i/2" in error.value.mend


def test_parts_of_one_phase_have_the_same_inputs(tmp_path: Path) -> None:
    PhaseFolder.open(tmp_path / "out", replace(MANIFEST, part=Part(0, 2)))
    other = replace(MANIFEST, identity={**MANIFEST.identity, "rollout.seed": 1}, part=Part(1, 2))
    with pytest.raises(UsageError, match=r"rollout\.seed differs"):
        PhaseFolder.open(tmp_path / "out", other)


def test_parts_that_began_together_from_other_inputs_never_become_a_phase(tmp_path: Path) -> None:
    """Each saw no manifest of the other when it looked."""
    seeded: dict[str, object] = {"rollout.seed": 1}
    other = replace(MANIFEST, identity={**MANIFEST.identity, **seeded}, config=seeded)
    for place, manifest, index in (("one", MANIFEST, 0), ("two", other, 1)):
        PhaseFolder.open(tmp_path / place, replace(manifest, part=Part(index, 2)))
    (tmp_path / "two" / "parts" / "1-of-2").rename(tmp_path / "one" / "parts" / "1-of-2")
    parts = [PhaseFolder(tmp_path / "one", replace(MANIFEST, part=Part(index, 2))) for index in range(2)]
    assert not parts[0].complete({})
    with pytest.raises(UsageError, match=r"rollout\.seed differs"):
        parts[1].complete({})


def test_an_output_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="cannot create the folder"):
        PhaseFolder.open(tmp_path / "out", MANIFEST)


def test_a_chunk_is_there_when_its_shards_of_all_kinds_and_their_sidecars_are(tmp_path: Path) -> None:
    folder = PhaseFolder.open(tmp_path, MANIFEST)
    fill(folder, 0, 1, 3)
    write_table(folder.chunk(0, "teacher"), pa.table({"chunk": [0]}))
    sidecar_path(folder.chunk(3)).unlink()
    assert folder.missing(range(5)) == [2, 3, 4]
    assert folder.missing(range(2), "chunk", "teacher") == [1]


def test_opening_sweeps_its_own_part_and_what_stands_beside_the_parts(tmp_path: Path) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    name = temporary_path(Path("x.json"), process.pid).name
    own, other = [PhaseFolder.open(tmp_path, replace(MANIFEST, part=Part(index, 2))).part for index in range(2)]
    beside = [tmp_path, tmp_path / "selected", tmp_path / "round-000"]
    for folder in (own, own / "checkpoints", other, *beside):
        folder.mkdir(exist_ok=True)
        (folder / name).touch()
    PhaseFolder.open(tmp_path, replace(MANIFEST, part=Part(0, 2)))
    assert list(tmp_path.rglob("*.tmp")) == [other / name]


# --- completeness ---------------------------------------------------------------------------------------------------


def test_a_phase_is_complete_when_all_parts_are(tmp_path: Path) -> None:
    parts = [PhaseFolder.open(tmp_path, replace(MANIFEST, part=Part(index, 11))) for index in range(11)]
    for index, part in enumerate(parts):
        fill(part, index, index + 11)
        assert part.complete({}) == (index == 10)
    assert CompletePhase.open(tmp_path, "rollout").manifest.identity == MANIFEST.identity
    assert [path.name for path in chunk_paths(tmp_path)] == [f"chunk-{index:05d}.arrow" for index in range(22)]
    assert read_json(tmp_path / "COMPLETE") == {"parts": 11, "rows": 22}


def test_the_unfinished_part_is_named(tmp_path: Path) -> None:
    parts = [PhaseFolder.open(tmp_path, replace(MANIFEST, part=Part(index, 2))) for index in range(2)]
    parts[0].complete({})
    with pytest.raises(UsageError, match="is not complete") as error:
        CompletePhase.open(tmp_path, "rollout")
    assert "1-of-2" in error.value.why
    assert "0-of-2" not in error.value.why
    assert "vpgea rollout" in error.value.mend


def test_a_missing_folder_and_another_phase_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="folder not found"):
        CompletePhase.open(tmp_path / "nowhere", "rollout")
    finished(tmp_path / "out")
    with pytest.raises(UsageError, match="is a rollout folder"):
        CompletePhase.open(tmp_path / "out", "filter")
    loop = PhaseFolder.open(tmp_path / "run", replace(MANIFEST, phase="loop"))
    (loop.root / "config.yaml").touch()
    with pytest.raises(UsageError, match="is a loop folder"):
        CompletePhase.open(loop.root, "rollout")


def test_what_is_no_folder_of_a_phase_is_said_without_a_word_of_overwriting_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    with pytest.raises(UsageError, match="folder not found") as error:
        CompletePhase.open(tmp_path / "file", "rollout")
    assert error.value.why == "it is a file"
    with pytest.raises(UsageError, match="is no folder of a phase") as error:
        CompletePhase.open(tmp_path, "rollout")
    assert "overwrite" not in f"{error.value}{error.value.why}{error.value.mend}"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"parts": 1}'])
def test_a_marker_that_says_nothing_completes_nothing(tmp_path: Path, content: str) -> None:
    finished(tmp_path)
    (tmp_path / "COMPLETE").write_text(content)
    with pytest.raises(DamagedError):
        CompletePhase.open(tmp_path, "rollout")


def test_a_crash_between_the_parts_marker_and_the_phases_is_mended_by_the_next_run(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    for name in ("COMPLETE", "manifest.json"):
        (tmp_path / name).unlink()
    assert PhaseFolder.open(tmp_path, MANIFEST).complete({"chunks": 2})
    assert CompletePhase.open(tmp_path, "rollout")
    assert folder.is_complete


def test_the_content_fingerprint_follows_the_rows_and_the_identity_not_the_parts(tmp_path: Path) -> None:
    finished(tmp_path / "a")
    finished(tmp_path / "b")
    for index in range(2):
        part = PhaseFolder.open(tmp_path / "split", replace(MANIFEST, part=Part(index, 2)))
        fill(part, index)
        part.complete({})
    other = PhaseFolder.open(tmp_path / "c", MANIFEST)
    fill(other, 0, 7)
    other.complete({})
    a, b, c, split = (
        CompletePhase.open(tmp_path / name, "rollout").content_fingerprint for name in ("a", "b", "c", "split")
    )
    assert a == b == split != c


def test_completing_again_touches_nothing(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert folder.complete({"chunks": 2})
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
    assert complete_phase(tmp_path)


def test_chunks_are_in_the_order_of_their_numbers_beyond_five_digits(tmp_path: Path) -> None:
    parts = [PhaseFolder.open(tmp_path, replace(MANIFEST, part=Part(index, 2))) for index in range(2)]
    fill(parts[0], 99_998, 100_000, 1_000_000)
    fill(parts[1], 10_000, 99_999, 100_001)
    numbers = [10_000, 99_998, 99_999, 100_000, 100_001, 1_000_000]
    for part in parts:
        part.complete({})
    assert [int(path.stem.removeprefix("chunk-")) for path in chunk_paths(tmp_path)] == numbers


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 8])
def test_shares_are_those_of_parts_whatever_the_number_of_parts(tmp_path: Path, count: int) -> None:
    parts = [PhaseFolder.open(tmp_path, replace(MANIFEST, part=Part(index, 4))) for index in range(4)]
    for index, part in enumerate(parts):
        fill(part, *Part(index, 4).of(range(13)))
        part.complete({})
    for index in range(count):
        own = [chunk_number(path) for path in chunk_paths(tmp_path, share=Part(index, count))]
        assert own == Part(index, count).of(range(13))


def test_a_share_of_the_chunks_is_checked_alone_but_a_lost_one_is_noticed_by_all(tmp_path: Path) -> None:
    folder = finished(tmp_path, chunks=5)
    assert [path.name for path in chunk_paths(tmp_path, share=Part(1, 2))] == ["chunk-00001.arrow", "chunk-00003.arrow"]
    folder.chunk(1).unlink()
    write_table(folder.chunk(1), pa.table({"chunk": [99]}))
    assert len(chunk_paths(tmp_path, share=Part(0, 2))) == 3
    with pytest.raises(UsageError, match=r"chunk-00001\.arrow"):
        chunk_paths(tmp_path, share=Part(1, 2))
    folder.chunk(1).unlink()
    for index in range(2):
        with pytest.raises(UsageError, match=r"chunk-00001\.arrow"):
            chunk_paths(tmp_path, share=Part(index, 2))


@pytest.mark.parametrize("gone", ["shard", "sidecar", "both"])
def test_a_shard_lost_after_completion_is_never_passed_over(tmp_path: Path, gone: str) -> None:
    folder = finished(tmp_path)
    if gone != "sidecar":
        folder.chunk(1).unlink()
    if gone != "shard":
        sidecar_path(folder.chunk(1)).unlink()
    with pytest.raises(UsageError, match=r"chunk-00001\.arrow"):
        chunk_paths(tmp_path)


def test_a_shard_exchanged_after_completion_is_noticed(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    folder.chunk(1).unlink()
    write_table(folder.chunk(1), pa.table({"chunk": [99]}))
    with pytest.raises(UsageError, match=r"chunk-00001\.arrow"):
        chunk_paths(tmp_path)


@pytest.mark.parametrize("shards", [None, ["chunk-00000.arrow"], {"chunk-00000.arrow": {"rows": 1}}])
def test_a_marker_of_another_form_is_named(tmp_path: Path, shards: Any) -> None:
    folder = finished(tmp_path)
    write_json(folder.part / "COMPLETE", {"summary": {}, "shards": shards})
    with pytest.raises(UsageError, match="COMPLETE"):
        chunk_paths(tmp_path)


def test_a_part_is_not_completed_with_a_sidecar_of_another_form(tmp_path: Path) -> None:
    folder = PhaseFolder.open(tmp_path, MANIFEST)
    fill(folder, 0)
    write_json(sidecar_path(folder.chunk(0)), {"file": "chunk-00000.arrow"})
    with pytest.raises(UsageError, match=r"chunk-00000\.arrow"):
        folder.complete({})


def test_a_manifest_without_the_contents_fingerprint_is_named(tmp_path: Path) -> None:
    finished(tmp_path)
    write_json(tmp_path / "manifest.json", MANIFEST.as_json())
    with pytest.raises(UsageError, match=r"manifest\.json"):
        CompletePhase.open(tmp_path, "rollout")


# --- manifests ------------------------------------------------------------------------------------------------------


def test_a_manifest_survives_its_file(tmp_path: Path, run_config: Callable[..., RunConfig]) -> None:
    config = run_config()
    manifest = Manifest(
        phase="rollout",
        identity=identity_of(config, *PHASES["loop"]),
        inputs={"model": "m"},
        config=flat_config(config),
        part=Part(1, 3),
    )
    PhaseFolder.open(tmp_path, manifest)
    read = Manifest.read(tmp_path / "parts" / "1-of-3" / "manifest.json")
    assert read == manifest
    assert read.fingerprint == manifest.fingerprint


def test_recorded_paths_are_absolute_and_links_stay(
    tmp_path: Path, run_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The python of a virtual environment is a link: what it points at knows nothing of the environment."""
    (tmp_path / "python").symlink_to(sys.executable)
    monkeypatch.chdir(tmp_path)
    config = run_config(sglang__python="python")
    assert flat_config(config)["sglang.python"] == str(tmp_path / "python")


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 0},
        {"shard": [0]},
        {"shard": ["x", 1]},
        {"identity": None},
        {"inputs": [1]},
        {"identity": None, "shard": None},
    ],
)
def test_a_manifest_of_another_version_or_kind_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(MANIFEST.as_json() | change), encoding="utf-8")
    with pytest.raises(UsageError, match=r"manifest\.json"):
        Manifest.read(path)


def test_the_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    assert fingerprint_of({"a": 1, "b": 2}, {}) == fingerprint_of({"b": 2, "a": 1}, {})
    assert fingerprint_of({"a": 1}, {}) != fingerprint_of({}, {"a": "1"})


def test_the_identity_fields_of_each_phase_are_those_of_the_snapshot() -> None:
    """A field that moves between identity and execution changes what may be resumed: change the snapshot knowingly."""
    config = RunConfig()
    listed = [f"{phase}: {key}" for phase, sections in PHASES.items() for key in identity_of(config, *sections)]
    assert SNAPSHOT.read_text(encoding="utf-8").splitlines() == listed


def test_every_field_says_whether_it_changes_results() -> None:
    assert {field.json_schema_extra["role"] for _, field in leaves()} == {"identity", "execution"}
