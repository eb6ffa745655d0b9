"""Evaluation on real samples of the testbed: figures against naive computations, baselines, parts, adapters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.simulated_run import some_value
from tests.support import overthinker, rollouts, tiny
from tests.support.models import causal_model, views_of
from vpgea.config.resolve import resolve
from vpgea.config.schema import RunConfig
from vpgea.engines.base import Engine
from vpgea.engines.lease import EngineLease
from vpgea.errors import EngineError, QualityGateError, Stopped, UsageError
from vpgea.inspection.verify import verify
from vpgea.metrics import bootstrap
from vpgea.metrics.scores import e3_score
from vpgea.modeling.local_model import LocalModel
from vpgea.phases.evaluate import evaluate, sample_table
from vpgea.phases.filter import filter_rollout
from vpgea.phases.rollout import RolloutPlan, rollout
from vpgea.questions.clusters import Numbering
from vpgea.questions.load import load_questions
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.manifest import Manifest
from vpgea.runs.parts import Part
from vpgea.runs.records import EvalResults
from vpgea.runs.stopping import StopRequest
from vpgea.storage.files import read_json, write_json
from vpgea.storage.records import json_of, read_record
from vpgea.storage.schemas import GRADED
from vpgea.storage.shards import table_from_rows, write_table


class NoEngine(EngineLease):
    """Whoever asks it for a model has done too much."""

    def get(self, config: RunConfig, model: LocalModel) -> Engine:
        raise AssertionError("the model was loaded")


def config(**dotted: Any) -> RunConfig:
    return overthinker.config(**{"eval__samples": 2, **dotted})


def run(folder: Path, **dotted: Any) -> dict[str, Any]:
    chosen = config(**dotted)
    found = evaluate(chosen, load_questions(chosen.data).questions, folder)
    assert found is not None
    return json_of(found)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base model on eight questions, two samples each."""
    folder = tmp_path_factory.mktemp("evaluate") / "base"
    run(folder)
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """The same with another seed, against the base."""
    folder = tmp_path_factory.mktemp("evaluate") / "other"
    run(folder, eval__seed=5, eval__baseline=str(base))
    return folder


def is_right(row: dict[str, Any]) -> bool:
    box = row["completion"].split("</think>")[-1].split("{")[-1].split("}")[0].strip()
    return bool("</think>" in row["completion"] and box == row["answer"])


def test_figures_against_a_naive_computation(base: Path) -> None:
    rows, found = rollouts.rows_of(base), read_json(base / "results.json")
    assert (found["questions"], found["samples"], found["not_graded"], found["baseline"]) == (8, 16, 0, None)
    assert all(row["view"] == "prior" for row in rows), "the note is never in an evaluation"
    figures = {name: metric["value"] for name, metric in found["metrics"].items()}
    tokens = [len(row["completion_ids"]) for row in rows]
    right = [is_right(row) for row in rows]
    assert 0 < sum(right) < len(rows), "some of both, or this test says little"
    assert figures["accuracy"] == pytest.approx(fmean(right))
    assert figures["tokens"] == pytest.approx(fmean(tokens))
    assert figures["truncation_rate"] == fmean(row["finish_reason"] == "length" for row in rows)
    per_question = [right[start : start + 2] for start in range(0, 16, 2)]
    assert figures["pass@2"] == pytest.approx(fmean(any(pair) for pair in per_question))
    assert figures["mean@2"] == pytest.approx(fmean(right))


def test_outcome_efficiency_and_the_first_correct_token(base: Path) -> None:
    rows = rollouts.rows_of(base)
    tokenizer = LocalModel.resolve(config().model).tokenizer
    shares = []
    for row in rows:
        words = [tokenizer.decode([token]) for token in row["completion_ids"]]
        first = words.index(row["answer"]) + 1 if row["answer"] in words else None
        assert row["first_correct_tokens"] == first
        shares.append(first / len(words) if first and is_right(row) else 0.0)
    figures = read_json(base / "results.json")["metrics"]
    assert figures["outcome_efficiency"]["value"] == pytest.approx(fmean(shares))
    right = [share for share, row in zip(shares, rows, strict=True) if is_right(row)]
    assert figures["outcome_efficiency_correct"]["value"] == pytest.approx(fmean(right))


