"""The process that stands between vpgea and a server that it started: nothing of the server outlives either of them.

A program by itself, run as `python -I supervisor.py`; it needs the standard library and Linux, nothing of vpgea.

- Standard input: one JSON line (`Setup`), then nothing; a line `ready` removes the configuration file early. Its end
  means that the parent has gone, `kill -9` included, and the server is stopped.
- Standard output: a JSON object per line: {"pid": n}, later {"status": n} as Popen.returncode; or {"refused": why}.
- Standard error: the log. What the server prints goes there line by line without the secrets. While the log cannot be
  written (a full disk), lines are counted and dropped, and the server goes on.

The server gets a session of its own, and SIGKILL from the kernel when this process dies. Orphans of the server become
children of this process, so every descendant is found, whatever group or session it has moved to.
"""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_TICK_S = 1.0  # how often the parent is looked at: a process that it forked may hold the pipe open
_LONGEST_LINE = 1 << 16
_CONTROL, _OUTPUT, _SIGNALS = "control", "output", "signals"


@dataclass(frozen=True)
class Setup:
    """What is to be started and watched.

    Attributes:
        command: The server's.
        configuration: Text of a file of its own, whose path is added to the command as the value of --config.
        secrets: What must not be read in the log.
        grace_s: Seconds between SIGTERM and SIGKILL.
    """

    command: list[str]
    configuration: str = ""
    secrets: list[str] = field(default_factory=list)
    grace_s: float = 5.0


class Log:
    """Lines without secrets to a descriptor; counts what cannot be written, and says so when writing works again."""

    def __init__(self, descriptor: int, secrets: list[str]) -> None:
        self._descriptor = descriptor
        self._secrets = [secret.encode() for secret in secrets]
        self._longest = max(map(len, self._secrets), default=1)
        self._rest = b""
        self._lost = 0
        self._torn = False  # the last line that got through was cut

    def feed(self, data: bytes) -> None:
        """Take what the server printed; an unfinished line waits, so that a secret is never seen in two halves."""
        *lines, self._rest = (self._rest + data).replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            if line:
                self._line(line)
        if len(self._rest) > _LONGEST_LINE:
            rest = self._redacted(self._rest)
            self._line(rest[: -self._longest])
            self._rest = rest[-self._longest :]

    def note(self, text: str) -> None:
        self._line(f"[supervisor] {text}".encode())

    def finish(self) -> None:
        if self._rest:
            self._line(self._rest)
            self._rest = b""

    def _redacted(self, text: bytes) -> bytes:
        for secret in self._secrets:
            text = text.replace(secret, b"[key]")
        return text

    def _line(self, line: bytes) -> None:
        text = self._redacted(line) + b"\n"
        if self._lost:
            text = f"[supervisor] {self._lost} lines are missing here: they could not be written\n".encode() + text
        if self._torn:
            text = b"\n" + text
        written = 0
        try:
            while written < len(text):
                written += os.write(self._descriptor, text[written:])
        except OSError:
            self._lost += 1
            self._torn = written > 0 or self._torn
        else:
            self._lost, self._torn = 0, False


