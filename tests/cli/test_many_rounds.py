"""A run of 1,010 rounds, by its records: listed, resumed, verified and exported in the order of the rounds' numbers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.simulated_run import DISTILL_SUMMARY, FILTER_SUMMARY, manifest_of, round_line, round_results, run_config
from tests.support.finished import small_config
from vpgea.config.resolve import dump_yaml, load
from vpgea.config.schema import RunConfig
from vpgea.inspection.verify import verify
from vpgea.modeling.weight_files import write_checksums
from vpgea.phases.loop import Loop
from vpgea.phases.schedule import best_round
from vpgea.runs.history import all_lines, finished_lines
from vpgea.runs.layout import PHASES, Step, all_steps, round_dir, round_numbers, round_record
from vpgea.runs.manifest import Manifest
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.storage import files
from vpgea.storage.files import json_bytes, read_json, write_bytes, write_json
from vpgea.storage.records import json_of
from vpgea_cli.commands.loop import closing_words
from vpgea_cli.main import run

ROUNDS = 1010
NUMBERS = [None, *range(ROUNDS)]

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def vpgea(capsys: pytest.CaptureFixture[str]) -> Cli:
    """`vpgea(...)` runs a command in this process: exit code, stdout and stderr."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        code = run([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> RunConfig:
    """What the phases were made with, and real questions and weights."""
    small, made = small_config(tmp_path_factory.mktemp("questions"), tiny_model), run_config(ROUNDS)
    model = made.model.model_copy(update={"path": small.model.path, "device": "cpu"})
    data = made.data.model_copy(update={"dataset": small.data.dataset})
    loop = made.loop.model_copy(update={"eval_dataset": small.loop.eval_dataset})
    return made.model_copy(update={"model": model, "data": data, "loop": loop})


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, config: RunConfig) -> Path:
    """What so many rounds leave, without their data: the records, and the weights of three of them."""
    folder, templates = tmp_path_factory.mktemp("many") / "run", tmp_path_factory.mktemp("phases")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "fsync", lambda path: None)
        Loop.open(config, folder)
        for index in NUMBERS:
            round_dir(folder, index).mkdir()
            write_json(round_record(folder, index), round_line(index, e3=score(index)).as_json())
        link_phases(folder, templates)
        for index in (999, 1000, ROUNDS - 1):
            publish(folder, index)
    return folder


def score(index: int | None) -> float:
    """Each round is a little better than the one before it."""
    return 1.0 if index is None else 1 + index / 10_000


def link_phases(run_dir: Path, templates: Path) -> None:
    """The records of every round's complete phases, one file for all rounds that say the same."""
    lasts = {"filter": ("summary.json", FILTER_SUMMARY), "distill": ("summary.json", DISTILL_SUMMARY)}
    inputs: dict[str, str] = {}
    for phase in PHASES:
        PhaseFolder.open(templates / phase, replace(manifest_of(phase), inputs=inputs)).complete({})
        inputs = {phase: str(Manifest.read(templates / phase / "manifest.json").content_fingerprint)}
        if phase in lasts:
            name, record = lasts[phase]
            write_json(templates / phase / name, json_of(record))
    manifest = Manifest.read(templates / "rollout" / "manifest.json")
    for step in all_steps(ROUNDS):
        (folder := step.folder(run_dir)).mkdir()
        for file in (path for path in (templates / step.phase).iterdir() if path.is_file()):
            if (step.phase, file.name) != ("rollout", "manifest.json"):
                os.link(file, folder / file.name)
        if step.phase == "eval":
            write_json(folder / "results.json", json_of(round_results(step.round, e3=score(step.round))))
        if step.phase == "rollout":
            own = replace(manifest, identity={**manifest.identity, "round": step.round})
            (folder / "manifest.json").write_bytes(json_bytes(own.as_json()))


def publish(run_dir: Path, index: int) -> None:
    """The weights of a round, as the next one would find them: a tensor with the round's number."""
    distill_dir = Step(index, "distill").folder(run_dir)
    manifest = Manifest.read(distill_dir / "manifest.json")
    shutil.rmtree(distill_dir)
    training = PhaseFolder.open(distill_dir, replace(manifest, content_fingerprint=None))
    write_json(distill_dir / "summary.json", json_of(DISTILL_SUMMARY))
    training.complete(json_of(DISTILL_SUMMARY))
    adapter = distill_dir / "adapter"
    adapter.mkdir()
    save_file({"round": torch.tensor([index])}, adapter / "adapter_model.safetensors")
    write_json(adapter / "vpgea_canary.json", {"dtype": "torch.float32", "paths": []})
    write_checksums(adapter)


