"""Two GPUs train what one trains: a copy each over NCCL, and weights that are shared out (FSDP2)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gpu.places import command, devices, missing
from tests.invariant.test_distill_ranks import CASES, prepared, require_same
from tests.support import tiny

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if why := missing(2):
        pytest.skip(why)
    return tiny.make_model(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("case", ["ddp-lora", "fsdp-full"])
def test_two_devices_train_what_one_trains(case: str, model: Path, tmp_path: Path) -> None:
    words = [*prepared(tmp_path, model, **CASES[case]), "--dtype", "float32", "--set", "model.device=auto"]
    for count in (1, 2):
        command(tmp_path, *words, "-o", tmp_path / str(count), "--devices", devices(count))
    require_same(tmp_path / "2", tmp_path / "1")
