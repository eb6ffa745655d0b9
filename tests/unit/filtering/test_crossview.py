"""What each check measures, on real samples of the testbed's model, against direct computations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import overthinker, rollouts, tiny
from tests.support.measured_rows import posterior
from tests.support.models import causal_model, views_of
from tests.support.recording import Drawn, Recording
from vpgea.config.resolve import resolve
from vpgea.config.schema import RunConfig
from vpgea.engines.transformers import TransformersEngine
from vpgea.errors import Stopped
from vpgea.filtering.checks.early_exits import SHARES
from vpgea.filtering.crossview import CrossView
from vpgea.filtering.prior_view import PriorView
from vpgea.grading.base import Status
from vpgea.grading.samples import grade_rows, grader_pool
from vpgea.grading.values import canonical_answers, find_value, value_is_distinct
from vpgea.prompts.views import Views
from vpgea.questions.load import Question
from vpgea.runs.progress import NullProgress
from vpgea.runs.stopping import StopRequest
from vpgea.storage.schemas import IDENTITY, SampleKey

Row = dict[str, Any]


@dataclass
class Measured:
    """One chunk of the testbed, measured with every check and diagnostic on."""

    config: RunConfig
    views: Views
    engine: Recording
    model: Any
    rows: list[Row]
    found: list[Row]

    @property
    def pairs(self) -> list[tuple[Row, Row]]:
        return list(zip(self.rows, self.found, strict=True))

    @property
    def candidates(self) -> list[tuple[Row, Row]]:
        return [(row, found) for row, found in self.pairs if is_candidate(row, found)]

    def continuations(self, row: Row, use: str, samples: int = 4) -> list[Drawn]:
        key = SampleKey(*(row[name] for name in IDENTITY))
        by_seed = self.engine.by_seed()
        return [by_seed[key.seed(0, use=f"{use}/{index}")] for index in range(samples)]

    def is_right(self, drawn: Drawn, answer: str) -> bool:
        """The testbed's answers are single tokens in a box; its grader compares them as text."""
        return self.views.decode(drawn.completion.ids.tolist()).split("}")[0].split("{")[-1].strip() == answer


def is_candidate(row: Row, found: Row) -> bool:
    return row["view"] == "posterior" and found["status"] == "correct" and not row["cut_off"]


def thinking(row: Row) -> list[int]:
    return list(row["completion_ids"][: row["thinking_tokens"]])


def question_of(row: Row) -> Question:
    return Question.from_row(rollouts.as_samples([row])[0])


def measure(config: RunConfig, views: Views, engine: Any, rows: Sequence[Row], **options: Any) -> list[Row]:
    stop = options.get("stop") or StopRequest()
    with grader_pool(config) as graders:
        view = PriorView(config, views, engine, graders, stop, NullProgress(), context=options.get("context"))
        return CrossView(view).measure(rollouts.as_samples(rows)).to_pylist()


