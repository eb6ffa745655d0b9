"""A testbed of the families from its commands: a base of a few steps, a rollout by its configuration, a measurement."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from examples.detection.__main__ import main as detection
from examples.overthinker.build import new_model
from examples.overthinker.chat import build_tokenizer
from examples.overthinker_families import base, corpus, measure
from examples.overthinker_families.corpus import WORDS, problem_of, prompt_of
from examples.overthinker_families.problems import FAMILIES, draw
from examples.overthinker_families.truth import Label, judge
from tests.support import rollouts
from vpgea.config.resolve import resolve
from vpgea.config.schema import ViewsConfig
from vpgea.phases.filter import filter_rollout
from vpgea.prompts.views import Views
from vpgea.questions.question import Question


@pytest.fixture(scope="module")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("families")
    with pytest.MonkeyPatch.context() as patch:
        for rows in ("FACT_ROWS", "PRIOR_ROWS", "POSTERIOR_ROWS", "FREE_ROWS"):
            patch.setattr(corpus, rows, 4)
        base.main(["--size", "tiny", "--bottleneck", "0.01", "--seed", "1", "--steps", "4", "-o", str(folder)])
    return folder


def test_a_round_by_the_configuration_of_the_folder_can_be_judged(
    testbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("data.limit=6", "rollout.prior_samples=1", "rollout.posterior_samples=1", "rollout.max_new_tokens=8")
    config = resolve(file=testbed / "loop.yaml", sets=[*small, "filter.min_selected=0"]).config
    assert Path(config.model.path) == testbed / "base"
    rollouts.run(config, tmp_path / "rollout")
    rows = rollouts.rows_of(tmp_path / "rollout")
    assert len(rows) == 12
    for row in rows:
        problem = problem_of(row)
        assert problem.answer == row["answer"]
        assert judge(problem, row["completion"]) in Label
    filter_rollout(config, tmp_path / "rollout", tmp_path / "filter")
    detection([str(tmp_path), "--format", "json"])
    found = json.loads(capsys.readouterr().out)["all"]
    assert (found["right"], found["prior_right"], found["families"]) == (0, 0, {})


def test_measuring_prints_the_share_that_was_reached(
    testbed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "CAP", 16)
    measure.main([str(testbed), "--limit", "12", "-n", "1"])
    found = json.loads(capsys.readouterr().out)
    assert found["made"]["bottleneck"] == 0.01
    for of in ("corpus", "model"):
        assert found[of]["bottleneck"]["n"] == 12
        assert set(found[of]["families"]) == set(FAMILIES)
        assert sum(found[of]["posterior"]["labels"].values()) == pytest.approx(1, abs=1e-3)
    assert found["corpus"]["prior"]["accuracy"] > 0.5 > found["model"]["prior"]["accuracy"]


def test_a_folder_that_is_no_testbed_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        measure.main([str(tmp_path)])
    assert "is no testbed: it has no made.json; make one with" in capsys.readouterr().err


def test_a_completion_is_taken_apart() -> None:
    problem = problem_of({"question": "x times 3 add 5 is 26 . what is x ?", "answer": "7"})
    right = measure.read(problem, f"{problem.shortest_path} </think> \\boxed{{ 7 }} <|end|>", problem.shortest_tokens)
    assert (right.correct, right.label, right.is_short) == (True, Label.SOUND, True)
    cut = measure.read(problem, f"{problem.shortest_path} so 7 .", 18)
    assert (cut.correct, cut.label) == (False, Label.SOUND)


@pytest.mark.parametrize(("size", "low", "high"), [("tiny", 0.17, 0.25), ("small", 0.9, 1.2), ("medium", 4.5, 5.5)])
def test_sizes_have_the_parameters_that_they_say(size: str, low: float, high: float) -> None:
    model = new_model(build_tokenizer(WORDS), 0, base.SIZES[size])
    assert low < model.num_parameters() / 1e6 < high


def test_prompts_are_those_of_vpgea() -> None:
    tokenizer = build_tokenizer(WORDS)
    views = Views(tokenizer, ViewsConfig(template=str(corpus.TEMPLATE)), eos_ids=[2], grader="exact")
    problem = draw(Random(1), "choice")
    question = Question("q", problem.text, problem.answer, problem.options)
    assert views.prior_prompt(question) == prompt_of(tokenizer, "prior", problem)
    assert views.posterior_prompt(question) == prompt_of(tokenizer, "posterior", problem)
    assert tokenizer.unk_token_id not in views.posterior_prompt(question)
    assert views.tokenizer.decode(views.answer_ids("B")) == "B }"


@pytest.mark.parametrize("share", ["0.7", "0.0001", "nan"])
def test_a_bottleneck_out_of_reach_is_refused(share: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        base.main(["--bottleneck", share, "-o", "nowhere"])
    assert "outside of 0.001 to 0.5" in capsys.readouterr().err
