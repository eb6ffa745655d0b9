"""--overwrite: it deletes what the same phase wrote, and nothing else, and never under a process that writes there."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from vpgea.errors import UsageError
from vpgea.runs.manifest import Manifest
from vpgea.runs.overwriting import is_published, is_written_by, writing
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.runs.progress import NullProgress
from vpgea.runs.stopping import StopRequest
from vpgea.storage.shards import write_table
from vpgea.training.ranks import Ranks
from vpgea.training.turn import training_turn

ROLLOUT = Manifest(phase="rollout", identity={"rollout.seed": 0}, inputs={"model": "abc"}, config={})
OTHER = replace(ROLLOUT, identity={"rollout.seed": 1})


def begun(root: Path, manifest: Manifest = ROLLOUT) -> PhaseFolder:
    folder = PhaseFolder.open(root, manifest)
    if manifest.phase not in ("loop", "distill"):
        write_table(folder.chunk(0), pa.table({"row": [1]}))
    return folder


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("{}", encoding="utf-8")


def everything(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


WRITTEN = {
    "rollout": ["manifest.json", "COMPLETE", "logs/sglang-0.log", "parts/0-of-1/.chunk-00001.arrow~h~1~u.tmp"],
    "filter": [
        *("selected/chunk-00000.arrow", "rejected/chunk-00000.json", "reference_lengths.json", "summary.json"),
        *("parts/0-of-1/teacher-00000.arrow", "damaged/parts/0-of-1/chunk-00000.arrow"),
    ],
    "distill": [
        *("adapter/adapter_model.safetensors", "adapter/adapter_config.json", "adapter/vpgea_canary.json"),
        *("model/tokenizer.model", "model/chat_template.jinja", "summary.json", "metrics.jsonl", ".model.tmp/x"),
        *("parts/0-of-1/checkpoints/step-000004/state.json", "parts/0-of-1/old_logprobs.safetensors"),
        "tensorboard/events.out.tfevents.1",
    ],
    "eval": ["results.json"],
    "loop": [
        *("config.yaml", "metrics.jsonl", "base/round.json", "base/eval/results.json", "round-1000/round.json"),
        *("round-000/rollout/parts/1-of-2/chunk-00000.arrow", "round-000/distill/model/config.json"),
        *("logs/slurm/vpgea-1-r000-rollout-7_0.out", "logs/sglang-3.log", "round-000/filter/selected/chunk-00000.json"),
    ],
}


@pytest.mark.parametrize("phase", WRITTEN)
@pytest.mark.parametrize("by_link", [False, True])
def test_what_the_phase_wrote_goes_and_it_starts_anew(phase: str, by_link: bool, tmp_path: Path) -> None:
    manifest, root = replace(ROLLOUT, phase=phase), tmp_path / "out"
    begun(root, manifest)
    put(root, *WRITTEN[phase])
    if by_link:
        (tmp_path / "link").symlink_to(root)
    start = tmp_path / "link" if by_link else root
    folder = PhaseFolder.open(start, replace(manifest, identity={"rollout.seed": 1}), overwrite=True)
    assert everything(root) == {"parts", "parts/0-of-1", "parts/0-of-1/manifest.json"}
    assert folder.missing([0]) == [0]


@pytest.mark.parametrize(
    ("phase", "mine"),
    [
        ("rollout", "notes.txt"),
        ("rollout", "parts/0-of-1/notes.txt"),
        ("rollout", "parts/0-of-1/chunk-00000.csv"),
        ("rollout", "logs/mine.log"),
        ("filter", "selected/picked.txt"),
        ("distill", "model/notes.md"),
        ("distill", "adapter/sub/notes.json"),
        ("distill", "parts/0-of-1/checkpoints/step-000004/why.txt"),
        ("loop", "round-000/my_notes/n"),
        ("loop", "round-000/rollout/parts/0-of-1/notes.txt"),
        ("loop", "slurm/rollout.sh"),  # as nobody rendered it
    ],
)
def test_a_file_of_the_users_is_kept_at_every_level(phase: str, mine: str, tmp_path: Path) -> None:
    manifest = replace(ROLLOUT, phase=phase)
    begun(tmp_path, manifest)
    put(tmp_path, *WRITTEN[phase], mine)
    before = everything(tmp_path)
    with pytest.raises(UsageError, match="--overwrite will not delete") as error:
        PhaseFolder.open(tmp_path, manifest, overwrite=True)
    assert mine in error.value.why
    assert everything(tmp_path) == before


@pytest.mark.parametrize(("there", "now"), [("loop", "rollout"), ("rollout", "loop"), ("eval", "rollout")])
def test_a_folder_of_another_kind_is_kept(there: str, now: str, tmp_path: Path) -> None:
    begun(tmp_path, replace(ROLLOUT, phase=there))
    before = everything(tmp_path)
    with pytest.raises(UsageError, match="--overwrite will not delete") as error:
        PhaseFolder.open(tmp_path, replace(ROLLOUT, phase=now), overwrite=True)
    assert error.value.why == f"it is a {there} folder, and this is a {now}"
    assert everything(tmp_path) == before


def test_a_link_is_deleted_and_not_what_it_leads_to(tmp_path: Path) -> None:
    begun(tmp_path / "out", replace(ROLLOUT, phase="distill"))
    put(tmp_path, "cache/blob", "out/model/config.json")
    (tmp_path / "out" / "model" / "model.safetensors").symlink_to(tmp_path / "cache" / "blob")
    PhaseFolder.open(tmp_path / "out", replace(ROLLOUT, phase="distill"), overwrite=True)
    assert (tmp_path / "cache" / "blob").is_file()
    assert not (tmp_path / "out" / "model").exists()


def test_names_of_published_files() -> None:
    assert all(map(is_published, ("model.safetensors", "tokenizer.json", "merges.txt", "vpgea_export.json")))
    assert all(map(is_published, ("tokenizer.model.v3", "vocab.bpe", "vocab.txt", "modeling_own.py")))
    assert all(map(is_published, ("configuration_own.py", "tokenization_own.py")))
    assert not any(map(is_published, ("notes.txt", "train.py", "figure.png", "sub/model.safetensors")))
    assert not is_written_by("rollout", "summary.json")


# --- writers ---------------------------------------------------------------------------------------------------------

WRITER = """
import sys, time
from pathlib import Path
from vpgea.runs.overwriting import writing
with writing(Path(sys.argv[1])):
    print("writes", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("inside", ["", "round-000/rollout"])
def test_nothing_is_deleted_under_a_process_that_writes_there(inside: str, tmp_path: Path) -> None:
    """Of a loop, neither under one that takes all steps nor under one that takes a single step."""
    outer = replace(ROLLOUT, phase="loop" if inside else "rollout")
    begun(tmp_path, outer)
    folder = begun(tmp_path / inside) if inside else PhaseFolder(tmp_path, outer)
    command = [sys.executable, "-c", WRITER, str(folder.part)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdin is not None
        writer.stdout.readline()
        with folder.writing():  # a twin may write there too
            pass
        with pytest.raises(UsageError, match="--overwrite will not delete") as error:
            PhaseFolder.open(tmp_path, outer, overwrite=True)
        assert error.value.why == f"another process is writing to {folder.part}"
        assert folder.missing([0]) == []
        writer.stdin.close()
        assert writer.wait() == 0
    PhaseFolder.open(tmp_path, outer, overwrite=True)
    assert not (folder.part / "chunk-00000.arrow").exists()


def test_a_start_of_which_nothing_came_leaves_the_folder_free(tmp_path: Path) -> None:
    for phase in ("rollout", "loop"):
        root, first = tmp_path / phase, replace(ROLLOUT, phase=phase)
        PhaseFolder.open(root, first)
        put(root, "logs/sglang-0.log", *(("config.yaml",) if phase == "loop" else ()))
        if phase == "loop":
            PhaseFolder.open(root / "base" / "eval", replace(ROLLOUT, phase="eval"))
        mended = replace(first, inputs={"model": "mended"})
        assert PhaseFolder.open(root, mended).missing([0]) == [0]
        PhaseFolder.open(root, mended)
        with pytest.raises(UsageError, match="cannot write to"):
            PhaseFolder.open(root, replace(first, phase="eval"))


@pytest.mark.parametrize(
    "made",
    [
        *("parts/0-of-1/chunk-00000.arrow", "notes.txt", "round-000/rollout/parts/0-of-1/COMPLETE"),
        "slurm/rollout.sh",  # jobs that are queued would go on with the other inputs
    ],
)
def test_what_was_made_or_is_somebodys_holds_the_folder(made: str, tmp_path: Path) -> None:
    loop = replace(ROLLOUT, phase="loop")
    PhaseFolder.open(tmp_path, loop)
    put(tmp_path, made)
    with pytest.raises(UsageError, match="was started with other inputs"):
        PhaseFolder.open(tmp_path, replace(loop, inputs={"model": "mended"}))
    assert (tmp_path / made).is_file()


def test_a_training_whose_turn_it_is_is_not_deleted(tmp_path: Path) -> None:
    training = replace(ROLLOUT, phase="distill")
    folder = PhaseFolder.open(tmp_path, training)
    with training_turn(folder.part, Ranks(), StopRequest(), NullProgress()) as turn:
        turn.take()
        with pytest.raises(UsageError, match="--overwrite will not delete"):
            PhaseFolder.open(tmp_path, training, overwrite=True)
        folder.require_ours()
        PhaseFolder.open(tmp_path, replace(training, identity={}))  # as who has the turn may begin it anew
    PhaseFolder.open(tmp_path, training, overwrite=True)


def test_a_file_system_that_takes_no_writes_can_still_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, opened = begun(tmp_path), os.open

    def read_only(path: Path, flags: int, *more: int) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opened(path, flags, *more)

    monkeypatch.setattr(os, "open", read_only)
    with folder.writing(), folder.writing():
        pass


def test_a_live_start_holds_the_folder_though_nothing_came_of_it_yet(tmp_path: Path) -> None:
    first = PhaseFolder.open(tmp_path, ROLLOUT)
    with first.writing(), pytest.raises(UsageError, match="was started with other inputs"):
        PhaseFolder.open(tmp_path, OTHER)
    first.require_ours()
    PhaseFolder.open(tmp_path, OTHER)


def test_a_writer_whose_folder_became_another_runs_commits_and_completes_nothing(tmp_path: Path) -> None:
    """As on a file system without locks, or where the other began between the opening and the first chunk."""
    first = begun(tmp_path)
    PhaseFolder.open(tmp_path, OTHER, overwrite=True)
    with pytest.raises(UsageError, match="is another run's now"):
        first.require_ours()
    with pytest.raises(UsageError, match="is another run's now"):
        first.complete({})
    assert not list(tmp_path.rglob("COMPLETE"))


def test_a_folder_that_is_gone_is_no_other_runs(tmp_path: Path) -> None:
    folder = begun(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"manifest\.json"):
        folder.require_ours()
    with writing(folder.part):
        pass
