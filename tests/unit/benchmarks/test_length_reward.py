"""The reward of rivals by hand: grades of our grader, and lengths against the question's first correct samples."""

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


def test_a_sample_earns_its_grade_minus_the_price_of_its_relative_length(
    config: RunConfig, views: Views, graders: GraderPool
) -> None:
    reward = LengthReward(config, views, QUESTIONS, graders)
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


def test_a_question_keeps_its_first_reference_length(config: RunConfig, views: Views, graders: GraderPool) -> None:
    reward = LengthReward(config, views, QUESTIONS, graders)
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
    reward = LengthReward(floored, views, QUESTIONS, graders)
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
    reward = LengthReward(lenient, views, QUESTIONS, _Failing())
    drawn = [ids_of(views, 5, 27), ids_of(views, 95, 34)]
    assert reward.rewards(drawn, ["a", "a"]) == [pytest.approx(1 - PRICE), None]
    with pytest.raises(QualityGateError, match="could not be graded"):
        reward.rewards(drawn[1:], ["b"])
