"""Adapters as files: which one it is, and whether it stands on a given base."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support import tiny
from tests.support.model_files import edit, make_adapter
from vpgea.errors import UsageError
from vpgea.modeling.adapter_files import adapter_has_effect, require_adapter_fits
from vpgea.modeling.fingerprint import adapter_fingerprint


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 with random weights."""
    return tiny.make_model(tmp_path_factory.mktemp("model"))


def test_an_adapter_fits_its_own_base_alone(model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(model, tmp_path / "adapter")
    require_adapter_fits(adapter, model)
    wider, shallower = tiny.make_model(tmp_path / "wider", hidden=48), tiny.make_model(tmp_path / "shallower", layers=1)
    with pytest.raises(UsageError, match=r"\[48, 96\], and the adapter has lora_A \[2, 64\] and lora_B \[32, 2\]"):
        require_adapter_fits(adapter, wider)
    with pytest.raises(UsageError, match=r"layers\.1.* which the model does not have"):
        require_adapter_fits(adapter, shallower)


def test_an_adapter_is_known_by_its_files_and_a_new_one_has_no_effect(model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(model, tmp_path / "adapter")
    idle = make_adapter(model, tmp_path / "idle", std=0.0)
    assert adapter_has_effect(adapter)
    assert not adapter_has_effect(idle)
    assert adapter_fingerprint(adapter) == adapter_fingerprint(Path(shutil.copytree(adapter, tmp_path / "copy")))
    assert adapter_fingerprint(adapter) != adapter_fingerprint(idle)
    edit(idle / "adapter_config.json", lora_alpha=99)
    assert adapter_fingerprint(idle) != adapter_fingerprint(make_adapter(model, tmp_path / "again", std=0.0))
