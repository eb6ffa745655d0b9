"""Loops with an objective by name, through the command line: what was sampled, selected and trained is that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from docs.tools.pages import ROOT
from tests.support import loops
from vpgea.config.objectives import OBJECTIVES
from vpgea.runs.layout import SETS
from vpgea.runs.parts import WHOLE, part_folder
from vpgea.storage.files import read_json
from vpgea.storage.rows import iterate_rows
from vpgea.storage.schemas import POSTERIOR, PRIOR, SelectionRow
from vpgea.storage.shards import shard_files
from vpgea_cli.main import run


def loop(folder: Path, model: Path, objective: str, *more: str, **dotted: Any) -> int:
    file = loops.write_config(folder, model, loop__rounds=1, distill__train="lora", **dotted)
    words = ["loop", "--config", str(file), "--output-dir", str(folder / "run"), "--objective", objective, *more]
    return run([*words, "--offline", "--quiet"])


def selected(folder: Path) -> list[SelectionRow]:
    filtered = folder / "run" / "round-000" / "filter"
    return list(iterate_rows([file for name in SETS for file in shard_files(filtered / name)], SelectionRow))


def identity(folder: Path, round_index: int, phase: str) -> dict[str, Any]:
    step = folder / "run" / f"round-{round_index:03d}" / phase
    found: dict[str, Any] = read_json(part_folder(step, WHOLE) / "manifest.json")["identity"]
    return found


def test_rejection_sampling_weighs_what_is_right_and_nothing_else(tiny_model: Path, tmp_path: Path) -> None:
    assert loop(tmp_path, tiny_model, "on-policy-sft") == 0
    rows = selected(tmp_path)
    assert {row.key.view for row in rows} == {PRIOR}
    assert {(row.status, row.advantage) for row in rows} == {("correct", 1.0), ("wrong", 0.0)}


def test_rationalisation_learns_whole_answers_of_the_posterior(tiny_model: Path, tmp_path: Path) -> None:
    assert loop(tmp_path, tiny_model, "star") == 0
    rows = selected(tmp_path)
    assert {row.key.view for row in rows} == {POSTERIOR}
    right = {row.status == "correct" and not row.cut_off for row in rows if row.gate == 1}
    assert right == {True}
    assert {row.gate for row in rows if row.status == "wrong"} == {0}
    (line, *_) = loops.metrics(tmp_path / "run")[1:]
    assert line["accepted_share"] > 0


def test_the_cap_falls_from_round_to_round(tiny_model: Path, tmp_path: Path) -> None:
    more = ("--rounds", "2", "--set", "loop.cap_decay=0.5")
    assert loop(tmp_path, tiny_model, "truncate", *more, filter__min_selected=0) == 0
    caps = [identity(tmp_path, index, "rollout")["rollout.max_new_tokens"] for index in (0, 1)]
    assert caps == [24, 12]
    assert identity(tmp_path, 1, "rollout")["rollout.posterior_samples"] == 0
    assert identity(tmp_path, 1, "eval")["eval.max_new_tokens"] == 24


def test_a_note_with_another_answer_is_no_part_of_the_grade(tiny_model: Path, tmp_path: Path) -> None:
    assert loop(tmp_path, tiny_model, "vpg-ea/other-note", filter__min_selected=0) == 0
    assert identity(tmp_path, 0, "rollout")["views.note"] == "other"
    for row in selected(tmp_path):
        assert row.key.view == PRIOR or row.status in ("correct", "wrong")


@pytest.mark.parametrize("objective", ["concise-self-distill", "rlsd"])
def test_the_posterior_is_the_teacher_of_the_student_s_own_samples(
    objective: str, tiny_model: Path, tmp_path: Path
) -> None:
    assert loop(tmp_path, tiny_model, objective) == 0
    rows = selected(tmp_path)
    assert {row.key.view for row in rows} == {PRIOR}
    for row in rows:
        assert row.posterior_prompt_ids is not None
        assert len(row.posterior_prompt_ids) > len(row.prompt_ids)
        assert objective == "rlsd" or row.advantage == 1, "whatever its grade"
    steps = (tmp_path / "run" / "round-000" / "distill" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    for step in map(json.loads, steps):
        assert step["gradient_norm"] > 0
        assert objective == "rlsd" or step["policy_gradient"] < 0, "a KL, which is to fall"


def test_what_contradicts_an_objective_is_refused_before_anything_is_made(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert loop(tmp_path, tiny_model, "grpo", "--set", "filter.utility.length_price=0.5") == 2
    assert "objective grpo cannot have filter.utility.length_price=0.5" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert loop(tmp_path, tiny_model, "grop") == 2
    assert "one of vpg-ea, " in capsys.readouterr().err


def test_a_file_of_an_objective_is_the_objective(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "init", str(tmp_path / "mine.yaml"), "--objective", "laser-d"]) == 0
    capsys.readouterr()
    assert run(["config", "show", "--config", str(tmp_path / "mine.yaml"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["objective"]["value"] == "laser-d"
    assert shown["filter.utility.kind"]["value"] == "step"


def test_the_page_lists_every_objective_with_its_formula_source_and_keys() -> None:
    lines = (ROOT / "docs" / "objectives.md").read_text(encoding="utf-8").splitlines()
    rows = {line.split("`")[1]: line for line in lines if line.startswith("| `")}
    assert list(rows) == list(OBJECTIVES)
    for name, objective in OBJECTIVES.items():
        source = "[method](method.md)" if objective.source == "docs/method.md" else objective.source
        formula = objective.formula.replace("|", r"\|")
        assert f"| {formula} | {source} |" in rows[name]
        for key, value in objective.settings.items():
            written = str(value).lower() if isinstance(value, bool) else value
            assert f"`{key}={written}`" in rows[name]
