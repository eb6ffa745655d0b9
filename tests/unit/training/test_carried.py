"""The optimiser's state goes on from round to round: rounds are one training cut into pieces."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.support import tiny
from tests.support.selection_rows import distill_config, sample_rows, write_selection
from vpgea.config.schema import RunConfig
from vpgea.errors import UsageError
from vpgea.inspection.verify import verify
from vpgea.modeling.local_model import LocalModel
from vpgea.phases.distill import distill, trained_model
from vpgea.runs.manifest import Manifest
from vpgea.storage.files import file_checksum, read_json, read_json_lines, write_json
from vpgea.training.carried import carried_by

# pi_old and the order of the questions are each round's own, so this has neither: whole steps of the forward KL alone
PLAIN = {"pg_weight": 0.0, "reference_weight": 0.0, "questions_per_step": 3, "learning_rate": 0.01}


def options(**values: Any) -> dict[str, Any]:
    return {f"distill__{key}": value for key, value in {**PLAIN, **values}.items()}


def one_round(config: RunConfig, folder: Path, *, rounds_left: int = 1) -> RunConfig:
    """Train in folder/out; the configuration of the next round."""
    selection = write_selection(folder / "filter", config, sample_rows(config))
    distill(config, selection, folder / "out", rounds_left=rounds_left)
    return config.model_copy(update={"model": trained_model(config, folder / "out")})


def published(folder: Path, config: RunConfig) -> dict[str, Tensor]:
    name = "adapter/adapter_model" if config.distill.train == "lora" else "model/model"
    return load_file(folder / "out" / f"{name}.safetensors")


def rates(folder: Path) -> list[float]:
    return [line["learning_rate"] for line in read_json_lines(folder / "out" / "metrics.jsonl")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def after_one(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunConfig]:
    """A trained round, and the configuration of the next; do not change it."""
    folder = tmp_path_factory.mktemp("round")
    return folder, one_round(distill_config(model, **options()), folder)


@pytest.mark.parametrize("kind", [{}, {"train": "full"}, {"optimizer": "adafactor"}])
def test_two_rounds_of_a_step_are_one_round_of_two(model: Path, tmp_path: Path, kind: dict[str, Any]) -> None:
    config = distill_config(model, **options(**kind))
    one_round(one_round(config, tmp_path / "0"), tmp_path / "1")
    one_round(distill_config(model, **options(**kind, epochs=2)), tmp_path / "whole")
    one_round(
        one_round(distill_config(model, **options(**kind, optimizer_state="fresh")), tmp_path / "a"), tmp_path / "b"
    )
    carried, whole, fresh = (published(tmp_path / name, config) for name in ("1", "whole", "b"))
    assert all(torch.allclose(carried[name], whole[name], rtol=0, atol=1e-6) for name in whole)
    assert not all(torch.allclose(fresh[name], whole[name], rtol=0, atol=1e-4) for name in whole)
    assert not (tmp_path / "a" / "out" / "optimizer").exists()


def test_a_schedule_falls_over_all_rounds(model: Path, tmp_path: Path) -> None:
    changes = options(schedule="linear", warmup_steps=2, questions_per_step=1, learning_rate=1.0e-3)
    config = distill_config(model, **changes)
    for left in (2, 1):
        config = one_round(config, tmp_path / str(left), rounds_left=left)
    assert rates(tmp_path / "2") + rates(tmp_path / "1") == pytest.approx(
        [0.5e-3, *(1e-3 * x / 4 for x in (4, 4, 3, 2, 1))]
    )
    again = tmp_path / "2"  # rounds were added to the run since: what is trained stays as it was begun
    distill(distill_config(model, **changes), again / "filter", again / "out", rounds_left=9)
    assert Manifest.read(again / "out" / "manifest.json").identity["distill.rounds_left"] == 2


def test_a_fresh_optimiser_has_a_schedule_of_each_round(model: Path, tmp_path: Path) -> None:
    changes = options(schedule="linear", questions_per_step=1, learning_rate=1.0e-3, optimizer_state="fresh")
    one_round(distill_config(model, **changes), tmp_path, rounds_left=3)
    assert rates(tmp_path) == pytest.approx([1e-3, 1e-3 * 2 / 3, 1e-3 / 3])


def test_a_finished_training_asks_for_nothing_to_take_up(after_one: tuple[Path, RunConfig], tmp_path: Path) -> None:
    folder, following = after_one
    copy = shutil.copytree(folder / "out", tmp_path / "out")
    moved = following.model_copy(update={"model": trained_model(following, copy)})
    one_round(moved, tmp_path / "next")
    shutil.rmtree(copy / "optimizer")
    assert distill(moved, tmp_path / "next" / "filter", tmp_path / "next" / "out").steps == 1


def test_what_the_next_training_has_used_is_not_trained_again(
    after_one: tuple[Path, RunConfig], tmp_path: Path
) -> None:
    folder, following = after_one
    first, second = (tmp_path / "run" / name for name in ("round-000", "round-001"))
    shutil.copytree(folder / "out", first / "distill")
    moved = following.model_copy(update={"model": trained_model(following, first / "distill")})
    distill(moved, write_selection(tmp_path / "filter", moved, sample_rows(moved)), second / "distill")
    state = first / "distill" / "optimizer" / "state.json"
    state.write_text("{}")
    (finding,) = verify(first / "distill").findings
    assert (finding.path, finding.redo) == (Path("optimizer"), "nothing, since the next training has used it")
    assert [path.name for path in finding.aside] == ["optimizer"]
    shutil.rmtree(state.parent)
    assert verify(first / "distill").findings == []


def test_the_average_of_an_ema_teacher_goes_on_and_all_of_it_is_an_input(model: Path, tmp_path: Path) -> None:
    dense = {"kl_form": "dense", "teacher": "ema", "ema_decay": 0.5}
    config = distill_config(model, **options(**dense))
    one_round(one_round(config, tmp_path / "0"), tmp_path / "1")
    one_round(distill_config(model, **options(**dense, epochs=2)), tmp_path / "whole")
    carried, whole = (published(tmp_path / name, config) for name in ("1", "whole"))
    assert all(torch.allclose(carried[name], whole[name], rtol=0, atol=1e-6) for name in whole)
    states = [read_json(tmp_path / name / "out" / "optimizer" / "state.json") for name in "01"]
    assert [state["steps"] for state in states] == [1, 2]
    inputs = Manifest.read(tmp_path / "1" / "out" / "manifest.json").inputs
    assert inputs["optimizer"] == file_checksum(tmp_path / "0" / "out" / "optimizer" / "checksums.json")[:16]


def test_what_is_gone_or_another_s_is_refused_and_found(
    after_one: tuple[Path, RunConfig], model: Path, tmp_path: Path
) -> None:
    folder, following = after_one
    copy = shutil.copytree(folder / "out", tmp_path / "out")
    moved = following.model_copy(update={"model": trained_model(following, copy)})
    adapter = LocalModel.resolve(moved.model)
    state = copy / "optimizer" / "rank-00000.safetensors"
    content = state.read_bytes()
    state.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert [(one.path, one.redo) for one in verify(copy).findings] == [(Path("optimizer"), "the training")]
    selection = write_selection(tmp_path / "filter", moved, sample_rows(moved))
    with pytest.raises(UsageError, match="damaged checkpoint"):
        distill(moved, selection, tmp_path / "next")
    shutil.rmtree(copy / "optimizer")
    with pytest.raises(UsageError, match="cannot go on where the training before ended"):
        carried_by(moved, adapter)
    one_round(distill_config(model, **options(questions_per_step=1)), tmp_path / "other")
    shutil.copytree(tmp_path / "other" / "out" / "optimizer", copy / "optimizer")
    with pytest.raises(UsageError, match="was written with those weights"):
        carried_by(moved, adapter)
    assert [(one.path, one.redo) for one in verify(copy).findings] == [(Path("optimizer"), "the training")]
    fresh = moved.model_copy(update={"distill": moved.distill.model_copy(update={"optimizer_state": "fresh"})})
    assert carried_by(fresh, adapter) is None


def test_another_optimiser_does_not_take_it_over(after_one: tuple[Path, RunConfig], tmp_path: Path) -> None:
    following = after_one[1]
    other = following.model_copy(update={"distill": following.distill.model_copy(update={"optimizer": "adafactor"})})
    with pytest.raises(UsageError, match="is of another optimiser"):
        one_round(other, tmp_path)


def test_a_training_that_an_earlier_version_began_carries_nothing(
    after_one: tuple[Path, RunConfig], tmp_path: Path
) -> None:
    following = after_one[1]
    fresh = following.model_copy(update={"distill": following.distill.model_copy(update={"optimizer_state": "fresh"})})
    one_round(fresh, tmp_path)
    for file in (tmp_path / "out").rglob("manifest.json"):
        manifest = Manifest.read(file)
        del manifest.identity["distill.optimizer_state"]
        write_json(file, manifest.as_json())
    before = published(tmp_path, following)
    distill(following, tmp_path / "filter", tmp_path / "out")
    assert all(torch.equal(before[name], tensor) for name, tensor in published(tmp_path, following).items())