def graded(question: str, answer: str, status: str, extracted: str | None, first: int | None) -> dict[str, Any]:
    row = {"question_id": question, "question": question, "answer": answer, "options": [], "status": status}
    return row | {"extracted": extracted, "first_correct_tokens": first, "completion_ids": [1] * 10, "logprobs": []}


def figures_of(folder: Path, grader: str, rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Figures of an evaluation that is written by hand, one sample a row."""
    for row in rows:
        row |= {field.name: some_value(field, row) for field in GRADED}
    chunk = folder / f"{len(rows)}-rows.arrow"
    write_table(chunk, table_from_rows(rows, GRADED))
    manifest = Manifest(phase="eval", identity={"grading.grader": grader}, inputs={}, config={})
    evaluation: Any = SimpleNamespace(chunks=lambda: [chunk], manifest=manifest)
    return {
        name: one.value for name, one in bootstrap.evaluate(sample_table(evaluation, Numbering()), draws=10).items()
    }


def test_places_that_say_nothing_leave_the_outcome_efficiency(tmp_path: Path) -> None:
    """A digit, and a number of the question's own, stand somewhere by chance; wrong samples of these leave it, too."""
    rows = [
        graded("How many legs?", "8", "correct", "8", 2),
        graded("How many legs?", "8", "wrong", "6", 1),
        graded("Is 40 more than 12?", "40", "correct", "40", 1),
        graded("How many eyes?", "48", "correct", "48", 5),
        graded("How many eyes?", "48", "wrong", "47", None),
    ]
    figures = figures_of(tmp_path, "math", rows)
    assert figures["outcome_efficiency"] == pytest.approx(0.25)
    assert figures["outcome_efficiency_correct"] == pytest.approx(0.5)
    assert "outcome_efficiency" not in figures_of(tmp_path, "math", rows[:3])


@pytest.mark.parametrize(("grader", "share"), [("math", 0.0), ("exact", 1.0)])
def test_answers_of_one_value_are_one_vote(tmp_path: Path, grader: str, share: float) -> None:
    """Three wrong votes for a half against two right ones, unless they are compared as texts."""
    said = [("0.5", "wrong"), (r"\frac{1}{2}", "wrong"), ("1/2", "wrong"), ("3", "correct"), ("3.0", "correct")]
    assert (
        figures_of(tmp_path, grader, [graded("x", "3", status, text, None) for text, status in said])["maj@5"] == share
    )


def test_votes_for_endless_answers_take_no_time(tmp_path: Path) -> None:
    said = ["9^{9^{9^{9}}}", "2^{9999999999}", "(" * 500, "1" * 100_000, "\\sqrt{" * 100, "1," * 400]
    figures = figures_of(tmp_path, "math", [graded("x", "3", "wrong", text, None) for text in said])
    assert figures["maj@6"] == 0


def test_multiple_choice_has_no_outcome_efficiency(tmp_path: Path) -> None:
    """A letter stands by itself in any text, so its first place says nothing."""
    row = {"id": "a", "question": "Which is more, a dozen or ten?", "answer": "A", "options": ["a dozen", "ten"]}
    questions = tiny.write_questions(tmp_path / "choice.jsonl", [row])
    options: dict[str, Any] = {"model.path": str(tiny.make_model(tmp_path / "model")), "data.dataset": str(questions)}
    options |= {"model.device": "cpu", "model.threads": 1, "grading.grader": "choice", "eval.max_new_tokens": 64}
    chosen = resolve(options=options).config
    found = evaluate(chosen, load_questions(chosen.data).questions, tmp_path / "out")
    assert found is not None
    assert "accuracy" in found.metrics
    assert "outcome_efficiency" not in found.metrics
    assert all(row["first_correct_tokens"] is None for row in rollouts.rows_of(tmp_path / "out"))


def test_against_a_baseline(base: Path, other: Path) -> None:
    theirs, ours = (
        (fmean(is_right(row) for row in rows), fmean(len(row["completion_ids"]) for row in rows))
        for rows in (rollouts.rows_of(base), rollouts.rows_of(other))
    )
    found = read_json(other / "results.json")
    figures = {name: metric["value"] for name, metric in found["metrics"].items()}
    assert found["baseline"] == str(base)
    assert figures["accuracy_gain"] == pytest.approx(ours[0] - theirs[0])
    assert figures["token_saving"] == pytest.approx(1 - ours[1] / theirs[1])
    assert figures["e3"] == pytest.approx(float(e3_score(*ours, *theirs, samples=16, base_samples=16)))
    assert found["metrics"]["accuracy_gain"]["warning"] is None, "all questions are paired"


def test_a_run_against_itself_gains_exactly_nothing(base: Path, tmp_path: Path) -> None:
    found = run(tmp_path / "same", eval__baseline=str(base))["metrics"]
    for name in ("accuracy_gain", "token_saving"):
        assert found[name]["value"] == 0, "paired by question"
        assert found[name]["low"] <= 0 <= found[name]["high"]
    assert found["e3"]["value"] == pytest.approx(1)


def test_a_baseline_can_be_named_later_without_a_model(base: Path, other: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(other, tmp_path / "copy"))
    chosen = config(eval__seed=5)
    found = evaluate(chosen, load_questions(chosen.data).questions, folder, lease=NoEngine(Path("logs"), StopRequest()))
    assert found is not None
    assert "e3" not in found.metrics
    chosen = config(eval__seed=5, eval__baseline=str(base))
    evaluate(chosen, load_questions(chosen.data).questions, folder, lease=NoEngine(Path("logs"), StopRequest()))
    assert read_json(folder / "results.json") == read_json(other / "results.json")


@pytest.mark.parametrize(
    ("dotted", "key"),
    [
        ({"eval__max_new_tokens": 100}, "eval.max_new_tokens"),
        ({"eval__temperature": 0.5}, "eval.temperature"),
        ({"data__limit": 7}, "8 questions were sampled there, 7 are given here; "),
        ({"grading__grader": "math"}, "grading.grader"),
        ({"views__chat_template_kwargs": {"enable_thinking": False}}, "template is"),
    ],
)
def test_a_baseline_measured_otherwise_is_refused_before_any_sample(
    base: Path, tmp_path: Path, dotted: dict[str, Any], key: str
) -> None:
    chosen = config(**dotted, eval__baseline=str(base))
    questions = load_questions(chosen.data).questions
    with pytest.raises(UsageError, match="measured otherwise") as caught:
        evaluate(chosen, questions, tmp_path / "out", lease=NoEngine(Path("logs"), StopRequest()))
    assert caught.value.why.startswith(key)
    assert not (tmp_path / "out").exists()


class Starting(EngineLease):
    """An engine that takes its time: meanwhile somebody begins something else in the folder, and it never comes up."""

    def __init__(self, folder: Path, begin_another: Callable[[Path], object]) -> None:
        super().__init__(folder / "logs", StopRequest())
        self._folder, self._begin_another = folder, begin_another

    def get(self, config: RunConfig, model: LocalModel) -> Engine:
        with pytest.raises(UsageError, match="differs"):
            self._begin_another(self._folder)
        raise EngineError("did not start", why="a test", mend="none")


@pytest.mark.parametrize("phase", ["rollout", "filter", "eval"])
def test_a_folder_is_held_while_its_engine_starts(phase: str, drawn: Path, tmp_path: Path) -> None:
    questions = load_questions(config().data).questions

    def start(folder: Path, lease: EngineLease | None, **dotted: Any) -> object:
        now = config(**dotted)
        if phase == "rollout":
            return rollout(RolloutPlan.make(now, questions), folder, lease=lease)
        if phase == "filter":
            return filter_rollout(now, drawn, folder, lease=lease)
        return evaluate(now, questions, folder, lease=lease)

    others: dict[str, dict[str, Any]] = {
        "rollout": {"rollout__seed": 9},
        "filter": {"filter__advantage__std_min": 0.2},
        "eval": {"eval__seed": 9},
    }
    other = others[phase]
    starting = Starting(tmp_path / "out", lambda folder: start(folder, NoEngine(Path("logs"), StopRequest()), **other))
    with pytest.raises(EngineError, match="did not start"):
        start(tmp_path / "out", starting)
    with pytest.raises(AssertionError, match="the model was loaded"):  # it is free again
        start(tmp_path / "out", NoEngine(Path("logs"), StopRequest()), **other)


def test_a_baseline_that_is_no_evaluation_is_refused(tmp_path: Path) -> None:
    chosen = config(eval__baseline=str(tmp_path / "nothing"))
    with pytest.raises(UsageError, match="folder not found"):
        evaluate(
            chosen, load_questions(chosen.data).questions, tmp_path / "out", lease=NoEngine(Path("logs"), StopRequest())
        )


def test_parts_and_resumption_give_the_same_rows(base: Path, tmp_path: Path) -> None:
    chosen, folder = config(), tmp_path / "parts"
    questions = load_questions(chosen.data).questions
    assert evaluate(chosen, questions, folder, part=Part(1, 2)) is None
    (folder / "parts" / "1-of-2" / "chunk-00003.json").unlink()
    (folder / "parts" / "1-of-2" / "chunk-00003.arrow").unlink()
    (folder / "parts" / "1-of-2" / "COMPLETE").unlink()
    assert evaluate(chosen, questions, folder, part=Part(1, 2)) is None
    found = evaluate(chosen, questions, folder, part=Part(0, 2))
    assert found == read_record(base / "results.json", EvalResults)
    assert rollouts.bytes_of(folder) == rollouts.bytes_of(base)
    assert verify(folder).findings == [], "intervals are drawn again from parts as well"


def test_intervals_are_held_against_the_rows(base: Path, other: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "copy"))
    assert [*verify(folder).findings, *verify(other).findings] == []
    for name, end in (("accuracy", "low"), ("pass@2", "high"), ("tokens", "high")):
        found = read_json(base / "results.json")
        found["metrics"][name][end] *= 0.99
        write_json(folder / "results.json", found)
        (finding,) = verify(folder).findings
        assert f"{name} is between" in finding.problem
    write_json(folder / "results.json", found | {"drawn_by": "another version"})
    assert verify(folder).findings == [], "nothing says what they were"


