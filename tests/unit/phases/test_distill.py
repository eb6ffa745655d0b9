"""The distillation phase: what it publishes, what it refuses, and single optimiser steps."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.support import tiny
from tests.support.models import causal_model, roles_of
from tests.support.selection_rows import Row, distill_config, sample_rows, write_selection
from tests.support.trainers import trainer_of
from tests.support.whole_logits import next_token_logits
from vpgea.config.schema import ModelConfig, RunConfig
from vpgea.errors import QualityGateError, Stopped, UsageError, VpgeaError
from vpgea.modeling.local_model import LocalModel
from vpgea.modeling.logprobs import token_logprobs
from vpgea.phases.distill import distill, trained, trained_model, warnings_of
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.layout import TRAINING_TURN
from vpgea.runs.records import DistillSummary
from vpgea.runs.stopping import StopRequest
from vpgea.storage.files import read_json
from vpgea.storage.schemas import POSTERIOR
from vpgea.training.checkpoint import load_checkpoint
from vpgea.training.data import TrainingSet
from vpgea.training.ranks import Ranks
from vpgea.training.roles import Roles


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("model"), tie=True)


def run(config: RunConfig, folder: Path, rows: list[Row] | None = None, **options: Any) -> DistillSummary:
    """Distil the made-up samples into folder/out."""
    if not (folder / "filter").exists():
        write_selection(folder / "filter", config, sample_rows(config) if rows is None else rows)
    return distill(config, folder / "filter", folder / "out", **options)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def canary_logprobs(model: Any, canary: dict[str, Any]) -> Tensor:
    """The canary paths' log-probabilities under a model, in order."""
    device, found = torch.device("cpu"), []
    with torch.no_grad():
        for path in canary["paths"]:  # one by one, as they were written
            targets = torch.tensor(path["ids"][path["start"] :])
            found.append(token_logprobs(next_token_logits(model, [path["ids"]], [path["start"]], device), targets))
    return torch.cat(found)


