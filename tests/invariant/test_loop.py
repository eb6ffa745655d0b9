"""The loop as a state machine: what is finished stays, what is missing is made, what does not fit is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import rollouts, tiny
from tests.support.loops import as_if_measured, essence, loop, metrics, sample_keys, write_config
from vpgea.config.resolve import resolve
from vpgea.config.schema import RunConfig
from vpgea.engines.base import Engine
from vpgea.engines.lease import EngineLease
from vpgea.modeling.load import load_model
from vpgea.modeling.local_model import LocalModel
from vpgea.runs.history import read_line
from vpgea.runs.layout import round_dir
from vpgea.runs.manifest import Manifest
from vpgea.storage.files import file_checksum, read_json, temporary_path

Stamps = dict[str, int]


def stamps(folder: Path) -> Stamps:
    """When each file was last written."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    return write_config(tmp_path_factory.mktemp("loop"), tiny_model)


@pytest.fixture(scope="module")
def finished(config: Path) -> Path:
    """Two rounds of full fine-tuning; do not change it."""
    folder = config.parent / "finished"
    assert loop(config, folder, "--quiet") == 0
    return folder


@pytest.fixture
def copy_of(finished: Path, tmp_path: Path) -> Path:
    """The finished run, moved to another place, to be changed at will."""
    return Path(shutil.copytree(finished, tmp_path / "moved" / "run"))


@pytest.fixture(scope="module")
def lora(config: Path) -> Path:
    """Three rounds of an adapter on two questions each, of which only the newest and the best keep their weights."""
    folder = config.parent / "lora"
    assert loop(config, folder, *LORA, "--rounds", "3", "--quiet") == 0
    return folder


LORA = ("--set", "distill.train=lora", "--questions-per-round", "2", "--keep-rounds", "1")


# --- one run -------------------------------------------------------------------------------------------------------


def test_the_base_is_measured_before_the_first_round(finished: Path) -> None:
    base, *rounds = metrics(finished)
    assert [line["round"] for line in (base, *rounds)] == [None, 0, 1]
    assert base["e3"] == 1
    assert {"accuracy_low", "tokens_high", "truncated"} <= base.keys()
    assert read_json(finished / "base" / "eval" / "results.json")["baseline"] is None
    compared = read_json(finished / "round-001" / "eval" / "results.json")
    assert compared["baseline"] == str((finished / "base" / "eval").resolve())
    assert compared["metrics"]["e3"]["value"] == rounds[1]["e3"]


def test_each_round_draws_from_the_weights_of_the_one_before(finished: Path) -> None:
    trained = read_json(finished / "round-000" / "distill" / "summary.json")["model_fingerprint"]
    drawn = Manifest.read(finished / "round-001" / "rollout" / "manifest.json").inputs["model"]
    assert drawn == trained
    assert drawn != Manifest.read(finished / "round-000" / "rollout" / "manifest.json").inputs["model"]


@pytest.mark.parametrize("kind", ["finished", "lora"])
def test_the_reference_is_the_base_model_in_every_round(kind: str, request: pytest.FixtureRequest) -> None:
    """Before its first step a round's student is its own start: at no distance from the base in round 0 alone."""
    folder = request.getfixturevalue(kind)
    distances = [metrics(folder / f"round-{index:03d}" / "distill")[0]["reference_kl"] for index in (0, 1)]
    assert distances[0] == pytest.approx(0, abs=1e-7)
    assert distances[1] > 1e-6
    whole = Manifest.read(folder / "parts" / "0-of-1" / "manifest.json").contents["model"]
    for index in (0, 1):
        read = Manifest.read(folder / f"round-{index:03d}" / "distill" / "manifest.json").contents
        assert read["reference" if kind == "finished" else "model"] == whole, "every byte of it"


def test_lengths_are_priced_against_the_base_model_in_every_round(finished: Path) -> None:
    inputs = [Manifest.read(finished / f"round-00{index}" / "filter" / "manifest.json").inputs for index in (0, 1)]
    assert "reference_lengths" not in inputs[0]
    assert "reference_lengths" in inputs[1]


