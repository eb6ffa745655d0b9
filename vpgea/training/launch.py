"""The ranks of a training on this machine: started, heard and ended by the one process that needs them.

Each is `python -m PROGRAM` in a session of its own, with the variables that torchrun sets.

- Standard input: a JSON line, its task; later perhaps {"stop": [cause, exit code]}. Its end means that the parent has
  gone, `kill -9` included, and the rank ends with all that it started.
- Standard output: a JSON object per line: {"advance": [steps, tokens]}, {"note": text}, {"warn": text}, {"error": ...}.
- Standard error: its log.

Signals for people's and schedulers' use are blocked in a rank: its parent alone decides what follows from them.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist

import vpgea
from vpgea.errors import DamagedError, EngineError, QualityGateError, Stopped, UsageError, VpgeaError
from vpgea.modeling.device import visible_gpus
from vpgea.runs.progress import Progress
from vpgea.runs.stopping import StopRequest

_TICK_S = 0.2  # how long a stop may go unheard
GRACE_S = 20.0  # for the others, once a rank has failed: they hear of it when they meet next, or never
_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1}
_ECHOES = ("LostRank", "OtherRankFailed")  # what ranks say of another one's failure
_CLASSES = {cls.__name__: cls for cls in (UsageError, DamagedError, QualityGateError, EngineError)}
_LAST_BYTES, _LAST_WORDS = 1 << 14, 300


@dataclass(kw_only=True)
class _Process:
    """One rank as its parent sees it."""

    rank: int
    popen: subprocess.Popen[bytes]
    log: Path
    unfinished: bytes = b""
    error: Exception | None = None
    is_echo: bool = False
    is_given_up: bool = False
    has_kept_log: bool = False

    def take(self, data: bytes, progress: Progress) -> None:
        """What it reported; of progress only rank 0's counts."""
        *lines, self.unfinished = (self.unfinished + data).split(b"\n")
        for kind, value in (item for line in lines for item in json.loads(line).items()):
            if kind == "error":
                self.error, self.is_echo = error_of(value), value["kind"] in _ECHOES
            elif self.rank == 0 and kind == "advance":
                progress.advance(*value)
            elif self.rank == 0:
                {"note": progress.note, "warn": progress.warn}[kind](value)

    def keep_log(self, logs: Path) -> None:
        """Beside what the ranks have written, where they have and something was printed."""
        if logs.parent.is_dir() and self.log.stat().st_size:
            logs.mkdir(exist_ok=True)
            self.log, self.has_kept_log = Path(shutil.move(self.log, logs / self.log.name)), True

    def tell(self, message: Mapping[str, Any]) -> None:
        assert self.popen.stdin is not None
        with suppress(BrokenPipeError):  # it has gone, which shows everywhere else
            self.popen.stdin.write(json.dumps(message).encode() + b"\n")

    def kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.popen.pid, signal.SIGKILL)

    @property
    def failure(self) -> Exception | None:
        """Why it ended before its work was done."""
        code = self.popen.returncode
        if self.error is not None or not code:
            return self.error
        how = f"was killed by signal {-code}" if code < 0 else f"left with code {code}"
        said = self._last_words()
        if not said and code == -signal.SIGKILL:
            said = "somebody killed it, or the system did, which had no memory left"
        mend = "run the same command again: it continues from the last checkpoint"
        if self.has_kept_log:
            mend += f"; {self.log} has what it printed"
        return EngineError(f"rank {self.rank} of the training {how}", why=said or "it said nothing", mend=mend)

    def _last_words(self) -> str:
        with self.log.open("rb") as stream:
            stream.seek(max(self.log.stat().st_size - _LAST_BYTES, 0))
            return " ".join(stream.read().decode(errors="replace").split())[-_LAST_WORDS:]


