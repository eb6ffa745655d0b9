"""Utilities, advantages, gates, reference lengths and the ELBO of the filter's output, against values by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.measured_rows import Row, posterior, prior, select_rows
from vpgea.errors import UsageError
from vpgea.filtering.reference_lengths import ReferenceLengths
from vpgea.storage.files import read_json, write_json
from vpgea.storage.records import json_of


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Any]:
    """`run(rows, filter__...=...)`: the summary, and the rows of both sets by (question, view, index)."""
    return partial(select_rows, tmp_path)


# --- utilities, advantages, gates ----------------------------------------------------------------------------------


def test_utilities_advantages_and_gates_by_hand(run: Callable[..., Any]) -> None:
    """Lengths: prior 20 + 2 and 60 + 2 tokens correct, one wrong; the posterior's |y| is that of its continuations."""
    rows = [
        prior("a", 0, thinking=20),
        prior("a", 1, thinking=60),
        prior("a", 2, thinking=10, status="wrong"),
        posterior("a", 0, thinking=16, answer_length=40, answer_tokens=5.0, answerability=0.875),
    ]
    _, found = run(rows)
    reference = (22 + 62) / 2
    u = [math.exp(-0.1 * 22 / reference), math.exp(-0.1 * 62 / reference), 0.0]
    sigma = max(float(np.std(u)), 0.1)
    for index, value in enumerate(u):
        stored = found["a", "prior", index]
        assert stored["utility"] == pytest.approx(value)
        others = [other for position, other in enumerate(u) if position != index]
        assert stored["advantage"] == pytest.approx((value - np.mean(others)) / sigma)
        assert stored["gate"] is None
    path = found["a", "posterior", 0]
    value = 0.875 * math.exp(-0.1 * 21 / reference)
    assert path["utility"] == pytest.approx(value)
    assert path["gate"] == pytest.approx(min((value - np.mean(u)) / sigma, 2))
    assert path["advantage"] is None


def test_without_answerability_the_paths_own_grade_and_answer_count(run: Callable[..., Any]) -> None:
    none = dict.fromkeys(("answerability", "answerability_valid", "answerability_empty", "answer_tokens"))
    rows = [prior("a", 0, thinking=30), prior("a", 1, status="wrong"), posterior("a", 0, answer_length=8, **none)]
    _, found = run(rows, filter__answerability__enabled=False)
    assert found["a", "posterior", 0]["utility"] == pytest.approx(math.exp(-0.1 * 12 / 32))
    assert found["a", "posterior", 0]["gate"] > 0


def test_doubling_lambda_changes_advantages_in_an_all_correct_group(run: Callable[..., Any]) -> None:
    rows = [prior("a", index, thinking=20 + 10 * index) for index in range(4)]

    def advantages(price: float) -> np.ndarray:
        _, found = run(rows, filter__utility__length_price=price)
        return np.array([found["a", "prior", index]["advantage"] for index in range(4)])

    assert (advantages(0.0) == 0).all()
    once, twice = advantages(0.1), advantages(0.2)
    assert (np.sign(once) == [1, 1, -1, -1]).all()
    assert (np.abs(twice) > 1.6 * np.abs(once)).all(), "below sigma_min the scale of utilities is kept"


# --- reference lengths ---------------------------------------------------------------------------------------------

REFERENCE_ROWS = [
    *(
        prior("solved", 0, thinking=38),
        prior("solved", 1, thinking=58),
        prior("solved", 2, status="wrong", thinking=998),
    ),
    *(prior("unsolved", index, status="wrong", thinking=size - 2) for index, size in enumerate((100, 200, 900))),
    *(prior("short", 0, thinking=1), prior("failed", 0, status="error", thinking=500)),
]


def test_reference_lengths_of_the_rollout_itself(run: Callable[..., Any], tmp_path: Path) -> None:
    run(REFERENCE_ROWS)
    own = read_json(tmp_path / "0" / "filter" / "reference_lengths.json")
    assert own["questions"] == {"solved": 50, "unsolved": 200, "short": 3}
    assert own["default"] == 50


def test_reference_lengths_are_floored_when_used(run: Callable[..., Any]) -> None:
    _, found = run(REFERENCE_ROWS)
    assert found["short", "prior", 0]["utility"] == pytest.approx(math.exp(-0.1 * 3 / 16))
    _, found = run(REFERENCE_ROWS, filter__min_reference_tokens=2)
    assert found["short", "prior", 0]["utility"] == pytest.approx(math.exp(-0.1))


