"""Which engine serves a run, opened only when there is work for it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from vpgea.config.schema import GradingConfig, ModelConfig, RunConfig
from vpgea.engines.base import Engine
from vpgea.errors import EngineError, UsageError
from vpgea.grading.pool import GraderPool
from vpgea.grading.samples import grader_pool
from vpgea.modeling.held import HeldModel
from vpgea.modeling.local_model import LocalModel
from vpgea.runs.clock import Activity
from vpgea.runs.stopping import StopRequest

if TYPE_CHECKING:
    from vpgea.engines.sglang.server.own import OwnServers

LOGS = "logs"  # folder beside a phase's parts: what servers of our own say


def engine_kind(config: RunConfig) -> str:
    """`transformers` or `sglang`.

    Auto takes SGLang where a server or its Python is named, and on a GPU where it is installed. On a CPU it takes plain
    transformers, which needs no second environment: four times as fast with a model of 0.4 M parameters, and hardly
    slower at sampling with one of 57 M (docs/performance.md).
    """
    if config.rollout.engine != "auto":
        return config.rollout.engine
    if config.sglang.server_url or config.sglang.python:
        return "sglang"
    from vpgea.engines.sglang.server.installation import find_python
    from vpgea.modeling.device import torch_device

    if torch_device(config.model).type == "cpu":
        return "transformers"
    try:
        find_python(config.sglang)
    except UsageError:
        return "transformers"
    return "sglang"


def opening(config: RunConfig) -> Activity:
    """What time is spent on until an engine is there."""
    return "servers" if engine_kind(config) == "sglang" else "loading"


def placement(config: RunConfig) -> dict[str, str]:
    """What samples and what trains on which devices of this machine, in words.

    Raises:
        UsageError: The devices are not there, or cannot be shared out.
    """
    from vpgea.engines.sglang.server.places import places_of
    from vpgea.modeling.device import devices_of

    devices = [str(device) for device in devices_of(config.model)]
    if engine_kind(config) == "transformers":
        idle = f"; the other {len(devices) - 1} only train (SGLang would use all)" if len(devices) > 1 else ""
        sampling = f"the transformers engine on {devices[0]}{idle}"
    elif config.sglang.server_url:
        sampling = "the SGLang servers of sglang.server_url"
    else:
        groups = ["+".join(map(str, place.devices)) or devices[0] for place in places_of(config)]
        sampling = f"{len(groups)} SGLang server{'s' * (len(groups) > 1)} on {', '.join(groups)}"
    return {"sampling": sampling, "training": f"{len(devices)} rank{'s' * (len(devices) > 1)} on {', '.join(devices)}"}


def lent(lease: EngineLease | None, logs: Path, stop: StopRequest) -> AbstractContextManager[EngineLease]:
    """The lease that a caller has and keeps, or one of our own that ends with the `with` block."""
    return nullcontext(lease) if lease else EngineLease(logs, stop)


def _may_hold(config: RunConfig) -> bool:
    """Whether weights may stay in this process while others sample: a GPU belongs to the servers of our own on it."""
    from vpgea.modeling.device import torch_device

    own_servers = engine_kind(config) == "sglang" and not config.sglang.server_url
    return not (own_servers and torch_device(config.model).type == "cuda")


class EngineLease:
    """Opens an engine and graders at their first use and closes them at the end of the `with` block.

    Phases that follow each other share one lease: with the same weights one engine, and whatever the weights the
    workers of one grader, whose start takes longer than grading a small round.

    Args:
        logs: Folder for what servers say.
        stop: Of the run.
        publishes: Folder below which the run will publish weights that servers are to load.
        replaceable: Tells the fingerprints of weights that the run may replace on servers behind a URL.

    Attributes:
        held: Weights in this process: an engine in it samples from them, and a training that follows takes them.
    """

    def __init__(
        self,
        logs: Path,
        stop: StopRequest,
        *,
        publishes: Path | None = None,
        replaceable: Callable[[], Collection[str]] = lambda: (),
    ) -> None:
        self._logs, self._stop, self._publishes, self._replaceable = logs, stop, publishes, replaceable
        self._engine: Engine | None = None
        self._model: ModelConfig | None = None
        self.held = HeldModel()
        self._servers: OwnServers | None = None
        self._keeps_servers = False
        self._graders: GraderPool | None = None
        self._grading: GradingConfig | None = None

    def get(self, config: RunConfig, model: LocalModel) -> Engine:
        """The engine with this model: the one that is open, or a new one.

        Raises:
            Stopped: A stop was requested.
        """
        self._stop.check()
        if self._engine is None or self._model != model.config:
            self.release()
            self._engine, self._model = self._open(config, model), model.config
        return self._engine

    def graders(self, config: RunConfig) -> GraderPool:
        """The configured grader's workers: those that are there, or new ones.

        Raises:
            UsageError: A grader of the user's own cannot be imported.
        """
        if self._graders is None or self._grading != config.grading:
            self._close_graders()
            self._graders, self._grading = grader_pool(config).__enter__(), config.grading
        return self._graders

    def _close_graders(self) -> None:
        if self._graders is not None:
            self._graders.close()
            self._graders = self._grading = None

    def release(self) -> None:
        """Close the engine; the next `get` opens one again.

        Weights that it has in this process stay in `held`, and servers of our own with sglang.keep_servers.
        """
        if self._engine is not None:
            self._engine.close()
            self._engine = self._model = None
        if not self._keeps_servers:
            self._close_servers()

    def _started(self, config: RunConfig) -> OwnServers | None:
        """Servers of our own, all alive: those that have stayed, and new ones; None where a URL names others."""
        from vpgea.engines.sglang.server.own import OwnServers

        if config.sglang.server_url:
            return None
        self._servers = self._servers or OwnServers(self._logs, self._stop)
        self._keeps_servers = config.sglang.keep_servers
        self._servers.start(config)
        return self._servers

    def _close_servers(self) -> None:
        if self._servers is not None:
            self._servers.close()
            self._servers = None

    def offer(self, config: RunConfig, model: ModelConfig, loaded: Any) -> None:
        """Weights that this process has just loaded: those who come next need not read them again.

        Args:
            config: Of the run.
            model: Where phases find them.
            loaded: As `load_model` gives them.
        """
        if _may_hold(config):
            self.held.put(LocalModel.resolve(model), loaded)

    def _open(self, config: RunConfig, model: LocalModel) -> Engine:
        if not _may_hold(config):
            self.held.drop()
        if engine_kind(config) == "sglang":
            try:
                return self._on_servers(config, model)
            except EngineError:
                if not self._keeps_servers or self._servers is None or not self._servers.trouble:
                    raise
                return self._on_servers(config, model)  # one that had stayed was dying while it was looked at
        from vpgea.engines.transformers import TransformersEngine

        return TransformersEngine(self.held.get(model), batch_size=config.rollout.batch_size)

    def _on_servers(self, config: RunConfig, model: LocalModel) -> Engine:
        from vpgea.engines.sglang.traffic.engine import SglangEngine

        return SglangEngine(
            config,
            model,
            servers=self._started(config),
            stop=self._stop,
            publishes=self._publishes,
            replaceable=self._replaceable(),
        )

    def __enter__(self) -> EngineLease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_graders()
        self.release()
        self._close_servers()
        self.held.drop()
