"""Around the SGLang server without one: the supervisor with real processes, its command line, where SGLang is."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

import vpgea
from vpgea.config.schema import ModelConfig, RunConfig, SglangConfig
from vpgea.engines.sglang.server import command
from vpgea.engines.sglang.server.installation import (
    CPU_RECIPE,
    GPU_RECIPE,
    doctor_rows,
    find_python,
    installed_versions,
)
from vpgea.errors import UsageError

SUPERVISOR = Path(vpgea.__file__).parent / "engines" / "sglang" / "server" / "supervisor.py"
SECRET = "k" + "0123456789abcdef" * 4
WAIT_S = 60.0
T = TypeVar("T")

# A server that ignores SIGTERM, with a child in a session of its own and an orphan in another.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
orphan = subprocess.run(["sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & echo $!"], capture_output=True, text=True)
print("processes", os.getpid(), child.pid, orphan.stdout, flush=True)
time.sleep(600)
"""
PROCESSES = re.compile(r"processes (\d+) (\d+) (\d+)")


class Supervised:
    """A supervisor with a server, as vpgea starts them."""

    def __init__(self, log: Path, server: list[str], **setup: Any) -> None:
        self.log = log
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-I", SUPERVISOR],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                start_new_session=True,
            )
        self.tell(json.dumps({"command": server, "grace_s": 0.2, **setup}))

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def report(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        return dict(json.loads(self.process.stdout.readline()))

    def leave(self) -> None:
        """What the death of vpgea does."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def logged(self, pattern: str | re.Pattern[str]) -> re.Match[str]:
        """Wait for a line in the log."""
        return until(lambda: re.search(pattern, self.log.read_text(errors="replace")))


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    started = []

    def start(server: list[str], **setup: Any) -> Supervised:
        started.append(Supervised(setup.pop("log", tmp_path / "server.log"), server, **setup))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait(WAIT_S)
        for pipe in (one.process.stdin, one.process.stdout):
            assert pipe is not None
            pipe.close()


def until(get: Callable[[], T | None]) -> T:
    """What `get` returns once it is true."""
    deadline = time.monotonic() + WAIT_S
    while not (value := get()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


# --- the supervisor ------------------------------------------------------------------------------------------------


def test_output_goes_to_the_log_without_secrets(supervise: Callable[..., Supervised]) -> None:
    halves = f"print('one {SECRET[:20]}', end='', flush=True); time.sleep(0.2); print('{SECRET[20:]} two')"
    long = f"sys.stderr.write('x' * 70000 + '{SECRET}' + 'z' * 70000 + '\\rbar\\r{SECRET}')"
    server = supervise(python(f"import sys, time; {halves}; {long}"), secrets=[SECRET])
    assert server.report()["pid"] > 0
    assert server.report() == {"status": 0}
    assert server.process.wait(WAIT_S) == 0
    lines = server.log.read_text().splitlines()
    assert "one [key] two" in lines
    assert SECRET not in "".join(lines)
    assert "".join(lines).count("[key]") == 3
    assert [sum(line.count(letter) for line in lines) for letter in "xz"] == [70000, 70000]


@pytest.mark.parametrize(("code", "status"), [("raise SystemExit(7)", 7), ("os.kill(os.getpid(), 9)", -9)])
def test_the_servers_end_is_reported_and_leaves_nothing(
    code: str, status: int, supervise: Callable[..., Supervised]
) -> None:
    leaving = STUBBORN.replace("time.sleep(600)", code)
    server = supervise(python(leaving))
    server.report()
    assert server.report() == {"status": status}
    assert server.process.wait(WAIT_S) == 0
    assert not any(alive(int(pid)) for pid in server.logged(PROCESSES).groups())


@pytest.mark.parametrize("end", [Supervised.leave, lambda server: server.process.terminate()])
def test_nothing_outlives_the_order_to_stop(
    end: Callable[[Supervised], None], supervise: Callable[..., Supervised]
) -> None:
    server = supervise(python(STUBBORN))
    pids = [int(pid) for pid in server.logged(PROCESSES).groups()]
    assert all(map(alive, pids))
    end(server)
    assert server.process.wait(WAIT_S) == 0
    assert not any(map(alive, pids))
    assert "the server ended by signal 9" in server.log.read_text()


def test_a_server_that_obeys_ends_in_its_own_way(supervise: Callable[..., Supervised]) -> None:
    obedient = "import signal, time; signal.signal(15, lambda *_: exit(3)); print('up', flush=True); time.sleep(600)"
    server = supervise(python(obedient), grace_s=WAIT_S)
    server.logged("up")
    server.leave()
    assert server.process.wait(WAIT_S) == 0
    assert [server.report(), server.report()][1] == {"status": 3}


def test_other_signals_are_not_for_the_supervisor_or_the_server(supervise: Callable[..., Supervised]) -> None:
    server = supervise(python("import time; print('up', flush=True); time.sleep(600)"))
    server.logged("up")
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        server.process.send_signal(number)
    pid = server.report()["pid"]
    os.kill(pid, signal.SIGUSR1)  # as a scheduler does
    server.leave()
    assert server.process.wait(WAIT_S) == 0
    assert server.report() == {"status": -signal.SIGTERM}


def test_the_server_dies_with_its_supervisor(supervise: Callable[..., Supervised]) -> None:
    server = supervise(["sleep", "600"])
    pid = server.report()["pid"]
    server.process.kill()
    until(lambda: not alive(pid))


def test_a_dead_parent_is_noticed_while_the_pipe_is_held_open(tmp_path: Path) -> None:
    parent = f"""
import json, os, subprocess, sys, time
log = open({str(tmp_path / "log")!r}, "wb")
made = subprocess.Popen([sys.executable, "-I", {str(SUPERVISOR)!r}], stdin=-1, stdout=-1, stderr=log)
made.stdin.write(json.dumps({{"command": ["sleep", "600"]}}).encode() + b"\\n")
made.stdin.flush()
server = json.loads(made.stdout.readline())["pid"]
holder = os.fork()
if holder == 0:
    time.sleep(600)
print(made.pid, server, holder, flush=True)
time.sleep(600)
"""
    process = subprocess.Popen(python(parent), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    supervisor, server, holder = map(int, process.stdout.readline().split())
    process.kill()
    process.wait(WAIT_S)
    process.stdout.close()
    try:
        until(lambda: not alive(server) and not alive(supervisor))
    finally:
        os.kill(holder, signal.SIGKILL)


def test_a_command_that_cannot_be_started(supervise: Callable[..., Supervised]) -> None:
    server = supervise(["/no/such/python"], configuration="a: 1")
    assert "/no/such/python" in server.report()["refused"]
    assert server.process.wait(WAIT_S) == 0


def test_the_configuration_is_private_and_removed(
    supervise: Callable[..., Supervised], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    print_it = "import sys, time; print(sys.argv[1:], open(sys.argv[2]).read(), flush=True); time.sleep(600)"
    server = supervise(python(print_it), configuration="api-key: none\n")
    server.logged("--config.*api-key: none")
    (folder,) = temporary.iterdir()
    (file,) = folder.iterdir()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, file)] == [0o700, 0o600]
    server.tell("ready")
    until(lambda: not list(temporary.iterdir()))
    server.leave()
    server.process.wait(WAIT_S)
    early = supervise(python("pass"), configuration="api-key: none\n")  # ended before it was ready
    early.process.wait(WAIT_S)
    assert not list(temporary.iterdir())


def test_a_full_disk_costs_lines_and_nothing_else(supervise: Callable[..., Supervised], tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: a write stops at its last byte, and the next one fails."""
    limit = 16384
    gate, printed = tmp_path / "gate", tmp_path / "printed"
    os.mkfifo(gate)
    printed.touch()
    talk = f"""
print("first", flush=True)
for line in open({str(gate)!r}):
    print(line * 20000, flush=True)
    open({str(printed)!r}, "a").write("x")
"""
    server = supervise(python(talk))
    server.logged("first")
    hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (limit, hard))
    with gate.open("w", buffering=1) as say:
        say.write("lost\n" * 3)
        until(lambda: printed.stat().st_size == 3)  # far more than the pipe holds: the supervisor has dropped lines
        assert server.log.stat().st_size == limit
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        say.write("last\n")
    server.process.wait(WAIT_S)
    text = server.log.read_text()
    assert re.search(r"^\[supervisor\] \d+ lines are missing here", text, re.MULTILINE)
    assert text.rstrip().splitlines()[-2:] == ["last", "[supervisor] the server ended with code 0"]


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [["--port", "1"], ["--tp", "2", "--host=0.0.0.0"], ["--api-k=x"], ["--model", "m"], ["--weight_version"]]
)
def test_options_that_vpgea_relies_on_are_refused(options: list[str]) -> None:
    with pytest.raises(UsageError, match="cannot be given to the server"):
        command.refuse_own_options(options)


