"""The testbed's language: what a question is, what makes a path sound, and that the traces keep to it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.overthinker.batches import wrong_value
from examples.overthinker.chat import build_tokenizer, completion
from examples.overthinker.language import ANSWER_TOKENS, Question, sample_question, shortest_sound_tokens
from examples.overthinker.traces import HABITS, doubting_trace, posterior_trace, prior_trace
from examples.overthinker_families.truth import is_sound

QUESTIONS = Path(__file__).parents[3] / "examples" / "overthinker" / "questions"
ASKED = "start with 34 . add 7 . subtract 12 . add 25 . what is the result ?"
SOUND = "34 add 7 gives 41 . 41 subtract 12 gives 29 . 29 add 25 gives 54 ."


def test_question_text_round_trips() -> None:
    question = Question.parse(ASKED)
    assert question.text == ASKED
    assert question.values == (41, 29, 54)
    assert question.answer == 54
    with pytest.raises(ValueError, match="not a question"):
        Question.parse("start with 34 . multiply 7 . what is the result ?")


def test_a_remark_is_no_part_of_a_question() -> None:
    assert Question.parse(f"{ASKED} so 54") == Question.parse(ASKED)
    assert is_sound(f"{ASKED} so 54", SOUND)


@pytest.mark.parametrize(
    "thinking",
    [
        SOUND,
        f" {SOUND} ",
        SOUND.replace("41 .", "41 . check 34 add 7 gives 41 . wait , 34 add 7 gives 41 ."),
        SOUND.replace("gives 41 .", "gives 42 . check 34 add 7 gives 41 ."),
        f"{SOUND} check 29 add 25 gives 54 .",
        f"{SOUND} so 54 .",
        SOUND.replace("gives 41 .", "gives 41 . 34 add 7 gives 41 ."),
        SOUND.replace("gives 29 .", "gives 29 . check 34 add 7 gives 41 ."),
        f"{SOUND} check 34 add 7 gives 41 . wait , 41 subtract 12 gives 29 .",
        f"34 add 7 gives 43 . 43 subtract 12 gives 31 . check {SOUND}",
        "34 add 7 gives 41 . 41 add 25 gives 66 . 66 subtract 12 gives 54 .",
    ],
)
def test_sound_paths(thinking: str) -> None:
    assert is_sound(ASKED, thinking)


@pytest.mark.parametrize(
    "thinking",
    [
        "",
        "34 add 7 gives 41 . 41 subtract 12 gives 29 .",
        "34 add 7 gives 41 . 41 add 25 gives 54 .",
        "34 add 7 gives 41 . 29 add 25 gives 54 .",
        "34 add 7 gives 41 . so 54 .",
        "so 54 .",
        "34 add 7 gives 43 . 43 subtract 12 gives 31 . 31 add 25 gives 54 .",
        "34 add 7 gives 43 . 43 subtract 12 gives 29 . 29 add 25 gives 54 .",
        "34 add 7 gives 43 . 41 subtract 12 gives 29 . 29 add 25 gives 54 .",
        SOUND.replace("gives 41 .", "gives 41 . check 34 add 7 gives 42 ."),
        SOUND.replace("gives 41 .", "gives 41 . check 34 add 8 gives 41 ."),
        f"{SOUND} check 34 add 7 gives 42 .",
        "34 add 7 gives 41 . 41 add 25 gives 66 . 66 add 25 gives 91 .",
        f"{SOUND} check 34 add 7 gives 42 . so 54 .",
        "34 add 7 gives 43 . 43 subtract 12 gives 31 . check 34 add 7 gives 41 . 31 add 25 gives 56 .",
        f"check {SOUND}",
        f"{SOUND} 54 add 25 gives 79 .",
        f"{SOUND} so 55 .",
        f"so 54 . {SOUND}",
        f"the note says 54 . {SOUND}",
        SOUND.removesuffix(" ."),
        SOUND.replace("gives 54", "gives 45"),
        SOUND.replace("subtract", "add"),
    ],
)
def test_corrupted_paths_are_unsound(thinking: str) -> None:
    assert not is_sound(ASKED, thinking)


@given(st.integers(0, 2**32))
def test_traces_agree_with_the_ground_truth(seed: int) -> None:
    rng = Random(seed)
    question = sample_question(rng)
    for habit in HABITS.values():
        thinking, answer = prior_trace(question, habit, rng)
        # The prior never skips: it is right exactly where it is sound, but for two errors that cancel out.
        assert answer == question.answer or not is_sound(question.text, thinking)
        assert thinking.count("gives") >= len(question.steps)
    thinking, answer = posterior_trace(question, rng)
    assert answer == question.answer
    if is_sound(question.text, thinking):
        assert len(thinking.split()) >= shortest_sound_tokens(question.text) - ANSWER_TOKENS


@given(st.integers(0, 2**32))
def test_answers_can_be_checked_for_derivation(seed: int) -> None:
    question = sample_question(Random(seed))
    assert 10 <= question.answer <= 99
    assert str(question.answer) not in question.text.split()
    assert question.answer not in question.values[:-1]


def test_shortest_sound_tokens_counts_the_completion() -> None:
    ids = build_tokenizer().encode(completion(SOUND, 54), add_special_tokens=False)
    assert len(ids) == shortest_sound_tokens(ASKED)


def test_question_files_are_valid_and_disjoint() -> None:
    rows = {
        name: [json.loads(line) for line in (QUESTIONS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        for name in ("train", "dev", "test")
    }
    assert [len(part) for part in rows.values()] == [4000, 500, 600]
    everything = [row for part in rows.values() for row in part]
    assert len({row["id"] for row in everything}) == len({row["question"] for row in everything}) == len(everything)
    assert all(str(Question.parse(row["question"]).answer) == row["answer"] for row in everything)


def test_the_longer_test_begins_with_the_test_and_goes_on_like_it() -> None:
    files = [
        (QUESTIONS / f"{name}.jsonl").read_text(encoding="utf-8") for name in ("longer_test", "test", "train", "dev")
    ]
    longer, first, train, dev = ([json.loads(line) for line in file.splitlines()] for file in files)
    assert longer[: len(first)] == first
    assert len({row["id"] for row in longer}) == len({row["question"] for row in longer}) == len(longer) == 1200
    assert not {row["question"] for row in longer} & {row["question"] for row in train + dev}
    questions = [Question.parse(row["question"]) for row in longer]
    assert all(str(question.answer) == row["answer"] for question, row in zip(questions, longer, strict=True))
    steps = [Counter(len(one.steps) for one in part) for part in (questions[:600], questions[600:])]
    assert all(abs(steps[0][count] - steps[1][count]) < 60 for count in (2, 3, 4))  # three standard deviations


@given(st.integers(0, 2**32))
def test_a_note_that_does_not_come_out_is_doubted(seed: int) -> None:
    rng = Random(seed)
    question = sample_question(rng)
    given_value = wrong_value(question.answer, rng)
    assert given_value != question.answer
    thinking, answer = doubting_trace(question, given_value, HABITS["global"], rng)
    checks = thinking.count("check ") + thinking.count("wait ,")
    if answer == question.answer:
        assert is_sound(question.text, thinking.partition(f"the note says {given_value} . ")[2] or thinking)
        assert checks >= 2 * len(question.steps)
    else:
        assert answer == given_value  # it was written although it did not come out
        assert not is_sound(question.text, thinking)
