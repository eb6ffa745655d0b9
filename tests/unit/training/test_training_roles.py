"""Student, reference and teacher: which weights each one has, and when they change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.support import tiny
from tests.support.models import causal_model, roles_of
from tests.support.selection_rows import distill_config, sample_rows, write_selection
from tests.support.whole_logits import next_token_logits
from vpgea.config.schema import ModelConfig, RunConfig
from vpgea.errors import UsageError
from vpgea.phases.distill import distill, trained_model
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.manifest import Manifest
from vpgea.runs.phase_folder import PhaseFolder
from vpgea.training.data import TrainingPath, TrainingSet
from vpgea.training.roles import eval_mode, sequences_of
from vpgea.training.trainer import Trainer

FAST = {"distill__learning_rate": 0.01, "distill__questions_per_step": 1}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def adapter(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter from a first round."""
    folder = tmp_path_factory.mktemp("first")
    config = distill_config(model, **FAST)
    distill(config, write_selection(folder / "filter", config, sample_rows(config)), folder / "out")
    return folder / "out" / "adapter"


def start(model: Path, adapter: Path, train: str, **dotted: Any) -> RunConfig:
    own = {"model__adapter": str(adapter)} if train == "lora" else {}
    return distill_config(model, distill__train=train, **FAST, **own, **dotted)


def trainer_of(config: RunConfig, folder: Path) -> Trainer:
    data = TrainingSet(
        CompletePhase.open(write_selection(folder / "filter", config, sample_rows(config)), "filter"), config.distill
    )
    return Trainer(
        config,
        data,
        roles_of(config),
        PhaseFolder.open(folder / "out", Manifest(phase="distill", identity={}, inputs={}, config={})),
    )


def two_steps(trainer: Trainer) -> None:
    for _ in range(2):
        trainer.train_step(trainer.data.step(trainer.next_step))
        trainer.next_step += 1


def posterior_paths(trainer: Trainer) -> list[TrainingPath]:
    return [path for path in trainer.data.paths if not path.is_prior]


def role_logits(role: Any, paths: list[TrainingPath]) -> Tensor:
    logits: Tensor = role.logits(role.hidden(paths))
    return logits


def student_logits(trainer: Trainer, paths: list[TrainingPath]) -> Tensor:
    with torch.no_grad(), eval_mode(trainer.roles.student):
        policy = trainer.roles.student
        return policy(*sequences_of(paths), policy.logits)


def close(found: Tensor, expected: Tensor) -> None:
    """Up to the rounding of float32: packed sequences against padded ones."""
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def plain_logits(model: ModelConfig, paths: list[TrainingPath], *, posterior: bool) -> Tensor:
    """From a model that was loaded by itself."""
    prompts = [path.posterior_prompt_ids if posterior else path.prompt_ids for path in paths]
    sequences = [[*prompt, *path.completion_ids] for prompt, path in zip(prompts, paths, strict=True)]  # type: ignore[misc]
    with torch.no_grad():
        return next_token_logits(causal_model(model), sequences, [len(p) for p in prompts], torch.device("cpu"))  # type: ignore[arg-type]


@pytest.mark.parametrize("train", ["lora", "full"])
def test_two_steps_leave_the_rounds_teacher_bit_identical(
    train: str, model: Path, adapter: Path, tmp_path: Path
) -> None:
    config = start(model, adapter, train, distill__kl_form="dense-cv")
    trainer = trainer_of(config, tmp_path)
    paths = posterior_paths(trainer)
    before = role_logits(trainer.roles.teacher, paths)
    close(before, plain_logits(config.model, paths, posterior=True))
    student = student_logits(trainer, paths)
    two_steps(trainer)
    assert torch.equal(role_logits(trainer.roles.teacher, paths), before)
    assert not torch.equal(student_logits(trainer, paths), student)


@pytest.mark.parametrize("train", ["lora", "full"])
def test_the_current_teacher_moves_with_the_student(train: str, model: Path, adapter: Path, tmp_path: Path) -> None:
    trainer = trainer_of(start(model, adapter, train, distill__kl_form="dense", distill__teacher="current"), tmp_path)
    before = role_logits(trainer.roles.teacher, posterior_paths(trainer))
    two_steps(trainer)
    assert not torch.equal(role_logits(trainer.roles.teacher, posterior_paths(trainer)), before)


