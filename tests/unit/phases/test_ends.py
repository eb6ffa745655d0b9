"""Samples whose thinking never ends, and phases of which none ends at all, are told and counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import rollouts, tiny
from vpgea.config.schema import RunConfig, ViewsConfig
from vpgea.errors import QualityGateError
from vpgea.phases.ends import TOLD_AFTER, Ends, EndsWatch
from vpgea.phases.evaluate import evaluate
from vpgea.phases.filter import filter_rollout
from vpgea.prompts.views import Views
from vpgea.questions.load import load_questions
from vpgea.runs.progress import NullProgress
from vpgea.storage.shards import shard_files


class Told(NullProgress):
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture(scope="module")
def views() -> Views:
    tokenizer = tiny.make_tokenizer()
    return Views(tokenizer, ViewsConfig(), [tokenizer.eos_token_id])


def counted(*samples: tuple[str, bool]) -> Ends:
    ends = Ends()
    for finish_reason, cut_off in samples:
        ends.add(finish_reason, cut_off=cut_off)
    return ends


def test_cut_by_the_cap_and_ended_without_end_of_thinking_are_two_things(views: Views) -> None:
    ends = counted(("length", True), ("stop", True), ("stop", False), ("length", False))
    assert (ends.samples, ends.at_cap, ends.unended) == (4, 2, 1)
    (remark,) = ends.remarks(views, 8)
    assert remark.startswith("1 of 2 responses (50%) that ended by themselves do not hold the end of thinking </think>")
    assert "views.end_of_thinking" in remark
    assert counted(("length", True), ("stop", False)).remarks(views, 8) == []
    assert Ends().remarks(views, 8) == []


def test_all_at_the_cap_is_told_with_the_ids_that_would_have_stopped(views: Views) -> None:
    (remark,) = counted(("length", True), ("length", True)).remarks(views, 77)
    assert "all 2 samples ran to the cap of 77 tokens" in remark
    assert "<｜end▁of▁sentence｜>" in remark


def test_no_end_of_thinking_is_told_as_soon_as_a_few_have_ended(views: Views) -> None:
    told = Told()
    watch = EndsWatch(views, told)
    for _ in range(TOLD_AFTER - 1):
        watch.add("stop", cut_off=True)
        watch.add("length", cut_off=True)
    assert told.warnings == []
    for _ in range(3):
        watch.add("stop", cut_off=True)
    (warning,) = told.warnings
    assert warning.startswith(f"none of {TOLD_AFTER} responses")
    mixed = Told()
    watch = EndsWatch(views, mixed)
    for index in range(3 * TOLD_AFTER):
        watch.add("stop", cut_off=index != 2)
    assert mixed.warnings == []


def test_every_phase_tells_and_counts_a_model_that_ends_its_thinking_otherwise(
    run_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    config = run_config(
        views__end_of_thinking="</thought>",
        eval__samples=2,
        eval__max_new_tokens=48,
        rollout__prior_samples=2,
        rollout__posterior_samples=2,
        filter__teacher_top_k=0,
    )
    told = Told()
    summary = rollouts.run(config, tmp_path / "rollout", progress=told).summary
    rows = rollouts.rows_of(tmp_path / "rollout")
    unended = sum(row["finish_reason"] == "stop" for row in rows)
    assert (summary.samples, summary.no_end_of_thinking) == (len(rows), unended)
    assert summary.at_cap == len(rows) - unended
    assert any(f"none of {unended} responses" in warning for warning in told.warnings)

    told = Told()
    with pytest.raises(QualityGateError) as error:
        filter_rollout(config, tmp_path / "rollout", tmp_path / "filter", progress=told)
    assert any(f"none of {unended} responses" in warning for warning in told.warnings)
    assert f"{unended} of {len(rows)} samples ended by themselves" in error.value.mend

    told = Told()
    found = evaluate(config, load_questions(config.data).questions, tmp_path / "eval", progress=told)
    assert found is not None
    graded = Ends.of(shard_files(tmp_path / "eval" / "parts" / "0-of-1"))
    rate = found.metrics["no_end_of_thinking_rate"]
    assert rate.value == graded.unended / graded.samples > 0
    assert any("</thought>" in warning for warning in told.warnings)
