"""Runs that an earlier version wrote are continued, evaluated, exported and verified by this one."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.support import earlier

KINDS = ("full", "lora")

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return earlier.unpack(tmp_path_factory.mktemp("earlier"))


@pytest.fixture
def runs(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may change, which says that it was made where it stands."""
    return earlier.settle(shutil.copytree(written, tmp_path / "runs"))


def checksums(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def table(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def identity(folder: Path) -> dict[str, object]:
    """What a phase was made with."""
    found: dict[str, object] = json.loads((folder / "manifest.json").read_text())["identity"]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_finished_run_goes_on_for_another_round(here: Cli, runs: Path, kind: str) -> None:
    before = checksums(runs / kind)
    done = here("loop", "-c", f"{kind}.yaml", "-o", kind, "--rounds", "3", "--offline", "-q", cwd=runs)
    assert done.returncode == 0, done.stderr
    after = checksums(runs / kind)
    changed = {name for name in before if after.get(name) != before[name]}
    assert changed <= {"config.yaml", "metrics.jsonl"}
    lines = [json.loads(line) for line in (runs / kind / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [None, 0, 1, 2]
    again = here("loop", "-c", f"{kind}.yaml", "-o", kind, "--rounds", "3", "--offline", "-q", cwd=runs)
    assert again.returncode == 0, again.stderr
    assert checksums(runs / kind) == after


@pytest.mark.parametrize("kind", KINDS)
def test_a_filter_that_was_stopped_half_way_is_finished_as_it_was_begun(here: Cli, runs: Path, kind: str) -> None:
    last = runs / kind / "round-001"
    part = last / "filter" / "parts" / "0-of-1"
    original = {path.name: table(path) for path in part.glob("chunk-*.arrow")}
    for folder in (last / "distill", last / "eval", last / "filter" / "selected", last / "filter" / "rejected"):
        shutil.rmtree(folder)
    for name in ("COMPLETE", "manifest.json", "summary.json", "parts/0-of-1/COMPLETE", "parts/0-of-1/chunk-00001.json"):
        (last / "filter" / name).unlink()
    (part / "chunk-00001.arrow").unlink()
    (last / "round.json").unlink()
    done = here("loop", "-c", f"{kind}.yaml", "-o", kind, "--offline", "-q", cwd=runs)
    assert done.returncode == 0, done.stderr
    assert "filter.note_dependence.enabled" not in identity(last / "filter"), "it goes on without what came later"
    for name, before in original.items():
        now = table(part / name)
        assert now.column_names == before.column_names or now["note_dependence"].null_count == now.num_rows
        for column in before.schema.names:
            old, new = before[column].to_pylist(), now[column].to_pylist()
            if pa.types.is_floating(before.schema.field(column).type):
                pairs = [(a, b) for a, b in zip(old, new, strict=True) if a is not None or b is not None]
                assert all(a is not None and b is not None for a, b in pairs), column
                np.testing.assert_allclose([b for _, b in pairs], [a for a, _ in pairs], rtol=1e-3, atol=1e-3)
            elif "logprobs" not in column:
                assert old == new, column


def test_a_repaired_filter_is_still_one_without_what_came_later(here: Cli, runs: Path) -> None:
    folder = runs / "lora" / "round-001" / "filter"
    manifest = folder / "parts" / "0-of-1" / "manifest.json"
    before, selection = json.loads(manifest.read_text()), checksums(folder / "selected")
    manifest.write_text("{")
    done = here("doctor", "lora/round-001/filter", "--repair", cwd=runs)
    assert done.returncode == 0, done.stderr
    assert json.loads(manifest.read_text())["identity"] == before["identity"]
    assert checksums(folder / "selected") == selection


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_whole_and_its_model_can_be_looked_at_measured_and_taken_away(here: Cli, runs: Path, kind: str) -> None:
    for words in (
        ("doctor", kind),
        ("inspect", kind, "--json"),
        ("inspect", f"{kind}/round-001/filter", "--json"),
        ("report", kind, "-o", "report.html"),
        ("export", kind, "-o", "exported", "--offline"),
    ):
        done = here(*words, cwd=runs)
        assert done.returncode == 0, (words, done.stderr)
    weights = "model.safetensors" if kind == "full" else "adapter_model.safetensors"
    assert (runs / "exported" / weights).is_file()
    model = ("--model", f"{kind}/round-001/distill/model") if kind == "full" else ("--adapter", "exported")
    done = here(
        *("eval", "-c", f"{kind}.yaml", *model, "--dataset", "held-out.jsonl", "-o", "measured"),
        *("--baseline", f"{kind}/base/eval", "--offline", "--json", "-q"),
        cwd=runs,
    )
    assert done.returncode == 0, done.stderr
    recorded = json.loads((runs / kind / "round-001" / "eval" / "results.json").read_text())
    now = json.loads((runs / "measured" / "results.json").read_text())
    for name in ("value", "n"):  # four questions have no interval any more
        assert now["metrics"]["accuracy"][name] == recorded["metrics"]["accuracy"][name]
