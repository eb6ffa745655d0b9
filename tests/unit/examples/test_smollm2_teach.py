"""Teaching: written lessons are trained on by phase 3, stop and go on, and leave an adapter that can be merged."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from examples.smollm2 import checker
from examples.smollm2.checker import Steps
from examples.smollm2.lessons import write_lessons
from examples.smollm2.problems import problems
from examples.smollm2.teach import CONFIG, main, teach
from tests.support import tiny
from tests.support.models import causal_model
from vpgea.config.resolve import resolve
from vpgea.config.schema import RunConfig
from vpgea.errors import Stopped, UsageError
from vpgea.modeling.local_model import LocalModel
from vpgea.modeling.policy import completion_logprobs
from vpgea.phases.export import export
from vpgea.prompts.views import load_views
from vpgea.questions.question import Question
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.stopping import StopRequest
from vpgea.storage.files import read_json_lines
from vpgea.storage.rows import read_rows
from vpgea.storage.schemas import SelectionRow
from vpgea.training.data import TrainingSet
from vpgea.training.roles import sequences_of
from vpgea_cli.main import told

TOKENS = 2600  # of the tiny model, whose tokens are short: a few questions
SMALL = {"distill.questions_per_step": 2, "distill.checkpoint_every": 1, "model.dtype": "float32", "model.threads": 1}


class StopAfterOneStep(StopRequest):
    """Asks for a stop when the first step is taken."""

    def unit_done(self, *, more: bool) -> None:
        self.request("a test")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("tiny"), chat_template="qwen2.5", thinking_tags=False)


@pytest.fixture(scope="module")
def config(model: Path) -> RunConfig:
    return resolve(file=CONFIG, options={**SMALL, "model.path": str(model)}).config


@pytest.fixture(scope="module")
def taught(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps, with a stop behind the first; do not change it."""
    folder = tmp_path_factory.mktemp("taught")
    with pytest.raises(Stopped):
        teach(config, folder, TOKENS, seed=0, stop=StopAfterOneStep())
    assert len(read_json_lines(folder / "distill" / "metrics.jsonl")) == 1
    summary = teach(config, folder, TOKENS, seed=0)
    assert summary.steps == 2
    return folder


def test_a_question_has_a_lesson_in_each_view_with_the_loss_on_the_completion(taught: Path, config: RunConfig) -> None:
    rows = read_rows(taught / "lessons" / "selected" / "chunk-00000.arrow", SelectionRow)
    views = load_views(LocalModel.resolve(config.model), config.views)
    assert len(rows) % 2 == 0
    for plain, noted, problem in zip(rows[::2], rows[1::2], problems("taught", 0), strict=False):
        question = Question("", problem.question, str(problem.answer))
        assert plain.prompt_ids.tolist() == views.prior_prompt(question)
        assert noted.prompt_ids.tolist() == views.posterior_prompt(question)
        for row in (plain, noted):
            assert views.decode(row.completion_ids[:-1].tolist()) == row.completion
            assert row.completion_ids[-1] == views.stop_ids[0]
            assert views.decode(row.completion_ids[: row.thinking_tokens].tolist()).endswith("</think>")
            steps = Steps.parse([str(step) for step in problem.steps])
            assert (row.status == "correct") == (checker.label(steps, row.completion) != "slip")
    lines = read_json_lines(taught / "distill" / "metrics.jsonl")
    assert sum(line["tokens"] for line in lines) == sum(len(row.completion_ids) for row in rows)


def test_lessons_of_equations_are_the_steps_of_problems_alone(config: RunConfig, tmp_path: Path) -> None:
    write_lessons(tmp_path, config, 600, 0, StopRequest(), equations=True)
    rows = read_rows(tmp_path / "selected" / "chunk-00000.arrow", SelectionRow)
    assert sum(len(row.completion_ids) for row in rows[:-1]) < 600 <= sum(len(row.completion_ids) for row in rows)
    steps = [str(step) for problem in islice(problems("taught", 0), 3) for step in problem.steps]
    thinking, _, rest = rows[0].completion.partition("</think>")
    written = thinking.strip().removesuffix(".").split(". ")
    assert sorted(written) == sorted(steps)
    assert checker.boxed(rest) == int(written[-1].split(" = ")[1])
    views = load_views(LocalModel.resolve(config.model), config.views)
    question = ", ".join(equation.split(" = ")[0] for equation in written[:-1])
    assert f"Compute {question} and then {written[-1].split(' = ')[0]}." in views.decode(rows[0].prompt_ids.tolist())


def test_the_loss_is_the_cross_entropy_of_whole_completions(taught: Path, config: RunConfig) -> None:
    """Divided by the tokens of thinking; the adapter changes nothing before the first step."""
    data = TrainingSet(CompletePhase.open(taught / "lessons", "filter"), config.distill)
    paths = data.step(0).paths
    logprobs = completion_logprobs(causal_model(config.model), *sequences_of(paths))
    (first, _) = read_json_lines(taught / "distill" / "metrics.jsonl")
    expected = -float(logprobs.sum()) / sum(path.thinking_tokens for path in paths)
    assert first["loss"] == first["kl"] == pytest.approx(expected, rel=1e-4)


def test_stops_change_nothing_of_what_is_taught(config: RunConfig, taught: Path, tmp_path: Path) -> None:
    stop = StopRequest()
    stop.request("a test")
    with pytest.raises(Stopped):
        teach(config, tmp_path, TOKENS, seed=0, stop=stop)
    assert not (tmp_path / "distill").exists()
    teach(config, tmp_path, TOKENS, seed=0)  # at one go
    adapter = "distill/adapter/adapter_model.safetensors"
    assert (tmp_path / adapter).read_bytes() == (taught / adapter).read_bytes()


def test_the_adapter_is_there_with_nothing_but_what_is_needed_and_can_be_merged(taught: Path, tmp_path: Path) -> None:
    names = {path.name for path in (taught / "distill").iterdir()}
    assert {"adapter", "metrics.jsonl", "summary.json", "COMPLETE"} <= names
    assert not names & {"optimizer", "model", "masters"}
    record = export(taught / "distill", tmp_path / "merged", merge=True)
    assert record["kind"] == "merged model"
    assert (tmp_path / "merged" / "model.safetensors").is_file()


def test_other_lessons_are_refused_where_some_were_taught(taught: Path, config: RunConfig) -> None:
    with pytest.raises(UsageError, match=r"lessons\.tokens differs"):
        teach(config, taught, TOKENS + 1, seed=0)


def test_the_command_goes_on_and_names_the_adapter(
    taught: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(**layers: Any) -> Any:
        return resolve(**{**layers, "options": {**layers["options"], **SMALL}})

    monkeypatch.setattr("examples.smollm2.teach.resolve", small)
    wanted = ["--model", str(model), "-o", str(taught), "--tokens", str(TOKENS)]
    assert told(lambda: main(wanted)) == 0
    assert capsys.readouterr().out == f"{taught / 'distill' / 'adapter'}\n"
    assert told(lambda: main([*wanted, "--seed", "5"])) == 2
    assert "lessons.seed differs" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*wanted[:-1], "0"])
    assert "--tokens: 0 is less than 1" in capsys.readouterr().err