def test_intervals_of_copies_are_held_against_their_records(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in Path(config().data.dataset).read_text(encoding="utf-8").splitlines()[:6]]
    copies = [{**row, "id": f"copy {number}"} for number, row in enumerate(rows[:2])]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (*copies, *rows)), encoding="utf-8")
    found = run(tmp_path / "out", data__dataset=str(tmp_path / "q.jsonl"), eval__samples=1)
    assert found["metrics"]["accuracy"]["warning"].startswith("8 questions are of 6 records")
    assert verify(tmp_path / "out").findings == []


def test_a_stop_saves_nothing_half(tmp_path: Path) -> None:
    chosen, stop = config(), StopRequest()
    stop.request("a test")
    with pytest.raises(Stopped):
        evaluate(chosen, load_questions(chosen.data).questions, tmp_path / "out", stop=stop)
    assert rollouts.committed(tmp_path / "out") == 0
    with pytest.raises(UsageError, match="not complete"):
        CompletePhase.open(tmp_path / "out", "eval")


def test_an_adapter_changes_the_samples(base: Path, tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    model = causal_model(config().model)
    torch.manual_seed(0)
    tuned = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    tuned.save_pretrained(tmp_path / "adapter")
    found = run(tmp_path / "out", model__adapter=str(tmp_path / "adapter"), eval__baseline=str(base))
    assert found["metrics"]["accuracy"]["value"] < 0.5, "a random adapter breaks the model"
    fingerprints = {row["model_fingerprint"] for folder in (base, tmp_path / "out") for row in rollouts.rows_of(folder)}
    assert len(fingerprints) == 2


def test_overlong_questions_are_counted(tmp_path: Path) -> None:
    lengths = prompt_lengths()
    limit = max(lengths) - 1
    found = run(tmp_path / "out", views__max_prompt_tokens=limit)
    assert found["rejected_overlong"] == sum(length > limit for length in lengths)
    assert found["questions"] == sum(length <= limit for length in lengths) > 0


def prompt_lengths() -> list[int]:
    views = views_of(config())
    return [len(views.prior_prompt(question)) for question in load_questions(config().data).questions]


GRADER = "def grade(*, response, reference, question):\n    raise RuntimeError('no grade today')\n"


@pytest.fixture
def broken_grader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    (tmp_path / "broken_grader.py").write_text(GRADER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return lambda: "broken_grader:grade"


def test_too_many_grader_errors_are_a_quality_gate(broken_grader: Callable[[], str], tmp_path: Path) -> None:
    with pytest.raises(QualityGateError, match="could not be graded") as caught:
        run(tmp_path / "out", grading__grader=broken_grader(), data__limit=2)
    assert "no grade today" in caught.value.why
    found = run(tmp_path / "out", grading__grader=broken_grader(), data__limit=2, grading__max_grade_errors=1.0)
    assert found["not_graded"] == 4
    assert found["metrics"]["accuracy"]["value"] is None, "what has no grade is no zero"
