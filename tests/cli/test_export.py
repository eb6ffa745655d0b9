"""`vpgea export` through the real command line: copied, merged, chosen by round, refused."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import tiny
from tests.support.finished import Finished, circle, finished_runs, small_config
from tests.support.loops import as_if_measured
from vpgea.config.resolve import load
from vpgea.phases.export import export
from vpgea.phases.schedule import best_round
from vpgea.storage.files import file_checksum, read_json, write_json
from vpgea_cli.main import run

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Finished:
    folder = tmp_path_factory.getbasetemp() / "finished"
    folder.mkdir(exist_ok=True)
    return finished_runs(folder, tiny_model)


@pytest.fixture
def looped(runs: Finished, tmp_path: Path) -> Path:
    """A copy of the loop folder that a test may change."""
    return shutil.copytree(runs.loop, tmp_path / "loop")


def test_an_adapter_is_copied_as_it_is(here: Cli, runs: Finished, tmp_path: Path) -> None:
    done = here("export", runs.distill, "-o", "out/adapter", "--offline")
    assert (done.returncode, done.stdout) == (0, "out/adapter\n"), done.stderr
    target = tmp_path / "out" / "adapter"
    names = {file.name for file in (runs.distill / "adapter").iterdir()}
    assert {file.name for file in target.iterdir()} == names | {"vpgea_export.json"}
    assert all(file_checksum(target / name) == file_checksum(runs.distill / "adapter" / name) for name in names)
    record = read_json(target / "vpgea_export.json")
    assert record["kind"] == "adapter"
    assert record["model_fingerprint"] == read_json(runs.distill / "summary.json")["model_fingerprint"]
    assert record["fingerprint_checked"] is True
    assert list(tmp_path.glob("out/.*")) == []


def test_a_merged_model_gives_the_adapters_logprobs_in_plain_transformers(
    here: Cli, runs: Finished, tmp_path: Path
) -> None:
    done = here("export", runs.distill, "-o", "merged", "--merge", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["kind"] == "merged model"
    canary = read_json(runs.distill / "adapter" / "vpgea_canary.json")["paths"]
    assert largest_difference(tmp_path / "merged", canary) < 1e-4
    assert largest_difference(runs.model, canary) > 1e-2  # the base itself would not pass
    assert record["canary"]["merge_difference"] < record["canary"]["tolerance"] == 1e-4
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (tmp_path / "merged" / name).read_bytes() == (runs.model / name).read_bytes()
    assert not list((tmp_path / "merged").glob("adapter*"))


def largest_difference(folder: Path, canary: list[dict[str, Any]]) -> float:
    """Between stored log-probabilities and those of a model folder, computed with nothing of ours."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    worst = 0.0
    for path in canary:
        with torch.no_grad():
            logprobs = model(torch.tensor([path["ids"]])).logits[0].double().log_softmax(-1)
        for position, stored in enumerate(path["logprobs"], start=path["start"]):
            worst = max(worst, abs(float(logprobs[position - 1, path["ids"][position]]) - stored))
    return worst


