"""`vpgea inspect` through the real command line, on finished, unfinished and damaged folders."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.copies import Copy
from tests.support.finished import Finished, finished_runs
from vpgea.runs.complete_phase import chunk_paths
from vpgea.runs.overwriting import is_written_by
from vpgea.storage.files import read_json
from vpgea.storage.schemas import GRADED
from vpgea.storage.shards import iterate_rows, read_table, shard_files, sidecar_path, table_from_rows, write_table

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Finished:
    folder = tmp_path_factory.getbasetemp() / "finished"
    folder.mkdir(exist_ok=True)
    return finished_runs(folder, tiny_model)


@pytest.fixture
def copied(runs: Finished, tmp_path: Path) -> Callable[[Path], Path]:
    """A copy that a test may harm."""
    return lambda folder: shutil.copytree(folder, tmp_path / folder.name)


def inspect_json(here: Cli, *arguments: str | Path) -> dict[str, Any]:
    done = here("inspect", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def test_a_rollout_shows_what_it_is_and_its_first_rows(here: Cli, runs: Finished) -> None:
    done = here("inspect", runs.rollout, "--head", "3")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{runs.rollout}: rollout, complete" in done.stdout
    assert "part 0-of-1: complete, 2 shards, 32 rows" in done.stdout
    assert read_json(runs.rollout / "manifest.json")["fingerprint"] in done.stdout
    assert "  rollout.max_new_tokens               48" in done.stdout
    assert "rollout.temperature" not in done.stdout  # it has its default
    rows = [line for line in done.stdout.splitlines() if line.startswith("q0/prior/")]
    assert [row.split()[0] for row in rows] == ["q0/prior/0", "q0/prior/1", "q0/prior/2"]


def test_rows_as_json_are_those_of_the_shards(here: Cli, runs: Finished) -> None:
    expected = list(iterate_rows(chunk_paths(runs.rollout)))
    found = inspect_json(here, runs.rollout, "--head", "20")
    assert found["head"] == expected[:20]
    assert len(inspect_json(here, runs.rollout)["head"]) == 5
    shard = chunk_paths(runs.rollout)[1]
    found = inspect_json(here, shard, "--head", "1")
    assert found["overview"]["kind"] == "samples"
    assert found["head"] == expected[16:17]


def test_statistics_of_a_filter_add_up(here: Cli, runs: Finished) -> None:
    found = inspect_json(here, runs.filter, "--stats")
    assert "head" not in found
    counts, views = read_json(runs.filter / "summary.json")["counts"], found["statistics"]["views"]
    rows = [row for name in ("selected", "rejected") for row in iterate_rows(shard_files(runs.filter / name))]
    gates = [row["gate"] for row in rows if row["view"] == "posterior"]
    assert views["prior"]["grades"].get("correct", 0) == counts["prior_correct"] > 0
    assert views["posterior"]["accepted"] == counts["posterior_accepted"] > 0
    assert views["posterior"]["gate_not_zero"] == counts["posterior_gated"] == sum(gate > 0 for gate in gates)
    assert views["posterior"]["gate"]["max"] == pytest.approx(max(gates))
    assert views["prior"]["accuracy"] == counts["prior_correct"] / counts["prior_sampled"]
    lengths = [len(row["completion_ids"]) for row in rows if row["view"] == "prior"]
    assert views["prior"]["tokens"]["mean"] == pytest.approx(sum(lengths) / len(lengths))
    assert views["prior"]["tokens"]["n"] == len(lengths) == 16
    rejected = [reason for row in rows for reason in row["reasons"] if row["view"] == "posterior"]
    assert sum(views["posterior"]["reasons"].values()) == len(rejected) > 0


def test_statistics_as_text(here: Cli, runs: Finished) -> None:
    reasons = [row["finish_reason"] for row in iterate_rows(chunk_paths(runs.rollout)) if row["view"] == "prior"]
    done = here("inspect", runs.rollout, "--stats")
    prior = done.stdout.split("prior: 16 samples of 4 questions")[1].split("posterior: ")[0]
    stopped = reasons.count("stop")
    assert f"finish_reasons: stop    {stopped}" in prior or f"finish_reasons: stop  {stopped}" in prior
    assert "thinking_tokens  16" in prior


def test_an_evaluation_shows_its_results(here: Cli, runs: Finished) -> None:
    folder = runs.loop / "round-000" / "eval"
    done = here("inspect", folder, "--stats")
    accuracy = read_json(folder / "results.json")["metrics"]["accuracy"]["value"]
    assert f"  accuracy                    {accuracy:.3f}" in done.stdout  # of two questions, without an interval
    assert f"accuracy              {accuracy:.3f} of those that could be graded" in done.stdout


def test_a_distill_folder_shows_its_last_steps(here: Cli, runs: Finished) -> None:
    lines = [json.loads(line) for line in (runs.distill / "metrics.jsonl").read_text().splitlines()]
    assert inspect_json(here, runs.distill, "--head", "2")["head"] == lines[-2:]
    done = here("inspect", runs.distill, "--stats")
    assert "4 optimiser steps made; weights: adapter (" in done.stdout
    assert f"{lines[-1]['loss']:.4g}" in done.stdout


def test_a_loop_shows_its_rounds(here: Cli, runs: Finished) -> None:
    done = here("inspect", runs.loop)
    assert f"{runs.loop}: loop, complete" in done.stdout
    table, times = (part.splitlines()[1:] for part in done.stdout.split("round  accuracy")[1].split("seconds of each "))
    assert [line.split()[0] for line in table if line] == ["base", "0", "1"]
    lines = [json.loads(line) for line in (runs.loop / "metrics.jsonl").read_text().splitlines()]
    assert inspect_json(here, runs.loop, "--stats")["overview"]["rounds"] == lines
    seconds = {words[0]: [float(word) for word in words[1:]] for words in map(str.split, times[1:])}
    assert seconds.keys() == {"base", "0", "1", "all"}
    assert seconds["all"][-1] == pytest.approx(sum(map(sum, (seconds[row][:-1] for row in ("base", "0", "1")))), abs=1)
    assert lines[1]["times"].keys() == {"rollout", "filter", "distill", "eval"}
    assert lines[1]["times"]["distill"]["training"] > 0
    refused = here("inspect", runs.loop, "--head", "2")
    assert refused.returncode == 2
    assert "round-000/rollout" in refused.stderr


@pytest.mark.parametrize("view", ["prior", "posterior"])
def test_one_sample_joins_every_table(here: Cli, runs: Finished, view: str) -> None:
    measured = {_key(row): row for row in iterate_rows(chunk_paths(runs.filter))}
    selected = list(iterate_rows(shard_files(runs.filter / "selected")))
    weight = "gate" if view == "posterior" else "advantage"
    row = next(
        row for row in selected if row["view"] == view and row[weight] and measured[_key(row)]["status"] == "correct"
    )
    found = inspect_json(here, runs.filter, "--sample", _key(row))["sample"]
    tokens, z = found["tokens"], row["thinking_tokens"]
    assert [token["id"] for token in tokens] == row["completion_ids"]
    assert "".join(token["text"] for token in tokens) == row["completion"]
    assert [token["part"] for token in tokens] == ["z"] * z + ["y"] * (len(tokens) - z)
    other = "prior" if view == "posterior" else "posterior"
    assert [token[view] for token in tokens] == row["logprobs"]
    assert [token[other] for token in tokens[:z]] == measured[_key(row)]["other_view_logprobs"]
    assert all(token["log_ratio"] == token["posterior"] - token["prior"] for token in tokens[:z])
    assert tokens[-1]["log_ratio"] is None
    weights = [row[weight]] * len(tokens) if view == "prior" else [row[weight]] * z + [0.0] * (len(tokens) - z)
    assert [token["weight"] for token in tokens] == weights
    assert found["prompts"]["prior"]["ids"] == row["prompt_ids"]
    assert ("private_note" in found["prompts"].get("posterior", {"text": ""})["text"]) == (view == "posterior")
    assert found["about"]["answer"] in ("12", "15")  # from the rollout, which stands beside
    assert found["verdict"]["status"] == "correct"
    assert found["notes"] == []


def test_one_sample_as_text_and_in_colour(
    here: Cli, runs: Finished, environment: Callable[..., dict[str, str]]
) -> None:
    rows = iterate_rows(chunk_paths(runs.rollout))
    key = next(_key(row) for row in rows if row["view"] == "posterior" and not row["cut_off"])
    done = here("inspect", runs.filter, "--sample", key)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    header = next(line for line in done.stdout.splitlines() if line.startswith("position"))
    assert " ".join(header.split()) == "position id part weight log pi log q log q - log pi token"
    seen = on_terminal(["inspect", str(runs.filter), "--sample", key], environment({"TERM": "xterm-256color"}))
    assert "\x1b[2m" in seen  # y is dim: it carries no weight
    assert "\x1b[1;31m[>= 4]" in seen
    assert header in seen


def test_model_text_steers_no_terminal(
    here: Cli, runs: Finished, tmp_path: Path, environment: Callable[..., dict[str, str]]
) -> None:
    rows = list(iterate_rows(chunk_paths(runs.loop / "base" / "eval")))
    rows[0]["completion"] = "[bold]no markup[/nothing] \x1b]0;title\x07\u202e"
    shard = tmp_path / "chunk-00000.arrow"
    write_table(shard, table_from_rows(rows, GRADED))
    key = _key(rows[0])
    seen = on_terminal(["inspect", str(shard), "--sample", key], environment({"TERM": "xterm-256color"}))
    for text in (here("inspect", shard).stdout, here("inspect", shard, "--sample", key).stdout, seen):
        assert "[bold]no markup[/nothing] \\x1b]0;title\\x07\\u202e" in text
        assert not {"\x1b]", "\x07", "\u202e"} & {text[i : i + n] for n in (1, 2) for i in range(len(text))}


def test_without_its_model_ids_are_shown_without_strings(
    here: Cli, runs: Finished, copied: Callable[[Path], Path]
) -> None:
    folder = copied(runs.rollout)
    for file in folder.rglob("manifest.json"):
        manifest = read_json(file)
        manifest["config"]["model.path"] = str(folder / "gone")
        file.write_text(json.dumps(manifest))
    found = inspect_json(here, folder, "--sample", "q0/prior/0")["sample"]
    assert {token["text"] for token in found["tokens"]} == {None}
    assert found["completion"]
    assert any("model not found" in note for note in found["notes"])
    assert found["tokens"][0]["weight"] is None  # nothing is decided in a rollout


def test_an_unfinished_folder_is_shown_as_such(here: Cli, runs: Finished, copied: Callable[[Path], Path]) -> None:
    copied(runs.rollout)
    folder = copied(runs.filter)
    for name in ("selected", "rejected"):
        shutil.rmtree(folder / name)
    for name in ("COMPLETE", "manifest.json", "summary.json", "parts/0-of-1/COMPLETE", "parts/0-of-1/chunk-00001.json"):
        (folder / name).unlink()
    done = here("inspect", folder)
    assert done.returncode == 0, done.stderr
    assert f"{folder}: filter, not complete" in done.stdout
    assert "part 0-of-1: not complete, 1 shards, 16 rows" in done.stdout
    found = inspect_json(here, folder, "--sample", "q0/prior/0")["sample"]
    assert found["tokens"][0]["text"] is not None  # from the rollout beside it
    shutil.rmtree(folder.parent / "rollout")
    notes = inspect_json(here, folder, "--sample", "q0/prior/0")["sample"]["notes"]
    assert any("does not stand beside" in note for note in notes)


@pytest.mark.parametrize("harm", ["shortened", "changed"])
def test_a_damaged_shard_is_named(here: Cli, runs: Finished, copied: Callable[[Path], Path], harm: str) -> None:
    shard = chunk_paths(copied(runs.rollout))[1]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content[:-9] if harm == "shortened" else content)
    refused = here("inspect", shard.parents[2], "--stats")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(f"error: damaged shard: {shard}")


def test_rows_of_a_question_and_of_a_reason_are_those_of_the_shards(here: Cli, runs: Finished) -> None:
    rows = list(iterate_rows(shard_files(runs.filter / "selected") + shard_files(runs.filter / "rejected")))
    found = inspect_json(here, runs.filter, "--question", "q1")["rows"]
    assert list(map(_key, found)) == [_key(row) for row in rows if row["question_id"] == "q1"]
    reason = next(row["reasons"][0] for row in rows if row["reasons"])
    wanted = [_key(row) for row in rows if reason in row["reasons"]]
    both = inspect_json(here, runs.filter, "--rejected", reason, "--head", "1000")["rows"]
    assert list(map(_key, both)) == wanted
    shown = here("inspect", runs.filter, "--rejected", reason).stdout.splitlines()
    assert [line.split()[0] for line in shown[1:]] == wanted[:5]
    asked = here("inspect", runs.rollout, "--question", "q0").stdout
    assert asked.startswith("question  ")


def test_two_samples_differ_word_by_word(here: Cli, runs: Finished) -> None:
    first, second = ("q0/prior/0", "q0/prior/1")
    found = inspect_json(here, runs.rollout, "--diff", first, second)
    texts = {_key(row): row["completion"] for row in iterate_rows(chunk_paths(runs.rollout))}
    for name, key in (("first", first), ("second", second)):
        own = "".join(one["text"] for one in found["stretches"] if one["of"] in ("both", name))
        assert own == texts[key]
    shown = here("inspect", runs.rollout, "--diff", first, second).stdout
    assert shown.startswith(f"sample {first}, ")
    assert "[-" in shown or "{+" in shown


def test_a_finished_run_is_watched_to_its_end(here: Cli, runs: Finished) -> None:
    done = here("inspect", runs.loop, "--watch")
    assert (done.returncode, done.stdout.strip()) == (0, str(runs.loop))
    assert [line.split()[1] for line in done.stderr.splitlines()] == ["base", "0", "1"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["{root}/rollouts"], "did you mean {root}/rollout?"),
        (["{root}"], "inspect one of its folders: distill, filter, loop, rollout"),
        (["{root}/questions.jsonl"], "it is neither a folder nor an .arrow shard"),
        (["{root}/rollout", "--sample", "q0/prior/9"], "question q0 has prior 0-3, posterior 0-3"),
        (["{root}/rollout", "--sample", "q00/prior/1"], "the nearest are q0/prior/0"),
        (["{root}/rollout", "--sample", "q0/middle/1"], "a sample is named QUESTION_ID/VIEW/INDEX"),
        (["{root}/rollout", "--sample", "q0/prior/1", "--stats"], "--sample and --stats are two views"),
        (["{root}/rollout", "--sample", "q0/prior/1", "--head", "3"], "--head counts rows"),
        (["{root}/rollout", "--question", "q00"], "the nearest are q0"),
        (["{root}/rollout", "--rejected", "leak"], "give the filter folder"),
        (["{root}/filter", "--rejected", "no such reason"], "the reasons in {root}/filter are "),
        (["{root}/rollout", "--watch"], "--watch follows the rounds of a loop"),
        (["{root}/distill", "--sample", "q0/prior/1"], "a distill folder has no samples of its own"),
    ],
)
def test_what_cannot_be_shown_is_explained(here: Cli, runs: Finished, arguments: list[str], expected: str) -> None:
    root = str(runs.rollout.parent)
    refused = here("inspect", *(argument.format(root=root) for argument in arguments))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert expected.format(root=root) in refused.stderr


def test_shards_that_are_not_ours(here: Cli, runs: Finished, tmp_path: Path) -> None:
    shard = tmp_path / "alone.arrow"
    shutil.copy(chunk_paths(runs.rollout)[0], shard)
    assert f"{sidecar_path(shard).name} with its checksum does not stand beside it" in here("inspect", shard).stderr
    other = tmp_path / "other.arrow"
    write_table(other, read_table(chunk_paths(runs.rollout)[0], columns=["question", "answer"]))
    assert "its columns are question, answer" in here("inspect", other).stderr


def _key(row: dict[str, Any]) -> str:
    return f"{row['question_id']}/{row['view']}/{row['sample_index']}"


def on_terminal(arguments: list[str], environment: dict[str, str]) -> str:
    """What a terminal receives on stdout."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "vpgea_cli", *arguments]
    with Copy(command, stdout=slave, stderr=subprocess.DEVNULL, env=environment) as process:
        os.close(slave)
        received = b""
        while chunk := _read(master):
            received += chunk
    os.close(master)
    assert process.returncode == 0
    return received.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # Linux's way to say that the other end is closed
        return b""


@pytest.mark.parametrize("name", ["rollout", "filter", "distill", "loop"])
def test_overwrite_knows_every_file_that_a_run_of_its_kind_writes(name: str, runs: Finished) -> None:
    """What it does not know it takes for the user's, and refuses."""
    root: Path = getattr(runs, name)
    files = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    assert len(files) > 4
    assert [file for file in files if not is_written_by(name, file)] == []
