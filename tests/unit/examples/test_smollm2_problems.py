"""What SmolLM2 is taught with: word problems, their traces in both views, and the ground truth that judges traces."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from examples.smollm2 import checker, look, questions
from examples.smollm2.checker import Steps, label
from examples.smollm2.problems import LEVELS, SHARES, Problem, calculate, problems, sample_problem
from examples.smollm2.themes import THEMES
from examples.smollm2.traces import Trace, posterior_trace, prior_trace, shortest_trace, size
from vpgea.config.schema import DataConfig
from vpgea.prompts.texts import load_template
from vpgea.questions.load import load_questions

TEMPLATE = Path(questions.__file__).with_name("template.yaml")
# (12 + 30) * 2 - 4 * 9, of which the product comes third
STEPS = Steps.parse(["12 + 30 = 42", "42 * 2 = 84", "4 * 9 = 36", "84 - 36 = 48"])
SOUND = "12 + 30 = 42 cards. 42 * 2 = 84. In all, 4 * 9 = 36, so 84 - 36 = 48."


@pytest.fixture(scope="module")
def drawn() -> list[Problem]:
    """A hundred of each level."""
    return [sample_problem(level, Random(seed)) for level in LEVELS for seed in range(100)]


def judged(problem: Problem, trace: Trace) -> str:
    return label(Steps.parse([str(step) for step in problem.steps]), trace.completion)


def completion(thinking: str, answer: object = 48) -> str:
    return f"{thinking}\n</think>\n\nThe answer is \\boxed{{{answer}}}."


# --- problems -------------------------------------------------------------------------------------------------------


def test_every_number_of_a_step_is_asked_for_or_an_earlier_result(drawn: list[Problem]) -> None:
    for problem in drawn:
        words = [*re.findall(r"\d+", problem.question), *["2"] * problem.question.count("doubles")]
        left = Counter(map(int, [*words, *["3"] * problem.question.count("triples")]))
        for index, (step, needs) in enumerate(zip(problem.steps, problem.needs, strict=True)):
            assert step.value == calculate(step.left, step.sign, step.right) > 0
            for number, need in zip((step.left, step.right), needs, strict=True):
                if need is None:
                    left[number] -= 1
                else:
                    assert need < index
                    assert problem.steps[need].value == number
        assert set(left.values()) == {0}, problem  # each number of the question is used, and used once
        assert [step.told in problem.question for step in problem.steps] == [True] * len(problem.steps)


def test_results_stand_nowhere_else(drawn: list[Problem]) -> None:
    for problem in drawn:
        values = [step.value for step in problem.steps]
        assert len({*values}) == len(values)
        assert not {*values} & {*map(int, re.findall(r"\d+", problem.question))}
        assert problem.answer == values[-1]


def test_every_result_but_the_last_is_needed(drawn: list[Problem]) -> None:
    for problem in drawn:
        used = {need for needs in problem.needs for need in needs if need is not None}
        assert used == set(range(len(problem.steps) - 1))


def test_levels_differ_in_their_steps_and_all_templates_come(drawn: list[Problem]) -> None:
    for number, level in LEVELS.items():
        own = [problem for problem in drawn if problem.level == number]
        assert {len(problem.steps) for problem in own} == {*level.steps}
        assert max(step.value for problem in own for step in problem.steps) <= level.limit
    assert {problem.theme for problem in drawn} == {theme.name for theme in THEMES}
    assert {step.sign for problem in drawn for step in problem.steps} == {*"+-*/"}
    assert not [problem.question for problem in drawn if "{" in problem.question]


def test_splits_share_no_question_whatever_the_seed() -> None:
    keys = {split: {one.key for seed in (0, 7) for one in islice(problems(split, seed), 60)} for split in SHARES}
    assert sum(map(len, keys.values())) == len(set().union(*keys.values()))
    first = [problem.question for problem in islice(problems("dev", 3), 30)]
    assert first == [problem.question for problem in islice(problems("dev", 3), 30)]
    assert len({*first}) == 30


def test_question_files_load_and_hold_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "SIZES", {"train": 9, "test": 6})
    questions.main([str(tmp_path / "out")])
    loaded = load_questions(DataConfig(dataset=str(tmp_path / "out" / "train.jsonl")))
    assert (len(loaded.questions), loaded.warnings) == (9, [])
    steps = checker.read_steps(tmp_path / "out" / "train.jsonl")
    assert {one.id: int(one.answer) for one in loaded.questions} == {key: own.values[-1] for key, own in steps.items()}
    assert json.loads((tmp_path / "out" / "test.jsonl").read_text().splitlines()[5])["id"] == "test-0005-level3"


# --- traces ---------------------------------------------------------------------------------------------------------


def test_prior_traces_are_three_times_too_long_and_are_what_they_say(drawn: list[Problem]) -> None:
    found = Counter[str]()
    for problem in drawn:
        trace = prior_trace(problem, Random(problem.key))
        assert size(trace.thinking) >= 3 * size(shortest_trace(problem).thinking)
        assert judged(problem, trace) == trace.label
        assert (trace.answer == problem.answer) == (trace.label != "slip")
        found[trace.label] += 1
    assert found.keys() == {"sound", "slip mended", "slip"}
    assert 0.02 < found["slip"] / len(drawn) < 0.2
    assert found["slip mended"] > found["slip"]


def test_posterior_traces_are_short_and_some_only_copy_the_note(drawn: list[Problem]) -> None:
    found = Counter[str]()
    for problem in drawn:
        trace = posterior_trace(problem, Random(problem.key))
        assert size(trace.thinking) <= 2.2 * size(shortest_trace(problem).thinking)
        assert judged(problem, trace) == trace.label
        assert (trace.answer == problem.answer) == (trace.label != "slip")
        found[trace.label] += 1
    assert found.keys() == {"sound", "slip mended", "slip", "leak", "silent leak"}
    assert 0.5 < found["sound"] / len(drawn) < 0.75
    assert 0.15 < found["silent leak"] / len(drawn) < 0.35


def test_only_loud_leaks_hold_a_phrase_that_the_filter_looks_for(drawn: list[Problem]) -> None:
    phrases = [re.compile(phrase, re.IGNORECASE) for phrase in load_template(str(TEMPLATE)).leak_phrases]
    for problem in drawn:
        for trace in (prior_trace(problem, Random(problem.key)), posterior_trace(problem, Random(problem.key))):
            said = any(phrase.search(trace.thinking) for phrase in phrases)
            assert said == (trace.label == "leak"), trace


def test_the_shortest_trace_is_sound(drawn: list[Problem]) -> None:
    assert {judged(problem, shortest_trace(problem)) for problem in drawn} == {"sound"}


# --- ground truth ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("thinking", "answer", "expected"),
    [
        (SOUND, 48, "sound"),
        (SOUND.replace("12 + 30", "30 + 12").replace("4 * 9", "9*4"), "48.0", "sound"),
        ("4 * 9 = 36 comes first. 12 + 30 = 42 * 2 = 84 - 36 = 48.", 48, "sound"),
        (f"{SOUND} Backwards: 48 + 36 = 84, and 2 * 3 + 4 = 10.", 48, "sound"),
        (f"{SOUND} In parts: 12 * 3 = 10 * 3 + 2 * 3 = 36.", 48, "sound"),
        (SOUND.replace("12 + 30 =", "12 + 30 = 30 + 12 ="), 48, "sound"),
        (f"{SOUND} Or so: (4 + 5) * 2 + 3 = 21, and 12 cards + 30 + 5 = 47.", 48, "sound"),
        ("- 12 + 30 = 42\n- 42 * 2 = 84\n- 4 * 9 = 36\n- 84 - 36 = 48", 48, "sound"),
        (SOUND.replace("*", "×").replace("84 - 36", "84 − 36"), 48, "sound"),
        (f"Note that the cards are hers. Note: {SOUND}", 48, "sound"),
        (f"{SOUND} The result is 48. The answer: 48", 48, "sound"),
        ("12 * 2 = 24. 30 * 2 = 60. 24 + 60 = 84. 4 * 9 = 36. 84 - 36 = 48.", 48, "sound"),
        ("12 + 30 = 42. 42 * 2 - 4 * 9 = 48.", 48, "sound"),
        ("12 + 30 = 42. 42 * 2 - 36 = 48.", 48, "silent leak"),
        ("12 + 30 = 42. 4 + 2 = 6. 42 + 6 = 48.", 48, "silent leak"),
        ("12 + 30 = 43. 12 + 30 = 42. 42 * 2 - 4 * 9 = 48.", 48, "silent leak"),
        (f"1. 2. 3. Step 48 of 48: {SOUND}", 48, "sound"),
        (f"12 + 30 = 48. No, it is 42, not 48. So it is 48 no more. {SOUND}", 48, "slip mended"),
        (SOUND.replace("= 42 cards", "= 43. Wait, 12 + 30 = 42 cards"), 48, "slip mended"),
        (SOUND.replace("12 + 30 = 42", "12 + 30 = 30 + 13 = 42"), 48, "silent leak"),
        (f"12 + 30 = 43. 43 * 2 = 86. 4 * 9 = 36. 86 - 36 = 50. Again. {SOUND}", 48, "slip mended"),
        ("12 + 30 = 43. 43 * 2 = 86. 4 * 9 = 36. 86 - 36 = 50.", 50, "slip"),
        (SOUND.replace("= 48", "= 47"), 47, "slip"),
        (SOUND, 47, "wrong"),
        (SOUND, "", "wrong"),
        ("12 + 30 = 42. 42 - 36 = 6.", 6, "wrong"),
        (f"The note says 48. {SOUND}", 48, "leak"),
        (f"The note: 48. {SOUND}", 48, "leak"),
        (f"The note that I have says 48. {SOUND}", 48, "leak"),
        ("I already know the answer, it is 48.", 48, "leak"),
        ("", 48, "silent leak"),
        ("12 + 30 = 42. 42 * 2 = 84. 84 - 36 = 48.", 48, "silent leak"),
        (f"{SOUND} Hmm: 84 - 36 = 47.", 48, "silent leak"),
        (f"The result is 48. {SOUND}", 48, "silent leak"),
        (f"Answer: **48**. {SOUND}", 48, "silent leak"),
        (f"It must be \\boxed{{48}}, since\n{SOUND}", 48, "silent leak"),
        (SOUND.replace("In all", "That makes 48. In all"), 48, "silent leak"),
        (f"It is 48.5 or 480 or 48 - 1. {SOUND}", 48, "sound"),
        ("84 - 36 = 48. 12 + 30 = 42. 42 * 2 = 84. 4 * 9 = 36.", 48, "silent leak"),
        ("12 + 30 = 43. 43 * 2 = 86. 4 * 9 = 36. 86 - 36 = 48.", 48, "silent leak"),
        (SOUND.replace("42 * 2", "42 / 0"), 48, "silent leak"),
    ],
)
def test_labels(thinking: str, answer: object, expected: str) -> None:
    assert label(STEPS, completion(thinking, answer)) == expected


def test_numbers_beyond_what_python_reads_are_none() -> None:
    digits = "9" * 5000
    for written in (digits, f"{digits} + 1 = 2.", f"1 + 1 = 2.{digits} or {digits[:99]},999{digits}", f"is {digits}."):
        assert label(STEPS, completion(f"{written} {SOUND}")) in ("sound", "slip mended")
    assert checker.boxed(f"\\boxed{{{digits}}}") is None


def test_without_an_end_of_thinking_there_is_no_answer() -> None:
    assert label(STEPS, f"{SOUND} \\boxed{{48}}") == "wrong"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("\\boxed{48}", 48),
        ("\\boxed{7} or \\boxed{1,048 cards}", 1048),
        ("\\boxed{$-3}", -3),
        ("\\boxed{1/2}", None),
        ("48", None),
    ],
)
def test_the_last_box_holds_the_answer(text: str, value: int | None) -> None:
    assert checker.boxed(text) == value


def test_equations_are_evaluated_exactly() -> None:
    found = checker.equations("2 + 3 * 4 = 14, 7 / 2 = 3.5; 1,200 - 1 = 1199. 0.1 + 0.2 = 0.3 and 5 - 3 = 1. 4 / 0 = 0")
    assert [equation.is_true for equation in found] == [True, True, True, True, False, False]
    assert found[0].key is None
    assert found[1].key == ("/", 7, 2)


@pytest.mark.parametrize("steps", [[], ["12 + 30"], ["x + 1 = 2"]])
def test_what_is_no_list_of_steps_is_refused(steps: list[str]) -> None:
    with pytest.raises(ValueError, match="not the steps"):
        Steps.parse(steps)


def test_a_look_at_the_lessons_has_both_views(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    look.main(["--model", str(tiny_model), "--problems", "12"])
    *_, plain, noted = capsys.readouterr().out.splitlines()
    assert json.loads(plain)["least times needed"] > 2.5
    assert json.loads(noted)["times needed"] < 1.5
    assert [json.loads(line)["agreement"] for line in (plain, noted)] == [1.0, 1.0]
