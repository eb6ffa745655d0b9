"""Damaged folders through the command line: verified, refused, and mended by making only what was lost."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.campaigns import damage, exchanges
from tests.campaigns.damage import call, campaign, checksums
from tests.support.loops import essence
from vpgea.engines.transformers import TransformersEngine
from vpgea.errors import Stopped
from vpgea_cli.main import run

TRIALS = 2 * len(damage.KINDS)
SEED = 20  # the campaigns draw and print their own


@pytest.fixture
def config(small_run: Path) -> Path:
    """Beside it is `whole`: a loop of one round and a stopped distillation."""
    return small_run


@pytest.fixture
def place(config: Path) -> Iterator[Path]:
    """A copy of it, where it was made."""
    folder = shutil.copytree(config.parent / "whole", config.parent / "copy")
    yield folder
    shutil.rmtree(folder)


def flip(file: Path) -> None:
    """One bit in the midst of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def test_damage_is_told_and_nothing_else_is_touched(config: Path) -> None:
    """Another slice of the campaign at each seed; the gate has one, so that it does not fail by chance."""
    result = campaign(config, trials=TRIALS, seed=SEED)
    assert result.failures == []
    assert all(outcomes.total() == TRIALS // len(damage.KINDS) for outcomes in result.outcomes.values())


def test_what_is_lost_or_named_oddly_is_told_and_nothing_outside_is_touched(config: Path) -> None:
    """A slice of the kinds that need one run alone; the campaign has the others, and mends them."""
    kinds = {name: exchanges.KINDS[name] for name in ("lost part", "exchanged shards", "odd name")}
    result = exchanges.campaign(config, trials=len(kinds), seed=SEED, kinds=kinds, repairs=False)
    assert result.failures == []


# --- verified and mended --------------------------------------------------------------------------------------------


def test_a_whole_folder(place: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = checksums(place)
    assert run(["doctor", str(place / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["shards"], found["weights"], found["mended"]) == (
        10,
        1,
        0,
    )  # 2 drawn, 2 measured, 4 selected, 2 evaluated
    assert run(["doctor", str(place / "stopped")]) == 0  # unfinished is not damaged
    assert capsys.readouterr().out == "checked 0 shards, 1 checkpoints, 0 weights, 1 records: all whole\n"
    assert checksums(place) == before


LOST = {  # file of a run → how many shards and weight files are written again
    "round-000/rollout/parts/0-of-1/chunk-00001.arrow": 1,
    "round-000/rollout/parts/0-of-1/chunk-00001.json": 1,
    "round-000/rollout/parts/0-of-1/COMPLETE": 0,
    "round-000/rollout/parts/0-of-1/manifest.json": 0,
    "round-000/rollout/manifest.json": 0,
    "round-000/rollout/COMPLETE": 0,
    "round-000/filter/parts/0-of-1/chunk-00000.arrow": 5,  # and the selection, which is derived from all chunks
    "round-000/filter/selected/chunk-00001.arrow": 1,
    "round-000/filter/summary.json": 0,
    "round-000/filter/reference_lengths.json": 0,
    "round-000/distill/adapter/adapter_model.safetensors": 2,  # the training, so the optimiser's state as well
    "round-000/distill/optimizer/rank-00000.safetensors": 2,
    "round-000/distill/summary.json": 0,
    "round-000/distill/parts/0-of-1/COMPLETE": 0,
    "round-000/eval/parts/0-of-1/chunk-00000.arrow": 1,
    "round-000/eval/results.json": 0,
    "base/eval/parts/0-of-1/chunk-00000.json": 1,
    "round-000/round.json": 0,
    "base/round.json": 0,
    "parts/0-of-1/manifest.json": 0,
    "config.yaml": 0,
}


@pytest.mark.parametrize("name", LOST)
def test_only_what_is_damaged_is_made_again(
    name: str, config: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = place / "run"
    file, before = folder / name, essence(folder)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".arrow", ".safetensors")}
    cut(file)
    assert run(["doctor", str(folder), "--quiet"]) == 2
    error, why, mend = capsys.readouterr().err.splitlines()
    assert error == f"error: 1 damaged in {folder}"
    assert Path(name).stem.split("_")[0] in why
    assert mend.startswith(f"mend:  vpgea doctor {folder} --repair")
    assert run(["doctor", str(folder), "--repair", "--quiet"]) == 0, capsys.readouterr().err
    aside = {str(path.relative_to(folder / "damaged")) for path in (folder / "damaged").rglob("*") if path.is_file()}
    assert name in aside
    shutil.rmtree(folder / "damaged")
    assert essence(folder) == before
    written = [path for path in times if "old_" not in path.name and path.stat().st_mtime_ns != times[path]]
    assert len(written) == LOST[name], written
    assert run(["loop", "-c", str(config), "-o", str(folder), "--quiet"]) == 0


def test_what_is_gone_is_damage_and_what_is_unfinished_is_not(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rollout_dir = place / "run" / "round-000" / "rollout"
    shard = rollout_dir / "parts" / "0-of-1" / "chunk-00001.arrow"
    shard.unlink()
    assert run(["doctor", str(rollout_dir), "--quiet"]) == 2
    assert "chunk-00001.arrow" in capsys.readouterr().err
    shard.with_suffix(".json").unlink()
    for marker in (rollout_dir / "COMPLETE", rollout_dir / "manifest.json", shard.with_name("COMPLETE")):
        marker.unlink()
    assert run(["doctor", str(rollout_dir), "--quiet"]) == 0
    shutil.rmtree(place / "run" / "round-000" / "distill" / "adapter")
    assert run(["doctor", str(place / "run"), "--quiet"]) == 2
    assert "round-000/distill/adapter: it is gone" in capsys.readouterr().err


def test_nothing_is_learned_without_a_shard_that_is_gone(
    config: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = place / "run" / "round-000" / "filter" / "rejected" / "chunk-00000.arrow"
    for path in (shard, shard.with_suffix(".json")):
        path.unlink()
    assert call("distill FILTER -o OUT", config, place)[0] == 2
    assert run(["doctor", str(place / "run"), "--quiet"]) == 2
    assert "rejected/chunk-00000.arrow" in capsys.readouterr().err


def test_a_phase_by_itself_and_of_two_parts(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is mended from what stands beside it, in the part that lost something."""
    common = ["-c", str(config), "--quiet"]
    for part in ("0/2", "1/2"):
        assert run(["rollout", *common, "-o", str(tmp_path / "rollout"), "--shard", part]) == 0
    for part in ("0/2", "1/2"):
        assert run(["filter", str(tmp_path / "rollout"), *common, "-o", str(tmp_path / "filter"), "--shard", part]) == 0
    assert run(["distill", str(tmp_path / "filter"), *common, "-o", str(tmp_path / "distill")]) == 0
    before = essence(tmp_path)
    for name in ("rollout", "filter"):
        flip(next((tmp_path / name / "parts" / "1-of-2").glob("chunk-*.arrow")))
    flip(tmp_path / "distill" / "adapter" / "adapter_model.safetensors")
    for name in ("rollout", "filter", "distill"):
        times = {path: path.stat().st_mtime_ns for path in (tmp_path / name / "parts" / "0-of-2").glob("*.arrow")}
        assert run(["doctor", str(tmp_path / name), "--repair", "--quiet"]) == 0, capsys.readouterr().err
        assert {path: path.stat().st_mtime_ns for path in times} == times
        shutil.rmtree(tmp_path / name / "damaged")
    assert essence(tmp_path) == before

    (tmp_path / "rollout").rename(tmp_path / "elsewhere")
    flip(next((tmp_path / "filter" / "parts" / "1-of-2").glob("chunk-*.arrow")))
    capsys.readouterr()
    assert run(["doctor", str(tmp_path / "filter"), "--repair", "--quiet"]) == 2
    error, _, mend = capsys.readouterr().err.splitlines()
    assert error.endswith(f"is not at {tmp_path / 'rollout'}")
    assert "vpgea filter ROLLOUT_FOLDER" in mend
    last = ["filter", str(tmp_path / "elsewhere"), *common, "-o", str(tmp_path / "filter"), "--shard", "1/2"]
    assert run(last) == 0
    assert run(["doctor", str(tmp_path / "filter")]) == 0


def test_what_was_not_finished_is_set_aside_and_continues(config: Path, place: Path) -> None:
    """A repair does not go on with a training that was stopped: its own command does."""
    flip(place / "stopped" / "parts" / "0-of-1" / "checkpoints" / "step-000001" / "rank-00000.safetensors")
    code, told = call("doctor STOPPED --repair", config, place)
    assert code == 0, told
    assert "was not finished" in told
    assert not (place / "stopped" / "COMPLETE").exists()
    assert call("distill FILTER -c CONFIG -o STOPPED", config, place)[0] == 0
    published = Path("distill") / "adapter" / "adapter_model.safetensors"
    expected = (place / "run" / "round-000" / published).read_bytes()
    assert (place / "stopped" / published.relative_to("distill")).read_bytes() == expected


@pytest.mark.parametrize("moves", [1, 2, 4, 6])
def test_a_repair_killed_between_two_moves_is_taken_up(
    moves: int, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that the first one was about to set aside goes, so that no selection stays over new measurements."""
    folder = place / "run"
    before = essence(folder)
    flip(folder / "round-000" / "filter" / "parts" / "0-of-1" / "chunk-00000.arrow")
    rename, done = Path.rename, 0

    def killed(path: Path, target: Path) -> Path:
        nonlocal done
        if "damaged" in target.parts:
            if done == moves:
                raise Stopped("stopped", why="a test asked for it", mend="run it again")
            done += 1
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        assert run(["doctor", str(folder), "--repair", "--quiet"]) == 75
    assert run(["doctor", str(folder), "--repair", "--quiet"]) == 0
    assert {"selected", "rejected", "summary.json"} <= {
        path.name for path in (folder / "damaged" / "round-000" / "filter").iterdir()
    }
    shutil.rmtree(folder / "damaged")
    assert essence(folder) == before
    assert run(["doctor", str(folder), "--quiet"]) == 0


def test_nothing_set_aside_is_replaced(place: Path) -> None:
    summary = place / "run" / "round-000" / "filter" / "summary.json"
    for content in ("one", "two", "three"):
        summary.write_text(content, encoding="utf-8")
        assert run(["doctor", str(place / "run"), "--repair", "--quiet"]) == 0
    aside = sorted((place / "run" / "damaged" / "round-000" / "filter").glob("summary.json*"))
    assert [path.read_text(encoding="utf-8") for path in aside] == ["one", "two", "three"]


def test_a_phase_must_have_been_made_from_what_stands_before_it(
    config: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both folders are whole, and the training has read another filter: the one that stands there is not the run's."""
    folder = place / "run"
    filtered = folder / "round-000" / "filter"
    shutil.rmtree(filtered)
    again = ["filter", str(filtered.with_name("rollout")), "-c", str(config), "-o", str(filtered), "--quiet"]
    assert run([*again, "--set", "filter.answerability.threshold=0.6"]) == 0
    assert run(["doctor", str(folder), "--quiet"]) == 2
    told = "round-000/filter: it was made from the filter.answerability.threshold 0.6, and that of the run is 0.5"
    assert told in capsys.readouterr().err
    assert run([*again, "--overwrite"]) == 0
    assert run(["doctor", str(folder), "--quiet"]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--repair"], "--repair needs a folder"), (["gone"], "folder not found"), (["."], "is not a folder of vpgea")],
)
def test_what_doctor_cannot_be_asked(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["doctor", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_folder_of_folders_names_those_that_can_be_verified(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", str(place)]) == 2
    assert "mend:  give one of the folders in it: run, stopped" in capsys.readouterr().err
    assert run(["doctor", str(place / "run" / "round-000")]) == 2
    assert "give one of the folders in it: distill, eval, filter, rollout" in capsys.readouterr().err


def test_progress_counts_what_is_there_and_ends_before_no_damage(
    place: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rollout_dir = place / "run" / "round-000" / "rollout"
    shard = rollout_dir / "parts" / "0-of-1" / "chunk-00001.arrow"
    for path in (shard, shard.with_suffix(".json")):
        path.rename(place / path.name)
    assert run(["doctor", str(rollout_dir)]) == 2
    assert "verify: shards 1/1 (100%)" in capsys.readouterr().err
    for path in (shard, shard.with_suffix(".json")):
        (place / path.name).rename(path)
    flip(shard)
    for command in (f"rollout -c {config} -o {rollout_dir}", f"filter {rollout_dir} -o {place / 'out'}"):
        assert run(command.split()) == 2
        told = capsys.readouterr().err
        assert "chunk-00001.arrow" in told
        assert "100%" not in told


# --- links ----------------------------------------------------------------------------------------------------------

LINKED = {  # what leads out of its folder → the commands that meet it
    "run/round-000/rollout": ("doctor RUN", "loop -c CONFIG -o RUN", "inspect RUN"),
    "run/round-000": ("doctor RUN", "loop -c CONFIG -o RUN", "export RUN --round 0 -o OUT"),
    "run/round-000/rollout/parts": ("doctor ROLLOUT", "filter ROLLOUT -o OUT", "rollout -c CONFIG -o ROLLOUT"),
    "run/round-000/rollout/parts/0-of-1": ("doctor ROLLOUT", "filter ROLLOUT -o OUT", "inspect ROLLOUT --stats"),
    "run/round-000/rollout/parts/0-of-1/chunk-00000.arrow": ("doctor ROLLOUT", "filter ROLLOUT -o OUT"),
    "run/round-000/rollout/parts/0-of-1/chunk-00000.json": ("doctor RUN", "filter ROLLOUT -o OUT"),
    "run/round-000/rollout/manifest.json": ("doctor RUN", "filter ROLLOUT -o OUT", "inspect ROLLOUT"),
    "run/round-000/filter/selected": ("doctor FILTER", "distill FILTER -o OUT"),
    "stopped/parts/0-of-1/checkpoints/step-000001": ("doctor STOPPED", "distill FILTER -c CONFIG -o STOPPED"),
}


@pytest.mark.parametrize("name", LINKED)
def test_links_out_of_a_folder_are_refused(name: str, config: Path, place: Path, tmp_path: Path) -> None:
    entry = place / name
    outside = entry.rename(tmp_path / entry.name)
    entry.symlink_to(outside)
    before = checksums(tmp_path)
    for command in LINKED[name]:
        code, told = call(command, config, place)
        assert code == 2, (command, told)
        assert f"error: {entry} leads out of its folder" in told, told
        assert not (config.parent / "out").exists()
    assert checksums(tmp_path) == before


def test_the_outermost_folder_and_weights_may_be_links(config: Path, place: Path, tmp_path: Path) -> None:
    adapter = place / "run" / "round-000" / "distill" / "adapter"
    adapter.symlink_to(adapter.rename(tmp_path / "adapter"))
    (place / "run").rename(tmp_path / "elsewhere")
    (place / "run").symlink_to(tmp_path / "elsewhere")
    for command in ("doctor RUN", "loop -c CONFIG -o RUN", "inspect ROLLOUT"):
        code, told = call(command, config, place)
        assert code == 0, told


# --- folders that change below a running command ---------------------------------------------------------------------


@pytest.fixture
def read_only(config: Path, tmp_path: Path) -> Iterator[Path]:
    """A read-only bind mount of what was made. Mounting needs root, which `make test` does not: it is skipped then."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    source = shutil.copytree(config.parent / "whole", tmp_path / "source")
    for words in (["--bind", str(source), str(folder)], ["-o", "remount,bind,ro", str(folder)]):
        mounted = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
        if mounted.returncode != 0:
            subprocess.run(["umount", str(folder)], capture_output=True, check=False)
            pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_read_only_folder(config: Path, read_only: Path) -> None:
    """It can be read; whatever must write there says that it cannot."""
    flip(read_only.with_name("source") / "run" / "round-000" / "filter" / "parts" / "0-of-1" / "chunk-00000.arrow")
    out = read_only / "new"
    for command in (f"rollout -c CONFIG -o {out}", f"loop -c CONFIG -o {out}", "distill FILTER -c CONFIG -o STOPPED"):
        code, told = call(command, config, read_only)
        assert code in (1, 2), told
        assert "ead-only file system" in told, told
        assert "Traceback" not in told
        assert "a bug in vpgea" not in told
    assert call("inspect ROLLOUT --stats", config, read_only)[0] == 0
    code, told = call("doctor RUN --repair", config, read_only)
    assert (code, "ead-only" in told) == (1, True), told


def test_a_folder_that_vanishes_amid_a_rollout(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, calls = tmp_path / "rollout", list[int]()
    generate = TransformersEngine._generate

    def vanish(*arguments: Any) -> Any:
        calls.append(len(calls))
        if len(calls) == 2:  # once for each chunk
            folder.rename(tmp_path / "moved")
        return generate(*arguments)

    monkeypatch.setattr(TransformersEngine, "_generate", vanish)
    assert run(["rollout", "-c", str(config), "-o", str(folder), "--quiet"]) == 1
    out, err = capsys.readouterr()
    assert out == "", err
    error, why, mend = err.splitlines()
    assert error.startswith("error: no longer there: ")
    assert str(folder) in error
    assert "is gone" in why
    assert "restore" in mend