def test_a_question_keeps_the_length_of_the_round_that_drew_it_first(lora: Path) -> None:
    """Two questions a round: each round is given what all rounds before it wrote."""
    files = [lora / f"round-00{index}" / "filter" / "reference_lengths.json" for index in range(3)]
    known = [read_json(file)["questions"] for file in files]
    given = [Manifest.read(file.parent / "manifest.json").inputs.get("reference_lengths") for file in files]
    assert given == [None, *(file_checksum(file)[:16] for file in files[:2])]
    assert known[0].items() < known[1].items()
    assert known[1].items() <= known[2].items()


def test_every_sample_stands_once(finished: Path) -> None:
    keys = sample_keys(finished)
    assert keys["round-001/rollout/parts/0-of-1"].total() == 4 * 8
    assert keys["base/eval/parts/0-of-1"].total() == 2
    assert all(count == 1 for counted in keys.values() for count in counted.values())


def test_questions_are_dealt_in_slices(lora: Path) -> None:
    asked = [
        {question for _, question, _, _ in sample_keys(lora)[f"round-{index:03d}/rollout/parts/0-of-1"]}
        for index in range(3)
    ]
    assert [len(questions) for questions in asked] == [2, 2, 2]
    assert asked[0] | asked[1] == {"q0", "q1", "q2", "q3"}


def test_an_adapter_goes_on_from_round_to_round(lora: Path) -> None:
    for index in (1, 2):
        before = read_json(lora / f"round-{index - 1:03d}" / "distill" / "summary.json")["model_fingerprint"]
        assert Manifest.read(lora / f"round-{index:03d}" / "distill" / "manifest.json").inputs["model"] == before


