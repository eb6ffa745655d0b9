"""Thresholds, utilities, gates and the table of counts, on samples and measurements written down by hand."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.measured_rows import Row, posterior, prior, select_from, select_rows, selection, write_pair
from vpgea.config.filtering import PlausibilityConfig
from vpgea.config.schema import RunConfig
from vpgea.engines.base import Completion
from vpgea.filtering.checks.base import Check
from vpgea.filtering.checks.leaks import LEAKS
from vpgea.filtering.checks.registry import CHECKS
from vpgea.filtering.log_ratios import path_stats
from vpgea.filtering.prior_view import Answers
from vpgea.filtering.report import warnings_of
from vpgea.filtering.utility import FloatArray
from vpgea.grading.base import Grade, Status

PSEUDO = ("leak", "derivation", "no-lift", "answerability", "plausibility")
REASONS = (*PSEUDO, "error", "timeout", "cut-off", "wrong", "undecided")


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Any]:
    """`run(rows, filter__...=...)`: the summary, and the rows of both sets by (question, view, index)."""
    return partial(select_rows, tmp_path)


# --- the table of counts -------------------------------------------------------------------------------------------


@st.composite
def posterior_values(draw: st.DrawFn) -> dict[str, Any]:
    status = draw(st.sampled_from(["correct", "correct", "correct", "wrong", "error", "timeout"]))
    cut_off = status == "wrong" and draw(st.booleans())
    values: dict[str, Any] = {"status": status, "cut_off": cut_off}
    if status != "correct":
        none = dict.fromkeys(
            ("answerability", "answerability_valid", "answerability_empty", "answer_tokens", "derivation")
        )
        return {**values, **none}
    valid = draw(st.integers(0, 8))
    values["answerability_valid"] = valid
    values["answerability"] = draw(st.integers(0, valid)) / valid if valid else None
    values["answerability_empty"] = draw(st.sampled_from([None, 0.0, 0.25, 0.875, 1.0]))
    values["derivation"] = draw(st.sampled_from([None, 0.0, 0.25, 0.5, 1.0]))
    values["leak"] = draw(st.sampled_from([None, None, "the note"]))
    values["logprobs"] = [draw(st.sampled_from([-1.0, -0.0]))] * 6
    values["other_view_logprobs"] = [draw(st.sampled_from([-1.0, -9.0]))] * 4
    return values


def expected_reasons(row: Row, on: dict[str, bool], lift: float) -> set[str]:
    """Every reason that applies, spelt out; all prior paths have a log-ratio of 0, so limits are the slack of 2."""
    if row["status"] in ("error", "timeout"):
        return {row["status"]}
    if row["cut_off"] or row["status"] == "wrong":
        return {"cut-off" if row["cut_off"] else "wrong"}
    reasons = set()
    if on["leaks"] and row["leak"]:
        reasons.add("leak")
    if on["derivation"] and row["derivation"] is not None and row["derivation"] < 0.5:
        reasons.add("derivation")
    if on["answerability"]:
        share, empty = row["answerability"], row["answerability_empty"]
        if row["answerability_valid"] < 4 or empty is None:
            reasons.add("undecided")
        else:
            if share < 0.875:
                reasons.add("answerability")
            if empty < 0.875 and share - empty < lift - 1e-6:
                reasons.add("no-lift")
    if on["plausibility"] and row["logprobs"][0] - row["other_view_logprobs"][0] > 2:
        reasons.add("plausibility")
    return reasons


@given(
    data=st.data(),
    on=st.fixed_dictionaries(
        {name: st.booleans() for name in ("answerability", "derivation", "plausibility", "leaks")}
    ),
    lift=st.sampled_from([-0.5, 0.0, 0.25]),
)
@settings(max_examples=20, deadline=None)
def test_the_counts_add_up_for_every_combination_of_checks(
    data: st.DataObject, on: dict[str, bool], lift: float
) -> None:
    config = with_filter(RunConfig(), lift=lift, **on)
    rows = [prior("a", index) for index in range(8)]
    rows += [
        prior("b", index, status=status, cut_off=cut_off)
        for index, (status, cut_off) in enumerate(
            [("wrong", False), ("wrong", True), ("error", False), ("correct", False)]
        )
    ]
    for question in "ab":
        for index in range(data.draw(st.integers(0, 12))):
            values = data.draw(posterior_values())
            if not on["answerability"]:  # then it was not measured
                values |= dict.fromkeys(
                    ("answerability", "answerability_valid", "answerability_empty", "answer_tokens")
                )
            rows.append(posterior(question, index, **values))
    with tempfile.TemporaryDirectory() as folder:
        folders = write_pair(Path(folder), rows)
        counts = select_from(config, *folders).counts
        found = selection(folders[1])

    assert len(found) == len(rows), "no row lost"
    assert counts["prior_sampled"] == 12
    assert (counts["prior_correct"], counts["prior_wrong"], counts["prior_cut_off"], counts["prior_not_graded"]) == (
        9,
        1,
        1,
        1,
    )
    own = [row for row in rows if row["view"] == "posterior"]
    assert counts["posterior_sampled"] == len(own)
    assert counts["posterior_sampled"] == counts["posterior_accepted"] + sum(
        counts[f"posterior_rejected_{reason}"] for reason in REASONS
    )
    blamed = dict.fromkeys((None, *REASONS), 0)
    for row in own:
        reasons = expected_reasons(row, on, lift)
        stored = found[row["question_id"], "posterior", row["sample_index"]]
        assert set(stored["reasons"]) == reasons
        assert stored["selected"] == (not reasons)
        assert stored["gate"] == 0 or not reasons
        blamed[next((reason for reason in REASONS if reason in reasons), None)] += 1
    assert counts["posterior_accepted"] == blamed.pop(None)
    assert {reason: counts[f"posterior_rejected_{reason}"] for reason in REASONS} == blamed
    assert counts["posterior_pseudo_efficient"] == sum(blamed[reason] for reason in PSEUDO)
    assert counts["posterior_gated"] == sum(bool(row["gate"]) for row in found.values())
    assert counts["prior_with_advantage"] == sum(bool(row["advantage"]) for row in found.values())


def with_filter(config: RunConfig, *, lift: float, **on: bool) -> RunConfig:
    checks: dict[str, Any] = {
        name: getattr(config.filter, name).model_copy(update={"enabled": enabled}) for name, enabled in on.items()
    }
    checks["answerability"] = checks["answerability"].model_copy(update={"lift": lift})
    return config.model_copy(update={"filter": config.filter.model_copy(update=checks)})


# --- reasons -------------------------------------------------------------------------------------------------------


def calibrating() -> list[Row]:
    """Eight correct prior paths of a question of their own, all with a log-ratio of 0."""
    return [prior("calibration", index) for index in range(8)]


@pytest.mark.parametrize(
    ("values", "reasons"),
    [
        ({}, []),
        ({"status": "error"}, ["error"]),
        ({"status": "timeout", "answerability_valid": None}, ["timeout"]),
        ({"status": "wrong"}, ["wrong"]),
        ({"status": "wrong", "cut_off": True}, ["cut-off"]),
        ({"leak": "the note says"}, ["leak"]),
        ({"derivation": 0.25}, ["derivation"]),
        ({"derivation": 0.5}, []),
        ({"derivation": None}, []),
        ({"answerability": 0.75}, ["answerability"]),
        ({"answerability_valid": 4}, []),
        ({"answerability_valid": 3}, ["undecided"]),
        ({"answerability": None, "answerability_valid": 0}, ["undecided"]),
        ({"logprobs": [-1.0] * 3 + [0.5] + [-1.0] * 2}, []),
        ({"logprobs": [-1.0] * 3 + [99.0] + [-1.0] * 2}, ["plausibility"]),
        ({"other_view_logprobs": [-1.0, -1.0, -3.1, -1.0]}, ["plausibility"]),
        ({"leak": "x", "derivation": 0.0, "answerability": 0.0}, ["leak", "derivation", "answerability"]),
        ({"leak": "x", "answerability_valid": 1}, ["leak", "undecided"]),
    ],
)
def test_each_reason(run: Callable[..., Any], values: dict[str, Any], reasons: list[str]) -> None:
    summary, rows = run([*calibrating(), posterior("a", 0, **values)])
    assert rows["a", "posterior", 0]["reasons"] == reasons
    assert isinstance(summary.plausibility_limits, dict)
    blamed = next((reason for reason in REASONS if reason in reasons), None)
    assert summary.counts["posterior_accepted"] == (blamed is None)
    if blamed:
        assert summary.counts[f"posterior_rejected_{blamed}"] == 1


@pytest.mark.parametrize(("threshold", "right"), [(0.7, 7), (0.9, 9), (0.1, 1), (0.3, 3)])
def test_a_share_that_float32_rounds_down_still_reaches_its_threshold(
    run: Callable[..., Any], threshold: float, right: int
) -> None:
    share = float(np.float32(right / 10))
    dotted = {"filter__answerability__samples": 10, "filter__answerability__threshold": threshold}
    row = {"answerability": share, "answerability_valid": 10, "derivation": share}
    _, rows = run([posterior("a", 0, **row)], **dotted, filter__derivation__threshold=threshold)
    assert rows["a", "posterior", 0]["reasons"] == []
    row["derivation"] = row["answerability"] = float(np.float32((right - 1) / 10))
    _, rows = run([posterior("a", 0, **row)], **dotted, filter__derivation__threshold=threshold)
    assert rows["a", "posterior", 0]["reasons"] == ["derivation", "answerability"]


def test_lift_is_asked_unless_the_question_needs_no_thinking(run: Callable[..., Any]) -> None:
    rows = [
        posterior("enough", 0, answerability=0.875, answerability_empty=0.625),
        posterior("little", 0, answerability=0.875, answerability_empty=0.75),
        posterior("easy", 0, answerability=0.875, answerability_empty=0.875),
        posterior("easy", 1, answerability=1.0, answerability_empty=0.875),
        posterior("unknown", 0, answerability=0.875, answerability_empty=None),
        posterior("earlier", 0, answerability=0.875, answerability_empty=None, answerability_cut=None),
    ]
    summary, found = run(rows, filter__answerability__lift=0.25)
    assert {key[0]: row["reasons"] for key, row in found.items()} == {
        "enough": [],
        "little": ["no-lift"],
        "easy": [],
        "unknown": ["undecided"],
        "earlier": [],  # as the version that measured it judged
    }
    assert summary.needs_no_thinking == ["easy"], "counted once per question, by its name"
    summary, _ = run(rows, filter__answerability__enabled=False)
    assert summary.counts["posterior_accepted"] == 6


@pytest.mark.parametrize(
    ("right", "wrong", "cut", "reasons"),
    [
        (7, 0, 1, []),  # 7 of 8 are enough, whatever the last would have become
        (6, 0, 2, ["undecided"]),
        (4, 0, 4, ["undecided"]),
        (5, 1, 2, ["undecided"]),
        (4, 2, 2, ["answerability"]),  # 6 of 8 at the most
        (0, 4, 4, ["answerability"]),
        (3, 0, 5, ["undecided"]),  # more than half are cut
        (0, 0, 8, ["undecided"]),
    ],
)
def test_an_answer_that_came_to_its_cap_is_neither_right_nor_wrong(
    run: Callable[..., Any], right: int, wrong: int, cut: int, reasons: list[str]
) -> None:
    decided = right + wrong
    found = {"answerability_valid": decided, "answerability": right / decided if decided else None}
    summary, rows = run([posterior("a", 0, **found, answerability_cut=cut)])
    assert rows["a", "posterior", 0]["reasons"] == reasons
    assert summary.answers == {"graded": 8, "cut": cut}


@pytest.mark.parametrize(
    ("right", "cut", "reasons"),
    [(0, 8, ["undecided"]), (0, 3, []), (3, 4, ["undecided"]), (6, 2, ["undecided"]), (7, 1, []), (6, 0, ["no-lift"])],
)
def test_a_lift_over_answers_that_were_cut_must_stand_whatever_they_would_have_become(
    run: Callable[..., Any], right: int, cut: int, reasons: list[str]
) -> None:
    """Of 8 answers without thinking; the path has 7 of 8, and 0.25 more than without is asked for."""
    decided = 8 - cut
    empty: dict[str, Any] = {"answerability_empty_valid": decided, "answerability_empty_cut": cut}
    empty["answerability_empty"] = right / decided if decided else None
    rows = [posterior("a", 0, answerability=0.875, **empty)]
    summary, found = run(rows, filter__answerability__lift=0.25)
    assert found["a", "posterior", 0]["reasons"] == reasons
    assert summary.needs_no_thinking == (["a"] if right == 7 else [])
    _, found = run(rows)
    assert found["a", "posterior", 0]["reasons"] == [], "no lift is asked for, so nothing hangs on it"


def test_answers_that_came_to_their_cap_leave_the_share() -> None:
    """Right ones count even where they went on to the cap; those without a grade leave it, too."""
    found = [("stop", Status.CORRECT), ("length", Status.CORRECT), ("length", Status.WRONG), ("stop", Status.WRONG)]
    found += [("length", Status.ERROR), ("stop", Status.TIMEOUT)]
    ids, logprobs = np.zeros(1, np.int32), np.zeros(1, np.float32)
    completions = [Completion(ids, logprobs, "stop" if reason == "stop" else "length") for reason, _ in found]
    answers = Answers(completions, [Grade(status, None) for _, status in found])
    assert (answers.decided, answers.cut) == (3, 1)
    assert answers.share == pytest.approx(2 / 3)
    assert Answers(completions[2:3], answers.grades[2:3]).share is None


def test_many_answers_that_came_to_their_cap_are_worth_a_warning(run: Callable[..., Any]) -> None:
    few = [posterior("a", index, answerability_cut=0, answerability_valid=8) for index in range(31)]
    few.append(posterior("a", 31, answerability_cut=1, answerability_valid=7))
    many = [posterior("a", index, answerability_cut=1, answerability_valid=7) for index in range(4)]
    assert warnings_of(run(few)[0]) == []
    (warning,) = warnings_of(run(many)[0])
    assert warning.startswith("4 of 32 continuations (12%) came to filter.answerability.max_new_tokens")
    assert warnings_of(run([prior("a", 0)])[0]) == []


def test_a_disabled_check_rejects_nothing(run: Callable[..., Any]) -> None:
    bad = posterior("a", 0, leak="x", derivation=0.0, answerability=0.0, logprobs=[99.0] * 6)
    off = {f"filter__{name}__enabled": False for name in ("leaks", "derivation", "answerability", "plausibility")}
    summary, rows = run([*calibrating(), bad], **off)
    assert rows["a", "posterior", 0]["reasons"] == []
    assert summary.plausibility_limits == "off"


# --- grader errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["error", "timeout"])
def test_error_and_timeout_leave_every_mean_and_are_never_zeros(run: Callable[..., Any], status: str) -> None:
    rows = [
        prior("a", 0, thinking=10),
        prior("a", 1, thinking=30),
        prior("a", 2, status="wrong", thinking=20),
        posterior("a", 0, thinking=6),
        posterior("b", 0, thinking=6),
        prior("b", 0, status="wrong", thinking=10),
        prior("b", 1, status="wrong", thinking=20),
    ]
    failed = [prior("a", 3, status=status, thinking=90), prior("b", 2, status=status, thinking=90)]
    failed += [posterior("a", 1, status=status, thinking=90, answerability=None, answerability_valid=None)]
    clean_summary, clean = run(rows)
    summary, found = run([*rows, *failed])
    for key, row in clean.items():
        assert {name: found[key][name] for name in ("utility", "advantage", "gate", "reasons")} == {
            name: row[name] for name in ("utility", "advantage", "gate", "reasons")
        }
    for row in failed:
        stored = found[row["question_id"], row["view"], row["sample_index"]]
        assert stored["utility"] is None
        assert not stored["advantage"]
        assert not stored["gate"]
        assert stored["reasons"] == [status]
    assert summary.counts["prior_correct"] == clean_summary.counts["prior_correct"]
    assert summary.counts["prior_not_graded"] == 2


def test_a_path_whose_continuations_all_failed_has_no_utility(run: Callable[..., Any]) -> None:
    _, found = run([posterior("a", 0, answerability=None, answerability_valid=0)])
    assert found["a", "posterior", 0]["utility"] is None


# --- plausibility --------------------------------------------------------------------------------------------------


@given(log_q=st.lists(st.floats(-20, 0), min_size=1, max_size=40), window=st.integers(1, 12), quantile=st.floats(0, 1))
@settings(deadline=None)
def test_path_stats_against_a_loop(log_q: list[float], window: int, quantile: float) -> None:
    log_pi = [-((7 * index) % 11) / 2 for index in range(len(log_q))]
    stats = path_stats(log_q, log_pi, PlausibilityConfig(window=window, quantile=quantile))
    ratios = [q - pi for q, pi in zip(log_q, log_pi, strict=True)]
    width = min(window, len(ratios))
    means = [sum(ratios[start : start + width]) / width for start in range(len(ratios) - width + 1)]
    assert stats.window == pytest.approx(max(means), abs=1e-9)
    place = quantile * (len(ratios) - 1)
    low, ordered = math.floor(place), sorted(ratios)
    high = min(low + 1, len(ratios) - 1)
    assert stats.quantile == pytest.approx(ordered[low] + (place - low) * (ordered[high] - ordered[low]), abs=1e-9)
    assert stats.log_pi == min(log_pi)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_what_is_not_a_number_is_not_plausible_and_calibrates_nothing(run: Callable[..., Any]) -> None:
    unknown = [-1.0, float("nan"), -1.0, -1.0]
    rows = [prior("a", index) for index in range(8)]
    rows += [prior("a", 8, other_view_logprobs=unknown)]
    rows += [posterior("a", 0), posterior("a", 1, other_view_logprobs=unknown)]
    summary, found = run(rows)
    assert all(math.isfinite(limit) for limit in summary.plausibility_limits.values())
    assert found["a", "posterior", 0]["reasons"] == []
    assert found["a", "posterior", 1]["reasons"] == ["plausibility"]


def test_a_reason_that_no_check_lists_is_a_fault_and_no_acceptance(tmp_path: Path) -> None:
    odd = Check(
        name="leaks",
        about="gives a reason that it does not list",
        columns=LEAKS.columns,
        measure=LEAKS.measure,
        cost=LEAKS.cost,
        judge=lambda config, samples: lambda sample: ["unheard-of"],
    )
    checks = [odd if check is LEAKS else check for check in CHECKS]
    with pytest.raises(AssertionError, match="does not list"):
        select_from(RunConfig(), *write_pair(tmp_path, [posterior("a", 0)]), checks=checks)


def test_an_impossible_token_is_implausible_wherever_it_stands(run: Callable[..., Any]) -> None:
    rows = [
        posterior("a", place, thinking=20, other_view_logprobs=[-1.0] * place + [-math.inf] + [-1.0] * (19 - place))
        for place in (0, 10, 19)
    ]
    assert path_stats([-1.0] * 20, rows[0]["other_view_logprobs"], PlausibilityConfig()).window == math.inf
    _, found = run([*calibrating(), *rows])
    assert all(found["a", "posterior", place]["reasons"] == ["plausibility"] for place in (0, 10, 19))


def test_limits_are_quantiles_of_the_priors_own_correct_paths(run: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    ratios: list[FloatArray] = [rng.normal(size=12) for _ in range(20)]
    rows = [
        prior("a", index, thinking=12, logprobs=[-3.0] * 14, other_view_logprobs=(-3.0 + ratio).tolist())
        for index, ratio in enumerate(ratios)
    ]
    rows.append(prior("a", 20, status="wrong", thinking=12, other_view_logprobs=None))
    limits = run(rows)[0].plausibility_limits
    stored = [(-3.0 + ratio).astype(np.float32).astype(np.float64) + 3 for ratio in ratios]
    windows = [max(np.mean(ratio[start : start + 8]) for start in range(5)) for ratio in stored]
    assert limits["window"] == pytest.approx(np.quantile(windows, 0.99) + 2)
    assert limits["quantile"] == pytest.approx(np.quantile([np.quantile(ratio, 0.995) for ratio in stored], 0.99) + 2)
    assert limits["log_pi"] == pytest.approx(-3 - 2)


def test_too_few_paths_to_calibrate_is_said(run: Callable[..., Any]) -> None:
    rows = [*calibrating()[:7], posterior("a", 0, logprobs=[99.0] * 6)]
    summary, found = run(rows)
    assert summary.plausibility_limits == "not calibrated (7 correct prior paths, 8 are needed)"
    assert found["a", "posterior", 0]["reasons"] == []


@pytest.mark.parametrize("sampling", [{"rollout__temperature": 0.7}, {"rollout__top_p": 0.9}, {"rollout__top_k": 20}])
def test_truncated_support_is_said(run: Callable[..., Any], sampling: dict[str, float]) -> None:
    rows = [prior("a", index, other_view_logprobs=None) for index in range(9)]
    summary, _ = run([*rows, posterior("a", 0, other_view_logprobs=None, log_s_cue=None)], **sampling)
    assert summary.elbo == summary.plausibility_limits == "not available (truncated support)"
