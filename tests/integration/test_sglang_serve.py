"""`vpgea serve` with the real server: keys, signals, kills and a full disk. A start takes most of a minute."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "examples" / "overthinker" / "base-global"
PYTHON = ROOT / ".venv-sglang" / "bin" / "python"
START_S, STOP_S, ORPHANS_S = 280, 60, 15
SMALL_DISK = 1 << 20

pytestmark = [
    pytest.mark.sglang,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-sglang: `make sglang` makes it"),
]


class Serve:
    """One `vpgea serve` in a process of its own, with a temporary folder of its own."""

    def __init__(self, folder: Path, *arguments: str, disk: Path | None = None) -> None:
        self.output = disk or folder / "out"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("VPGEA_")}
        options = ["--model", str(MODEL), "-o", str(self.output), "--sglang-python", str(PYTHON), "--json"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vpgea_cli", "serve", *options, *arguments],
            cwd=ROOT,
            env={**kept, "OMP_NUM_THREADS": "1", "TMPDIR": str(self.temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.url = ""
        self.keys: dict[str, str] = {}

    def wait_ready(self) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.end()
        self.url = json.loads(line)["url"]
        self.keys = json.loads((self.output / "server.json").read_text())
        assert json.loads(line) == {"url": self.url, "keys_file": str(self.output / "server.json"), "pid": self.server}

    @property
    def server(self) -> int:
        """The server's first process: the supervisor's only child."""
        (supervisor,) = children(self.process.pid)
        (server,) = children(supervisor)
        return server

    def log(self) -> str:
        return (self.output / "sglang-1.log").read_text(errors="replace")

    def end(self) -> tuple[int, str]:
        """Exit code and stderr, once it has left."""
        _, told = self.process.communicate(timeout=STOP_S)
        return self.process.returncode, told

    def generate(self, key: str | None) -> tuple[int, Any]:
        sampling = {"max_new_tokens": 8, "sampling_seed": 1, "stop_token_ids": [2]}
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        body = json.dumps({"input_ids": [5, 6, 7], "sampling_params": sampling}).encode()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(urllib.request.Request(f"{self.url}/generate", body, headers), timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, None


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Serve]]:
    started = []

    def start(*arguments: str) -> Serve:
        started.append(Serve(tmp_path, *arguments))
        return started[-1]

    yield start
    for one in started:
        finish(one)


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path | None]:
    """An empty file system of 1 MiB, or None where this user may not mount one."""
    folder = tmp_path_factory.mktemp("small")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK},mode=0755", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    yield folder if mounted else None
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, small_disk: Path | None) -> Iterator[Serve]:
    """A server that is ready; the last test that uses it stops it."""
    one = Serve(tmp_path_factory.mktemp("served"), disk=small_disk)
    try:
        one.wait_ready()
        yield one
    finally:
        finish(one)


def finish(one: Serve) -> None:
    if one.process.poll() is None:
        one.process.terminate()
        one.end()


def children(parent: int) -> list[int]:
    return [pid for pid, above in processes().items() if above == parent]


def family(first: int) -> list[int]:
    """A process and all that descend from it."""
    return [first, *(pid for child in children(first) for pid in family(child))]


def processes() -> dict[int, int]:
    """Process → parent, without zombies."""
    found = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
            if fields[0] != b"Z":
                found[int(entry.name)] = int(fields[1])
    return found


def until(true: Callable[[], object], seconds: float = STOP_S) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# --- one server for all of these -----------------------------------------------------------------------------------


@pytest.mark.timeout(START_S)
def test_the_key_opens_generation(served: Serve) -> None:
    status, answer = served.generate(served.keys["api_key"])
    assert status == 200
    assert 1 <= len(answer["output_ids"]) <= 8
    assert [served.generate(None)[0], served.generate("wrong")[0]] == [401, 401]


def test_keys_are_where_their_owner_finds_them_and_nowhere_else(served: Serve) -> None:
    keys = [served.keys["api_key"].encode(), served.keys["admin_key"].encode()]
    assert len(set(keys)) == 2
    for pid in family(served.process.pid):
        for source in ("cmdline", "environ"):
            assert not any(key in Path(f"/proc/{pid}/{source}").read_bytes() for key in keys)
    files = [path for top in (served.output, served.temporary) for path in top.rglob("*") if path.is_file()]
    assert [path for path in files if any(key in path.read_bytes() for key in keys)] == [served.output / "server.json"]
    assert stat.S_IMODE((served.output / "server.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((served.output / "sglang-1.log").stat().st_mode) == 0o600
    assert "'api_key': '[key]'" in served.log()  # it prints its options


def test_a_second_server_in_the_same_folder_is_refused(served: Serve, tmp_path: Path) -> None:
    second = Serve(tmp_path, disk=served.output)
    code, told = second.end()
    assert (code, told.splitlines()[0]) == (2, f"error: {served.output} is in use")


def test_a_full_disk_costs_lines_of_the_log_and_nothing_else(served: Serve, small_disk: Path | None) -> None:
    if small_disk is None:
        pytest.skip("this user may not mount a small file system")
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(b"x" * SMALL_DISK)
    for _ in range(100):  # a line each; the last block of the log takes some
        assert served.generate(served.keys["api_key"])[0] == 200
    filler.unlink()
    assert served.generate(served.keys["api_key"])[0] == 200
    until(lambda: "lines are missing here: they could not be written" in served.log())
    assert served.process.poll() is None


def test_term_stops_all_of_it(served: Serve) -> None:
    everything = family(served.process.pid)
    assert len(everything) >= 5
    served.process.terminate()
    code, told = served.end()
    assert (code, "error: stopped by SIGTERM" in told) == (75, True)
    assert not processes().keys() & set(everything)
    assert not (served.output / "server.json").exists()


# --- a server for each of these ------------------------------------------------------------------------------------


@pytest.mark.timeout(START_S)
def test_a_server_that_is_killed_ends_serve(serve: Callable[..., Serve]) -> None:
    one = serve()
    one.wait_ready()
    everything = family(one.process.pid)
    os.kill(one.server, signal.SIGKILL)
    code, told = one.end()
    assert (code, "error: the SGLang server was killed by signal 9" in told) == (4, True), told
    assert str(one.output / "sglang-1.log") in told
    assert not processes().keys() & set(everything)
    assert not (one.output / "server.json").exists()


@pytest.mark.timeout(START_S)
def test_nothing_outlives_kill_9(serve: Callable[..., Serve]) -> None:
    one = serve()
    until(lambda: len(family(one.process.pid)) >= 5, START_S)  # the server has begun to start its own processes
    everything = family(one.process.pid)
    one.process.kill()
    one.end()
    until(lambda: not processes().keys() & set(everything), ORPHANS_S)
    assert not list(one.temporary.glob("vpgea-*"))  # the keys of the server's configuration


def test_nothing_outlives_the_supervisor(serve: Callable[..., Serve]) -> None:
    one = serve()
    until(lambda: len(family(one.process.pid)) >= 5, START_S)
    everything = family(one.process.pid)
    os.kill(everything[1], signal.SIGKILL)
    code, told = one.end()
    assert (code, "error: the process that watches over the SGLang server was killed" in told) == (4, True), told
    until(lambda: not processes().keys() & set(everything), ORPHANS_S)


def test_an_option_that_the_server_does_not_know(serve: Callable[..., Serve]) -> None:
    code, told = serve("--", "--no-such-option").end()
    assert (code, "why:   the server does not take one of its options; it said: " in told) == (4, True), told


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--model", "./no-such-model"], "model not found: ./no-such-model"),
        (["--", "--port", "1"], "--port cannot be given to the server"),
        (["--host", "192.0.2.1"], "no server can listen on 192.0.2.1"),
    ],
)
def test_what_cannot_work_is_refused(arguments: list[str], error: str, serve: Callable[..., Serve]) -> None:
    code, told = serve(*arguments).end()
    assert (code, f"error: {error}" in told) == (2, True), told


def test_a_port_in_use_is_refused(serve: Callable[..., Serve]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, told = serve("--port", str(port)).end()
    assert (code, f"error: no server can listen on 127.0.0.1, port {port}" in told) == (2, True), told
