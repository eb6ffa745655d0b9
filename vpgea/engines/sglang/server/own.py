"""The servers that a run has started for itself: one in each place, begun, looked after and ended together."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from vpgea.config.schema import RunConfig
from vpgea.engines.sglang.server.places import MEMORY_SHARE, Place, last_value, places_of
from vpgea.engines.sglang.server.process import ServerProcess
from vpgea.engines.sglang.traffic.endpoints import Endpoint
from vpgea.errors import EngineError, UsageError
from vpgea.modeling.device import torch_device
from vpgea.runs.stopping import StopRequest


class OwnServers:
    """A server for each device of the run, or group of them.

    Args:
        logs: Folder for what they say.
        stop: Of the run; looked at while one starts.
    """

    def __init__(self, logs: Path, stop: StopRequest) -> None:
        self._logs, self._stop = logs, stop
        self._processes: dict[int, ServerProcess] = {}  # by the place's number

    def start(self, config: RunConfig) -> None:
        """Have one in every place: those that live stay, whatever they serve; the others are started with this model.

        Raises:
            UsageError: They could not work like this.
            EngineError: One does not start.
            Stopped: A stop was requested meanwhile.
        """
        _require_room_to_stay(config)
        try:
            dead, places = self._deaths(), enumerate(places_of(config))
            absent = [(number, place) for number, place in places if number in dead or number not in self._processes]
            started = [self._start(config, number, place) for number, place in absent]
            for process in started:
                process.wait_ready(self._stop.check)
        except BaseException:
            self.close()
            raise

    @property
    def endpoints(self) -> list[Endpoint]:
        """Where they answer."""
        return [process.endpoint for process in self._processes.values()]

    @property
    def logs(self) -> list[Path]:
        """What each of them says."""
        return [process.log for process in self._processes.values()]

    def require_one(self) -> None:
        """Raise EngineError when none of them is left, with how the first one ended."""
        dead = self._deaths()
        if dead and len(dead) == len(self._processes):
            raise next(iter(dead.values()))

    @property
    def trouble(self) -> str:
        """Which of them have ended; empty while all live."""
        dead = self._deaths()
        if not dead:
            return ""
        log = self._processes[next(iter(dead))].log
        return f"{len(dead)} of {len(self._processes)} servers ended, see {log}; the others do the work"

    def close(self) -> None:
        """End all of them, also where one cannot be ended; twice does nothing."""
        with ExitStack() as stack:
            for process in self._processes.values():
                stack.callback(process.close)
            self._processes = {}

    def _start(self, config: RunConfig, number: int, place: Place) -> ServerProcess:
        if number in self._processes:
            self._processes.pop(number).close()
        process = ServerProcess.start(config, self._logs, process_groups=self._stop.process_groups, place=place)
        self._processes[number] = process
        return process

    def _deaths(self) -> dict[int, EngineError]:
        """How those ended that live no more."""
        found = {}
        for number, process in self._processes.items():
            try:
                process.require_alive()
            except EngineError as error:
                found[number] = error
        return found


def _require_room_to_stay(config: RunConfig) -> None:
    """See that servers which are to stay while the loop trains leave training its memory.

    Raises:
        UsageError: They would have the GPU's: nothing says how much of it they may take.
    """
    if not config.sglang.keep_servers or torch_device(config.model).type != "cuda":
        return
    if last_value(config.sglang.options, MEMORY_SHARE) is None:
        raise UsageError(
            "servers of our own would leave no room on a GPU that is trained on",
            why="sglang.keep_servers is set, and a server takes most of its GPU's memory for as long as it runs",
            mend="say how much it may take (`-- --mem-fraction-static 0.3`), leave --keep-servers out, or start "
            "servers on other GPUs with `vpgea serve` and give --server-url",
        )
