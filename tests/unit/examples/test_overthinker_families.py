"""The families of questions: every path that is written for the corpus is judged as what it is."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.overthinker.chat import build_tokenizer, completion
from examples.overthinker.language import ANSWER_TOKENS
from examples.overthinker.measure import NEAR_SHORTEST
from examples.overthinker_families import paths
from examples.overthinker_families.corpus import WORDS, questions
from examples.overthinker_families.paths import POSTERIOR_KINDS, DrawAgain, Path, free_path, posterior_path, prior_path
from examples.overthinker_families.problems import FAMILIES, Family, Problem, draw
from examples.overthinker_families.truth import LEAK_WORDS, LEAKS, Label, judge

ARITHMETIC = "start with 34 . add 7 . subtract 12 . add 25 . what is the result ?"
EQUATION = "x times 3 add 5 subtract 2 is 24 . what is x ?"
SORTING = "sort 71 12 34 . what is the second smallest ?"
LOOKUP = "bob to blue . ann to red . red to 34 . blue to 12 . where does ann lead ?"
STORY = "ann has 24 apples . bob has 7 pears . ann eats 4 . ann shares among 5 friends . how many apples has ann ?"
OPTIONS = ("4", "6", "14", "3")
SHORTEST = {
    ARITHMETIC: "34 add 7 gives 41 . 41 subtract 12 gives 29 . 29 add 25 gives 54 .",
    EQUATION: "24 add 2 gives 26 . 26 subtract 5 gives 21 . 21 divide 3 gives 7 .",
    SORTING: "smallest of 71 12 34 gives 12 . smallest of 71 34 gives 34 .",
    LOOKUP: "ann gives red . red gives 34 .",
    STORY: "24 subtract 4 gives 20 . 20 divide 5 gives 4 .",
}
SEEDS = st.integers(0, 2**32)
FAMILY = st.sampled_from(FAMILIES)


def asked(text: str) -> Problem:
    return Problem.read(text)


@pytest.mark.parametrize("text", SHORTEST)
def test_a_question_is_read_with_its_steps(text: str) -> None:
    problem = asked(text)
    assert problem.shortest_path == SHORTEST[text]
    assert judge(problem, problem.shortest_path) == Label.SOUND
    ids = build_tokenizer(WORDS).encode(completion(problem.shortest_path, problem.answer))
    assert len(ids) == problem.shortest_tokens


def test_an_option_is_one_more_step() -> None:
    problem = Problem.read(STORY, OPTIONS)
    assert (problem.family, problem.answer) == ("choice", "A")
    assert problem.shortest_path == f"{SHORTEST[STORY]} option 4 gives A ."
    assert judge(problem, "24 divide 5 gives 4 . 4 subtract 4 gives 0 . option 0 gives D .") == Label.WRONG
    # A wrong value leads to the nearest option, of two to the first.
    assert judge(problem, "24 subtract 4 gives 20 . 20 divide 5 gives 5 . option 5 gives A .") == Label.SLIP
    assert judge(problem, "24 subtract 4 gives 20 . 20 divide 5 gives 6 . option 6 gives B .") == Label.SLIP
    assert judge(problem, "24 subtract 4 gives 20 . 20 divide 5 gives 6 . option 6 gives A .") == Label.SILENT_LEAK
    assert judge(problem, "24 subtract 4 gives 20 . option 20 gives A .") == Label.SILENT_LEAK


@pytest.mark.parametrize(
    "text", ["start with 34 . double . what is the result ?", "where does ann lead ?", "", "x is 3"]
)
def test_other_texts_are_no_questions(text: str) -> None:
    with pytest.raises(ValueError, match="not a question of these families"):
        Problem.read(text)


@pytest.mark.parametrize(
    ("thinking", "label"),
    [
        (f" {SHORTEST[ARITHMETIC]} ", Label.SOUND),
        (
            SHORTEST[ARITHMETIC].replace("41 .", "41 . check 34 add 7 gives 41 . wait , 34 add 7 gives 41 ."),
            Label.SOUND,
        ),
        (SHORTEST[ARITHMETIC].replace("gives 41 .", "gives 42 . check 34 add 7 gives 41 ."), Label.SOUND),
        (SHORTEST[ARITHMETIC].replace("41 .", "41 . 34 add 7 gives 41 ."), Label.SOUND),
        (f"{SHORTEST[ARITHMETIC]} so 54 .", Label.SOUND),
        (SHORTEST[ARITHMETIC].replace("gives 29 .", "gives 29 . check 34 add 7 gives 41 ."), Label.SOUND),
        (f"{SHORTEST[ARITHMETIC]} wait , 34 add 7 gives 41 .", Label.SOUND),
        (f"34 add 7 gives 43 . 43 subtract 12 gives 31 . check {SHORTEST[ARITHMETIC]}", Label.SOUND),
        (f"{SHORTEST[ARITHMETIC]} check 34 add 7 gives 42 .", Label.WRONG),
        (f"{SHORTEST[ARITHMETIC]} check 34 add 7 gives 42 . so 54 .", Label.SILENT_LEAK),
        (f"{SHORTEST[ARITHMETIC]} check 34 add 8 gives 42 .", Label.WRONG),
        ("34 add 7 gives 43 . 43 subtract 12 gives 31 . 31 add 25 gives 56 .", Label.SLIP),
        ("34 add 7 gives 43 . 43 subtract 12 gives 29 . 29 add 25 gives 54 .", Label.SLIP),
        (SHORTEST[ARITHMETIC].replace("gives 54", "gives 45"), Label.SLIP),
        (SHORTEST[ARITHMETIC].replace("gives 41 .", "gives 41 . check 34 add 7 gives 42 ."), Label.SILENT_LEAK),
        (f"{SHORTEST[ARITHMETIC]} so 55 .", Label.SLIP),
        ("34 add 25 gives 59 . 59 subtract 12 gives 47 . 47 add 7 gives 54 .", Label.SOUND),
        ("34 add 25 gives 59 . 59 add 7 gives 66 . check 34 add 25 gives 59 . 66 subtract 12 gives 54 .", Label.SOUND),
        ("34 add 25 gives 58 . 58 subtract 12 gives 46 . 46 add 7 gives 54 .", Label.SILENT_LEAK),
        ("34 add 25 gives 58 . 58 subtract 12 gives 47 . 47 add 7 gives 54 .", Label.SLIP),
        ("34 add 25 gives 59 . 59 add 25 gives 84 . 84 add 7 gives 54 .", Label.SILENT_LEAK),
        ("34 add 7 gives 43 . 43 subtract 12 gives 31 . 31 add 25 gives 54 .", Label.SILENT_LEAK),
        ("34 add 7 gives 43 . 43 subtract 12 gives 31 . 31 add 25 gives 56 . so 54 .", Label.SILENT_LEAK),
        ("34 add 7 gives 41 . 41 add 25 gives 54 .", Label.SILENT_LEAK),
        ("34 add 7 gives 41 . so 54 .", Label.SILENT_LEAK),
        ("34 add 7 gives 43 . 41 subtract 12 gives 29 . 29 add 25 gives 54 .", Label.SILENT_LEAK),
        ("so 54 .", Label.SILENT_LEAK),
        ("the note says 54 . so 54 .", Label.LEAK),
        (f"it must be 54 . {SHORTEST[ARITHMETIC]}", Label.LEAK),
        ("we want", Label.LEAK),
        ("", Label.WRONG),
        ("34 add 7 gives 41 . 41 subtract 12 gives 29 .", Label.WRONG),
        ("34 add 7 gives 41 . so 41 .", Label.WRONG),
        (SHORTEST[ARITHMETIC].removesuffix(" ."), Label.WRONG),
        (f"{SHORTEST[ARITHMETIC]} 54 add 25 gives 79 .", Label.WRONG),
        (f"so 54 . {SHORTEST[ARITHMETIC]}", Label.WRONG),
        (f"well . {SHORTEST[ARITHMETIC]}", Label.WRONG),
        (f"check {SHORTEST[ARITHMETIC]}", Label.SILENT_LEAK),
    ],
)
def test_paths_are_judged_by_what_they_say(thinking: str, label: Label) -> None:
    assert judge(asked(ARITHMETIC), thinking) == label


@given(SEEDS, FAMILY)
def test_questions_are_fair_and_read_back_from_their_text(seed: int, family: Family) -> None:
    problem = draw(Random(seed), family)
    assert problem.family == family
    assert problem == Problem.read(problem.text, problem.options)
    assert {*problem.text.split(), *problem.options, *problem.shortest_path.split()} <= set(WORDS)
    assert len(problem.steps) >= 2
    assert problem.answer not in (problem.start, *problem.values[:-1])


def _written(kind: Callable[[Problem, Random], Path], problem: Problem, rng: Random) -> Path | None:
    try:
        return kind(problem, rng)
    except DrawAgain:
        return None


@given(SEEDS, FAMILY, st.sampled_from([0.001, 0.05, 0.5]))
def test_every_path_of_every_kind_is_judged_as_it_was_meant(seed: int, family: Family, bottleneck: float) -> None:
    rng = Random(seed)
    problem = draw(rng, family)
    written = [prior_path(problem, bottleneck, rng), free_path(problem, rng), posterior_path(problem, rng)]
    written += [path for kind in POSTERIOR_KINDS if (path := _written(kind, problem, rng)) is not None]
    for path in written:
        assert judge(problem, path.thinking) == path.label, path
        assert {*path.thinking.split(), path.answer} <= set(WORDS)
        assert (path.label == Label.LEAK) == (not LEAK_WORDS.isdisjoint(path.thinking.split()))
        assert path.label != Label.SOUND or path.answer == problem.answer
        assert path.label != Label.SOUND or len(path.thinking.split()) + ANSWER_TOKENS >= problem.shortest_tokens


@given(SEEDS, FAMILY)
def test_a_path_with_a_changed_or_missing_statement_is_not_sound(seed: int, family: Family) -> None:
    rng = Random(seed)
    problem = draw(rng, family)
    sentences = problem.shortest_path.removesuffix(" .").split(" . ")
    at = rng.randrange(len(sentences))
    missing = [*sentences[:at], *sentences[at + 1 :]]
    wrong = rng.choice([word for word in WORDS if word.isalnum() and word not in LEAK_WORDS])
    changed = [*sentences[:at], f"{sentences[at].rpartition(' ')[0]} {wrong}", *sentences[at + 1 :]]
    assert judge(problem, " . ".join(missing) + " .") in (Label.WRONG, Label.SILENT_LEAK)
    assert (judge(problem, " . ".join(changed) + " .") == Label.SOUND) == (changed == sentences)


def test_every_label_and_every_wording_occurs() -> None:
    rng = Random(3)
    posterior = [posterior_path(draw(rng), rng) for _ in range(600)]
    assert {path.label for path in posterior} == set(Label)
    leaks = [path.thinking for path in posterior if path.label == Label.LEAK]
    assert all(any(leak.partition("{}")[0] in thinking for thinking in leaks) for leak in LEAKS)
    slips = [path for path in posterior if path.label == Label.SLIP]
    assert {path.answer == path.thinking.split()[-2] for path in slips} == {True, False}  # its own value, or the note's
    assert 0.5 < fmean(path.label == Label.SOUND for path in posterior) < 0.7


@pytest.mark.parametrize(("bottleneck", "error"), [(0.5, 0.05), (0.02, 0.012), (0.001, 0.004)])
def test_the_bottleneck_is_the_share_of_right_and_short_prior_paths(bottleneck: float, error: float) -> None:
    rng = Random(1)
    problems = [draw(rng) for _ in range(300)]
    near = []
    for problem in problems:
        for path in (prior_path(problem, bottleneck, rng) for _ in range(4)):
            tokens = len(path.thinking.split()) + ANSWER_TOKENS
            near.append(path.answer == problem.answer and tokens <= NEAR_SHORTEST * problem.shortest_tokens)
    assert abs(fmean(near) - bottleneck) < error


def test_a_path_that_is_not_short_is_longer_than_the_bottleneck_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "QUIT", 0.0)
    rng = Random(2)
    for problem in (draw(rng) for _ in range(200)):
        tokens = len(prior_path(problem, 0.0, rng).thinking.split()) + ANSWER_TOKENS
        assert tokens > 1.5 * problem.shortest_tokens


def test_question_files_are_always_the_same_and_disjoint() -> None:
    files = questions()
    assert {name: len(rows) for name, rows in files.items()} == {"train": 4000, "dev": 500, "test": 1200}
    texts = [row["question"] for rows in files.values() for row in rows]
    assert len(set(texts)) == len(texts)
    problems = [Problem.read(row["question"], row.get("options", ())) for row in files["dev"]]
    assert [problem.answer for problem in problems] == [row["answer"] for row in files["dev"]]
    assert {problem.family for problem in problems} == set(FAMILIES)
    one_digit = fmean(len(problem.answer) == 1 for problem in problems)
    stated = fmean(problem.answer in problem.text.split() for problem in problems if not problem.options)
    assert one_digit > 0.3  # letters among them: what no derivation check judges
    assert stated > 0.3
