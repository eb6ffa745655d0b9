"""A loop taken step by step and part by part, as the jobs of a cluster do, is the loop of one process."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from tests.support.loops import as_if_measured, essence, write_config
from vpgea.config.resolve import load
from vpgea.phases.loop import Loop
from vpgea.runs.layout import all_steps, round_record
from vpgea.runs.stopping import StopRequest
from vpgea_cli.main import run

PARTS = 2


@pytest.fixture(scope="module")
def config(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("loop"), tiny_model, loop__rounds=2, rollout__questions_per_chunk=1)


@pytest.fixture(scope="module")
def straight(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight") / "run"
    assert run(["loop", "-c", str(config), "-o", str(folder), "-q"]) == 0
    return folder


def open_run(config: Path, folder: Path) -> Path:
    Loop.open(load(config), folder)
    return folder


def take(folder: Path, step: str, part: int = 0, parts: int = 1) -> int:
    words = ["--step", step, "--shard", f"{part}/{parts}", "-q"]
    return run(["loop", "-c", str(folder / "config.yaml"), "-o", str(folder), *words])


def results(folder: Path) -> dict[str, object]:
    """Shards, weights and the lines of rounds, wherever the parts put them; without times."""
    found = {}
    for path, content in essence(folder).items():
        place = "/".join(piece for piece in path.split("/") if "-of-" not in piece)
        if path.endswith((".arrow", ".safetensors", "round.json", "metrics.jsonl", "results.json")):
            found[place] = content
    return found


def test_steps_in_parts_are_the_loop_of_one_process(
    config: Path, straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = open_run(config, tmp_path / "run")
    for step in all_steps(2):
        parts = 1 if step.phase == "distill" else PARTS
        for part in reversed(range(parts)):
            assert take(folder, str(step), part, parts) == 0, capsys.readouterr().err
    assert results(folder) == results(straight)
    for step in all_steps(2):  # once more: nothing is left to do
        assert take(folder, str(step), 0, 1 if step.phase == "distill" else PARTS) == 0


@pytest.mark.parametrize(
    "options",
    [
        {"distill__train": "lora", "distill__lora__dropout": 0.1, "distill__teacher": "ema"},
        {"distill__train": "full", "model__dtype": "bfloat16"},
    ],
    ids=["an adapter with dropout", "float32 weights behind a rounded model"],
)
def test_weights_that_stay_in_memory_train_as_those_that_are_read(
    options: dict[str, object], tiny_model: Path, tmp_path: Path
) -> None:
    """In one process they stay from phase to phase; each step of its own reads them from disk."""
    file = write_config(tmp_path, tiny_model, loop__rounds=2, **options)
    assert run(["loop", "-c", str(file), "-o", str(tmp_path / "one"), "-q"]) == 0
    folder = open_run(file, tmp_path / "steps")
    for step in all_steps(2):
        assert take(folder, str(step)) == 0
    assert results(folder) == results(tmp_path / "one")


def test_one_process_goes_on_where_jobs_in_parts_have_left(config: Path, straight: Path, tmp_path: Path) -> None:
    folder = open_run(config, tmp_path / "run")
    assert take(folder, "base/eval", 0, PARTS) == 0
    assert take(folder, "round-000/rollout", 0, PARTS) == 2, "the other part of base/eval is missing"
    assert take(folder, "base/eval", 1, PARTS) == 0
    for part in range(PARTS):
        assert take(folder, "round-000/rollout", part, PARTS) == 0
    assert take(folder, "round-000/filter", 1, PARTS) == 0
    assert run(["loop", "-c", str(folder / "config.yaml"), "-o", str(folder), "-q"]) == 0
    ours, theirs = results(folder), results(straight)
    assert ours == theirs


def test_what_two_parts_missed_of_each_other_is_settled_by_the_next_step(
    config: Path, straight: Path, tmp_path: Path
) -> None:
    """On a slow shared file system, two parts that end together may each not see the other's marker."""
    folder = open_run(config, tmp_path / "run")
    for part in range(PARTS):
        assert take(folder, "base/eval", part, PARTS) == 0
    for name in ("base/eval/COMPLETE", "base/eval/manifest.json", "base/eval/results.json", "base/round.json"):
        (folder / name).unlink()
    for part in range(PARTS):
        assert take(folder, "round-000/rollout", part, PARTS) == 0
    assert round_record(folder, None).is_file()
    for name in ("COMPLETE", "manifest.json"):
        (folder / "round-000/rollout" / name).unlink()
    for part in range(PARTS):
        assert take(folder, "round-000/filter", part, PARTS) == 0
    selection = [path for path in (folder / "round-000/filter").rglob("*") if "selected" in str(path)]
    for path in [folder / "round-000/filter" / name for name in ("COMPLETE", "manifest.json", "summary.json")]:
        path.unlink()
    assert take(folder, "round-000/distill") == 0
    assert selection
    assert all(path.exists() for path in selection)
    ours, theirs = results(folder), results(straight)
    weights = {place for place in theirs if place.startswith("round-000/distill/model")}
    assert weights
    assert {place: ours[place] for place in weights} == {place: theirs[place] for place in weights}