@pytest.mark.parametrize("train", ["lora", "full"])
def test_reference_and_frozen_teacher_are_the_base_model(
    train: str, model: Path, adapter: Path, tmp_path: Path
) -> None:
    config = start(model, adapter, train, distill__kl_form="dense", distill__teacher="frozen")
    trainer = trainer_of(config, tmp_path)
    two_steps(trainer)
    paths, base = posterior_paths(trainer), config.model.model_copy(update={"adapter": None})
    close(role_logits(trainer.roles.reference, paths), plain_logits(base, paths, posterior=False))
    close(role_logits(trainer.roles.teacher, paths), plain_logits(base, paths, posterior=True))
    assert not torch.equal(role_logits(trainer.roles.reference, paths), student_logits(trainer, paths))
    assert trainer.roles.student.training  # the excursions into eval mode are over


def test_another_reference_model_can_be_named_for_full_fine_tuning(model: Path, tmp_path: Path) -> None:
    other = tiny.make_model(tmp_path / "other", seed=7)
    config = distill_config(model, distill__train="full", distill__reference=str(other), distill__kl_form="dense")
    trainer = trainer_of(config, tmp_path)
    paths = posterior_paths(trainer)
    expected = plain_logits(ModelConfig(path=str(other), device="cpu"), paths, posterior=False)
    close(role_logits(trainer.roles.reference, paths), expected)
    own = plain_logits(config.model, paths, posterior=True)
    close(role_logits(trainer.roles.teacher, paths), own)  # the round's teacher is still the start


def test_only_the_adapter_is_trainable_whatever_was_looked_at(model: Path, adapter: Path, tmp_path: Path) -> None:
    trainer = trainer_of(start(model, adapter, "lora", distill__kl_form="dense-cv"), tmp_path)
    names = set(trainer.trainable)
    assert names
    assert all(".default." in name for name in names)
    two_steps(trainer)
    assert set(trainer.roles.trainable) == names


def test_a_continued_adapter_starts_from_its_weights_exactly(model: Path, adapter: Path) -> None:
    roles = roles_of(start(model, adapter, "lora"))
    stored = load_file(adapter / "adapter_model.safetensors")
    found = {name.replace(".default.", "."): parameter for name, parameter in roles.trainable.items()}
    assert found.keys() == stored.keys()
    for name, parameter in found.items():
        assert torch.equal(parameter, stored[name]), name


def test_a_new_adapter_changes_nothing_at_first(model: Path, tmp_path: Path) -> None:
    config = distill_config(model)
    trainer = trainer_of(config, tmp_path)
    close(
        student_logits(trainer, posterior_paths(trainer)),
        plain_logits(config.model, posterior_paths(trainer), posterior=False),
    )


def test_the_continued_rounds_adapter_is_the_next_models_input(model: Path, adapter: Path, tmp_path: Path) -> None:
    config = start(model, adapter, "lora")
    summary = distill(config, write_selection(tmp_path / "filter", config, sample_rows(config)), tmp_path / "out")
    following = trained_model(config, tmp_path / "out")
    assert following.adapter == str(tmp_path / "out" / "adapter")
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (adapter, Path(following.adapter)))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert summary.steps == 3


@pytest.mark.parametrize(
    ("dotted", "what", "mend"),
    [
        ({"distill__lora__targets": ["q_proj", "qq_proj"]}, "qq_proj", "down_proj, gate_proj, k_proj, lm_head, o_proj"),
        ({"distill__lora__targets": ["self_attn"]}, "self_attn", "q_proj"),
    ],
)
def test_what_an_adapter_cannot_have(model: Path, dotted: dict[str, Any], what: str, mend: str) -> None:
    with pytest.raises(UsageError, match=what) as error:
        roles_of(distill_config(model, **dotted))
    assert mend in error.value.mend


def test_chosen_targets_are_the_ones_that_are_trained(model: Path) -> None:
    roles = roles_of(distill_config(model, distill__lora__targets=["q_proj", "layers.1.mlp.down_proj"]))
    layers = {name.split(".lora_")[0].removeprefix("base_model.model.model.") for name in roles.trainable}
    assert layers == {"layers.0.self_attn.q_proj", "layers.1.self_attn.q_proj", "layers.1.mlp.down_proj"}


@pytest.mark.parametrize(("field", "value"), [("rank", 4), ("alpha", 8.0), ("dropout", 0.1)])
def test_a_continued_adapter_must_have_the_configured_shape(
    model: Path, adapter: Path, field: str, value: float
) -> None:
    with pytest.raises(UsageError, match="not of the configured shape") as error:
        roles_of(start(model, adapter, "lora", **{f"distill__lora__{field}": value}))
    assert f"--set distill.lora.{field}=" in error.value.mend


def test_full_fine_tuning_refuses_an_adapter(model: Path, adapter: Path) -> None:
    with pytest.raises(UsageError, match="full fine-tuning of a model with an adapter"):
        roles_of(distill_config(model, distill__train="full", model__adapter=str(adapter)))
