"""What a lease keeps open between phases."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import cast

import pytest

from vpgea.config.resolve import resolve
from vpgea.engines.base import ScoreRequest
from vpgea.engines.lease import EngineLease
from vpgea.engines.transformers import TransformersEngine
from vpgea.errors import UsageError
from vpgea.grading.base import GradeRequest, Status
from vpgea.grading.process import WorkerProcess
from vpgea.modeling.load import load_model
from vpgea.modeling.local_model import LocalModel
from vpgea.modeling.weight_files import write_checksums
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


def test_offered_weights_are_not_read_again_and_give_the_same_bits(tiny_model: Path, tmp_path: Path) -> None:
    config = resolve(options={"model.path": str(tiny_model), "model.device": "cpu", "model.threads": 1}).config
    model = LocalModel.resolve(config.model)
    requests = [ScoreRequest([5, 6, 7, 8], 1)]
    with EngineLease(tmp_path, StopRequest()) as lease:
        (read,) = lease.get(config, model).score(requests)
        lease.release()
        offered = load_model(model)
        lease.offer(config, config.model, offered)
        engine = cast(TransformersEngine, lease.get(config, model))
        assert engine.model is offered
        (again,) = engine.score(requests)
        assert again.tobytes() == read.tobytes()
        lease.release()
        assert cast(TransformersEngine, lease.get(config, model)).model is offered, "the weights outlive the engine"
        lease.release()
        assert lease.held.take(model) is offered
        assert cast(TransformersEngine, lease.get(config, model)).model is not offered, "once a training has them"


def test_weights_of_another_model_are_not_taken(tiny_model: Path, tmp_path: Path) -> None:
    config = resolve(options={"model.path": str(tiny_model), "model.device": "cpu"}).config
    other = config.model.model_copy(update={"dtype": "bfloat16"})
    with EngineLease(tmp_path, StopRequest()) as lease:
        offered = load_model(LocalModel.resolve(config.model))
        lease.offer(config, config.model, offered)
        engine = cast(TransformersEngine, lease.get(config, LocalModel.resolve(other)))
        assert engine.model is not offered


def test_offered_weights_whose_files_were_damaged_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    write_checksums(folder)
    config = resolve(options={"model.path": str(folder), "model.device": "cpu"}).config
    with EngineLease(tmp_path, StopRequest()) as lease:
        lease.offer(config, config.model, load_model(LocalModel.resolve(config.model)))
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
        with pytest.raises(UsageError, match=r"model\.safetensors"):
            lease.get(config, LocalModel.resolve(config.model))
