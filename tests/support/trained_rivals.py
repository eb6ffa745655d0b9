"""What holds of the model that an outside rival has trained, whatever library did it."""

from __future__ import annotations

from pathlib import Path

from vpgea.config.schema import ModelConfig, ViewsConfig
from vpgea.modeling.load import load_model
from vpgea.modeling.local_model import LocalModel
from vpgea.prompts.views import load_views


def require_trained_from(base: Path, trained: Path, views: ViewsConfig) -> None:
    """Assert that a folder has the base's prompts and entries of the same dtypes, with other weights."""
    before, after = (
        LocalModel.resolve(ModelConfig(path=str(folder), dtype="float32", device="cpu")) for folder in (base, trained)
    )
    assert load_views(after, views, "exact").fingerprint == load_views(before, views, "exact").fingerprint
    old, new = (load_model(model).state_dict() for model in (before, after))
    assert old.keys() == new.keys()
    assert all(old[name].dtype == new[name].dtype for name in old)
    assert not old["model.layers.0.mlp.up_proj.weight"].equal(new["model.layers.0.mlp.up_proj.weight"])
