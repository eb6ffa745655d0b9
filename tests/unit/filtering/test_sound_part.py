"""Paths that are learnt up to their first token that depends on the note: what is asked of them, what they weigh."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.support import overthinker, rollouts
from tests.support.measured_rows import Row, posterior, prior, select_rows
from tests.support.recording import Recording
from vpgea.config.contradictions import require_consistent
from vpgea.config.resolve import resolve
from vpgea.engines.transformers import TransformersEngine
from vpgea.errors import UsageError
from vpgea.filtering.checks.note_dependence import sound_beginning
from vpgea.filtering.crossview import CrossView
from vpgea.filtering.prior_view import PriorView
from vpgea.grading.samples import grader_pool
from vpgea.modeling.load import load_model
from vpgea.modeling.local_model import LocalModel
from vpgea.prompts.views import load_views
from vpgea.runs.progress import NullProgress
from vpgea.runs.stopping import StopRequest

MASK = {"filter__note_dependence__dependent": "mask"}
CALIBRATION = [prior("a", index) for index in range(8)]


def cut(**values: Any) -> Row:
    """A path of four tokens of thinking, the third of which depends on the note; its beginning passes every check."""
    beginning = {"beginning_answerability": 1.0, "beginning_valid": 8, "beginning_tokens": 10.0}
    return posterior("a", 0, **{"note_dependence": 3.0, "first_dependent_token": 2, **beginning, **values})


@pytest.mark.parametrize(
    ("values", "reasons"),
    [
        ({}, []),
        ({"first_dependent_token": 0}, ["note-dependence"]),  # nothing is left
        ({"first_dependent_token": None}, ["note-dependence"]),  # where is not known
        ({"leak": "note", "leak_token": 1}, ["leak"]),
        ({"leak": "note", "leak_token": 2}, []),  # masked
        ({"leak": "note", "leak_token": None}, ["leak"]),
        ({"derivation": 0.0, "derivation_token": 1}, ["derivation"]),
        ({"derivation": 0.0, "derivation_token": 2}, []),  # the step that is missing is masked
        ({"derivation": 0.0, "derivation_token": None}, ["derivation"]),
        ({"answerability": 0.0}, []),  # of the path as a whole, which is not learnt
        ({"answerability_empty": None, "answerability_cut": 8}, []),
        ({"beginning_answerability": 0.75}, ["answerability"]),
        ({"beginning_valid": 3}, ["undecided"]),
        ({"beginning_answerability": None, "beginning_valid": 0}, ["undecided"]),
        ({"beginning_answerability": None, "beginning_valid": None}, ["undecided"]),
        ({"other_view_logprobs": [-1.0, -1.0, -1.0, -9.0]}, []),
        ({"other_view_logprobs": [-1.0, -9.0, -1.0, -1.0]}, ["plausibility"]),
        ({"status": "wrong"}, ["wrong"]),
    ],
)
def test_what_is_learnt_is_what_every_check_judges(tmp_path: Path, values: dict[str, Any], reasons: list[str]) -> None:
    summary, found = select_rows(tmp_path, [*CALIBRATION, cut(**values)], **MASK)
    row, counts = found["a", "posterior", 0], summary.counts
    assert row["reasons"] == reasons
    assert row["learnt_tokens"] == (None if reasons else 2)
    assert (counts["posterior_in_part"], counts["posterior_accepted"]) == (not reasons, 0)
    assert counts["posterior_pseudo_efficient"] == (reasons not in (["undecided"], ["wrong"]))
    rejected = sum(count for name, count in counts.items() if name.startswith("posterior_rejected"))
    assert counts["posterior_sampled"] == counts["posterior_in_part"] + rejected == 1
    assert (summary.tokens["in_part_learnt"], summary.tokens["in_part_masked"]) == ((0, 0) if reasons else (2, 2))


def test_it_is_rejected_where_nothing_else_is_asked_for_and_a_sound_path_is_whole_in_either(tmp_path: Path) -> None:
    for options in ({}, MASK):
        rows = [*CALIBRATION, cut(), posterior("a", 1)]
        summary, found = select_rows(tmp_path, rows, **options)
        assert found["a", "posterior", 0]["reasons"] == ([] if options else ["note-dependence"])
        assert found["a", "posterior", 1]["learnt_tokens"] is None
        assert summary.counts["posterior_accepted"] == 1
        assert summary.counts["posterior_in_part"] == bool(options)


def test_its_gate_is_that_of_the_prior_s_samples_behind_it(tmp_path: Path) -> None:
    """Not of its own answer, nor of its own length, which it owes to the note."""
    rows = [prior("a", index, thinking=28) for index in range(3)] + [prior("a", 3, thinking=28, status="wrong")]
    rows.append(cut(beginning_answerability=0.875))
    _, found = select_rows(tmp_path, rows, **MASK, filter__utility__length_price=0.5)
    own = [math.exp(-0.5 * 30 / 30)] * 3 + [0.0]
    mean = sum(own) / 4
    std = math.sqrt(sum((u - mean) ** 2 for u in own) / 4)
    utility = 0.875 * math.exp(-0.5 * 10 / 30)
    row = found["a", "posterior", 0]
    assert row["utility"] == pytest.approx(utility, rel=1e-6)
    assert row["gate"] == pytest.approx((utility - mean) / std, rel=1e-6)


def test_it_needs_the_check_that_asks_what_its_beginning_leads_to() -> None:
    sets = ["filter.note_dependence.dependent=mask", "filter.answerability.enabled=false"]
    with pytest.raises(UsageError, match="cannot judge what it would learn"):
        require_consistent(resolve(sets=sets).config)
    require_consistent(resolve(sets=[*sets, "filter.note_dependence.enabled=false"]).config)


# --- measured on the testbed ----------------------------------------------------------------------------------------


def test_the_prior_thinks_on_from_the_beginning_and_is_graded_as_a_rollout_is(drawn: Path) -> None:
    off = {f"filter__{name}__enabled": False for name in ("derivation", "leaks", "plausibility")}
    config = overthinker.config(**off, **MASK)
    local = LocalModel.resolve(config.model)
    views, rows = load_views(local, config.views, "exact"), rollouts.rows_of(drawn)
    engine = Recording(TransformersEngine(load_model(local), batch_size=128))
    with grader_pool(config) as graders:
        view = PriorView(config, views, engine, graders, StopRequest(), NullProgress(), context=None)
        measured = CrossView(view).measure(rollouts.as_samples(rows)).to_pylist()
    cuts = [
        (row, found, learnt)
        for row, found in zip(rows, measured, strict=True)
        if (learnt := sound_beginning(config.filter, found)) is not None
    ]
    assert 0 < len(cuts) < sum(found["note_dependence"] is not None for found in measured)
    prompts = {row["question_id"]: row["prompt_ids"] for row in rows if row["view"] == "prior"}
    for row, found, learnt in cuts:
        start = [*prompts[row["question_id"]], *row["completion_ids"][:learnt]]
        behind = [one for one in engine.drawn if list(one.request.prompt_ids) == start]
        behind = [one for one in behind if one.request.max_new_tokens == config.rollout.max_new_tokens - learnt]
        assert len(behind) == found["beginning_valid"] == config.filter.answerability.samples
        texts = [views.decode(one.completion.ids.tolist()).partition("</think>") for one in behind]
        right = [bool(end) and answer.split() == ["\\boxed{", row["answer"], "}"] for _, end, answer in texts]
        assert found["beginning_answerability"] == sum(right) / len(right)
        lengths = [learnt + len(one.completion.ids) for one, is_right in zip(behind, right, strict=True) if is_right]
        assert found["beginning_tokens"] == (pytest.approx(sum(lengths) / len(lengths)) if lengths else None)
    others = [found for found in measured if found["first_dependent_token"] is None]
    assert all(found["beginning_valid"] is None for found in others)
    assert sum(found["check_tokens"] for found in measured) == engine.usage.sampled_tokens
