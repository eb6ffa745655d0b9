"""Real SGLang servers for tests, from the environment that `make sglang` makes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from tests.support import overthinker
from vpgea.config.schema import RunConfig
from vpgea.engines.sglang.server.process import ServerProcess
from vpgea.engines.sglang.traffic.answers import Loads
from vpgea.engines.sglang.traffic.client import ServerClient, open_session

ROOT = Path(__file__).parents[2]
T = TypeVar("T")
_MARK = "VP_TEST_MARK"  # in the environment of everything that a test starts, servers included


def config(**dotted: Any) -> RunConfig:
    """A small run on the testbed whose own server is that of `make sglang`."""
    return overthinker.config(**{"sglang__python": str(python()), **dotted})


def python() -> Path:
    found = ROOT / ".venv-sglang" / "bin" / "python"
    assert found.is_file(), "these tests need the real server: `make sglang` installs it"
    return found


@contextmanager
def serving(folder: Path, **dotted: Any) -> Iterator[ServerProcess]:
    """A server of the testbed's model, ready."""
    process = ServerProcess.start(config(**dotted), folder)
    try:
        process.wait_ready(lambda: None)
        process.endpoint.write(folder / "server.json")
        yield process
    finally:
        process.close()


class Command:
    """A vpgea command in a process of its own, whose every descendant can be found."""

    def __init__(self, *words: str | Path, cwd: Path | None = None) -> None:
        self.mark = uuid4().hex
        environment = {name: value for name, value in os.environ.items() if not name.startswith("VPGEA_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vpgea_cli", *map(str, words)],
            env={**environment, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", _MARK: self.mark},
            cwd=cwd or ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, timeout_s: float = 240) -> tuple[int, str, str]:
        """Exit code, stdout and stderr, once it has ended and nothing that it started is left."""
        out, told = self.process.communicate(timeout=timeout_s)
        self.expect_nothing_left()
        return self.process.returncode, out, told

    def expect_nothing_left(self) -> None:
        until(lambda: not self.descendants(), 30, "no process of the command is left")

    def descendants(self) -> list[int]:
        """Processes that this command started, and itself."""
        wanted, found = f"{_MARK}={self.mark}".encode(), []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:  # it has just ended
                continue
        return found


def load(server: ServerProcess) -> int:
    """Requests that a server has, running and waiting."""

    async def ask() -> int:
        async with open_session() as session:
            answer = await ServerClient(server.endpoint, session).get("/v1/loads", Loads, timeout_s=60)
            return sum(rank.num_running_reqs + rank.num_waiting_reqs for rank in answer.loads)

    return asyncio.run(ask())


def testbed_options(**dotted: Any) -> list[str]:
    """The small run on the testbed as options of a command."""
    chosen = overthinker.options(**dotted)
    return [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]


def until(condition: Callable[[], T], timeout_s: float, what: str, pause_s: float = 0.05) -> T:
    """What the condition gives once it is true; `what` is said when it never is."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(pause_s)
    return value