def test_a_bfloat16_base_stays_bfloat16(tiny_model: Path, tmp_path: Path) -> None:
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM

    base = shutil.copytree(tiny_model, tmp_path / "base")
    AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).save_pretrained(base)
    circle(small_config(tmp_path, base), tmp_path)
    record = export(tmp_path / "distill", tmp_path / "merged", merge=True)
    assert record["dtype"] == "bfloat16"
    assert 0 < record["canary"]["merge_difference"] <= record["canary"]["tolerance"] == 0.5
    with safe_open(tmp_path / "merged" / "model.safetensors", framework="pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"BF16"}  # noqa: SIM118


def test_best_and_numbered_rounds(here: Cli, looped: Path, tmp_path: Path) -> None:
    as_if_measured(looped, 1, accuracy=1.0, e3=9.0)  # the later round is made the better one
    assert best_round(looped, load(looped / "config.yaml")) == 1
    target = tmp_path / "out"
    assert run(["export", str(looped), "-o", str(target)]) == 0
    require_round(looped, 1, target)
    done = here("export", looped, "-o", "out", "--overwrite", "--round", "0")
    assert (done.returncode, done.stdout) == (0, "out\n"), done.stderr
    require_round(looped, 0, target)
    assert run(["export", str(looped), "-o", str(target), "--overwrite", "--round", "best"]) == 0
    require_round(looped, 1, target)


def require_round(looped: Path, index: int, target: Path) -> None:
    folder = looped / f"round-00{index}"
    published = folder / "distill" / "model" / "model.safetensors"
    assert file_checksum(target / "model.safetensors") == file_checksum(published)
    record = read_json(target / "vpgea_export.json")
    assert record["round"] == index
    assert record["figures"] == read_json(folder / "round.json")


def test_no_good_round_is_a_quality_gate(looped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    as_if_measured(looped, None, accuracy=1.5)
    assert run(["export", str(looped), "-o", str(tmp_path / "out")]) == 3
    assert "give --round with a number to have one all the same; finished rounds: 0, 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run(["export", str(looped), "-o", str(tmp_path / "out"), "--round", "1"]) == 0


def test_pruned_weights_name_the_rounds_that_have_some(
    looped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(looped / "round-000" / "distill" / "model")
    assert run(["export", str(looped), "-o", str(tmp_path / "out"), "--round", "0"]) == 2
    error = capsys.readouterr().err
    assert "the weights of round 0 are gone" in error
    assert "rounds that still have weights: 1" in error


def test_a_base_that_is_not_the_one_trained_on_is_refused(
    runs: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tiny.make_model(tmp_path / "other", seed=1)
    arguments = ["export", str(runs.distill), "-o", str(tmp_path / "out"), "--merge"]
    assert run([*arguments, "--model", str(other)]) == 2
    assert "are not those that were published" in capsys.readouterr().err
    moved = shutil.copytree(runs.model, tmp_path / "moved")
    assert run([*arguments[:-1], "--model", str(moved)]) == 0


def test_another_canary_is_a_quality_gate_and_leaves_nothing(
    runs: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    distilled = shutil.copytree(runs.distill, tmp_path / "distill")
    canary = read_json(distilled / "adapter" / "vpgea_canary.json")
    canary["paths"][0]["logprobs"][0] -= 0.01
    write_json(distilled / "adapter" / "vpgea_canary.json", canary)
    arguments = ["export", str(distilled), "-o", str(tmp_path / "out"), "--merge"]
    assert run(arguments) == 2, "its bytes are not those that the training recorded"
    capsys.readouterr()
    write_json(distilled / "summary.json", read_json(distilled / "summary.json") | {"content": None})  # of 0.1.0
    assert run(arguments) == 3
    assert "differ by 0.01, 0.0001 is allowed" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["distill"]


def test_folders_in_use_are_left_alone(runs: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out"
    arguments = ["export", str(runs.distill), "--quiet", "-o", str(target)]
    assert run(arguments) == 0
    assert run(arguments) == 2
    assert "replace it with --overwrite" in capsys.readouterr().err
    assert run([*arguments, "--overwrite"]) == 0
    (target / "vpgea_export.json").unlink()
    (target / "mine.txt").write_text("mine")
    assert run([*arguments, "--overwrite"]) == 2
    assert "is left alone" in capsys.readouterr().err
    assert (target / "mine.txt").read_text() == "mine"
    assert run([*arguments[:-1], str(target / "mine.txt" / "below")]) == 2


@pytest.mark.parametrize(
    ("source", "arguments", "expected"),
    [
        ("nothing", [], "folder not found"),
        ("rollout", [], "is a rollout folder"),
        ("distill", ["--round", "0"], "it has one set of weights, no rounds"),
        ("loop", ["--round", "7"], "finished rounds: 0, 1"),
        ("loop", ["--round", "0", "--merge"], "there is nothing to merge"),
    ],
)
def test_wrong_sources_are_explained(
    runs: Finished,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    source: str,
    arguments: list[str],
    expected: str,
) -> None:
    folder = runs.loop.parent / source
    assert run(["export", str(folder), "-o", str(tmp_path / "out"), *arguments]) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run(["export", str(folder)]) == 2
    assert "--output-dir is missing" in capsys.readouterr().err