def test_checkpoints_that_a_killed_training_left_are_removed_by_the_next_step(
    config: Path, straight: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(straight, folder)
    (folder / "round-001" / "round.json").unlink()
    left = folder / "round-001/distill/parts/0-of-1/checkpoints/step-000001"
    left.mkdir(parents=True)
    assert take(folder, "round-001/eval") == 0
    assert not left.parent.exists()
    assert (folder / "round-001" / "round.json").is_file()


@pytest.mark.parametrize("step", ["round-000/filter", "round-000/distill", "round-001/rollout"])
def test_a_step_whose_predecessors_are_not_complete_is_refused(
    config: Path, tmp_path: Path, step: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = open_run(config, tmp_path / "run")
    assert take(folder, "base/eval") == 0
    assert take(folder, step) == 2
    told = capsys.readouterr().err
    assert "is not complete" in told
    assert "vpgea slurm status" in told
    assert not (folder / step).exists()


def test_a_step_of_a_folder_that_was_not_opened_is_refused(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["loop", "-c", str(config), "-o", str(tmp_path / "no"), "--step", "base/eval"]) == 2
    assert "not the folder of a loop" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_a_step_with_other_settings_is_refused(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = open_run(config, tmp_path / "run")
    words = ["--step", "base/eval", "--set", "distill.learning_rate=0.5"]
    assert run(["loop", "-c", str(config), "-o", str(folder), *words]) == 2
    assert "distill.learning_rate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--shard", "0/2"], "only a single --step has parts"),
        (["--step", "base/eval", "--launcher", "slurm"], "a launched loop takes all of its steps"),
        (["--site", "site.yaml"], "it belongs to --launcher slurm"),
        (["--step", "round-000/distill", "--shard", "0/2"], "a distillation has no parts"),
        (["--step", "round-0/x"], "a step is named as its folder"),
    ],
)
def test_options_that_do_not_go_together(
    config: Path, tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["loop", "-c", str(config), "-o", str(tmp_path / "run"), *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_steps_after_an_early_end_are_nothing_to_do(
    config: Path, straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = open_run(config, tmp_path / "run")
    for step in all_steps(1):
        assert take(folder, str(step)) == 0
    for index, accuracy in ((None, 0.9), (0, 0.1)):
        as_if_measured(folder, index, accuracy=accuracy)
    for name in ("round-001/rollout", "round-001/filter", "round-001/distill", "round-001/eval", "round-002/rollout"):
        words = ["--step", name, "--set", "loop.max_accuracy_drop=0.2"]
        assert run(["loop", "-c", str(folder / "config.yaml"), "-o", str(folder), *words]) == 0
        assert f"{name} is not needed: held-out accuracy is 0.100" in capsys.readouterr().err
        assert not (folder / name).parent.exists()


# --- too little time --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["base/eval", "round-000/rollout", "round-000/filter", "round-000/distill"])
def test_a_step_stops_by_itself_when_the_limit_is_near(
    step: str,
    config: Path,
    straight: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The limit has passed already: one unit is done, since none was measured before it, and saved."""
    folder = open_run(config, tmp_path / "run")
    for earlier in all_steps(1):
        if str(earlier) == step:
            break
        assert take(folder, str(earlier)) == 0
    capsys.readouterr()
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) - 1))
    codes: list[int] = []
    while not codes or codes[-1] == 75:
        codes.append(take(folder, step))
        assert len(codes) < 10
    assert codes == [75] * (len(codes) - 1) + [0]
    assert len(codes) > 1
    assert "stopped by itself: too little time is left before the job's limit" in capsys.readouterr().err
    ours, theirs = results(folder), results(straight)
    assert ours.pop("metrics.jsonl")  # of the rounds so far
    assert ours == {place: theirs[place] for place in ours}


def test_a_limit_that_is_no_number_is_an_error(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", "tomorrow")
    assert run(["loop", "-c", str(config), "-o", str(tmp_path / "run")]) == 2
    assert "SLURM_JOB_END_TIME is not a number" in capsys.readouterr().err


def test_a_unit_is_begun_only_when_the_longest_so_far_fits() -> None:
    clock = [0.0]
    stop = StopRequest(time_limit=100.0, now=lambda: 0.0, steady=lambda: clock[0])
    clock[0] = 40.0  # loading a model is no unit of work
    stop.begin()
    for done_at, more, stops in ((50, True, False), (70, True, False), (71, True, True)):
        clock[0] = done_at
        stop.unit_done(more=more)
        assert stop.requested == stops, done_at
    last = StopRequest(time_limit=29.0, now=lambda: 0.0, steady=lambda: clock[0])
    clock[0] = 99.0
    last.unit_done(more=False)
    assert not last.requested, "nothing is left to be begun"