def test_the_adapter_loads_with_plain_peft(model: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = distill_config(model, distill__learning_rate=0.01, distill__kl_form="dense-cv")
    summary = run(config, tmp_path)
    folder = tmp_path / "out" / "adapter"
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), str(folder)).eval()
    canary = read_json(folder / "vpgea_canary.json")
    stored = torch.tensor([value for path in canary["paths"] for value in path["logprobs"]])
    torch.testing.assert_close(canary_logprobs(loaded, canary), stored, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(canary_logprobs(causal_model(config.model), canary), stored, atol=1e-3)
    assert AutoTokenizer.from_pretrained(folder).eos_token_id is not None
    assert summary.reload_difference < 1e-5  # packed in memory, padded after reloading
    assert summary.model_fingerprint == LocalModel.resolve(trained_model(config, tmp_path / "out")).fingerprint
    assert not list(tmp_path.glob("out/.*.tmp"))
    assert not (tmp_path / "out" / "parts" / "0-of-1" / "checkpoints").exists()
    assert {path.name for path in folder.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_full_model_loads_with_plain_transformers(model: Path, tmp_path: Path, dtype: str) -> None:
    from transformers import AutoModelForCausalLM

    config = distill_config(model, distill__train="full", distill__learning_rate=0.01, model__dtype=dtype)
    run(config, tmp_path)
    folder = tmp_path / "out" / "model"
    loaded = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert loaded.dtype == getattr(torch, dtype)
    assert read_json(folder / "config.json")["dtype"] == dtype
    weights = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {getattr(torch, dtype)}
    assert "lm_head.weight" not in weights  # tied to the embedding, stored once
    canary = read_json(folder / "vpgea_canary.json")
    stored = torch.tensor([value for path in canary["paths"] for value in path["logprobs"]])
    torch.testing.assert_close(canary_logprobs(loaded, canary), stored, atol=1e-5, rtol=1e-5)
    assert canary["dtype"] == f"torch.{dtype}"
    for file in model.glob("*"):
        if file.name.startswith(("tokenizer", "chat_template", "generation_config")):
            assert (folder / file.name).read_bytes() == file.read_bytes()
    assert trained_model(config, tmp_path / "out") == config.model.model_copy(update={"path": str(folder)})


def test_weights_that_differ_after_reloading_are_not_published(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Roles.save

    def forgetful(self: Roles, folder: Path, weights: dict[str, Tensor] | None) -> None:
        with torch.no_grad():
            for parameter in self.trainable.values():
                parameter.add_(0.3)
        save(self, folder, weights)

    monkeypatch.setattr(Roles, "save", forgetful)
    config = distill_config(model)
    with pytest.raises(QualityGateError, match="differ from those that were trained"):
        run(config, tmp_path)
    assert not (tmp_path / "out" / "adapter").exists()
    monkeypatch.undo()
    seen: list[dict[str, Any]] = []
    run(config, tmp_path, log=seen.append)
    assert seen == []  # the last checkpoint is complete: nothing is trained again
    assert (tmp_path / "out" / "adapter").exists()


def test_a_complete_folder_is_returned_as_it_is(model: Path, tmp_path: Path) -> None:
    config = distill_config(model)
    summary = run(config, tmp_path)
    before = (tmp_path / "out" / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns
    assert run(config, tmp_path) == summary == trained(tmp_path / "out")
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match=r"distill\.learning_rate differs"):
        run(distill_config(model, distill__learning_rate=1.0), tmp_path)
    run(distill_config(model, distill__learning_rate=1e-3), tmp_path, overwrite=True)
    assert lines_of(tmp_path / "out")[0]["learning_rate"] == 1e-3


@pytest.mark.parametrize(
    ("change", "dotted", "error", "what"),
    [
        ({"model_fingerprint": "other"}, {}, UsageError, "samples of other weights"),
        ({"advantage": 0.0, "gate": 0.0}, {}, QualityGateError, "nothing to learn from"),
        ({}, {"distill__kl_weight": 0.0, "distill__pg_weight": 0.0}, QualityGateError, "nothing to learn from"),
        ({}, {"distill__lora__targets": ["nowhere"]}, UsageError, "nowhere"),
        ({"temperature": 0.6}, {"distill__kl_form": "dense-cv"}, UsageError, "model's own distribution"),
        ({"top_p": 0.95}, {"distill__kl_form": "dense-cv"}, UsageError, "model's own distribution"),
        ({}, {"distill__kl_form": "dense-cv", "distill__teacher": "ema"}, UsageError, "teacher=ema"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(
    model: Path, tmp_path: Path, change: Row, dotted: Row, error: type[VpgeaError], what: str
) -> None:
    config = distill_config(model, **dotted)
    with pytest.raises(error, match=what):
        run(config, tmp_path, [{**row, **change} for row in sample_rows(config)])
    assert not (tmp_path / "out").exists()


def test_what_the_filter_was_made_with_counts_and_not_what_is_configured_now(model: Path, tmp_path: Path) -> None:
    made = distill_config(model, filter__advantage__group="joint")
    write_selection(tmp_path / "filter", made, sample_rows(made))
    with pytest.raises(UsageError, match="group=joint"):
        run(distill_config(model, distill__kl_form="dense-cv"), tmp_path)
    assert not (tmp_path / "out").exists()


def test_nothing_accepted_leaves_with_exit_code_3(model: Path, tmp_path: Path) -> None:
    config = distill_config(model)
    rows = [{**row, "advantage": 0.0, "gate": 0.0, "reasons": ["answerability"]} for row in sample_rows(config)]
    with pytest.raises(QualityGateError) as error:
        run(config, tmp_path, rows)
    assert error.value.exit_code == 3


def test_an_unfinished_selection_is_refused(model: Path, tmp_path: Path) -> None:
    config = distill_config(model)
    write_selection(tmp_path / "filter", config, sample_rows(config))
    (tmp_path / "filter" / "summary.json").unlink()
    with pytest.raises(UsageError, match=r"summary\.json"):
        run(config, tmp_path)


def test_a_gradient_that_is_not_finite_stops_before_the_weights_are_touched(model: Path, tmp_path: Path) -> None:
    config = distill_config(model, distill__questions_per_step=1, distill__checkpoint_every=1, distill__max_bad_steps=1)
    rows = with_infinite_gates(config, tmp_path, [2])
    for _ in range(2):  # it stays so on a second run, which starts from the checkpoint
        with pytest.raises(VpgeaError, match="gradient of step 2 is not finite") as error:
            run(config, tmp_path, rows)
        assert error.value.exit_code == 1
        assert [line["step"] for line in lines_of(tmp_path / "out")] == [0, 1]
    roles = roles_of(config)
    optimizer = torch.optim.AdamW(roles.trainable.values())
    state = load_checkpoint(tmp_path / "out/parts/0-of-1/checkpoints", roles.trainable, optimizer, Ranks())
    assert state is not None
    assert state["step"] == 2
    assert all(parameter.isfinite().all() for parameter in roles.trainable.values())


def with_infinite_gates(config: RunConfig, folder: Path, steps: list[int]) -> list[Row]:
    """Rows whose gates are infinite in the given optimiser steps."""
    rows = sample_rows(config)
    data = TrainingSet(CompletePhase.open(write_selection(folder / "finite", config, rows), "filter"), config.distill)
    bad = {data.questions[path.question] for step in steps for path in data.step(step).paths}
    for row in rows:
        if row["question_id"] in bad and row["view"] == POSTERIOR and row["gate"]:
            row["gate"] = math.inf
    return rows


def test_a_step_that_is_not_finite_is_left_out_and_counted(model: Path, tmp_path: Path) -> None:
    config = distill_config(model, distill__questions_per_step=1, distill__learning_rate=0.01)
    rows = with_infinite_gates(config, tmp_path, [1])
    trainer = trainer_of(config, tmp_path, rows)
    moved = []
    for index in range(3):
        before = {name: parameter.detach().clone() for name, parameter in trainer.trainable.items()}
        line = trainer.train_step(trainer.data.step(index))
        trainer.next_step += 1
        moved.append(any(not torch.equal(parameter, before[name]) for name, parameter in trainer.trainable.items()))
        assert line["skipped"] == (index == 1)
    assert moved == [True, False, True]
    assert all(parameter.isfinite().all() for parameter in trainer.trainable.values())
    summary = run(config, tmp_path / "whole", rows)
    assert summary.skipped_steps == 1
    assert sum(line["skipped"] for line in lines_of(tmp_path / "whole" / "out")) == 1


@pytest.mark.parametrize(("bad", "fatal"), [([0, 2], False), ([1, 2], True)])
def test_only_steps_in_a_row_are_fatal(model: Path, tmp_path: Path, bad: list[int], fatal: bool) -> None:
    config = distill_config(model, distill__questions_per_step=1, distill__max_bad_steps=2)
    rows = with_infinite_gates(config, tmp_path, bad)
    if not fatal:
        assert run(config, tmp_path, rows).skipped_steps == 2
        return
    with pytest.raises(VpgeaError, match="step 2 is not finite") as error:
        run(config, tmp_path, rows)
    assert "2 steps in a row" in error.value.why


def test_training_ends_early_where_the_distance_to_the_base_leaves_its_band(model: Path, tmp_path: Path) -> None:
    common = {"distill__questions_per_step": 1, "distill__learning_rate": 0.05, "distill__epochs": 4}
    straight = run(distill_config(model, **common), tmp_path / "straight")
    lines = lines_of(tmp_path / "straight" / "out")
    limit = lines[5]["reference_kl"] * 0.99
    end = next(line["step"] for line in lines if line["reference_kl"] > limit) + 1
    summary = run(distill_config(model, **common, distill__max_reference_kl=limit), tmp_path / "ended")
    assert (straight.steps, summary.steps) == (12, end)
    assert end <= 6
    assert summary.ended_early is not None
    assert "the KL to the base model is" in summary.ended_early
    assert len(lines_of(tmp_path / "ended" / "out")) == end
    assert (tmp_path / "ended" / "out" / "adapter").is_dir()
    assert warnings_of(summary) == [f"training ended early: {summary.ended_early}"]
    assert warnings_of(straight) == []


def test_a_stopped_ema_training_continues_its_average(model: Path, tmp_path: Path) -> None:
    options = {"kl_form": "dense", "teacher": "ema", "ema_decay": 0.5, "learning_rate": 0.01, "questions_per_step": 1}
    config = distill_config(model, **{f"distill__{name}": value for name, value in options.items()})
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    run(config, straight)
    stop = StopRequest()
    with pytest.raises(Stopped):
        run(config, stopped, stop=stop, log=lambda line: stop.request("test") if line["step"] == 1 else None)
    distill(config, stopped / "filter", stopped / "out")
    first, second = (load_file(folder / "out/adapter/adapter_model.safetensors") for folder in (straight, stopped))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_adapter_on_a_bfloat16_model_trains_in_float32(model: Path, tmp_path: Path) -> None:
    config = distill_config(model, model__dtype="bfloat16", distill__learning_rate=0.01)
    roles = roles_of(config)
    assert {parameter.dtype for parameter in roles.trainable.values()} == {torch.float32}
    assert roles.student.model.get_input_embeddings().weight.dtype == torch.bfloat16
    summary = run(config, tmp_path)
    assert summary.reload_difference < 1e-5  # packed in memory, padded after reloading
    assert lines_of(tmp_path / "out")[0]["gradient_norm"] > 0


def test_the_log_gets_every_line_and_counts_add_up(model: Path, tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    config = distill_config(model, distill__questions_per_step=2, distill__epochs=2)
    summary = run(config, tmp_path, log=seen.append)
    assert seen == lines_of(tmp_path / "out")
    assert [line["step"] for line in seen] == [0, 1, 2, 3]
    assert sum(line["tokens"] for line in seen) == summary.trained_tokens
    assert sum(line["paths"] for line in seen) == 2 * summary.paths
    for line in seen:
        weighted = line["kl"] - line["policy_gradient"] + 0.01 * line["reference_kl"]
        assert line["loss"] == pytest.approx(weighted, abs=1e-5)


def test_nothing_is_printed(model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The terminal belongs to the command line: no bars and no warnings of the libraries."""
    capfd.readouterr()
    for train in ("lora", "full"):
        run(distill_config(model, distill__train=train), tmp_path / train, stop=StopRequest())
    assert capfd.readouterr() == ("", "")


def test_trained_model_of_an_adapter_keeps_the_base(model: Path) -> None:
    config = distill_config(model)
    expected = ModelConfig(**{**config.model.model_dump(), "adapter": "o/adapter"})
    assert trained_model(config, Path("o")) == expected


def test_the_lock_of_a_training_that_was_killed_at_its_end_goes(model: Path, tmp_path: Path) -> None:
    config = distill_config(model)
    summary = run(config, tmp_path)
    lock = tmp_path / "out" / "parts" / "0-of-1" / TRAINING_TURN
    lock.touch()
    assert run(config, tmp_path) == summary
    assert not lock.exists()
