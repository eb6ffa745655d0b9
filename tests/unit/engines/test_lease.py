"""What a lease keeps open between phases."""

from __future__ import annotations

from pathlib import Path

import pytest

from vpgea.config.resolve import resolve
from vpgea.engines.lease import EngineLease
from vpgea.grading.base import GradeRequest, Status
from vpgea.grading.process import WorkerProcess
from vpgea.runs.stopping import StopRequest


def test_graders_are_started_once_and_outlive_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[WorkerProcess] = []
    start = WorkerProcess.start

    def counted(worker: WorkerProcess) -> None:
        started.append(worker)
        start(worker)

    monkeypatch.setattr(WorkerProcess, "start", counted)
    config = resolve(options={"grading.grader": "exact", "grading.workers": 1}).config
    other = resolve(options={"grading.grader": "exact", "grading.workers": 1, "grading.deadline_s": 5.0}).config
    with EngineLease(tmp_path, StopRequest()) as lease:
        for text, status in (("4", Status.CORRECT), ("5", Status.WRONG)):
            (grade,) = lease.graders(config).grade([GradeRequest(f"\\boxed{{{text}}}", "4", "2+2?")])
            assert grade.status is status
            lease.release()
        assert len(started) == 1
        kept = lease.graders(config)
        assert lease.graders(other) is not kept, "of another configuration"
        assert not started[0].running
        lease.graders(other).grade([GradeRequest("\\boxed{4}", "4", "2+2?")])
        assert len(started) == 2
    assert not started[1].running