def run_together(
    program: str,
    task: Mapping[str, Any],
    devices: Sequence[torch.device],
    *,
    logs: Path,
    stop: StopRequest,
    progress: Progress,
) -> None:
    """Run one rank of a program on each device, until all have done their work.

    Args:
        program: A module that calls `report_to_parent`.
        task: Its keyword arguments, as JSON knows them.
        devices: All of one kind.
        logs: Folder in which what they printed stands afterwards, rank-N.log, where the folder that it is in is there.
        stop: A request is handed on to every rank, once.
        progress: Told what rank 0 says.

    Raises:
        EngineError: A rank died.
        Exception: What a rank raised; where several did, the one that did not only follow another.
    """
    # The ranks meet at a store of this process, whose port cannot be taken by others in between.
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(minutes=30), wait_for_workers=False)
    processes: list[_Process] = []
    with TemporaryDirectory(prefix="vpgea-ranks-") as said:  # no file may stand in a folder before it is opened
        try:
            for rank in range(len(devices)):
                processes.append(_started(program, rank, devices, store.port, Path(said, f"rank-{rank}.log")))
                stop.process_groups.add(processes[-1].popen.pid)
                processes[-1].tell({**task, "seconds_left": stop.seconds_left})
            _watch(processes, stop, progress)
        finally:
            for process in processes:
                process.kill()
                process.popen.communicate()
                stop.process_groups.discard(process.popen.pid)
                process.keep_log(logs)
        if failure := _cause(processes):
            raise failure


def _started(program: str, rank: int, devices: Sequence[torch.device], port: int, log: Path) -> _Process:
    world = len(devices)
    threads = os.environ.get("OMP_NUM_THREADS") or max(len(os.sched_getaffinity(0)) // world, 1)
    path = [str(Path(vpgea.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {
        **{"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME") or "lo",
        "CUDA_VISIBLE_DEVICES": visible_gpus(devices),
        "OMP_NUM_THREADS": threads,
        "PYTHONPATH": os.pathsep.join(path),
    }
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # which the rank inherits, from its first moment on
    try:
        with log.open("wb") as stream:
            popen = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-P", "-m", program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                env={**os.environ, **{name: str(value) for name, value in variables.items()}},
                start_new_session=True,
                bufsize=0,
            )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return _Process(rank=rank, popen=popen, log=log)


def _watch(processes: Sequence[_Process], stop: StopRequest, progress: Progress) -> None:
    """Until the last of them has ended."""
    with selectors.DefaultSelector() as selector:
        for process in processes:
            assert process.popen.stdout is not None
            selector.register(process.popen.stdout, selectors.EVENT_READ, process)
        is_told, give_up_at = False, float("inf")
        while selector.get_map():
            for key, _ in selector.select(_TICK_S):
                process = key.data
                if data := os.read(key.fd, 1 << 16):
                    process.take(data, progress)
                    continue
                selector.unregister(key.fileobj)
                process.popen.wait()
                if process.failure is not None and not isinstance(process.failure, Stopped):
                    give_up_at = min(give_up_at, time.monotonic() + GRACE_S)
            if stop.requested and not is_told:
                is_told = True
                for process in processes:
                    process.tell({"stop": [stop.cause, stop.exit_code]})
            if time.monotonic() > give_up_at:
                for process in (key.data for key in selector.get_map().values()):
                    process.is_given_up = True
                    process.kill()


def _cause(processes: Sequence[_Process]) -> Exception | None:
    """The failure that the others follow from: what a rank raised, else the death of one, else what is left."""
    failed = [process for process in processes if process.failure is not None and not process.is_given_up]
    order = sorted(failed, key=lambda process: (process.is_echo, process.error is None, process.rank))
    return order[0].failure if order else None


def error_of(told: Mapping[str, Any]) -> Exception:
    """What `vpgea.training.parent.words_of` made of an exception, as one of the same kind."""
    if told["kind"] == "OSError":
        return OSError(*told["arguments"])
    if told["kind"] == "MemoryError":
        return MemoryError(told["what"])
    if told["kind"] == "Exception":
        return RuntimeError(told["what"])
    words = {name: told[name] for name in ("what", "why", "mend")}
    if told["kind"] == "Stopped":
        return Stopped(**words, exit_code=told["exit_code"])
    error = _CLASSES.get(told["kind"], VpgeaError)(**words)
    error.exit_code = told["exit_code"]
    return error
