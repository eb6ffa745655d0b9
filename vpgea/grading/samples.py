"""Grading the samples of a rollout, and how many may fail to be graded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vpgea.config.schema import RunConfig
from vpgea.grading.base import Grade, GradeRequest, Status
from vpgea.grading.pool import GraderPool, check_error_share
from vpgea.storage.rows import IntArray, Text, iterate_rows


class Gradable(Protocol):
    """What is known of a sample that is to be graded. completion_ids: int32 (T,), the first thinking_tokens are z."""

    @property
    def question(self) -> str: ...
    @property
    def answer(self) -> str: ...
    @property
    def completion_ids(self) -> IntArray: ...
    @property
    def thinking_tokens(self) -> int: ...
    @property
    def cut_off(self) -> bool: ...


class _Decodes(Protocol):
    def decode(self, ids: Sequence[int]) -> str: ...


class _Stops(Protocol):
    def check(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _GradeColumns:
    """What a graded or measured shard says of its grades."""

    status: Text
    detail: Text | None


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


def grade_rows(views: _Decodes, graders: GraderPool, rows: Sequence[Gradable], stop: _Stops) -> list[Grade]:
    """Grade the answer behind the thinking of every sample.

    A path that was cut off has no answer: wrong, without asking the grader.
    `views` decodes ids; `stop` knows of a stop.

    Raises:
        Stopped: A stop was requested; nothing is graded then.
    """
    requests = [
        GradeRequest(views.decode(row.completion_ids[row.thinking_tokens :].tolist()), row.answer, row.question)
        for row in rows
        if not row.cut_off
    ]
    grades = iter(graders.grade(requests, lambda _: stop.check()))
    return [Grade(Status.WRONG) if row.cut_off else next(grades) for row in rows]


def require_few_errors(config: RunConfig, chunks: Sequence[Path]) -> None:
    """Refuse shards (status, detail) of which too many samples could not be graded.

    A grader that fails often is broken: its silence would be read as a property of the model.

    Raises:
        QualityGateError: More than grading.max_grade_errors of them.
    """
    grades = [Grade(Status(row.status), detail=row.detail) for row in iterate_rows(chunks, _GradeColumns)]
    check_error_share(grades, config.grading.max_grade_errors)