def test_other_options_are_the_users() -> None:
    command.refuse_own_options(["--tp", "2", "--mem-fraction-static=0.7", "-v", "--model-impl", "transformers"])


def test_options_of_a_model_on_a_cpu(run_config: Callable[..., RunConfig], tiny_model: Path) -> None:
    options = command.model_options(run_config(rollout__seed=2**40 + 5), on_gpu=False)
    assert options["model-path"] == str(tiny_model)
    assert (options["dtype"], options["device"], options["random-seed"]) == ("float32", "cpu", 5)
    assert (options["enable-lora"], options["max-lora-rank"], options["lora-backend"]) == (True, 16, "torch_native")
    assert options["max-total-tokens"] >= 1024 + 4096 + 1
    assert re.fullmatch("[0-9a-f]{16}", options["weight-version"])


def test_the_version_is_that_of_the_weights_without_an_adapter(
    run_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    (tmp_path / "adapter_config.json").write_text('{"r": 64}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"not read")
    plain = command.model_options(run_config(distill__train="full"), on_gpu=True)
    adapted = command.model_options(run_config(distill__train="full", model__adapter=str(tmp_path)), on_gpu=True)
    assert adapted["weight-version"] == plain["weight-version"]
    assert {key: adapted[key] for key in adapted.keys() - plain.keys()} == {"enable-lora": True, "max-lora-rank": 64}


def test_options_of_a_model_on_a_gpu(run_config: Callable[..., RunConfig]) -> None:
    options = command.model_options(run_config(model__device="cuda:1", distill__train="full"), on_gpu=True)
    assert (options["dtype"], options["base-gpu-id"]) == ("bfloat16", 1)
    assert not options.keys() & {"device", "max-total-tokens", "sleep-on-idle", "enable-lora"}


def test_a_sequence_that_memory_cannot_hold_is_refused(run_config: Callable[..., RunConfig]) -> None:
    with pytest.raises(UsageError, match="no room for one sequence of"):
        command.model_options(run_config(rollout__max_new_tokens=10**9), on_gpu=False)


def test_the_servers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "VPGEA_SERVER_API_KEY", "LOCAL_RANK", "RANK", "TORCHELASTIC_RUN_ID", "https_proxy"):
        monkeypatch.setenv(name, "foreign")
    for name in ("HF_HOME", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "7")
    found = command.server_environment(ModelConfig(), on_gpu=False)
    assert "foreign" not in found.values()
    assert [found[name] for name in ("HF_HOME", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")] == ["7"] * 3
    assert (found["HF_HUB_OFFLINE"], found["PATH"]) == ("1", os.environ["PATH"])
    assert command.server_environment(ModelConfig(threads=3), on_gpu=False)["OMP_NUM_THREADS"] == "3"


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"no server can listen on 127.0.0.1, port {port}") as told:
            command.require_free("127.0.0.1", port)
    assert told.value.why == "address already in use"
    command.require_free("127.0.0.1", port)


def test_a_free_port_is_not_one_that_is_handed_out() -> None:
    handed_out = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert 1024 <= command.free_port("127.0.0.1") < handed_out


def test_a_host_that_is_not_ours() -> None:
    with pytest.raises(UsageError, match="no server can listen on 192"):
        command.free_port("192.0.2.1")


# --- the installation ----------------------------------------------------------------------------------------------


def test_an_environment_in_the_current_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / ".venv-sglang" / "bin" / "python"
    link.parent.mkdir(parents=True)
    link.symlink_to(sys.executable)
    monkeypatch.chdir(tmp_path)
    assert find_python(SglangConfig()) == link
    assert find_python(SglangConfig(python=sys.executable)) == Path(sys.executable)


def test_without_any_the_way_to_install_it_is_told(tmp_path: Path) -> None:
    shutil.copytree(Path(vpgea.__file__).parent, tmp_path / "vpgea")  # a vpgea with no environment beside it
    (tmp_path / "sglang").mkdir()  # a folder is no package
    code = (
        "from vpgea.config.schema import *; from vpgea.engines.sglang.server.installation import *; "
        "find_python(SglangConfig())"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert "SGLang is not installed" in done.stderr
    assert "mend: " in done.stderr
    assert "--server-url" in done.stderr


def test_versions_are_those_of_the_other_environment() -> None:
    found = installed_versions(Path(sys.executable))
    import torch

    assert found["torch"] == torch.__version__
    assert found["sglang"] is None


def test_an_environment_without_sglang_is_refused(run_config: Callable[..., RunConfig]) -> None:
    with pytest.raises(UsageError, match="no SGLang in"):
        command.plan_launch(run_config(sglang__python=sys.executable), host="127.0.0.1", port=1)


@pytest.mark.parametrize("path", ["/no/such/python", "/bin/false", sys.executable])
def test_the_doctor_is_told_what_is_missing(path: str) -> None:
    (name, found, remark), *recipes = doctor_rows(SglangConfig(python=path))
    assert [how for _, _, how in recipes] == [GPU_RECIPE, CPU_RECIPE]
    assert (name, found) == ("sglang", "-")
    assert "tested with 0.5.23" in remark