def plain_logprobs(model: Any, prompt: Sequence[int], ids: Sequence[int]) -> np.ndarray:
    """float64 log-probabilities of ids behind a prompt: one sequence, no padding, no slicing of logits."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[*prompt, *ids]])).logits[0].double()
    logprobs = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    return logprobs.gather(-1, torch.tensor(ids)[:, None])[:, 0].numpy()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    config = overthinker.config(
        rollout__posterior_samples=4,
        rollout__questions_per_chunk=8,
        filter__early_exits=True,
        filter__counterfactual=True,
    )
    folder = tmp_path_factory.mktemp("crossview") / "rollout"
    rollouts.run(config, folder)
    rows = rollouts.rows_of(folder)
    cut = next(row for row in rows if row["view"] == "posterior")
    end = cut["thinking_tokens"] - 3
    short = {"completion_ids": cut["completion_ids"][:end], "logprobs": cut["logprobs"][:end]}
    rows.append({**cut, "sample_index": 99, "thinking_tokens": end, "cut_off": True, **short})
    model = causal_model(config.model)
    engine = Recording(TransformersEngine(model, batch_size=config.rollout.batch_size))
    views = views_of(config)
    return Measured(config, views, engine, model, rows, measure(config, views, engine, rows))


def test_there_is_something_to_look_at(measured: Measured) -> None:
    assert len(measured.candidates) >= 20
    assert sum(found["derivation"] is not None for _, found in measured.candidates) >= 15
    assert 0 < np.mean([found["derivation"] for _, found in measured.candidates if found["derivation"] is not None]) < 1


def test_prior_view_logprobs_are_those_of_a_plain_forward(measured: Measured) -> None:
    for row, found in measured.pairs:
        if row["view"] == "posterior":
            expected = plain_logprobs(measured.model, measured.views.prior_prompt(question_of(row)), thinking(row))
            np.testing.assert_allclose(found["other_view_logprobs"], expected, atol=1e-4)


def test_correct_prior_paths_are_scored_behind_the_note_and_no_others(measured: Measured) -> None:
    scored = 0
    for row, found in measured.pairs:
        if row["view"] == "prior" and found["status"] == "correct":
            expected = plain_logprobs(measured.model, measured.views.posterior_prompt(question_of(row)), thinking(row))
            np.testing.assert_allclose(found["other_view_logprobs"], expected, atol=1e-4)
            scored += 1
        elif row["view"] == "prior":
            assert found["other_view_logprobs"] is None
    assert scored >= 8


def test_log_s_cue_against_a_direct_computation(measured: Measured) -> None:
    for row, found in measured.pairs:
        if row["view"] == "prior":
            assert found["log_s_cue"] is None
            continue
        before = measured.views.prior_prompt(question_of(row)) + thinking(row)
        before += measured.views.encode("</think>") if row["cut_off"] else []
        before += measured.views.encode("\\boxed{")
        answers = {tuple(measured.views.encode(f"{text} }}")) for text in canonical_answers(row["answer"], "exact")}
        terms = [plain_logprobs(measured.model, before, list(ids)).sum() for ids in answers]
        assert found["log_s_cue"] == pytest.approx(np.logaddexp.reduce(terms), abs=1e-4)


def test_two_ways_to_write_an_answer_with_the_same_ids_count_once(measured: Measured) -> None:
    """The testbed's tokenizer knows neither `1e3` nor `1000`: both are the one unknown word."""
    config = overthinker.config(grading__grader="math")
    row = {**next(row for row, _ in measured.candidates), "answer": "1e3"}
    engine = TransformersEngine(measured.model, batch_size=1)  # of its own: the other one's tokens are counted
    found = measure(config, measured.views, engine, [row])[0]
    texts = canonical_answers("1e3", "math")
    answers = {tuple(measured.views.encode(f"{text} }}")) for text in texts}
    assert len(answers) < len(texts)
    before = measured.views.prior_prompt(question_of(row)) + thinking(row) + measured.views.encode("\\boxed{")
    terms = [plain_logprobs(measured.model, before, list(ids)).sum() for ids in answers]
    assert found["log_s_cue"] == pytest.approx(np.logaddexp.reduce(terms), abs=1e-4)


def test_answerability_continues_z_behind_the_prior_prompt(measured: Measured) -> None:
    for row, found in measured.candidates:
        continuations = measured.continuations(row, "answerability")
        prompt = measured.views.prior_prompt(question_of(row)) + thinking(row)
        assert all(list(drawn.request.prompt_ids) == prompt for drawn in continuations)
        right = [drawn for drawn in continuations if measured.is_right(drawn, row["answer"])]
        assert (found["answerability"], found["answerability_valid"]) == (len(right) / 4, 4)
        assert found["answer_tokens"] == np.mean([len(drawn.completion.ids) for drawn in continuations])
        if right:
            assert list(found["crossview_answer_ids"]) in [drawn.completion.ids.tolist() for drawn in right]
            assert found["crossview_answer_ids"][-1] in measured.views.stop_ids


def test_no_continuation_sees_the_note(measured: Measured) -> None:
    """Every prompt is the plain prompt and then a prefix of the path, or an empty thinking; nothing else."""
    note = measured.views.encode("note : the answer is")
    ends = [[], measured.views.end_of_thinking_ids]
    allowed = set()
    for row, _ in measured.candidates:
        prompt, z = measured.views.prior_prompt(question_of(row)), thinking(row)
        assert not contains(prompt, note)
        allowed |= {(*prompt, *z[:length], *end) for length in range(len(z) + 1) for end in ends}
    assert measured.engine.drawn
    assert all(tuple(drawn.request.prompt_ids) in allowed for drawn in measured.engine.drawn)


