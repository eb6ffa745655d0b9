"""Protocols: the library as a whole, what is refused of one, and what other tools render for the same rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import tiny
from tests.support.golden_rows import GOLDEN, digest, rows_of, shot_rows, write_rows
from vpgea.config.schema import DataConfig, ViewsConfig
from vpgea.errors import UsageError
from vpgea.grading.base import GradeRequest, Status
from vpgea.grading.registry import load_grader
from vpgea.metrics import bootstrap
from vpgea.metrics.bootstrap import SampleTable
from vpgea.metrics.estimates import Estimate
from vpgea.phases.protocol_results import guessed_letter
from vpgea.prompts.benchmark import BenchmarkTurns
from vpgea.prompts.texts import load_template
from vpgea.prompts.views import Views
from vpgea.protocols.asking import ask
from vpgea.protocols.protocol import Protocol, find_protocol, protocols
from vpgea.protocols.published import Measurement, known_model, published, reproduce, unattributed
from vpgea.protocols.sources import load_asked
from vpgea.questions.benchmarks import EVALSETS
from vpgea.questions.load import LoadedQuestions, Question

GOLDENS: list[dict[str, Any]] = json.loads(GOLDEN.read_text(encoding="utf-8"))


def asked(benchmark: str, name: str, folder: Path) -> tuple[list[str], str]:
    """The user turns of the ten fixed rows, and their answers one after the other."""
    folder.mkdir()
    path = write_rows(folder / ("test.csv" if benchmark == "gpqa-diamond" else "test.jsonl"), rows_of(benchmark))
    protocol = find_protocol(benchmark, name)
    if protocol.shots is not None:
        write_rows(folder / f"{protocol.shots.split}.jsonl", shot_rows(benchmark))
    loaded, made = load_asked(protocol, DataConfig(dataset=str(path)))
    return list(made.turns.values()), "".join(question.answer for question in loaded.questions)


@pytest.mark.parametrize("golden", GOLDENS, ids=lambda one: f"{one['benchmark']}-{one['protocol']}")
def test_prompts_are_those_of_the_tools_byte_for_byte(golden: dict[str, Any], tmp_path: Path) -> None:
    turns, letters = asked(golden["benchmark"], golden["protocol"], tmp_path / "rows")
    assert turns[0] == golden["first"]
    assert [digest(turn) for turn in turns] == golden["sha256"]
    assert letters == golden.get("letters", letters)


def test_every_protocol_of_a_tool_is_held_against_the_tool() -> None:
    held = {(one["benchmark"], one["protocol"]) for one in GOLDENS}
    assert {(one.benchmark, one.name) for one in protocols() if one.name != "deepseek"} == held


def test_deepseek_asks_gpqa_as_simple_evals_does(tmp_path: Path) -> None:
    made = [asked("gpqa-diamond", name, tmp_path / name) for name in ("deepseek", "simple-evals")]
    assert made[0] == made[1]


@pytest.mark.parametrize("protocol", protocols(), ids=lambda one: f"{one.benchmark}-{one.name}")
def test_the_answer_never_shapes_a_prompt(protocol: Protocol) -> None:
    options = ("x", "y", "z") if protocol.choice else ()
    bare = protocol.model_copy(update={"shots": None})
    turns = [
        ask(bare, LoadedQuestions(questions=[Question("q", "Which?", answer, options)]), source="").turns["q"]
        for answer in ("A", "C")
    ]
    assert turns[0] == turns[1]
    assert "Which?" in turns[0]


def own(tmp_path: Path, **changed: object) -> Protocol:
    values = find_protocol("mmlu-pro", "deepseek").model_dump() | changed
    path = tmp_path / "own.yaml"
    path.write_text(json.dumps(values))
    return find_protocol("mmlu-pro", str(path))


def test_a_prompt_that_reads_the_answer_is_refused(tmp_path: Path) -> None:
    protocol = own(tmp_path, prompt="{{ question }} {{ 'True or False' if answer == 'True' }}")
    loaded = LoadedQuestions(questions=[Question("q", "Which?", "A", ("x", "y"))])
    with pytest.raises(UsageError, match="cannot be rendered for question q"):
        ask(protocol, loaded, source="")


@pytest.mark.parametrize("letters", ["ABCD", "A, B, C, D", "A,B,C,D"])
def test_letters_that_are_not_those_of_the_choices_are_refused(tmp_path: Path, letters: str) -> None:
    protocol = own(tmp_path, prompt="Answer with one of " + letters + ".\n{{ question }}\n{{ choices }}")
    ten, four = (tuple(str(n) for n in range(count)) for count in (10, 4))
    with pytest.raises(UsageError, match="names the letters ABCD, and question q has ABCDEFGHIJ"):
        ask(protocol, LoadedQuestions(questions=[Question("q", "Which?", "A", ten)]), source="")
    ask(protocol, LoadedQuestions(questions=[Question("q", "Which of ABC?", "A", four)]), source="")


def test_another_system_text_than_the_protocols_is_refused(tmp_path: Path) -> None:
    template = load_template("default").model_copy(update={"system": "You are a mathematician."})
    with pytest.raises(UsageError, match="has a system text"):
        BenchmarkTurns({}).only_system(template)
    assert BenchmarkTurns({}, "You are a mathematician.").only_system(template) == "You are a mathematician."


def test_a_prompt_that_begins_twice_is_refused(tmp_path: Path) -> None:
    folder = tiny.make_model(tmp_path / "model")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    question = Question("q", "Which?", "1")
    Views(tokenizer, ViewsConfig(), [tokenizer.eos_token_id]).prior_prompt(question)
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    with pytest.raises(UsageError, match="two beginning-of-sequence tokens"):
        Views(tokenizer, ViewsConfig(), [tokenizer.eos_token_id]).prior_prompt(question)


def test_no_figure_is_of_more_samples_than_were_drawn() -> None:
    table = SampleTable(question=[0, 0, 1, 1], correct=[1, 0, 0, 0], tokens=[5] * 4, truncated=[0] * 4)
    names = {name for name in bootstrap.evaluate(table, draws=10) if "@" in name}
    assert names == {"mean@2", "pass@2"}


def test_a_time_out_leaves_the_figure() -> None:
    table = SampleTable(question=[0, 0, 1, 1], correct=[1, float("nan"), 0, 1], tokens=[5] * 4, truncated=[0] * 4)
    accuracy = bootstrap.evaluate(table, draws=10)["accuracy"]
    assert (accuracy.value, accuracy.n) == (pytest.approx(2 / 3), 3)


def test_the_version_is_part_of_what_a_protocol_is() -> None:
    one = find_protocol("gsm8k", "deepseek")
    assert one.fingerprint != one.model_copy(update={"version": 2}).fingerprint
    assert one.fingerprint == one.model_copy(update={"differs": []}).fingerprint


@pytest.mark.parametrize(
    ("grader", "response", "reference", "status", "extracted"),
    [
        ("answer-letter", "Answer: A</think>Is it A? Answer: B\nAnswer: $C$", "C", Status.CORRECT, "C"),
        ("answer-letter", "The answer is C", "C", Status.WRONG, None),
        ("mmlu-pro", "So the answer is (J). Or A", "J", Status.CORRECT, "J"),
        ("mmlu-pro", "Answer: B or answer: C\nAnswer: D", "C", Status.CORRECT, "C"),
        ("mmlu-pro", "D, I think", "I", Status.CORRECT, "I"),
        ("mmlu-pro", "none of them", "A", Status.WRONG, None),
        ("gsm8k-strict", "#### 1,000", "1000", Status.CORRECT, "1,000"),
        ("gsm8k-strict", "It is 1000", "1000", Status.WRONG, None),
        ("gsm8k-flexible", "It is $1,000. not 999", "999", Status.CORRECT, "999"),
    ],
)
def test_patterns(grader: str, response: str, reference: str, status: Status, extracted: str | None) -> None:
    grade = load_grader(grader, 1e-6)(GradeRequest(response, reference))
    assert (grade.status, grade.extracted) == (status, extracted)


def test_the_guess_is_the_same_letter_for_each_number_of_choices() -> None:
    assert {n: guessed_letter(n) for n in range(3, 11)} == {
        **{3: "B", 4: "D", 5: "D", 6: "D", 7: "D"},
        **{8: "G", 9: "G", 10: "G"},
    }


def measured(value: float, low: float, high: float, **changed: object) -> Measurement:
    accuracy = Estimate(value=value, low=low, high=high, n=4000)
    values = {"benchmark": "math500", "protocol": "deepseek", "samples": 8, "rows": 500, "differs": []}
    return Measurement(accuracy=accuracy, **{**values, **changed})  # type: ignore[arg-type]


def test_a_known_model_is_inside_or_outside_its_band() -> None:
    model = known_model("/m/models--deepseek-ai--DeepSeek-R1-Distill-Qwen-1.5B/snapshots/0", None, 1536, 28)
    assert model is not None
    for made, verdict in (
        (measured(0.83, 0.81, 0.85), "inside"),
        (measured(0.78, 0.76, 0.80), "undecided"),
        (measured(0.70, 0.68, 0.72), "outside"),
        (measured(0.83, 0.81, 0.85, samples=1), "not comparable"),
        (measured(0.83, 0.81, 0.85, rows=100), "not comparable"),
        (measured(0.83, 0.81, 0.85, protocol="lm-eval"), "not comparable"),
        (measured(0.83, 0.81, 0.85, differs=["eval.temperature is 0, not 0.6"]), "not comparable"),
    ):
        found = reproduce(model, made)
        assert found is not None
        assert found.verdict == verdict
    assert reproduce(model, measured(0.8, 0.7, 0.9, benchmark="gsm8k")) is None
    assert known_model("DeepSeek-R1-Distill-Qwen-1.5B", "adapter", 1536, 28) is None
    assert known_model("DeepSeek-R1-Distill-Qwen-1.5B", None, 64, 2) is None


def test_bands_hold_what_single_evaluators_found_but_for_the_widest() -> None:
    for model in published().models:
        for band in model.figures:
            values = [one.value for one in model.stated if one.benchmark == band.benchmark]
            assert values
            assert all(band.low <= value <= band.high for value in values), (model.name, band.benchmark)


def test_figures_of_no_stated_model_are_no_evidence_for_any() -> None:
    """They stand beside both, and have no part in what a band is made of or an evaluation is judged by."""
    sizes = {"DeepSeek-R1-Distill-Qwen-1.5B": 1536, "DeepSeek-R1-Distill-Qwen-7B": 3584}
    (one,) = published().unattributed
    assert {name: model.hidden_size for model in published().models if (name := model.name) in one.models} == sizes
    values = {figure.benchmark: figure.values for figure in one.figures}
    for name, size in sizes.items():
        found = {benchmark: [value for _, value in unattributed(name, benchmark)] for benchmark in EVALSETS}
        assert found == values
        model = known_model(name, None, size, 28)
        assert model is not None
        assert "VPG-EA" not in {stated.who for stated in model.stated}
        for benchmark in ("gsm8k", "mmlu-pro"):
            assert reproduce(model, measured(0.9, 0.8, 1.0, benchmark=benchmark)) is None
    assert unattributed("another", "gsm8k") == []
