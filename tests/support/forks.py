"""Processes of the command line that begin with everything imported: copies of one that has done so.

Each is a process of its own, with its own environment, files and signals, and can be killed; what it does not do is
begin at the interpreter's start, which takes longer than a small run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import uuid4

ROOT = Path(__file__).parents[2]
_PAUSE_S = 0.005
_MARK = "FORKS_OF_TESTS"  # in the environment of a process that is copied, and so of all that its copies start
_MODEL = ROOT / "examples" / "overthinker" / "base-global"

_IMPORTS = (
    *("pandas", "peft", "pyarrow", "torch", "torch.distributed.fsdp", "transformers.models.qwen2.modeling_qwen2"),
    *("vpgea.cluster.launch", "vpgea.phases.distill", "vpgea.phases.loop", "vpgea.training.trainer", "vpgea_cli.main"),
)
COMMAND_LINE = "import sys; from vpgea_cli.main import run; sys.exit(run(sys.argv[1:]))"
_ORIGINAL = """
import importlib, json, os, sys, traceback

model, *names = sys.argv[1:]
for name in names:
    importlib.import_module(name)
importlib.import_module("transformers").AutoModelForCausalLM.from_pretrained(model)  # what a first load of any makes

def become(task):
    files = [os.open(task[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for name in ("out", "err")]
    for number, file in zip((1, 2), files):
        os.dup2(file, number)
        os.close(file)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(task["environment"])
    os.chdir(task["cwd"])
    sys.argv[1:] = task["arguments"]
    code = 0
    try:
        exec(task["script"], {"__name__": "__main__"})
    except SystemExit as leaving:
        code = leaving.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)

for line in sys.stdin:
    task = json.loads(line)
    if "arguments" in task:
        answer = os.fork()
        if answer == 0:
            become(task)
    elif "imports" in task:
        answer = [importlib.import_module(name).__name__ for name in task["imports"]]
    else:
        found, status = os.waitpid(task["pid"], os.WNOHANG)
        answer = os.waitstatus_to_exitcode(status) if found else None
    print(json.dumps(answer), flush=True)
"""


def struck(place: str, call: int, number: signal.Signals) -> str:
    """A command line that sends itself a signal just before the n-th call of a method, module.Class.method."""
    return f"""
import importlib, os
module, owner, name = {place!r}.rsplit(".", 2)
owner, calls = getattr(importlib.import_module(module), owner), [0]
original = getattr(owner, name)

def strike(*arguments, **options):
    calls[0] += 1
    if calls[0] == {call}:
        os.kill(os.getpid(), {int(number)})
    return original(*arguments, **options)

setattr(owner, name, strike)
{COMMAND_LINE}
"""


class Fork:
    """One of the copies, as subprocess.Popen shows a process. out, err: the files with what it said."""

    def __init__(self, forks: Forks, pid: int, out: Path, err: Path) -> None:
        self.pid, self.out, self.err, self.returncode = pid, out, err, None
        self._forks = forks

    returncode: int | None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._forks.ask({"pid": self.pid})
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            time.sleep(_PAUSE_S)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Forks:
    """The process that is copied. It asks no hub."""

    def __init__(self) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("VPGEA_")}
        self._mark = uuid4().hex
        own = {_MARK: self._mark, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self._environment = {**inherited, **own}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _ORIGINAL, str(_MODEL), *_IMPORTS],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        self._turn = threading.Lock()

    def __enter__(self) -> Forks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def start(
        self,
        arguments: Sequence[str | Path],
        folder: Path,
        name: str,
        environment: Mapping[str, str] | None = None,
        script: str = COMMAND_LINE,
    ) -> Fork:
        """Run a command line, or another script on it; what it says lands in folder/NAME.out and folder/NAME.err."""
        out, err = folder / f"{name}.out", folder / f"{name}.err"
        for file in (out, err):
            file.write_bytes(b"")  # so that it can be looked at from now on
        task = {
            "arguments": [str(argument) for argument in arguments],
            "script": script,
            "environment": {**self._environment, **(environment or {})},
            "cwd": str(Path.cwd()),
            "out": str(out.absolute()),
            "err": str(err.absolute()),
        }
        return Fork(self, self.ask(task), out, err)

    def load(self, names: Sequence[str]) -> None:
        """Let it import further modules, which each later copy has then."""
        self.ask({"imports": [*names]})

    def descendants(self) -> set[int]:
        """Processes that have come from it and are still there, zombies left aside."""
        found, wanted = set(), f"{_MARK}={self._mark}".encode()
        for environment in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):  # it has gone, or is another user's
                if wanted in environment.read_bytes().split(b"\0"):
                    found.add(int(environment.parent.name))
        return found - {self.pid}

    def ask(self, task: Mapping[str, object]) -> Any:
        """The original's answer: a number, or None."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._turn:
            self._process.stdin.write(json.dumps(task) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())