def contains(ids: Sequence[int], part: Sequence[int]) -> bool:
    return any(list(ids[start : start + len(part)]) == list(part) for start in range(len(ids) - len(part) + 1))


def test_answerability_without_thinking_is_measured_once_per_question(measured: Measured) -> None:
    empty = [
        drawn for drawn in measured.engine.drawn if drawn.request.prompt_ids[-1:] == measured.views.empty_thinking_ids
    ]
    by_question: dict[str, list[float]] = {}
    for row, found in measured.candidates:
        by_question.setdefault(row["question_id"], []).append(found["answerability_empty"])
        prompt = measured.views.prior_prompt(question_of(row)) + measured.views.empty_thinking_ids
        own = [drawn for drawn in empty if list(drawn.request.prompt_ids) == prompt]
        assert len(own) == 4
        assert found["answerability_empty"] == np.mean([measured.is_right(drawn, row["answer"]) for drawn in own])
    assert all(len(set(values)) == 1 for values in by_question.values())


def test_derivation_cuts_right_before_the_value(measured: Measured) -> None:
    checked = 0
    for row, found in measured.candidates:
        z, text = thinking(row), measured.views.decode(thinking(row))
        offset = find_value(text, row["answer"])
        if offset is None or not value_is_distinct(row["answer"], row["question"]):
            assert found["derivation"] is None
            continue
        assert found["answer_position"] == pytest.approx(offset / len(text))
        continuations = measured.continuations(row, "derivation")
        prompt = measured.views.prior_prompt(question_of(row))
        prefix = list(continuations[0].request.prompt_ids)[len(prompt) :]
        assert prefix == z[: len(prefix)]
        assert find_value(measured.views.decode(prefix), row["answer"]) is None
        assert measured.views.decode(z[len(prefix) : len(prefix) + 1]) == row["answer"], "the next token is the value"
        stated = [measured.is_right(drawn, row["answer"]) for drawn in continuations]
        assert all(len(drawn.completion.ids) == 1 for drawn in continuations), "no window beyond the value"
        assert found["derivation"] == np.mean(stated)
        checked += 1
    assert checked >= 15


def test_diagnostics(measured: Measured) -> None:
    answers = {row["answer"] for row in measured.rows}
    for row, found in measured.candidates:
        z, end = thinking(row), measured.views.end_of_thinking_ids
        prompt = measured.views.prior_prompt(question_of(row))
        for share, value in zip(SHARES, found["early_exits"], strict=True):
            drawn = measured.continuations(row, f"early-exit-{share}")
            assert list(drawn[0].request.prompt_ids) == prompt + z[: int(share * len(z))] + end
            assert value == np.mean([measured.is_right(one, row["answer"]) for one in drawn])
        swapped = [
            plain_logprobs(measured.model, measured.views.posterior_prompt(question_of(row), answer=other), z).mean()
            for other in answers - {row["answer"]}
        ]
        assert np.isclose(swapped, found["counterfactual_logprob"], atol=1e-4).any()
        own = plain_logprobs(measured.model, measured.views.posterior_prompt(question_of(row)), z).mean()
        assert not np.isclose(own, found["counterfactual_logprob"], atol=1e-4)


def test_leaks_are_found_in_the_thinking(measured: Measured) -> None:
    for row, found in measured.candidates:
        has_note = "note" in measured.views.decode(thinking(row)).split()
        assert found["leak"] == ("note" if has_note else None)


def test_what_is_wrong_or_cut_off_costs_no_continuation(measured: Measured) -> None:
    seen = 0
    for row, found in measured.pairs:
        if not is_candidate(row, found):
            assert found["check_tokens"] == 0
            assert all(
                found[name] is None for name in ("answerability", "derivation", "answer_position", "early_exits")
            )
            seen += 1
    assert seen >= 8
    assert measured.found[-1]["status"] == "wrong"


def test_tokens_are_counted_as_the_engine_counts_them(measured: Measured) -> None:
    assert sum(found["check_tokens"] for found in measured.found) == measured.engine.usage.sampled_tokens
    assert sum(found["score_tokens"] for found in measured.found) == measured.engine.usage.scored_tokens
    assert measured.engine.usage.scored_tokens == sum(
        len(request.ids) - request.start for request in measured.engine.scored
    )


