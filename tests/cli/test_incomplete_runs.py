"""Whole is not complete: a finished round demands its phases, and a repair that was stopped is seen and finished."""

from __future__ import annotations

import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.loops import essence
from vpgea.errors import Stopped
from vpgea.inspection.verify import foreign_phases, verify
from vpgea.phases.loop import Loop
from vpgea.runs.manifest import Manifest
from vpgea_cli.main import run

ARCHIVE = Path(__file__).parents[1] / "data" / "runs" / "version-0.1.0.tar.xz"
DRAWN, SELECTED = "round-001/rollout/parts/0-of-1/chunk-00001.arrow", "round-001/filter/selected/chunk-00000.arrow"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run of two rounds, in the folder that its paths are relative to."""
    runs = shutil.copytree(written, tmp_path / "runs")
    for file in (*runs.rglob("config.yaml"), *runs.rglob("manifest.json")):
        file.write_text(file.read_text().replace("/srv/vpgea-run", str(runs)))  # where it was made
    monkeypatch.chdir(runs)
    return Path("lora")


@pytest.mark.parametrize(
    "name",
    ["round-001/rollout", "round-000/filter", "round-001/distill", "round-000/eval", "round-000", "base/eval", "base"],
)
def test_a_lost_folder_of_a_finished_round_is_damage(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(folder / name)
    assert run(["doctor", str(folder), "-q"]) == 2
    assert name in capsys.readouterr().err
    assert run(["loop", "-c", "lora.yaml", "-o", str(folder), "--offline", "-q"]) == 2, "it is not made again unasked"
    assert f"doctor {folder} --repair" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["filter", "filter/reference_lengths.json"])
def test_lost_lengths_of_an_earlier_filter_say_nothing_of_a_later_one(folder: Path, name: str) -> None:
    """Which lengths the later one was given can then not be compared, and is no damage of its own."""
    lost = folder / "round-000" / name
    shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    assert [str(one.path) for one in verify(folder).findings] == [f"round-000/{name}"]
    assert foreign_phases(folder) == []


def test_other_lengths_than_those_of_earlier_filters_are_seen(folder: Path) -> None:
    file = folder / "round-001" / "filter" / "manifest.json"
    before = Manifest.read(file)
    other = replace(before, inputs={**before.inputs, "reference_lengths": "0" * 16})
    file.write_text(json.dumps(other.as_json()))
    assert "round-001/filter" in {str(one.path) for one in foreign_phases(folder)}


def test_a_last_round_that_is_lost_is_known_by_the_metrics(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(folder / "round-001")
    assert run(["doctor", str(folder), "-q"]) == 2
    assert "round-001" in capsys.readouterr().err


@pytest.mark.parametrize(("target", "shard"), [(".", SELECTED), ("round-001/rollout", DRAWN)])
def test_a_stopped_repair_is_seen_and_finished(
    folder: Path, target: str, shard: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the phase's folder was to be mended by itself: it takes its round's questions."""
    place = folder / target
    (folder / shard).write_bytes(b"")
    with monkeypatch.context() as stopped:
        stopped.setattr(Loop, "run_part", _stop)
        assert run(["doctor", str(place), "--repair", "-q"]) == 75
    assert not (folder / shard).exists()
    for seen_in in (folder, place):
        assert run(["doctor", str(seen_in), "-q"]) == 2
    assert run(["doctor", str(place), "--repair", "-q"]) == 0, capsys.readouterr().err
    assert (folder / shard).is_file()
    assert not list(folder.rglob("repair.json"))


def test_the_loop_finishes_a_stopped_repair(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / SELECTED).write_bytes(b"")
    before = essence(folder / "round-001" / "filter")
    with monkeypatch.context() as stopped:
        stopped.setattr(Loop, "run_part", _stop)
        assert run(["doctor", str(folder), "--repair", "-q"]) == 75
    assert run(["loop", "-c", "lora.yaml", "-o", str(folder), "--offline", "-q"]) == 0, capsys.readouterr().err
    assert essence(folder / "round-001" / "filter").keys() == before.keys()
    assert not (folder / "repair.json").exists()
    assert run(["doctor", str(folder), "-q"]) == 0


def test_names_in_records_stay_in_their_folder(folder: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious.arrow"
    precious.write_text("mine")
    marker = folder / "round-001" / "rollout" / "parts" / "0-of-1" / "COMPLETE"
    value = json.loads(marker.read_text())
    name = f"../../../../../../{precious.name}"
    value["shards"][name] = {**next(iter(value["shards"].values())), "file": name}
    marker.write_text(json.dumps(value))
    shutil.rmtree(folder / "round-001" / "distill" / "adapter")
    for record in ("summary.json", "parts/0-of-1/COMPLETE"):
        file = folder / "round-001" / "distill" / record
        file.write_text(file.read_text().replace('"output": "adapter"', f'"output": "../../../../{tmp_path.name}"'))
    assert run(["doctor", str(folder), "-q"]) == 2
    run(["doctor", str(folder), "--repair", "-q"])
    assert precious.read_text() == "mine"


def _stop(*_: object, **__: object) -> None:
    raise Stopped("stopped", why="a test asked for it", mend="run it again")
