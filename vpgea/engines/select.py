"""Which engine serves a run, opened only when there is work for it."""

from __future__ import annotations

from types import TracebackType

from vpgea.config import RunConfig
from vpgea.engines.base import Engine


def open_engine(config: RunConfig) -> Engine:
    """Load the run's model into its engine. `auto` is the transformers engine: the one that runs everywhere."""
    from vpgea.engines.transformers import TransformersEngine
    from vpgea.modeling.load import load_model

    return TransformersEngine(load_model(config.model), batch_size=config.rollout.batch_size)


class EngineLease:
    """Opens the engine at its first use and closes it at the end of the `with` block.

    Phases that follow each other with the same weights share one lease.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self._engine: Engine | None = None

    def get(self) -> Engine:
        if self._engine is None:
            self._engine = open_engine(self.config)
        return self._engine

    def __enter__(self) -> EngineLease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None