def test_grades_and_places(measured: Measured) -> None:
    for row, found in measured.pairs:
        assert [found[name] for name in ("question_id", "view", "sample_index")] == [
            row[name] for name in ("question_id", "view", "sample_index")
        ]
        said = measured.views.decode(row["completion_ids"][row["thinking_tokens"] :])
        box = said.split("{")[-1].split("}")[0].strip()
        assert (found["status"] == "correct") == (box == row["answer"] and not row["cut_off"])


def test_measuring_again_gives_the_same_rows(measured: Measured) -> None:
    engine = TransformersEngine(measured.model, batch_size=measured.config.rollout.batch_size)
    again = measure(measured.config, measured.views, engine, measured.rows)
    for before, now in zip(measured.found, again, strict=True):
        assert before.keys() == now.keys()
        for name, value in before.items():
            np.testing.assert_equal(now[name], value)


def test_disabled_checks_measure_nothing(measured: Measured) -> None:
    names = ("answerability", "derivation", "leaks", "plausibility", "note_dependence")
    off = {f"filter__{name}__enabled": False for name in names}
    config = overthinker.config(rollout__temperature=0.7, **off)
    engine = Recording(TransformersEngine(measured.model, batch_size=64))
    for found in measure(config, measured.views, engine, measured.rows):
        for name in (
            "answerability",
            "derivation",
            "leak",
            "other_view_logprobs",
            "log_s_cue",
            "early_exits",
            "note_dependence",
        ):
            assert found[name] is None
        assert found["check_tokens"] == found["score_tokens"] == 0
    assert not engine.drawn
    assert not engine.scored


def test_without_posterior_paths_nothing_is_scored_behind_the_note(measured: Measured) -> None:
    engine = Recording(measured.engine.engine)
    rows = [row for row in measured.rows if row["view"] == "prior"]
    assert all(found["score_tokens"] == 0 for found in measure(measured.config, measured.views, engine, rows))
    assert not engine.scored


def test_a_stop_is_heard_between_tokens_and_while_grading(measured: Measured) -> None:
    stop = StopRequest()
    stop.request("a test")
    with pytest.raises(Stopped):
        measure(measured.config, measured.views, measured.engine.engine, measured.rows, stop=stop)
    with grader_pool(measured.config) as graders, pytest.raises(Stopped):
        grade_rows(measured.views, graders, rollouts.as_samples(measured.rows), stop)


def test_what_would_pass_the_models_context_is_left_unmeasured(measured: Measured) -> None:
    """Neither an engine's refusal nor a guess: the selection then finds the path undecided."""
    lengths = [
        len(measured.views.prior_prompt(question_of(row))) + len(thinking(row)) for row, _ in measured.candidates
    ]
    limit = int(np.median(lengths)) + 8
    engine = Recording(TransformersEngine(measured.model, batch_size=64))
    found = measure(measured.config, measured.views, engine, measured.rows, context=limit)
    requests = [drawn.request for drawn in engine.drawn]
    assert all(len(request.prompt_ids) + (request.max_new_tokens or 0) <= limit for request in requests)
    assert all(len(request.ids) <= limit for request in engine.scored)
    seen = {True: 0, False: 0}
    for row, values in zip(measured.rows, found, strict=True):
        if not is_candidate(row, values):
            continue
        length = len(measured.views.prior_prompt(question_of(row))) + len(thinking(row))
        fits = length + measured.config.filter.answerability.max_new_tokens <= limit
        assert (values["answerability_valid"] > 0) == fits
        assert (values["answer_tokens"] is not None) == fits
        seen[fits] += 1
    assert min(seen.values()) >= 3
    assert any(values["note_dependence"] is None for row, values in zip(measured.rows, found, strict=True))
    assert sum(values["check_tokens"] for values in found) == engine.usage.sampled_tokens
    assert sum(values["score_tokens"] for values in found) == engine.usage.scored_tokens


# --- cuts within a byte-level tokenizer, where a value has several ids ----------------------------------------------