def test_a_question_that_the_file_does_not_have_is_compared_with_its_own_samples(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    """Not with the data set's length, which would price hard questions most; without samples there is nothing else."""
    file = tmp_path / "lengths.json"
    write_json(file, {"questions": {"solved": 400}, "default": 30.0})
    rows = [*REFERENCE_ROWS, posterior("failed", 0, thinking=58)]
    _, found = run(rows, filter__reference_lengths=str(file), filter__min_reference_tokens=2)
    assert found["solved", "prior", 0]["utility"] == pytest.approx(math.exp(-0.1 * 40 / 400))
    assert found["short", "prior", 0]["utility"] == pytest.approx(math.exp(-0.1 * 3 / 3))
    assert found["failed", "posterior", 0]["utility"] == pytest.approx(math.exp(-0.1 * 60 / 30))


@pytest.mark.parametrize(("shorter", "longer"), [(800, 1200), (9000, 13500)], ids=["easy", "hard"])
def test_saving_a_third_of_the_length_is_worth_the_same_on_questions_of_any_length(
    run: Callable[..., Any], tmp_path: Path, shorter: int, longer: int
) -> None:
    file = tmp_path / "lengths.json"
    write_json(file, {"questions": {"another": 3500}, "default": 3500.0})
    rows = [prior("a", index, thinking=length - 2) for index, length in enumerate((shorter, longer))]
    _, found = run(rows, filter__reference_lengths=str(file))
    gap = found["a", "prior", 0]["utility"] - found["a", "prior", 1]["utility"]
    assert gap == pytest.approx(math.exp(-0.1 * 0.8) - math.exp(-0.1 * 1.2))


def test_what_is_written_has_the_first_length_of_every_question(run: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "lengths.json"
    write_json(file, {"questions": {"solved": 400, "elsewhere": 70}, "default": 30.0})
    run(REFERENCE_ROWS, filter__reference_lengths=str(file))
    written = read_json(tmp_path / "0" / "filter" / "reference_lengths.json")
    assert written["questions"] == {"solved": 400, "elsewhere": 70, "unsolved": 200, "short": 3}
    assert written["default"] == 30


@pytest.mark.parametrize(
    "value", [{}, {"questions": {}}, {"questions": {"a": "x"}, "default": 3}, {"questions": {"a": 0}, "default": 3}]
)
def test_a_file_that_holds_no_reference_lengths_is_refused(tmp_path: Path, value: dict[str, Any]) -> None:
    write_json(tmp_path / "lengths.json", value)
    with pytest.raises(UsageError, match=r"lengths\.json"):
        ReferenceLengths.read(tmp_path / "lengths.json")


# --- ELBO ----------------------------------------------------------------------------------------------------------


def test_the_elbo_of_the_summary_against_the_stored_columns(run: Callable[..., Any]) -> None:
    """All posterior paths count, rejected and cut-off ones too; the mean is over questions."""
    rng = np.random.default_rng(1)
    rows: list[Row] = [prior(question, index, thinking=30) for question in "abc" for index in range(2)]
    by_question: dict[str, list[float]] = {}
    for question, paths in (("a", 3), ("b", 1), ("c", 2)):
        for index in range(paths):
            thinking, answer = int(rng.integers(3, 9)), 0 if question == "c" else 4
            q, pi = -rng.uniform(0.1, 3, (2, thinking + answer)).astype(np.float32)
            log_s = np.float32(-rng.uniform(0, 2))
            values: dict[str, Any] = {"logprobs": q.tolist(), "other_view_logprobs": pi[:thinking].tolist()}
            values |= {"log_s_cue": float(log_s), "thinking": thinking, "answer_length": answer}
            if question == "c":
                values |= {"status": "wrong", "cut_off": True, "answer_tokens": None}
            else:
                values |= {"answer_tokens": 2.5, "answerability": 0.0}
            rows.append(posterior(question, index, **values))
            length = thinking + (0 if question == "c" else 2.5)
            ratio = float((q[:thinking].astype(float) - pi[:thinking].astype(float)).sum())
            by_question.setdefault(question, []).append(float(log_s) - 0.1 * length / 32 - ratio)
    rows.append(posterior("c", 9, status="error", log_s_cue=None, other_view_logprobs=None))
    bound = json_of(run(rows)[0].elbo)
    means = [float(np.mean(values)) for values in by_question.values()]
    assert bound["elbo"]["value"] == pytest.approx(np.mean(means), abs=1e-6)
    assert bound["elbo"]["standard_error"] == pytest.approx(np.std(means, ddof=1) / math.sqrt(3), abs=1e-6)
    terms = [bound[name]["value"] for name in ("log_s_cue", "length_cost", "kl")]
    assert bound["elbo"]["value"] == pytest.approx(terms[0] - terms[1] - terms[2])
    assert (bound["paths"], bound["left_out"], bound["questions"]) == (6, 1, 3)


def test_without_posterior_samples_there_is_no_elbo(run: Callable[..., Any]) -> None:
    assert run([prior("a", 0)])[0].elbo == "not available (no posterior samples)"
