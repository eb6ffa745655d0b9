"""What looks at a run's files costs no more per shard when there are more shards: calls and names are counted, no time.

The steps are those of benchmarks/scale.py, which measures them at up to 100,000 shards.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import simulated_run as simulated
from benchmarks.scale import TASKS, Task
from vpgea.runs.complete_phase import chunk_paths
from vpgea.runs.parts import Part
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.storage import files

ROUNDS = 4
CHUNKS = (16, 32, 64)  # per folder; a round has four with shards: 64, 128 and 256 shards

_counts: Counter[str] = Counter()
_counting = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _counting and event in ("open", "os.listdir", "os.scandir"):
        _counts[event.removeprefix("os.")] += 1


sys.addaudithook(_hook)  # for good: there is no way to remove one


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Opened files, looks at single files, listed folders, and the names in those."""
    global _counting  # noqa: PLW0603 - see _hook
    stat, listdir, scandir = os.stat, os.listdir, os.scandir
    _counts.clear()

    def counting_stat(*arguments: Any, **options: Any) -> os.stat_result:
        _counts["stat"] += 1
        return stat(*arguments, **options)

    def naming(list_folder: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(path: Any = ".") -> Any:
            found = list_folder(path)
            with scandir(path) as entries:
                _counts["names"] += sum(1 for _ in entries)
            _counts["scandir"] -= 1  # this one was not asked for
            return found

        return wrapped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "stat", counting_stat)
        patch.setattr(os, "listdir", naming(listdir))
        patch.setattr(os, "scandir", naming(scandir))
        _counting = True
        try:
            yield _counts
        finally:
            _counting = False


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folders with each number of chunks, laid out as the benchmark has them."""
    place = tmp_path_factory.mktemp("scale")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "fsync", lambda path: None)
        for chunks in CHUNKS:
            run_dir = place / "run" / f"{chunks}"
            simulated.begin_run(run_dir, ROUNDS)
            for index in range(ROUNDS):
                simulated.write_round(run_dir, index, chunks)
            for kind, phase in (("phase", "rollout"), ("filter", "filter")):
                simulated.write_phase(place / kind / f"{chunks}", phase, 0, chunks)
        yield place


def costs(step: Task, root: Path) -> list[Counter[str]]:
    """Of the step for each number of chunks, when it is taken again: what it writes is there then."""
    found = []
    for chunks in CHUNKS:
        folder = root / step.place / f"{chunks}"
        step.work(folder, chunks)
        step.prepare(folder)
        with counted() as counts:
            step.work(folder, chunks)
        found.append(Counter(counts))
    return found


def step_named(name: str) -> Task:
    return next(step for step in TASKS if step.name == name)


@pytest.mark.parametrize("step", TASKS, ids=lambda step: f"{step.place}: {step.name}")
def test_no_step_costs_more_per_shard_with_more_shards(step: Task, root: Path) -> None:
    """Twice as many more cost at most twice as much more; a few calls of slack."""
    small, middle, large = (sum(counts.values()) for counts in costs(step, root))
    assert large - middle <= 2 * (middle - small) * 1.02 + 8, (small, middle, large)


def test_what_grows_faster_than_the_shards_is_found(root: Path) -> None:
    """The test above can fail: a look at every shard from every shard, and a list of all shards for each."""

    def each_from_each(folder: Path, chunks: int) -> None:
        paths = chunk_paths(folder)
        assert all(path.is_file() for _ in paths for path in paths)

    def listing_for_each(folder: Path, chunks: int) -> None:
        assert all(list(path.parent.iterdir()) for path in chunk_paths(folder))

    for work in (each_from_each, listing_for_each):
        with pytest.raises(AssertionError):
            test_no_step_costs_more_per_shard_with_more_shards(Task(name="", place="phase", work=work), root)


def test_opening_a_run_does_not_look_into_its_rounds(root: Path) -> None:
    small, middle, large = costs(step_named("open the run"), root)
    assert small == middle == large


def test_a_resume_looks_at_no_single_shard(root: Path) -> None:
    """What is there is told by listing a part: as many calls for any number of shards."""
    found = costs(step_named("resume it, half drawn"), root)
    for kind in ("open", "stat", "listdir", "scandir"):
        assert len({counts[kind] for counts in found}) == 1, kind


def test_a_part_reads_the_sidecars_of_its_share_alone(root: Path) -> None:
    found = costs(step_named("read one part's share"), root)
    assert [counts["open"] for counts in found] == [1 + chunks // simulated.PARTS for chunks in CHUNKS]  # and a marker


def test_opening_a_part_reads_one_manifest_and_no_other_part(root: Path, tmp_path: Path) -> None:
    found = []
    for parts in (2, 16):
        manifest = simulated.manifest_of("rollout", 0, parts)
        for part in range(parts):
            PhaseFolder.open(tmp_path / str(parts), replace(manifest, part=Part(part, parts)))
        with counted() as counts:
            PhaseFolder.open(tmp_path / str(parts), manifest)
        found.append(Counter(counts))
    assert found[0]["open"] == found[1]["open"] == 1
    assert found[0]["stat"] == found[1]["stat"]
