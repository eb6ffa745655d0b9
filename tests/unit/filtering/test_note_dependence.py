"""Note dependence: the formula, its wrong notes, and what it sees on the testbed, where soundness is known."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from examples.overthinker_families.truth import is_sound
from tests.support import overthinker, rollouts
from tests.support.measured_rows import Row, posterior, select_rows
from tests.support.recording import Recording
from vpgea.config.schema import RunConfig
from vpgea.engines.transformers import TransformersEngine
from vpgea.filtering.checks.note_dependence import NOTE_DEPENDENCE, token_dependence
from vpgea.filtering.crossview import CrossView
from vpgea.filtering.prior_view import PriorView
from vpgea.filtering.samples import Chunk, MeasuredSample
from vpgea.filtering.wrong_notes import WrongNotes, answers_behind
from vpgea.grading.base import Grade, Status
from vpgea.grading.samples import grader_pool
from vpgea.grading.values import answer_value
from vpgea.modeling.load import load_model
from vpgea.modeling.local_model import LocalModel
from vpgea.prompts.views import Views, load_views
from vpgea.questions.load import Question
from vpgea.runs.progress import NullProgress
from vpgea.runs.stopping import StopRequest
from vpgea.storage.shards import write_table

# --- the formula ----------------------------------------------------------------------------------------------------


def test_against_the_formula_written_out() -> None:
    rng = np.random.default_rng(0)
    q, pi, wrong = rng.uniform(-5, 0, 7), rng.uniform(-5, 0, 7), rng.uniform(-5, 0, (3, 7))
    each = [min(q[t] - pi[t], q[t] - np.log(sum(np.exp(wrong[k, t]) for k in range(3)) / 3)) for t in range(7)]
    found = token_dependence(q, pi, wrong)
    np.testing.assert_array_equal(found, np.array(each, np.float32))
    assert found.dtype == np.float64


def test_neither_style_nor_the_pull_of_one_wrong_note_counts_alone() -> None:
    likely, unlikely = [-0.1], [-9.0]
    assert token_dependence(likely, unlikely, [likely] * 3) < 0.01, "any note makes it likely: style"
    assert token_dependence(likely, likely, [unlikely] * 3) < 0.01, "no note does too: wrong notes only pull away"
    assert token_dependence(likely, unlikely, [unlikely] * 3) == pytest.approx(8.9)


# --- wrong notes ----------------------------------------------------------------------------------------------------


def sample(question: Question, index: int = 0) -> MeasuredSample:
    values = {"question": question.text, "answer": question.answer, "options": list(question.options)}
    (row,) = rollouts.as_samples([posterior(question.id, index, **values)])
    return MeasuredSample(row=row, question=question, prior_prompt=[], z=[1], z_text="", grade=Grade(Status.CORRECT))


def chunk_of(*answers: str, more: Sequence[str] = (), options: tuple[str, ...] = ()) -> Chunk:
    return Chunk([sample(Question(f"q{n}", "?", answer, options)) for n, answer in enumerate(answers)], more)


def test_wrong_notes_differ_by_value_from_the_reference_and_from_each_other() -> None:
    chunk = chunk_of("0.5", "1/2", "\\frac{1}{2}", "7", "7.0", "12,000", "12000", "9", "x+1")
    for first in chunk.samples:
        notes = WrongNotes(chunk, 3, "math").of(first)
        values = [answer_value(note, "math") for note in (first.question.answer, *notes)]
        assert len(notes) == 3
        assert len(set(values)) == 4


def test_a_wrong_note_holds_another_final_answer_and_no_worked_solution() -> None:
    chunk = chunk_of("It is 2*3=6.\n#### 6", "We get $\\boxed{8}$.", "6", more=["So the answer is 10."])
    assert sorted(WrongNotes(chunk, 3, "math").of(chunk.samples[0])) == ["10", "8"]


@pytest.mark.parametrize(
    ("answer", "same"),
    [
        (r"\frac{\pi}{2}", r"\pi/2"),
        ("2^{10}", "1024"),
        (r"\sqrt{8}", r"2\sqrt{2}"),
        ("x = 5", "5"),
        ("(1, 2)", r"\left(1,2\right)"),
        ("1, 2", "2,1"),
        ("50%", "50"),
        ("Yes", "yes"),
    ],
)
def test_the_right_answer_written_otherwise_is_no_wrong_note(answer: str, same: str) -> None:
    chunk = chunk_of(answer, same, "11", r"3\pi", "(2, 1)", "no")
    assert answer_value(answer, "math") == answer_value(same, "math")
    assert sorted(WrongNotes(chunk, 6, "math").of(chunk.samples[0])) == sorted(["11", r"3\pi", "(2, 1)", "no"])


def test_wrong_notes_follow_from_the_path_alone() -> None:
    chunk = chunk_of(*map(str, range(40)))
    again = Chunk(list(reversed(chunk.samples)))
    drawn = [WrongNotes(chunk, 3, "math").of(one) for one in chunk.samples]
    assert drawn == [WrongNotes(again, 3, "math").of(one) for one in chunk.samples]
    assert len({note for notes in drawn for note in notes}) > 25, "not the same ones for all"


def test_other_chunks_are_asked_only_where_one_has_too_few_values() -> None:
    def forbidden() -> Any:
        raise AssertionError("no more answers are needed")
        yield

    assert len(WrongNotes(chunk_of("1", "2", "3", "4", more=forbidden()), 3, "math").pool) == 4
    few = WrongNotes(chunk_of("1", "1.0", more=["1", "8", "8.0", "9"]), 3, "math")
    assert sorted(few.of(sample(Question("q0", "?", "1")))) == ["8", "9"]
    alone = WrongNotes(chunk_of("1", "1.0"), 3, "math")
    assert alone.of(sample(Question("q0", "?", "1"))) == []


def test_a_question_with_options_has_their_letters() -> None:
    chunk = chunk_of("(B)", "A", options=("2", "3", "5", "7"))
    assert sorted(WrongNotes(chunk, 3, "choice").of(chunk.samples[0])) == ["A", "C", "D"]
    assert len(WrongNotes(chunk, 2, "choice").of(chunk.samples[0])) == 2


def test_answers_behind_a_chunk_come_from_the_eight_that_follow_it_round_to_the_first(tmp_path: Path) -> None:
    paths = [tmp_path / f"chunk-{index:05d}.arrow" for index in range(12)]
    for index, path in enumerate(paths):
        write_table(path, pa.table({"answer": [f"{index}a", f"{index}b"]}))

    def behind(index: int, count: int = 12) -> list[str]:
        return list(answers_behind(lambda: paths[:count], index))

    assert behind(1) == [f"{chunk}{row}" for chunk in range(2, 10) for row in "ab"]
    assert behind(9) == [f"{chunk}{row}" for chunk in (10, 11, 0, 1, 2, 3, 4, 5) for row in "ab"]
    assert behind(11) == [f"{chunk}{row}" for chunk in range(8) for row in "ab"]
    assert behind(1, count=3) == ["2a", "2b", "0a", "0b"], "never its own"
    assert behind(0, count=1) == []


def test_chunks_are_not_listed_before_an_answer_is_wanted() -> None:
    def forbidden() -> list[Path]:
        raise AssertionError("listed without need")

    answers_behind(forbidden, 0)


# --- on the testbed -------------------------------------------------------------------------------------------------


@dataclass
class Measured:
    config: RunConfig
    views: Views
    engine: Recording
    model: Any
    pairs: list[tuple[Row, Row]]

    @property
    def candidates(self) -> list[tuple[Row, Row]]:
        return [
            (row, found)
            for row, found in self.pairs
            if row["view"] == "posterior" and found["status"] == "correct" and not row["cut_off"]
        ]


def measure(rows: Sequence[Row], model: Any = None, **dotted: Any) -> Measured:
    """Only this check is on."""
    off = {f"filter__{name}__enabled": False for name in ("answerability", "derivation", "leaks", "plausibility")}
    config = overthinker.config(**{**off, **dotted})
    local = LocalModel.resolve(config.model)
    views = load_views(local, config.views, config.grading.grader)
    model = model or load_model(local)
    engine = Recording(TransformersEngine(model, batch_size=128))
    with grader_pool(config) as graders:
        view = CrossView(PriorView(config, views, engine, graders, StopRequest(), NullProgress(), context=None))
        return Measured(
            config,
            views,
            engine,
            model,
            list(zip(rows, view.measure(rollouts.as_samples(rows)).to_pylist(), strict=True)),
        )


def draw(folder: Path, **dotted: Any) -> list[Row]:
    """Round 0: 120 questions of the testbed, four posterior paths each."""
    size = {"data__limit": 120, "rollout__questions_per_chunk": 120}
    config = overthinker.config(**size, rollout__prior_samples=0, rollout__posterior_samples=4, **dotted)
    rollouts.run(config, folder)
    return rollouts.rows_of(folder)


@pytest.fixture(scope="module")
def drawn_rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    return draw(tmp_path_factory.mktemp("note-dependence") / "rollout")


@pytest.fixture(scope="module")
def measured(drawn_rows: list[Row]) -> Measured:
    return measure(drawn_rows)


def question_of(row: Row) -> Question:
    return Question(row["question_id"], row["question"], row["answer"], tuple(row["options"]))


def scored_directly(measured: Measured, row: Row, prompt: Sequence[int]) -> np.ndarray:
    """float64 (|z|,): one sequence, no padding, no slicing."""
    z = list(row["completion_ids"][: row["thinking_tokens"]])
    with torch.inference_mode():
        logits = measured.model(input_ids=torch.tensor([[*prompt, *z]])).logits[0].double()
    logprobs = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    return logprobs.gather(-1, torch.tensor(z)[:, None])[:, 0].numpy()


@pytest.mark.parametrize(("temperature", "end"), [(1.0, "judged"), (0.7, "judged"), (1.0, "free")])
def test_measured_as_computed_directly(drawn_rows: list[Row], measured: Measured, temperature: float, end: str) -> None:
    """Also where sampling was tempered: then the stored log-probabilities are not the model's, and all is scored.

    Where the thinking may end as the note says, the last of its tokens is not looked at.
    """
    rows = drawn_rows[:64]
    found = measure(rows, measured.model, rollout__temperature=temperature, filter__note_dependence__end=end)
    questions = {row["question_id"]: question_of(row) for row in rows}
    chunk = Chunk([sample(questions[row["question_id"]], row["sample_index"]) for row in rows])
    notes = WrongNotes(chunk, 3, "exact")
    for row, values in found.candidates[:12]:
        question = questions[row["question_id"]]
        wrong = notes.of(sample(question, row["sample_index"]))
        assert len(wrong) == 3
        dependence = token_dependence(
            scored_directly(found, row, found.views.posterior_prompt(question)),
            scored_directly(found, row, found.views.prior_prompt(question)),
            np.stack([scored_directly(found, row, found.views.posterior_prompt(question, note)) for note in wrong]),
        )
        dependence = dependence[: len(dependence) - (end == "free")]
        assert values["note_dependence"] == pytest.approx(dependence.max(), abs=1e-3)
        assert values["note_dependence_token"] == dependence.argmax()
        assert values["first_dependent_token"] == next((t for t, value in enumerate(dependence) if value >= 1), None)
    assert sum(values["score_tokens"] for _, values in found.pairs) == found.engine.usage.scored_tokens


def test_a_thinking_of_nothing_but_its_end_cannot_be_judged_where_the_end_is_free(
    drawn_rows: list[Row], measured: Measured
) -> None:
    row = next(row for row, _ in measured.candidates)
    start = row["thinking_tokens"] - 1  # from its end on
    cut = {name: row[name][start:] for name in ("completion_ids", "logprobs")}
    empty = {**row, **cut, "thinking_tokens": 1, "completion": measured.views.decode(cut["completion_ids"])}
    rows = [empty if one is row else one for one in drawn_rows[:64]]
    values = {}
    for end in ("judged", "free"):
        pairs = measure(rows, measured.model, filter__note_dependence__end=end).pairs
        values[end] = next(found["note_dependence"] for one, found in pairs if one is empty)
    assert values["judged"] is not None
    assert values["free"] is None


def test_the_note_that_a_control_had_in_sight_is_the_path_s_own_and_none_of_the_wrong_ones(
    drawn_rows: list[Row], measured: Measured
) -> None:
    """Tempered, so that q is scored, too: behind the prompt that the path was drawn with, whatever its note says."""
    rows = drawn_rows[:16]
    chunk = Chunk([sample(question_of(row), row["sample_index"]) for row in rows])
    notes = WrongNotes(chunk, 3, "exact")
    wrong = [notes.of(sample(question_of(row), row["sample_index"])) for row in rows]
    seen = [measured.views.posterior_prompt(question_of(row), one[0]) for row, one in zip(rows, wrong, strict=True)]
    rows = [{**row, "prompt_ids": prompt} for row, prompt in zip(rows, seen, strict=True)]
    found = measure(rows, measured.model, rollout__temperature=0.7)
    row, values = found.candidates[0]
    (_, *others) = wrong[rows.index(row)]
    dependence = token_dependence(
        scored_directly(found, row, row["prompt_ids"]),
        scored_directly(found, row, found.views.prior_prompt(question_of(row))),
        np.stack(
            [scored_directly(found, row, found.views.posterior_prompt(question_of(row), note)) for note in others]
        ),
    )
    assert values["note_dependence"] == pytest.approx(dependence.max(), abs=1e-3)


def recall_and_loss(measured: Measured, rows: Sequence[Row]) -> tuple[float, float]:
    """Shares of the unsound and of the sound right-answered paths that the default threshold rejects.

    rows: as they were drawn, in the testbed's language, in which soundness is defined.
    """
    threshold = measured.config.filter.note_dependence.threshold
    rejected: dict[bool, list[bool]] = {True: [], False: []}
    for row, (_, found) in zip(rows, measured.pairs, strict=True):
        if found["status"] == "correct" and not row["cut_off"]:
            sound = is_sound(row["question"], row["completion"].split("</think>")[0])
            rejected[sound].append(found["note_dependence"] >= threshold)
    assert len(rejected[False]) >= 90
    assert len(rejected[True]) >= 140
    return float(np.mean(rejected[False])), float(np.mean(rejected[True]))


def test_unsound_paths_are_found_and_sound_ones_kept(measured: Measured, drawn_rows: list[Row]) -> None:
    """Ground truth, with no other check. More figures in docs/filter.md."""
    recall, loss = recall_and_loss(measured, drawn_rows)
    assert recall >= 0.97
    assert loss <= 0.01


def renamed(folder: Path, names: Mapping[str, str]) -> Path:
    """The testbed's model with a tokenizer that writes its numbers by other names."""
    shutil.copytree(overthinker.OPTIONS["model.path"], folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    words = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {names.get(word, word): index for word, index in words.items()}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return folder


def require_found_without_derivation(rows: Sequence[Row], folder: Path, answers: Sequence[str]) -> None:
    """The same paths, with these answers written 0, 1, ... as far as there are digits, and all other numbers a letter.

    Letters and single digits are too common to be found in a text, so that no derivation can be judged.
    """
    names = {str(number): chr(ord("一") + number) for number in range(100)}
    names |= dict(zip(answers, "0123456789", strict=True)) if answers else {}

    def rename(text: str) -> str:
        return re.sub(r"\d+", lambda match: names[match[0]], text)

    there = [{**row, **{name: rename(row[name]) for name in ("question", "answer", "completion")}} for row in rows]
    path = str(renamed(folder, names))
    found = measure(there, model__path=path, filter__derivation__enabled=True, filter__derivation__samples=1)
    assert all(len(row["answer"]) == 1 for row, _ in found.pairs)
    assert all(values["derivation"] is None for _, values in found.pairs)
    recall, loss = recall_and_loss(found, rows)
    assert recall >= 0.97
    assert loss <= 0.01


def test_also_where_every_answer_is_a_letter(drawn_rows: list[Row], tmp_path: Path) -> None:
    require_found_without_derivation(drawn_rows, tmp_path / "letters", [])


def test_also_where_every_answer_is_one_digit(tmp_path: Path) -> None:
    """Only ten answers are left, so that wrong notes are few as well."""
    lines = (overthinker.ROOT / "questions" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line) for line in lines]
    ten = [answer for answer, _ in Counter(question["answer"] for question in questions).most_common(10)]
    file = tmp_path / "ten.jsonl"
    file.write_text("\n".join(json.dumps(question) for question in questions if question["answer"] in ten))
    rows = draw(tmp_path / "rollout", data__dataset=str(file))
    require_found_without_derivation(rows, tmp_path / "digits", ten)


