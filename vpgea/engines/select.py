"""Which engine serves a run."""

from __future__ import annotations

from vpgea.config import RunConfig
from vpgea.engines.base import Engine


def open_engine(config: RunConfig) -> Engine:
    """Load the run's model into its engine. `auto` is the transformers engine: the one that runs everywhere."""
    from vpgea.engines.transformers import TransformersEngine
    from vpgea.modeling.load import load_model

    return TransformersEngine(load_model(config.model), batch_size=config.rollout.batch_size)