def test_one_model_is_sampled_from_trained_and_sampled_from_again(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights are read once, and then once after each training, which are those that the next one begins with."""
    opened: list[LocalModel] = []
    read: list[Path | None] = []
    really_open = EngineLease._open

    def counted(lease: EngineLease, run_config: RunConfig, model: LocalModel) -> Engine:
        opened.append(model)
        return really_open(lease, run_config, model)

    def seen(local: LocalModel) -> Any:
        read.append(local.adapter)
        return load_model(local)

    monkeypatch.setattr(EngineLease, "_open", counted)
    for module in ("vpgea.modeling.held", "vpgea.training.publish"):
        monkeypatch.setattr(f"{module}.load_model", seen)
    assert loop(config, tmp_path / "run", *LORA, "--rounds", "2", "--quiet") == 0
    assert len(opened) == 3, "one engine for an evaluation and the rollout that follows it"
    assert [adapter is not None for adapter in read] == [False, True, True]


def test_a_round_that_costs_too_much_accuracy_is_the_last(
    config: Path, copy_of: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    as_if_measured(copy_of, 1, accuracy=-0.5)
    band = ("--set", "loop.max_accuracy_drop=0.4")
    assert loop(config, copy_of, "--rounds", "3", *band) == 0
    assert "the loop ends after round 1: held-out accuracy is -0.500" in capsys.readouterr().err
    assert not (copy_of / "round-002").exists()
    assert loop(config, copy_of, "--rounds", "2", *band) == 0  # nothing was to follow anyway
    assert "the loop ends" not in capsys.readouterr().err


def test_a_run_that_has_sampled_what_it_may_begins_no_round_more(
    config: Path, copy_of: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = [
        sum(len(row["completion_ids"]) for row in rollouts.rows_of(round_dir(copy_of, index) / "rollout"))
        + sum(row["check_tokens"] for row in rollouts.rows_of(round_dir(copy_of, index) / "filter"))
        for index in range(2)
    ]
    assert [read_line(copy_of, index).sampled_tokens for index in range(2)] == drawn
    bound = ("--set", f"loop.max_sampled_tokens={sum(drawn)}")
    assert loop(config, copy_of, "--rounds", "3", *bound) == 0
    assert f"the loop ends after round 1: {sum(drawn):,} tokens were sampled" in capsys.readouterr().err
    assert not (copy_of / "round-002").exists()
    record = json.loads((copy_of / "round-001/round.json").read_text())
    (copy_of / "round-001/round.json").write_text(
        json.dumps({k: v for k, v in record.items() if k != "sampled_tokens"})
    )
    assert loop(config, copy_of, "--rounds", "3", *bound) == 2  # what an earlier version has sampled is not known
    assert "did not count what it sampled" in capsys.readouterr().err


# --- run again -----------------------------------------------------------------------------------------------------


def test_a_finished_run_loads_and_writes_nothing_and_says_so(
    config: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a model was loaded")

    for module in ("vpgea.modeling.held", "vpgea.training.publish", "vpgea.training.roles"):
        monkeypatch.setattr(f"{module}.load_model", refuse)
    before = stamps(finished)
    assert loop(config, finished) == 0
    assert stamps(finished) == before
    captured = capsys.readouterr()
    assert captured.out == f"{finished}\n"
    assert "nothing left to do: all 2 rounds were finished" in captured.err


@pytest.mark.parametrize("first", ["rollout", "filter", "distill", "eval"])
def test_what_is_missing_is_made_again_and_nothing_else(
    first: str, config: Path, finished: Path, tmp_path: Path
) -> None:
    steps = ("rollout", "filter", "distill", "eval")
    run_dir = Path(shutil.copytree(finished, tmp_path / "run"))
    last = run_dir / "round-001"
    (last / "round.json").unlink()
    for step in steps[steps.index(first) :]:
        shutil.rmtree(last / step)
    before = stamps(run_dir)
    assert loop(config, run_dir, "--quiet") == 0
    after = stamps(run_dir)
    assert {name: after[name] for name in before if name != "metrics.jsonl"} == {
        name: stamp for name, stamp in before.items() if name != "metrics.jsonl"
    }
    found, expected = essence(run_dir), essence(finished)
    assert found.keys() == expected.keys()
    kept = ("shard", "arrow", "safetensors", "jsonl")
    assert [name for name in found if name.endswith(kept) and found[name] != expected[name]] == []


def test_a_filter_that_was_begun_goes_on_with_the_first_lengths(config: Path, finished: Path, copy_of: Path) -> None:
    """Its manifest has no word of the other phases' options, which does not make it an earlier version's."""
    last = copy_of / "round-001"
    (last / "round.json").unlink()
    for step in ("distill", "eval", "filter/selected", "filter/rejected"):
        shutil.rmtree(last / step)
    for name in ("COMPLETE", "manifest.json", "summary.json", "reference_lengths.json", "parts/0-of-1/COMPLETE"):
        (last / "filter" / name).unlink()
    lengths = [read_json(finished / name / "filter" / "reference_lengths.json") for name in ("round-000", "round-001")]
    assert lengths[0] == lengths[1]
    assert loop(config, copy_of, "--quiet") == 0
    assert read_json(last / "filter" / "reference_lengths.json") == lengths[0]


def test_what_a_killed_writer_left_is_swept(config: Path, copy_of: Path) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    names = [temporary_path(Path("x.json"), pid).name for pid in (process.pid, os.getpid())]
    for name in names:
        (copy_of / "round-000" / "filter" / "selected" / name).write_text("half", encoding="utf-8")
    (copy_of / "round-000" / "round.json").unlink()
    assert loop(config, copy_of, "--quiet") == 0
    assert [path.name for path in copy_of.rglob("*.tmp")] == names[1:]  # this process is alive


def test_a_kill_just_before_checkpoints_are_dropped_leaves_none(config: Path, copy_of: Path) -> None:
    last = copy_of / "round-001"
    left = last / "distill" / "parts" / "0-of-1" / "checkpoints"
    (left / "step-000002").mkdir(parents=True)
    (last / "round.json").unlink()
    assert loop(config, copy_of, "--quiet") == 0
    assert not left.exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--set", "distill.learning_rate=0.01"), "distill.learning_rate"),
        (("--seed", "7"), "distill.seed"),
        (("--set", "filter.utility.length_price=0.3"), "filter.utility.length_price"),
        (("--questions-per-round", "2"), "loop.questions_per_round"),
        (("--limit", "3"), "data.limit"),
        (("--dataset", "fewer.jsonl"), "the questions"),
        (("--eval-dataset", "others.jsonl"), "the held-out questions"),
        (("--model", "other-model"), "the model"),
    ],
)
def test_other_inputs_are_refused_by_name(
    options: tuple[str, str],
    named: str,
    config: Path,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.write_questions(tmp_path / "fewer.jsonl", tiny.QUESTIONS[:3])
    tiny.write_questions(tmp_path / "others.jsonl", tiny.QUESTIONS[5:])
    if "--model" in options:
        tiny.make_model(tmp_path / "other-model", seed=1)
        capsys.readouterr()
    before = stamps(finished)
    assert loop(config, finished, *options) == 2
    assert stamps(finished) == before
    told = capsys.readouterr().err.splitlines()
    assert told[0] == f"error: {finished} was started with other inputs: {named} differs"
    assert [line.split(":")[0] for line in told] == ["error", "why", "mend"]


def test_more_rounds_later_and_fewer_lose_none(
    config: Path, finished: Path, copy_of: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert loop(config, copy_of, "--rounds", "3") == 0
    lines = metrics(copy_of)
    assert lines[:3] == metrics(finished)
    assert [line["round"] for line in lines] == [None, 0, 1, 2]
    capsys.readouterr()
    assert loop(config, copy_of, "--rounds", "1", "--json") == 0
    assert metrics(copy_of) == lines
    assert json.loads(capsys.readouterr().out)["rounds"] == lines


def test_a_run_moves_with_its_model_and_data(
    config: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun with relative paths in one folder, gone on with in another: fingerprints decide, not paths."""
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(config.parent, first, ignore=shutil.ignore_patterns("finished", "lora"))
    shutil.copytree(resolve(file=config).config.model.path, first / "model")
    monkeypatch.chdir(first)
    given = ("--model", "model", "--dataset", "train.jsonl", "--eval-dataset", "held-out.jsonl", "--quiet")
    assert loop(Path("loop.yaml"), Path("run"), *given, "--rounds", "1") == 0
    first.rename(second)
    monkeypatch.chdir(second)
    assert loop(Path("loop.yaml"), Path("run"), *given) == 0
    found, expected = essence(second / "run"), essence(finished)
    assert found.keys() == expected.keys()
    assert [name for name in found if isinstance(found[name], bytes) and found[name] != expected[name]] == []
    monkeypatch.chdir(tmp_path)
    assert loop(second / "run" / "config.yaml", second / "run", "--quiet") == 0


# --- pruning -------------------------------------------------------------------------------------------------------


def weights_of(run_dir: Path) -> set[int]:
    return {int(path.parents[1].name.removeprefix("round-")) for path in run_dir.glob("round-*/distill/adapter")}


def best_of(run_dir: Path, margin: float = 0.01) -> int | None:
    base, *rounds = metrics(run_dir)
    good = [line for line in rounds if line["accuracy"] >= base["accuracy"] - margin]
    return max(good, key=lambda line: (line["e3"], line["round"]))["round"] if good else None


def test_only_the_newest_weights_and_the_best_are_kept(config: Path, lora: Path, tmp_path: Path) -> None:
    assert weights_of(lora) == {2} | ({best_of(lora)} - {None})
    run_dir = Path(shutil.copytree(lora, tmp_path / "run"))
    assert loop(config, run_dir, *LORA, "--rounds", "4", "--quiet") == 0
    assert metrics(run_dir)[:4] == metrics(lora)
    assert weights_of(run_dir) == {3} | ({best_of(run_dir)} & weights_of(lora))


def test_the_best_round_outlives_newer_ones(
    config: Path, finished: Path, copy_of: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    as_if_measured(copy_of, 0, e3=99.0)
    assert loop(config, copy_of, "--keep-rounds", "1", "--rounds", "3", "--json") == 0
    assert json.loads(capsys.readouterr().out)["best_round"] == 0
    left = sorted(path.parent.parent.name for path in copy_of.glob("round-*/distill/model"))
    assert left == ["round-000", "round-002"]


def test_nothing_is_pruned_unless_asked(finished: Path) -> None:
    assert len(list(finished.glob("round-*/distill/model"))) == 2
    assert not list(finished.rglob("checkpoints"))


# --- what it says --------------------------------------------------------------------------------------------------


def test_a_log_has_one_line_per_round_and_stdout_one_result(
    config: Path, finished: Path, copy_of: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy_of / "round-001" / "round.json").unlink()
    assert loop(config, copy_of) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{copy_of}\n"
    told = captured.err.splitlines()
    for line, name in zip(metrics(copy_of), ("base", "0", "1"), strict=True):
        (only,) = [text for text in told if text.startswith(f"round {name}  ")]
        assert f"accuracy {line['accuracy']:.3f}  tokens {line['tokens']:.1f}" in only
        assert f"ε³ {line['e3']:.2f}" in only
    assert "2 rounds finished" in told[-1]


# --- the price of length -------------------------------------------------------------------------------------------


def test_a_round_goes_on_with_the_price_it_was_begun_with(config: Path, copy_of: Path) -> None:
    """Another version decided it otherwise, or a figure before it was mended: the filter is made already."""
    as_if_measured(copy_of, None, accuracy=1.0)
    as_if_measured(copy_of, 0, accuracy=0.5, accuracy_gain_high=-0.5)
    line = read_json(copy_of / "round-001" / "round.json")
    (copy_of / "round-001" / "round.json").unlink()
    assert loop(config, copy_of, "--quiet") == 0
    assert read_json(copy_of / "round-001" / "round.json")["length_price"] == line["length_price"] > 0


def test_a_round_records_and_uses_its_price(config: Path, tmp_path: Path) -> None:
    target = ("--set", "loop.token_target=1000", "--rounds", "1", "--quiet")
    assert loop(config, tmp_path / "run", *target) == 0
    assert metrics(tmp_path / "run")[1]["length_price"] == 0
    used = Manifest.read(tmp_path / "run" / "round-000" / "filter" / "manifest.json").identity
    assert used["filter.utility.length_price"] == 0


# --- refused -------------------------------------------------------------------------------------------------------


def test_a_round_that_selects_nothing_stops_with_a_way_out(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ("--set", "rollout.max_new_tokens=1")  # every path is cut off
    for _ in range(2):
        assert loop(config, tmp_path / "run", *short, "--quiet") == 3
        told = capsys.readouterr().err.splitlines()
        error, why, mend = (line for line in told if not line.startswith("warning: "))
        assert error.startswith("error: round-000/filter: 0 samples are left to learn from")
        assert "filter.min_selected" in why
        assert str(tmp_path / "run" / "round-000") in mend
        assert not (tmp_path / "run" / "round-000" / "distill").exists()
    assert [line["round"] for line in metrics(tmp_path / "run")] == [None]


def test_overwrite_starts_anew_and_no_resume_refuses(
    config: Path, copy_of: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert loop(config, copy_of, "--no-resume") == 2
    assert "--no-resume was given" in capsys.readouterr().err
    before = stamps(copy_of)
    assert loop(config, copy_of, "--overwrite", "--rounds", "1", "--quiet") == 0
    assert [line["round"] for line in metrics(copy_of)] == [None, 0]
    assert all(stamp != before.get(name) for name, stamp in stamps(copy_of).items())