def test_a_path_without_any_wrong_note_is_not_measured(measured: Measured, drawn_rows: list[Row]) -> None:
    first = drawn_rows[0]["question_id"]
    rows = [row for row in drawn_rows if row["question_id"] == first]
    found = measure(rows, measured.model)
    assert found.candidates
    assert all(values["note_dependence"] is values["note_dependence_token"] is None for _, values in found.pairs)


# --- selection ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "options", "reasons"),
    [
        ({"note_dependence": 0.99}, {}, []),
        ({"note_dependence": 1.0}, {}, ["note-dependence"]),
        ({"note_dependence": float("inf")}, {}, ["note-dependence"]),
        ({"note_dependence": 2.0}, {"filter__note_dependence__threshold": 3.0}, []),
        ({"note_dependence": 2.0}, {"filter__note_dependence__enabled": False}, []),
        ({"note_dependence": None}, {}, []),  # derivation has judged it
        ({"note_dependence": 0.5, "derivation": None}, {}, []),
        ({"note_dependence": None, "derivation": None}, {}, ["undecided"]),
        ({"note_dependence": None, "derivation": None, "leak": "x"}, {}, ["leak", "undecided"]),
        ({"note_dependence": None, "derivation": None}, {"filter__accept_undecided": True}, []),
        ({"note_dependence": 0.5, "derivation": None}, {"filter__note_dependence__enabled": False}, ["undecided"]),
        (
            {"note_dependence": None, "derivation": None},
            {"filter__note_dependence__enabled": False, "filter__derivation__enabled": False},
            [],
        ),
        ({"answerability_empty": None}, {}, ["undecided"]),  # a lift over nothing that was measured is none
    ],
)
def test_reasons(tmp_path: Any, values: dict[str, Any], options: dict[str, Any], reasons: list[str]) -> None:
    summary, found = select_rows(tmp_path, [posterior("a", 0, **values)], **options)
    assert found["a", "posterior", 0]["reasons"] == reasons
    if reasons:
        assert summary.counts[f"posterior_rejected_{reasons[0]}"] == 1
        assert summary.counts["posterior_accepted"] == 0


def test_the_check_says_what_it_is() -> None:
    assert list(NOTE_DEPENDENCE.reasons) == ["note-dependence"]
    assert NOTE_DEPENDENCE.reads_content
