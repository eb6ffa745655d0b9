"""What the filter stores of the posterior view stands in for a forward pass of the teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import overthinker, rollouts
from tests.support.models import roles_of
from vpgea.config.schema import RunConfig
from vpgea.errors import UsageError
from vpgea.modeling.local_model import LocalModel
from vpgea.phases.filter import filter_rollout
from vpgea.phases.loop import Loop
from vpgea.runs.complete_phase import CompletePhase, chunk_paths
from vpgea.runs.layout import TEACHER_SHARD
from vpgea.runs.manifest import Manifest
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.storage.schemas import POSTERIOR
from vpgea.storage.shards import iterate_rows, sidecar_path
from vpgea.training.data import TrainingSet
from vpgea.training.trainer import Trainer

K = (
    LocalModel.resolve(overthinker.config().model).vocabulary_size - 1
)  # the tail is one token: nothing is lumped together


@pytest.fixture(scope="module")
def stored(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored") / "filter"
    filter_rollout(overthinker.config(filter__teacher_top_k=K), drawn, folder)
    return folder


def gradient(filter_dir: Path, folder: Path, **dotted: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss and gradient of all questions in one step, by a student that has moved away from the teacher."""
    config = overthinker.config(**{f"distill__{name}": value for name, value in dotted.items()})
    trainer = Trainer(
        config,
        TrainingSet(CompletePhase.open(filter_dir, "filter"), config.distill),
        roles_of(config),
        PhaseFolder.open(folder, Manifest(phase="distill", identity={}, inputs={}, config={})),
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainer.trainable.values():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    terms = trainer.accumulate(trainer.data.step(0))
    return terms.kl, {name: p.grad for name, p in trainer.trainable.items() if p.grad is not None}


@pytest.mark.parametrize("answer_from", ["none", "crossview"])
@pytest.mark.parametrize("form", ["dense", "dense-cv"])
def test_the_whole_stored_vocabulary_gives_the_gradient_of_a_forward_pass(
    form: str, answer_from: str, stored: Path, tmp_path: Path
) -> None:
    alone = {"kl_form": form, "answer_from": answer_from, "pg_weight": 0.0, "reference_weight": 0.0}
    loss, found = gradient(stored, tmp_path / "stored", teacher="stored", **alone)
    expected_loss, expected = gradient(stored, tmp_path / "round", teacher="round", **alone)
    assert loss == pytest.approx(expected_loss, rel=1e-3)
    largest = max(float(one.abs().max()) for one in expected.values())
    for name, one in expected.items():
        torch.testing.assert_close(found[name], one, atol=1e-3 * largest, rtol=0)


def test_every_posterior_path_is_stored_and_nothing_else_changes(drawn: Path, stored: Path, tmp_path: Path) -> None:
    rows = [row for row in rollouts.rows_of(drawn) if row["view"] == POSTERIOR]
    kept = list(iterate_rows(chunk_paths(stored, TEACHER_SHARD)))
    assert [(row["question_id"], row["sample_index"]) for row in kept] == [
        (row["question_id"], row["sample_index"]) for row in rows
    ]
    for row, top in zip(rows, kept, strict=True):
        assert len(top["top_ids"]) == len(top["top_logprobs"]) == row["thinking_tokens"] * K
        ids = np.array(top["top_ids"]).reshape(-1, K)
        logprobs = np.array(top["top_logprobs"]).reshape(-1, K)
        for place, (token, logprob) in enumerate(zip(row["completion_ids"], row["logprobs"], strict=True)):
            if place < row["thinking_tokens"] and token in ids[place]:
                assert logprobs[place][ids[place] == token] == pytest.approx(logprob, abs=1e-4)
    filter_rollout(overthinker.config(), drawn, tmp_path / "plain")
    assert rollouts.bytes_of(tmp_path / "plain") == rollouts.bytes_of(stored)


def test_a_lost_teacher_is_measured_again(drawn: Path, stored: Path, tmp_path: Path) -> None:
    config, folder = overthinker.config(filter__teacher_top_k=2), tmp_path / "filter"
    filter_rollout(config, drawn, folder)
    lost = chunk_paths(folder, TEACHER_SHARD)[1]
    before = lost.read_bytes()
    for path in (lost, sidecar_path(lost), folder / "summary.json"):
        path.unlink()
    filter_rollout(config, drawn, folder)
    assert lost.read_bytes() == before


def refused(said: str, config: RunConfig, action: Any) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        action(config)
    assert "64" in caught.value.mend


def test_what_cannot_be_stored_or_was_not_is_refused(drawn: Path, tmp_path: Path) -> None:
    filter_rollout(overthinker.config(), drawn, tmp_path / "plain")
    dense = {"distill__kl_form": "dense-cv", "distill__teacher": "stored"}
    refused(
        "holds no teacher",
        overthinker.config(**dense),
        lambda c: TrainingSet(CompletePhase.open(tmp_path / "plain", "filter"), c.distill),
    )
    refused("no teacher would be stored", overthinker.config(**dense), lambda c: Loop.open(c, tmp_path / "loop"))
    whole = overthinker.config(filter__teacher_top_k=K + 1)
    refused("teacher_top_k", whole, lambda c: filter_rollout(c, drawn, tmp_path / "whole"))