class Supervisor:
    """One server, from its start to the last of its processes."""

    def __init__(self, setup: Setup, parent: int) -> None:
        self._setup, self._parent = setup, parent
        self._log = Log(2, setup.secrets)
        self._status: int | None = None
        self._kill_at: float | None = None  # set once the server was asked to end
        self._asked = False
        self._folder: Path | None = None
        self._selector = selectors.DefaultSelector()
        self._pid = 0
        self._output = -1

    def run(self) -> None:
        self._catch_signals()
        try:
            if self._start():
                self._watch()
                self._sweep()
                self._drain()
                report({"status": self._status})
        finally:
            self._remove_configuration()

    def _catch_signals(self) -> None:
        """TERM asks for the end; the terminal's and the scheduler's other signals are for the parent to decide on.

        Handlers, not SIG_IGN, which the server would inherit.
        """
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGTERM, self._ask)
        self._selector.register(reader, selectors.EVENT_READ, _SIGNALS)

    def _ask(self, *_: object) -> None:
        self._asked = True

    def _start(self) -> bool:
        prctl = _prctl()
        prctl(_PR_SET_CHILD_SUBREAPER, 1)
        own = os.getpid()

        def before_exec() -> None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != own:  # died in between: the kernel will not tell any more
                os._exit(1)
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # a scheduler sends it to every process of a job

        self._output, writer = os.pipe()
        try:
            option = self._configuration_option()
            server = subprocess.Popen(  # noqa: S603 - the parent's command is what this process is for
                self._setup.command + option,
                stdin=subprocess.DEVNULL,
                stdout=writer,
                stderr=writer,
                start_new_session=True,
                preexec_fn=before_exec,  # noqa: PLW1509 - there are no threads here
            )
        except OSError as error:
            report({"refused": str(error)})
            return False
        finally:
            os.close(writer)
        self._pid = server.pid
        server.returncode = 0  # it is waited for here, with all the others
        self._selector.register(self._output, selectors.EVENT_READ, _OUTPUT)
        self._selector.register(0, selectors.EVENT_READ, _CONTROL)
        report({"pid": server.pid})
        return True

    def _configuration_option(self) -> list[str]:
        if not self._setup.configuration:
            return []
        self._folder = Path(tempfile.mkdtemp(prefix="vpgea-server-"))  # 0700
        file = self._folder / "server.yaml"
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(self._setup.configuration)
        return ["--config", str(file)]

    def _remove_configuration(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _watch(self) -> None:
        """Until the server's first process has ended."""
        while self._status is None:
            left = _TICK_S if self._kill_at is None else self._kill_at - time.monotonic()
            for key, _ in self._selector.select(min(max(left, 0.01), _TICK_S)):
                if key.data == _OUTPUT:
                    self._copy(key.fd)
                elif key.data == _CONTROL:
                    self._obey(key.fd)
                else:
                    os.read(key.fd, 4096)
            if os.getppid() != self._parent:
                self._ask()
            if self._asked and self._kill_at is None:
                self._log.note(f"stopping the server, process {self._pid}")
                os.kill(self._pid, signal.SIGTERM)
                self._kill_at = time.monotonic() + self._setup.grace_s
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                os.kill(self._pid, signal.SIGKILL)
            self._reap()

    def _copy(self, descriptor: int) -> None:
        if data := os.read(descriptor, 1 << 16):
            self._log.feed(data)
        else:
            self._selector.unregister(descriptor)

    def _obey(self, descriptor: int) -> None:
        if os.read(descriptor, 4096):
            self._remove_configuration()
        else:
            self._selector.unregister(descriptor)
            self._ask()

    def _reap(self) -> bool:
        """Take the statuses of children that ended; False when there is no child left."""
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self._pid:
                    self._status = os.waitstatus_to_exitcode(ended[1])
        except ChildProcessError:
            return False
        return True

    def _sweep(self) -> None:
        """Kill what the server left behind. Only own children are killed, whose ids cannot be others' by now;
        their children become ours by that, and are next."""
        while self._reap():
            for child in children_of(os.getpid()):
                os.kill(child, signal.SIGKILL)
            time.sleep(0.01)

    def _drain(self) -> None:
        """What the server said last, and how it ended."""
        os.set_blocking(self._output, False)
        with suppress(BlockingIOError):  # some process outside holds the other end
            while data := os.read(self._output, 1 << 16):
                self._log.feed(data)
        self._log.finish()
        assert self._status is not None
        how = f"by signal {-self._status}" if self._status < 0 else f"with code {self._status}"
        self._log.note(f"the server ended {how}")


def children_of(parent: int) -> list[int]:
    """Process ids whose parent is `parent`, zombies included."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                status = (entry / "stat").read_bytes()
            except OSError:  # ended meanwhile
                continue
            if int(status.rpartition(b")")[2].split()[1]) == parent:
                found.append(int(entry.name))
    return found


def report(fields: dict[str, object]) -> None:
    with suppress(OSError):  # the parent has gone; the end of standard input says so too
        os.write(1, json.dumps(fields).encode() + b"\n")


def _prctl() -> Callable[[int, int], None]:
    libc = ctypes.CDLL(None, use_errno=True)

    def call(option: int, value: int) -> None:
        if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0):
            raise OSError(ctypes.get_errno(), f"prctl {option}")

    return call


def main() -> None:
    parent = os.getppid()
    line = b""
    while not line.endswith(b"\n"):  # byte by byte: what follows is read without a buffer
        byte = os.read(0, 1)
        if not byte:
            return
        line += byte
    Supervisor(Setup(**json.loads(line)), parent).run()


if __name__ == "__main__":
    main()
