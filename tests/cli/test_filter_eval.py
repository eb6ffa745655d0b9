"""`vpgea filter` and `vpgea eval` as a user calls them, on the testbed."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import overthinker, rollouts
from tests.support.forks import Forks, struck
from tests.support.measured_rows import selection
from vpgea.filtering.gate_factors import importance_factors
from vpgea.phases.filter import filter_rollout
from vpgea.runs.complete_phase import chunk_paths
from vpgea.storage.shards import iterate_rows
from vpgea_cli.phase import inherited_from

Cli = Callable[..., subprocess.CompletedProcess[str]]
MEASURE = "vpgea.filtering.crossview.CrossView.measure"  # called once for each of four chunks


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The testbed's configuration as a file."""
    sections: dict[str, Any] = {}
    for key, value in overthinker.options().items():
        *path, name = key.split(".")
        section = sections
        for part in path:
            section = section.setdefault(part, {})
        section[name] = value
    file = tmp_path_factory.mktemp("cli-settings") / "run.yaml"
    file.write_text(yaml.safe_dump(sections))
    return file


@pytest.fixture(scope="module")
def whole(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an undisturbed filter makes of it, in this process."""
    folder = tmp_path_factory.mktemp("cli-whole") / "filter"
    filter_rollout(overthinker.config(), drawn, folder)
    return folder


def test_filter_prints_its_tables_and_its_summary(here: Cli, drawn: Path, settings: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    switches = ["--set", "filter.early_exits=true", "--set", "filter.counterfactual=true"]
    done = here("filter", drawn, "-c", settings, "-o", target, "--json", *switches)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    counts = result["counts"]
    assert (result["path"], result["complete"]) == (str(target), True)
    assert counts["posterior_sampled"] == 24
    rejected = sum(count for name, count in counts.items() if name.startswith("posterior_rejected"))
    assert counts["posterior_accepted"] + rejected == 24
    for line in ("posterior accepted", "early_exit_25", "own_note_logprob", "ess_share"):
        assert line in done.stderr
    kept = here("filter", drawn, "-c", settings, "-o", target, "--no-resume", *switches)
    assert kept.returncode == 2
    assert "--no-resume" in kept.stderr
    alone = ["--set", "filter.derivation.enabled=false", "--set", "filter.leaks.enabled=false"]
    other = here("filter", drawn, "-c", settings, "-o", target, "--overwrite", "--json", "-q", *alone)
    assert other.returncode == 0, other.stderr
    assert json.loads(other.stdout)["counts"]["posterior_rejected_derivation"] == 0
    assert json.loads(other.stdout)["checks"]["early_exit_25"] is None


def test_the_sound_part_of_a_path_is_learnt_and_shown(here: Cli, drawn: Path, settings: Path, tmp_path: Path) -> None:
    """Of so few paths no beginning leads to the answer: none is asked to, and all gates are 1."""
    target, sets = tmp_path / "out", list[str]()
    for asked in ("note_dependence.dependent=mask", "answerability.threshold=0", "advantage.gate=one"):
        sets += ["--set", f"filter.{asked}"]
    done = here("filter", drawn, "-c", settings, "-o", target, "--json", *sets)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    counts, tokens = result["counts"], result["tokens"]
    rejected = sum(count for name, count in counts.items() if name.startswith("posterior_rejected"))
    assert counts["posterior_accepted"] + counts["posterior_in_part"] + rejected == 24
    rows = [row for row in selection(target).values() if row["learnt_tokens"] is not None]
    assert len(rows) == counts["posterior_in_part"] > 0
    assert all(row["selected"] and 0 < row["learnt_tokens"] < row["thinking_tokens"] for row in rows)
    learnt, masked = tokens["in_part_learnt"], tokens["in_part_masked"]
    assert learnt == sum(row["learnt_tokens"] for row in rows)
    assert learnt + masked == sum(row["thinking_tokens"] for row in rows)
    assert f"{learnt} tokens of thinking are learnt and {masked} masked" in done.stderr

    one = max(rows, key=lambda row: row["gate"])
    name = f"{one['question_id']}/posterior/{one['sample_index']}"
    shown = json.loads(here("inspect", target, "--sample", name, "--json").stdout)["sample"]
    assert shown["verdict"]["learnt_tokens"] == shown["checks"]["first_dependent_token"] == one["learnt_tokens"]
    weights = [token["weight"] for token in shown["tokens"]]
    assert weights == [one["gate"]] * one["learnt_tokens"] + [0.0] * (len(weights) - one["learnt_tokens"])
    views = json.loads(here("inspect", target, "--stats", "--json").stdout)["statistics"]["views"]
    assert views["posterior"]["in_part"] == len(rows)
    assert views["posterior"]["accepted"] == counts["posterior_accepted"]
    assert here("doctor", target).returncode == 0
    summary = target / "summary.json"
    summary.write_text(summary.read_text().replace('"posterior_in_part": ', '"posterior_in_part": 1'))
    assert here("doctor", target).returncode != 0


def test_filter_takes_the_gate_of_an_objective_by_name(here: Cli, drawn: Path, whole: Path, tmp_path: Path) -> None:
    """Weights from what both folders say of log pi and log q; all else is as the method has it."""
    target, objective = tmp_path / "out", ("--set", "objective=vpg-ea/importance-gate")
    done = here("filter", drawn, "-o", target, "--json", "-q", *objective)
    assert done.returncode == 0, done.stderr
    assert 0 < json.loads(done.stdout)["tempering_power"] <= 1
    found, plain = selection(target), selection(whole)
    assert [key for key in found if found[key]["selected"]] == [key for key in plain if plain[key]["selected"]]
    weights: dict[str, dict[Any, float]] = {}
    for row in iterate_rows(chunk_paths(target)):
        key = row["question_id"], row["view"], row["sample_index"]
        if row["view"] == "posterior" and plain[key]["selected"]:
            log_q = plain[key]["logprobs"][: plain[key]["thinking_tokens"]]
            weights.setdefault(key[0], {})[key] = sum(row["other_view_logprobs"]) - sum(log_q)
    assert max(map(len, weights.values())) > 1
    for own in weights.values():
        for key, factor in zip(own, importance_factors(list(own.values()), 0.5), strict=True):
            assert found[key]["gate"] == pytest.approx(min(factor * plain[key]["gate"], 2), rel=1e-4, abs=1e-9)


def test_filter_killed_and_resumed_gives_bitwise_the_same(
    here: Cli, forks: Forks, drawn: Path, whole: Path, tmp_path: Path
) -> None:
    """Without a file: model, views, sampling and checks are what the rollout was made with."""
    killed = tmp_path / "killed"
    script = struck(MEASURE, 3, signal.SIGKILL)
    process = forks.start(["filter", drawn, "-o", killed, "-q"], tmp_path, "filter", script=script)
    assert process.wait(120) == -signal.SIGKILL, process.err.read_text()
    assert 1 <= rollouts.committed(killed) < 4
    assert here("filter", drawn, "-o", killed, "-q").returncode == 0
    assert rollouts.bytes_of(killed) == rollouts.bytes_of(whole)
    assert selection(killed) == selection(whole)
    assert (killed / "summary.json").read_bytes() == (whole / "summary.json").read_bytes()


def test_filter_leaves_with_75_on_a_signal(forks: Forks, drawn: Path, tmp_path: Path) -> None:
    script = struck(MEASURE, 3, signal.SIGTERM)
    process = forks.start(["filter", drawn, "-o", tmp_path / "out", "-q"], tmp_path, "filter", script=script)
    process.wait(120)
    told = process.err.read_text()
    assert process.returncode == 75, told
    assert "continues where it stopped" in told
    assert 1 <= rollouts.committed(tmp_path / "out") < 4


def test_filter_looks_for_servers_of_its_own(here: Cli, tmp_path: Path) -> None:
    """Those of the rollout may be gone; everything else is as the rollout had it."""
    gone = {"sglang__server_url": "http://127.0.0.1:9", "rollout__engine": "transformers", "data__limit": 2}
    rollouts.run(overthinker.config(**gone), tmp_path / "rollout")
    ((_, kept),) = inherited_from(tmp_path / "rollout", "rollout")
    assert kept["rollout.engine"] == "transformers"
    assert not [key for key in kept if key.startswith("sglang.")]
    done = here("filter", tmp_path / "rollout", "-o", tmp_path / "f", "--set", "rollout.engine=auto", "-q")
    assert done.returncode == 0, done.stderr


def test_filter_exit_codes(here: Cli, drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "raises.py").write_text(
        "def grade(*, response, reference, question):\n    raise ValueError('why not')\n"
    )
    env = {"PYTHONPATH": f"{overthinker.ROOT.parents[1]}:{tmp_path}"}
    grader = ["--set", "grading.grader=raises:grade"]
    failed = here("filter", drawn, "-o", tmp_path / "out", *grader, env=env)
    assert failed.returncode == 3
    assert "why not" in failed.stderr
    allowed = here("filter", drawn, "-o", tmp_path / "out", *grader, "--max-grade-errors", "1.0", env=env)
    assert allowed.returncode == 3, "and then nothing is left to learn from"
    assert "0 samples are left to learn from" in allowed.stderr
    assert here("filter", drawn).returncode == 2, "no output folder"
    assert here("filter", tmp_path / "nothing", "-o", tmp_path / "x").returncode == 2
    assert here("filter", drawn, "-o", tmp_path / "x", "--model", tmp_path).returncode == 2
    otherwise = here("filter", drawn, "-o", tmp_path / "x", "--set", "rollout.temperature=0.5")
    assert otherwise.returncode == 2
    assert "rollout.temperature" in otherwise.stderr
    assert not (tmp_path / "x").exists()


def test_filter_in_parts_and_too_few_paths_to_calibrate(here: Cli, tmp_path: Path) -> None:
    rollouts.run(overthinker.config(data__limit=3), tmp_path / "rollout")
    command = ["filter", tmp_path / "rollout", "-o", tmp_path / "out", "--set", "filter.min_selected=0"]
    first = here(*command, "--shard", "0/2", "--json")
    assert json.loads(first.stdout) == {"path": str(tmp_path / "out"), "complete": False}
    second = here(*command, "--shard", "1/2")
    assert second.returncode == 0, second.stderr
    assert second.stdout.strip() == str(tmp_path / "out")
    assert "plausibility: not calibrated" in second.stderr
    assert len(selection(tmp_path / "out")) == 15


def test_eval_against_a_baseline_in_parts(here: Cli, settings: Path, tmp_path: Path) -> None:
    base, other = tmp_path / "base", tmp_path / "other"
    done = here("eval", "-c", settings, "-o", base, "--limit", "4", "-n", "2", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["questions"], result["samples"], result["complete"]) == (4, 8, True)
    assert "accuracy" in done.stderr
    options = [
        "eval",
        "-c",
        settings,
        "-o",
        other,
        "--limit",
        "4",
        "-n",
        "2",
        "--seed",
        "9",
        "--baseline",
        base,
        "--json",
    ]
    assert json.loads(here(*options, "--shard", "1/2").stdout) == {"path": str(other), "complete": False}
    found = json.loads(here(*options, "--shard", "0/2").stdout)
    assert found["baseline"] == str(base)
    assert found["metrics"]["e3"]["n"] == 8
    assert found["metrics"]["e3"]["warning"] == "an interval needs 5 questions"
    refused = here("eval", "-c", settings, "-o", tmp_path / "x", "--limit", "3", "--baseline", base)
    assert refused.returncode == 2
    assert "questions" in refused.stderr
    assert not (tmp_path / "x").exists()


def test_eval_reads_a_file_as_a_named_set(here: Cli, tmp_path: Path, tiny_model: Path) -> None:
    file = Path(__file__).parents[1] / "data" / "questions" / "mmlu_pro_25.jsonl.gz"
    small = ("--set", "eval.max_new_tokens=16", "--set", "eval.bootstrap=100", "--limit", "3", "--skip-bad-rows", "-q")
    arguments = ("eval", "--model", tiny_model, "--dataset", file, "-o", tmp_path / "out", *small)
    assert here(*arguments, "--evalset", "mmlu-pro").returncode == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["identity"]["grading.grader"] == "choice"
    wrong = here(*arguments, "--evalset", "mmlu", "--overwrite")
    assert (wrong.returncode, "did you mean mmlu-pro?" in wrong.stderr) == (2, True)


def test_eval_samples_until_an_interval_is_narrow(here: Cli, settings: Path, tmp_path: Path) -> None:
    command = ["eval", "-c", settings, "-o", tmp_path / "grown", "--limit", "5", "-n", "1"]
    done = here(*command, "--until-width", "0.0001", "--max-samples", "2", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["path"], result["samples"]) == (str(tmp_path / "grown" / "samples-0002"), 10)
    for line in ("1 samples per question: the interval of accuracy", "2 is the limit"):
        assert line in done.stderr
    lonely = here(*command, "--max-samples", "2")
    assert lonely.returncode == 2
    assert "--until-width 0.02" in lonely.stderr
