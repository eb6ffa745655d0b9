"""Grading the samples of a rollout, and how many may fail to be graded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vpgea.config.schema import RunConfig
from vpgea.grading.base import Grade, GradeRequest, Status
from vpgea.grading.pool import GraderPool, check_error_share
from vpgea.prompts.views import Views
from vpgea.runs.stopping import StopRequest
from vpgea.storage.shards import read_table


def grader_pool(config: RunConfig) -> GraderPool:
    """The configured grader in its worker processes."""
    grading = config.grading
    return GraderPool(
        grading.grader,
        relative_tolerance=grading.relative_tolerance,
        deadline_s=grading.deadline_s,
        memory_mb=grading.memory_mb,
        workers=grading.workers,
    )


def grade_rows(views: Views, graders: GraderPool, rows: Sequence[dict[str, Any]], stop: StopRequest) -> list[Grade]:
    """Grade the answer behind the thinking of every row of SAMPLES. Raises Stopped.

    A path that was cut off has no answer: wrong, without asking the grader.
    """
    requests = [
        GradeRequest(views.decode(row["completion_ids"][row["thinking_tokens"] :]), row["answer"], row["question"])
        for row in rows
        if not row["cut_off"]
    ]
    grades = iter(graders.grade(requests, lambda _: stop.check()))
    return [Grade(Status.WRONG) if row["cut_off"] else next(grades) for row in rows]


def require_few_errors(config: RunConfig, chunks: Sequence[Path]) -> None:
    """QualityGateError when too many samples of these shards (status, detail) could not be graded.

    A grader that fails often is broken: its silence would be read as a property of the model.
    """
    rows = [row for path in chunks for row in read_table(path, columns=["status", "detail"]).to_pylist()]
    grades = [Grade(Status(row["status"]), detail=row["detail"]) for row in rows]
    check_error_share(grades, config.grading.max_grade_errors)