TEXTS = (
    "3 times 4 is 12.\n</think>",
    "so 12 it is, 12.\n</think>",
    "12\n</think>",
    "112 no, 120 no, 3.12 no, -12 no: 12!\n</think>",
    "hmm wait,\n\n\\boxed{12}\n</think>",
    "é ü 12 €\n</think>",
    "twelve\n</think>",
    "first 1 2 then\t12\n</think>",
)


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, Views, Any]:
    """A model with random weights: what it says does not matter here, the ids that it is given do."""
    folder = tiny.make_model(tmp_path_factory.mktemp("byte-level"))
    options = {"model.path": str(folder), "model.device": "cpu", "model.threads": 1, "grading.workers": 1}
    options |= {"grading.grader": "exact", "filter.derivation.window": 3, "filter.answerability.max_new_tokens": 4}
    config = resolve(options=options).config
    return config, views_of(config), causal_model(config.model)


@pytest.mark.parametrize("text", TEXTS)
def test_the_cut_stands_before_the_value_whatever_its_ids(byte_level: tuple[RunConfig, Views, Any], text: str) -> None:
    config, views, model = byte_level
    z = views.encode(text)
    assert views.thinking_length(z) == len(z)
    ids = [*z, *views.encode("\\boxed{12}"), views.stop_ids[0]]
    row = posterior("q", 0, completion_ids=ids, logprobs=[-1.0] * len(ids), thinking_tokens=len(z))
    engine = Recording(TransformersEngine(model, batch_size=64))
    found = measure(config, views, engine, [row])[0]
    assert found["status"] == Status.CORRECT
    prompt = views.prior_prompt(question_of(row))
    key = SampleKey(*(row[name] for name in IDENTITY))
    if "12" not in text:
        assert found["derivation"] is found["answer_position"] is None
        return
    drawn = engine.by_seed()[key.seed(0, use="derivation/0")]
    prefix = list(drawn.request.prompt_ids)[len(prompt) :]
    assert prefix == z[: len(prefix)]
    assert find_value(views.decode(prefix), "12") is None
    grown = next(n for n in range(len(prefix), len(z) + 1) if find_value(views.decode(z[:n]) + " ", "12") is not None)
    assert grown - len(prefix) <= len(views.encode(" 12")), "the value is what stands behind the cut"
    assert len(drawn.completion.ids) <= 3 + len(views.encode("12"))


def test_a_value_that_the_question_or_its_options_hold_is_not_applicable(
    byte_level: tuple[RunConfig, Views, Any],
) -> None:
    config, views, model = byte_level
    z = views.encode("it is 12.\n</think>")
    ids = [*z, *views.encode("\\boxed{12}"), views.stop_ids[0]]
    shared = {"completion_ids": ids, "logprobs": [-1.0] * len(ids), "thinking_tokens": len(z)}
    rows = [
        posterior("a", 0, **shared),
        posterior("b", 0, **shared, question="Is it 12 or 13?"),
        posterior("c", 0, **shared, options=["12", "13"]),
    ]
    found = measure(config, views, TransformersEngine(model, batch_size=64), rows)
    assert [row["derivation"] is None for row in found] == [False, True, True]
    assert all(row["answer_position"] is not None for row in found)


def test_a_short_value_gets_no_longer_window_from_a_long_one_beside_it(
    byte_level: tuple[RunConfig, Views, Any],
) -> None:
    config, views, model = byte_level
    rows = []
    for question, answer in (("a", "12"), ("b", "1234567890123")):
        z = views.encode(f"it is {answer}.\n</think>")
        ids = [*z, *views.encode(f"\\boxed{{{answer}}}"), views.stop_ids[0]]
        values: dict[str, Any] = {"answer": answer, "completion_ids": ids, "logprobs": [-1.0] * len(ids)}
        rows.append(posterior(question, 0, **values, thinking_tokens=len(z)))
    engine = Recording(TransformersEngine(model, batch_size=64))
    measure(config, views, engine, rows)
    for row in rows:
        key = SampleKey(*(row[name] for name in IDENTITY))
        for index in range(4):
            drawn = engine.by_seed()[key.seed(0, use=f"derivation/{index}")]
            assert len(drawn.completion.ids) <= 3 + len(views.encode(row["answer"]))


def test_the_tests_use_what_is_there(tmp_path: Path) -> None:
    """The testbed's own template says what the cue and the note are; the expectations above spell them out."""
    template = views_of(overthinker.config()).template
    assert (template.answer_cue, template.answer_close) == ("\\boxed{", "}")
    assert "note : the answer is" in template.note