def test_rounds_are_listed_by_number(vpgea: Cli, run_dir: Path) -> None:
    assert round_numbers(run_dir) == list(range(ROUNDS))
    assert [line.round for line in all_lines(run_dir)] == NUMBERS
    code, shown, errors = vpgea("inspect", run_dir, "--json")
    assert code == 0, errors
    overview = json.loads(shown)["overview"]
    assert [line["round"] for line in overview["rounds"]] == NUMBERS
    assert overview["complete"]
    rows = [line.split() for line in vpgea("inspect", run_dir)[1].splitlines() if "1,000" in line]
    assert [row[0] for row in rows] == ["base", *map(str, range(ROUNDS))]


def test_a_run_goes_on_after_its_last_round(vpgea: Cli, run_dir: Path, tmp_path: Path, config: RunConfig) -> None:
    write_bytes(tmp_path / "run.yaml", dump_yaml(config).encode())
    code, done, told = vpgea("loop", "-c", tmp_path / "run.yaml", "-o", run_dir, "--offline", "--json")
    assert code == 0, told
    assert f"nothing left to do: all {ROUNDS} rounds were finished" in told
    found = json.loads(done)
    assert [line["round"] for line in found["rounds"]] == NUMBERS
    assert found["best_round"] == best_round(run_dir, load(run_dir / "config.yaml")) == ROUNDS - 1
    lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["round"] for line in lines] == NUMBERS


def test_a_gap_ends_what_is_finished_and_hides_nothing_behind_it(run_dir: Path, config: RunConfig) -> None:
    record = round_record(run_dir, 1005)
    content = record.read_bytes()
    record.unlink()
    finished, after_gap = finished_lines(run_dir), all_lines(run_dir)
    count = Loop.read(config, run_dir).finished
    record.write_bytes(content)
    assert count == 1005
    assert [line.round for line in finished] == [None, *range(1005)]
    assert [line.round for line in after_gap] == [number for number in NUMBERS if number != 1005]


def test_doctor_names_damage_in_the_order_of_rounds(run_dir: Path) -> None:
    whole = {index: round_record(run_dir, index).read_bytes() for index in (1000, 999, 20)}
    for index, content in whole.items():
        round_record(run_dir, index).write_bytes(content[:-9])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vpgea.inspection.verify.phase_folders", lambda root: [])  # which hold no data here
        found = verify(run_dir).findings
    for index, content in whole.items():
        round_record(run_dir, index).write_bytes(content)
    assert [str(one.phase) for one in found if one.path.name == "round.json"] == [
        "round-020",
        "round-999",
        "round-1000",
    ]


@pytest.mark.parametrize(("name", "index"), [("best", ROUNDS - 1), ("999", 999), ("1000", 1000)])
def test_rounds_are_exported_by_number(vpgea: Cli, run_dir: Path, tmp_path: Path, name: str, index: int) -> None:
    options = ("--round", name, "--model", "nobody/nothing", "--offline")
    code, _, errors = vpgea("export", run_dir, "-o", tmp_path / "out", *options)
    assert code == 0, errors
    assert load_file(tmp_path / "out" / "adapter_model.safetensors")["round"].tolist() == [index]
    record = read_json(tmp_path / "out" / "vpgea_export.json")
    assert (record["round"], record["figures"]) == (index, read_json(round_record(run_dir, index)))


def test_a_tie_with_the_base_model_is_not_called_better() -> None:
    words = [closing_words(Path("run"), [round_line(None), round_line(0, e3=e3)], 0, 0) for e3 in (1.0, 1.01)]
    assert words[0].startswith("1 rounds finished; none is better than the base model; the best is round 0: ")
    assert words[1].startswith("1 rounds finished; the best is round 0: ")


def test_rounds_whose_weights_are_gone_name_those_that_have_some(vpgea: Cli, run_dir: Path, tmp_path: Path) -> None:
    code, _, errors = vpgea("export", run_dir, "-o", tmp_path / "out", "--round", "1001")
    assert code == 2
    assert "999, 1000, 1009" in errors
