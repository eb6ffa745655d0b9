"""The reward of rivals by hand: grades of our grader, and lengths against the question's correct samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from benchmarks.peers.length_reward import LengthReward
from examples.overthinker.chat import build_tokenizer, completion
from tests.support import overthinker
from vpgea.config.schema import RunConfig
from vpgea.errors import QualityGateError
from vpgea.grading.base import Grade, GradeRequest, Status
from vpgea.grading.exact import grade_exact
from vpgea.grading.pool import GraderPool
from vpgea.grading.samples import grader_pool
from vpgea.prompts.views import Views
from vpgea.questions.question import Question

QUESTIONS = [Question("a", "start with 20 . add 7 .", "27"), Question("b", "start with 30 . add 4 .", "34")]
PRICE, FLOOR = 0.5, 4


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return overthinker.config(filter__utility__length_price=PRICE, filter__min_reference_tokens=FLOOR)


@pytest.fixture(scope="module")
def graders(config: RunConfig) -> Iterator[GraderPool]:
    with grader_pool(config) as pool:
        yield pool


@pytest.fixture
def views(config: RunConfig) -> Views:
    tokenizer = build_tokenizer()
    return Views(tokenizer, config.views, eos_ids=[tokenizer.eos_token_id], grader="exact")


def ids_of(views: Views, words: int, answer: int) -> list[int]:
    """A completion of so many words of thinking: with `</think> \\boxed{ N }` and the end five tokens more."""
    return views.encode(completion(" ".join(["so"] * words), answer))


def test_where_all_are_charged_a_sample_earns_its_grade_minus_the_price_of_its_relative_length(
    config: RunConfig, views: Views, graders: GraderPool
) -> None:
    reward = LengthReward(config, "all", views, QUESTIONS, graders)
    cut = ids_of(views, 40, 27)[:40]  # its thinking does not end
    drawn = [ids_of(views, 5, 27), ids_of(views, 15, 27), ids_of(views, 25, 99), cut]
    assert [len(ids) for ids in drawn] == [10, 20, 30, 40]
    # L_ref is the mean of the right ones, 15; columns that it does not read do not matter
    assert reward.rewards(completion_ids=drawn, question_id=["a"] * 4, prompts=[[1]] * 4, log_extra=print) == [
        pytest.approx(1 - PRICE * 10 / 15),
        pytest.approx(1 - PRICE * 20 / 15),
        pytest.approx(0 - PRICE * 30 / 15),
        pytest.approx(0 - PRICE * 40 / 15),
    ]


def test_where_correct_ones_are_charged_a_wrong_sample_earns_nothing_at_any_length(
    config: RunConfig, views: Views, graders: GraderPool
) -> None:
    reward = LengthReward(config, "correct", views, QUESTIONS, graders)
    cut = ids_of(views, 40, 27)[:40]
    drawn = [ids_of(views, 5, 27), ids_of(views, 15, 27), ids_of(views, 25, 99), ids_of(views, 1, 99), cut]
    # of the right ones, 10 and 20 tokens, mean 15 and std 5: one below it and one above; 1 / (1 + e) = 0.2689414
    assert reward.rewards(drawn, ["a"] * 5) == [
        pytest.approx(1 - PRICE * 0.2689414),
        pytest.approx(1 - PRICE * 0.7310586),
        *[0, 0, 0],
    ]
    # by themselves, whatever was drawn before: 40 and 10 tokens; then one alone, which is as long as the mean
    assert reward.rewards([ids_of(views, 35, 27), ids_of(views, 5, 27), ids_of(views, 15, 34)], ["a", "a", "b"]) == [
        pytest.approx(1 - PRICE * 0.7310586),
        pytest.approx(1 - PRICE * 0.2689414),
        pytest.approx(1 - PRICE * 0.5),
    ]


def test_right_samples_that_are_as_long_as_one_another_pay_alike(
    config: RunConfig, views: Views, graders: GraderPool
) -> None:
    reward = LengthReward(config, "correct", views, QUESTIONS, graders)
    drawn = [ids_of(views, 5, 27), ids_of(views, 5, 27), ids_of(views, 6, 27), ids_of(views, 5, 27)]
    # mean 10.25, and a spread of 0.43 tokens counts as one: z is -0.25 and 0.75
    short, long = (pytest.approx(1 - PRICE * share) for share in (0.4378235, 0.6791787))
    assert reward.rewards(drawn, ["a"] * 4) == [short, short, long, short]
    assert reward.rewards(drawn[:2], ["b"] * 2) == [0, 0]  # their 27 is not its answer


def test_a_question_keeps_its_first_reference_length(config: RunConfig, views: Views, graders: GraderPool) -> None:
    reward = LengthReward(config, "all", views, QUESTIONS, graders)
    right, wrong = ids_of(views, 15, 27), ids_of(views, 25, 99)
    without = [wrong, ids_of(views, 5, 99), ids_of(views, 35, 99)]  # none is right: their median, 30
    assert reward.rewards([right, *without], ["a", "b", "b", "b"])[:2] == [
        pytest.approx(1 - PRICE),
        pytest.approx(-PRICE),
    ]
    later = reward.rewards([ids_of(views, 5, 27), ids_of(views, 5, 34)], ["a", "b"])
    assert later == [pytest.approx(1 - PRICE * 10 / 20), pytest.approx(1 - PRICE * 10 / 30)]


def test_a_reference_length_has_its_floor(config: RunConfig, views: Views, graders: GraderPool) -> None:
    floored = config.model_copy(update={"filter": config.filter.model_copy(update={"min_reference_tokens": 16})})
    reward = LengthReward(floored, "all", views, QUESTIONS, graders)
    assert reward.rewards([ids_of(views, 5, 27)], ["a"]) == [pytest.approx(1 - PRICE * 10 / 16)]


class _Failing(GraderPool):
    """Its grader fails on every answer without a 7; it starts no process."""

    def __init__(self) -> None: ...

    def grade(self, requests: Sequence[GradeRequest], on_result: Callable[[int], None] | None = None) -> list[Grade]:
        return [
            grade_exact(request) if "7" in request.response else Grade(Status.ERROR, detail="it failed")
            for request in requests
        ]


def test_a_sample_without_a_grade_has_no_reward_and_no_length_that_counts(config: RunConfig, views: Views) -> None:
    lenient = config.model_copy(update={"grading": config.grading.model_copy(update={"max_grade_errors": 0.5})})
    reward = LengthReward(lenient, "all", views, QUESTIONS, _Failing())
    drawn = [ids_of(views, 5, 27), ids_of(views, 95, 34)]
    assert reward.rewards(drawn, ["a", "a"]) == [pytest.approx(1 - PRICE), None]
    of_correct = LengthReward(lenient, "correct", views, QUESTIONS, _Failing())
    assert of_correct.rewards(drawn, ["a", "a"]) == [pytest.approx(1 - PRICE * 0.5), None]
    with pytest.raises(QualityGateError, match="could not be graded"):
        reward.rewards(drawn[1:], ["b"])
