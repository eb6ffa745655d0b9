"""What is whole and consistent, but of another run or round, is not taken for ours."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaigns.damage import call, make_run
from vpgea_cli.main import run


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Beside it is `whole`: a loop of one round."""
    return make_run(tmp_path_factory.mktemp("foreign"), tiny_model)


@pytest.fixture
def place(config: Path) -> Iterator[Path]:
    folder = shutil.copytree(config.parent / "whole", config.parent / "copy")
    yield folder
    shutil.rmtree(folder)


def rewrite(file: Path, **entries: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def refused(config: Path, place: Path, *commands: str) -> None:
    for command in commands:
        code, told = call(command, config, place)
        assert code == 2, (command, told)
        assert "a bug in vpgea" not in told


def test_a_selection_of_others_is_not_learned_from(config: Path, place: Path) -> None:
    """Shards and sidecars fit each other; the filter selected something else."""
    folder = place / "run" / "round-000" / "filter"
    (folder / "selected").rename(folder / "away")
    (folder / "rejected").rename(folder / "selected")
    (folder / "away").rename(folder / "rejected")
    refused(config, place, "doctor RUN", "distill FILTER -o OUT -c CONFIG")
    code, told = call("doctor RUN --repair", config, place)
    assert code == 0, told


@pytest.mark.parametrize("name", ["vpgea_canary.json", "tokenizer.json", "adapter_model.safetensors"])
def test_published_weights_are_the_trainings_own(config: Path, place: Path, name: str) -> None:
    """Also where the checksums beside them were written anew."""
    folder = place / "run" / "round-000" / "distill" / "adapter"
    file = folder / name
    content = file.read_bytes()
    file.write_bytes(content[:-2] + (b" }" if name.endswith("json") else b"\x00\x3c"))
    (folder / "vpgea_checksums.json").write_text("{}")
    refused(config, place, "doctor RUN", "export RUN --round 0 -o OUT")
    assert run(["loop", "-c", str(config), "-o", str(place / "run"), "--rounds", "2", "-q"]) == 2


def test_parts_of_another_run_are_not_filtered(config: Path, place: Path) -> None:
    """Records of the part were exchanged along with its shards."""
    part = place / "run" / "round-000" / "rollout" / "parts" / "0-of-1"
    other = place / "run" / "base" / "eval" / "parts" / "0-of-1"
    shutil.rmtree(part)
    shutil.copytree(other, part)
    refused(config, place, "doctor RUN", "filter ROLLOUT -o OUT")


def test_a_changed_reference_length_is_seen(config: Path, place: Path) -> None:
    file = place / "run" / "round-000" / "filter" / "reference_lengths.json"
    rewrite(file, default=json.loads(file.read_text())["default"] * 10)
    refused(config, place, "doctor RUN")


def test_a_checkpoint_of_another_training_is_not_gone_on_from(config: Path, place: Path) -> None:
    from vpgea.storage.files import file_checksum

    (state,) = (place / "stopped").rglob("state.json")
    rewrite(state, made_from="0" * 16)
    rewrite(state.with_name("checksums.json"), **{"state.json": file_checksum(state)})
    refused(config, place, "doctor STOPPED", "distill FILTER -o STOPPED -c CONFIG")
