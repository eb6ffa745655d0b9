"""The server process that vpgea starts for itself: from its start to the last of its processes.

Between the two stands `supervisor.py`, which ends the server when vpgea goes, however it goes.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from vpgea.config.schema import RunConfig
from vpgea.engines.sglang.server.command import free_port, plan_launch, require_free
from vpgea.engines.sglang.server.installation import TESTED
from vpgea.engines.sglang.server.places import ANYWHERE, Place
from vpgea.engines.sglang.traffic.endpoints import Endpoint
from vpgea.errors import EngineError

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_GPU_GRACE_S, _CPU_GRACE_S = 25.0, 1.0  # a server looks up every 5 s, then frees its GPU memory; else only waits
_CLOSE_S = 60.0  # a process that is stuck in a driver cannot be waited for for ever
_POLL_S = 0.5
_TAIL_BYTES = 1 << 16


class _Cause(NamedTuple):
    pattern: str
    why: str
    mend: str


_PORT_TAKEN = _Cause(
    r"address already in use",
    "another process took the server's port in the meantime",
    "run the command again, or choose another --port",
)
_CAUSES = (
    _PORT_TAKEN,
    _Cause(
        r"No module named '?sglang",
        "SGLang is not in that environment",
        "name the right Python with sglang.python; `vpgea doctor` shows what is there",
    ),
    _Cause(
        r"unrecognized arguments|error: argument|error: ambiguous option",
        "the server does not take one of its options",
        f"check sglang.options; vpgea was tested with SGLang {TESTED}",
    ),
    _Cause(
        r"driver version is insufficient|NVIDIA driver on your system is too old|CUDA_ERROR_NO_DEVICE",
        "the NVIDIA driver is too old for this build of torch",
        "update the driver, or install an SGLang whose torch fits it",
    ),
    _Cause(
        r"out of memory|OutOfMemoryError|Not enough memory|can't allocate memory|MemoryError",
        "the memory of the device or machine does not suffice",
        "free some, or give the server less with options such as --mem-fraction-static 0.7 (sglang.options)",
    ),
    _Cause(
        r"architectures? .{0,200}not supported|does not recognize this architecture|Unsupported architecture",
        "SGLang does not know this kind of model",
        "use another model, or the transformers engine: --set rollout.engine=transformers",
    ),
)
_TELLING = re.compile(r"error|exception|killed|fatal|cannot|failed", re.IGNORECASE)


class ServerProcess:
    """One SGLang server of our own.

    Endpoint and log are new when `wait_ready` had to start it once more, on another port.

    Attributes:
        endpoint: Where it answers, with its keys.
        log: What it prints, without its keys.
        pid: The server's first process, which leads its process group.
    """

    endpoint: Endpoint
    log: Path
    pid: int

    def __init__(
        self, config: RunConfig, folder: Path, place: Place, host: str, port: int | None, groups: set[int]
    ) -> None:
        self._place = place
        self._config, self._folder, self._host, self._port, self._groups = config, folder, host, port, groups
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._reported = b""
        self._status: int | None = None

    @classmethod
    def start(
        cls,
        config: RunConfig,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        process_groups: set[int] | None = None,
        place: Place = ANYWHERE,
    ) -> ServerProcess:
        """Start a server of the run's model; it logs to `folder`/sglang-N.log. Call `close` whatever comes after.

        Args:
            config: Of the run.
            folder: For its log.
            host: It binds to.
            port: None takes a free one.
            process_groups: Holds the server's group while it runs.
            place: Its devices.

        Raises:
            UsageError: It could not work.
            EngineError: It does not start.
        """
        process = cls(config, folder, place, host, port, set() if process_groups is None else process_groups)
        process._begin()
        return process

    def wait_ready(self, check: Callable[[], None]) -> None:
        """Return when the server has generated a token; an open port says little.

        Args:
            check: Called several times a second; what it raises goes on to the caller.

        Raises:
            EngineError: It ended, or did not generate within sglang.start_timeout_s.
        """
        try:
            self._wait_for_a_token(check)
        except EngineError:
            if self._port is not None or not self._port_is_taken():
                raise
            self.close()
            self._begin()
            self._wait_for_a_token(check)

    def require_alive(self) -> None:
        """Raise EngineError when the server has ended, with how it ended and what it said."""
        self._read_reports(0)
        if self._supervisor is None:
            raise self.failure("the SGLang server was stopped")
        if self._status is not None:
            how = f"was killed by signal {-self._status}" if self._status < 0 else f"left with code {self._status}"
            raise self.failure(f"the SGLang server {how}")
        if self._supervisor.poll() is not None:
            raise self.failure("the process that watches over the SGLang server was killed, and the server with it")

    def failure(self, what: str) -> EngineError:
        """An error about this server; it says the cause where the log shows a known one, and the lines that matter."""
        tail = self._tail()
        lines = [line.strip() for line in tail.splitlines() if line.strip() and not line.startswith("[supervisor]")]
        telling = [line for line in lines if _TELLING.search(line)][-2:] or lines[-2:]
        said = " | ".join(line[-200:] for line in telling) or "nothing"
        cause = next((one for one in _CAUSES if re.search(one.pattern, tail, re.IGNORECASE)), None)
        if cause:
            return EngineError(what, why=f"{cause.why}; it said: {said}", mend=f"{cause.mend}; its log is {self.log}")
        return EngineError(what, why=f"it said: {said}", mend=f"run the command again; the server's log is {self.log}")

    def close(self) -> None:
        """Stop the server; returns when none of its processes is left.

        Raises:
            EngineError: One of them cannot be ended.
        """
        if self._supervisor is None:
            return
        assert self._supervisor.stdin is not None
        assert self._supervisor.stdout is not None
        self._supervisor.stdin.close()  # its end is the order to stop
        try:
            killed = self._supervisor.wait(_CLOSE_S) < 0
        except subprocess.TimeoutExpired as error:
            raise self.failure(f"the SGLang server does not end, process group {self.pid}") from error
        if killed and self.pid:
            self._kill_group()
        self._supervisor.stdout.close()
        self._groups.discard(self.pid)
        self._supervisor = None

    def _begin(self) -> None:
        if self._port is not None:
            require_free(self._host, self._port)
        port = self._port or free_port(self._host)
        launch = plan_launch(self._config, host=self._host, port=port, place=self._place)
        setup = {
            "command": launch.command,
            "configuration": yaml.safe_dump(launch.options),
            "secrets": launch.secrets,
            "grace_s": _CPU_GRACE_S if launch.options.get("device") == "cpu" else _GPU_GRACE_S,
        }
        self.endpoint, self._status, self._reported = launch.endpoint, None, b""
        self.log, descriptor = _new_log(self._folder)
        try:
            self._supervisor = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-I", str(_SUPERVISOR)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=descriptor,
                env=launch.environment,
                start_new_session=True,
                bufsize=0,
            )
        finally:
            os.close(descriptor)
        self.pid = 0
        self._tell(json.dumps(setup))
        try:
            self._read_reports(_CLOSE_S)
            if not self.pid:
                raise self.failure("the SGLang server cannot be started")
        except EngineError:
            self.close()
            raise
        self._groups.add(self.pid)

    def _tell(self, line: str) -> None:
        assert self._supervisor is not None
        assert self._supervisor.stdin is not None
        with suppress(BrokenPipeError):  # it has gone, which shows everywhere else
            self._supervisor.stdin.write(line.encode() + b"\n")

    def _read_reports(self, wait_s: float) -> None:
        """Take what the supervisor reported, after waiting so long for the first of it."""
        if self._supervisor is None or self._supervisor.stdout is None:
            return
        stream = self._supervisor.stdout.fileno()
        while select.select([stream], [], [], wait_s)[0]:
            data = os.read(stream, 4096)
            if not data:
                return
            self._reported += data
            *lines, self._reported = self._reported.split(b"\n")
            for line in lines:
                self._take(json.loads(line))
            wait_s = 0

    def _take(self, report: dict[str, Any]) -> None:
        if "refused" in report:
            raise EngineError(
                "the SGLang server cannot be started",
                why=report["refused"],
                mend="check sglang.python, and that the temporary folder can be written to",
            )
        self.pid = report.get("pid", self.pid)
        self._status = report.get("status", self._status)

    def _wait_for_a_token(self, check: Callable[[], None]) -> None:
        timeout_s = self._config.sglang.start_timeout_s
        deadline = time.monotonic() + timeout_s
        probe = _Probe(self.endpoint, timeout_s)
        probe.start()
        try:
            while not probe.succeeded.wait(_POLL_S / 2):
                check()
                self.require_alive()
                if self._port_is_taken():  # the server would go on for minutes
                    raise self.failure("the SGLang server cannot listen on its port")
                if time.monotonic() > deadline:
                    raise self.failure(f"the SGLang server did not generate within {timeout_s:.0f} s")
            self.require_alive()  # else it was another server at its port
        finally:
            probe.given_up.set()
        self._tell("ready")

    def _port_is_taken(self) -> bool:
        return re.search(_PORT_TAKEN.pattern, self._tail(), re.IGNORECASE) is not None

    def _tail(self) -> str:
        if not self.log.exists():  # somebody tidied up
            return ""
        with self.log.open("rb") as stream:
            stream.seek(max(self.log.stat().st_size - _TAIL_BYTES, 0))
            return stream.read().decode(errors="replace")

    def _kill_group(self) -> None:
        """After the supervisor was killed: the kernel has killed the server, its children may be left."""
        deadline = time.monotonic() + _CLOSE_S
        with suppress(ProcessLookupError):
            while time.monotonic() < deadline:
                os.killpg(self.pid, signal.SIGKILL)
                time.sleep(0.05)


class _Probe(threading.Thread):
    """Asks for one token until it comes. A thread, since the first answer can take long, and no wait may be blind."""

    def __init__(self, endpoint: Endpoint, timeout_s: float) -> None:
        super().__init__(name="sglang-ready", daemon=True)
        self.succeeded, self.given_up = threading.Event(), threading.Event()
        self._timeout_s = timeout_s
        sampling = {"max_new_tokens": 1, "temperature": 1.0, "sampling_seed": 0}
        self._request = urllib.request.Request(  # noqa: S310 - an http URL of our own making
            f"{endpoint.url}/generate",
            data=json.dumps({"input_ids": [0], "sampling_params": sampling, "return_logprob": True}).encode(),
            headers={"Authorization": f"Bearer {endpoint.api_key}", "Content-Type": "application/json"},
        )

    def run(self) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while not self.given_up.wait(_POLL_S):
            with (
                suppress(OSError, HTTPException, ValueError),
                opener.open(self._request, timeout=self._timeout_s) as got,
            ):
                if json.load(got)["meta_info"]["output_token_logprobs"]:
                    self.succeeded.set()
                    return


def _new_log(folder: Path) -> tuple[Path, int]:
    """The first name sglang-N.log that is not taken, open for its owner alone."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = folder / f"sglang-{number}.log"
        try:
            return path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        except FileExistsError:
            number += 1
