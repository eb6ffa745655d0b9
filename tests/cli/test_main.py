"""The frame: help, surface, exit codes, errors, signals."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import vpgea
from tests.support.forks import Fork, Forks
from vpgea.errors import EngineError, QualityGateError, Stopped, UsageError, VpgeaError
from vpgea_cli import main
from vpgea_cli.app import command_line

Cli = Callable[..., subprocess.CompletedProcess[str]]
SURFACE = Path(__file__).parent / "surface.txt"
HEAVY = ("torch", "transformers", "sglang", "peft", "pyarrow", "numpy", "datasets", "math_verify", "pandas")


def _walk(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    if hasattr(command, "list_commands"):
        context = typer.Context(command)
        for name in command.list_commands(context):
            yield from _walk(command.get_command(context, name), (*path, name))


TREE = dict(_walk(command_line(main.COMMANDS)))


# Prints the help of every command on stdin, and on stderr the first that has imported what is heavy.
_HELP = f"""
import json, sys
from vpgea_cli.main import run
for path in json.load(sys.stdin):
    code = run([*path, "--help"])
    if code or (heavy := [name for name in {HEAVY} if name in sys.modules]):
        sys.exit(f"{{path}}: code {{code}}, imported: {{heavy}}")
"""


def test_help_imports_nothing_heavy(environment: Callable[..., dict[str, str]]) -> None:
    paths = json.dumps(list(TREE))
    done = subprocess.run(
        [sys.executable, "-c", _HELP], env=environment(), input=paths, capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == ""
    assert [path for path in TREE if " ".join(["Usage: vpgea", *path, "[OPTIONS]"]) not in done.stdout] == []


def _surface() -> str:
    lines = []
    for path, command in TREE.items():
        lines.append(" ".join(["vpgea", *path]))
        for parameter in command.params:
            names = [*parameter.opts, *parameter.secondary_opts]
            lines.append(f"  {' '.join(names) if names[0].startswith('-') else names[0].upper()}")
    return "\n".join(lines) + "\n"


def test_surface_is_the_recorded_one() -> None:
    """After a wanted change: UPDATE_SURFACE=1 python -m pytest tests/cli/test_main.py, and review the difference."""
    if os.environ.get("UPDATE_SURFACE") == "1":
        SURFACE.write_text(_surface())
    assert _surface() == SURFACE.read_text()


def test_options_mean_the_same_everywhere() -> None:
    """-o is where the result goes: a folder, and of a report the one file."""
    seen: dict[str, tuple[str, ...]] = {}
    for path, command in TREE.items():
        for parameter in command.params:
            for name in (*parameter.opts, *parameter.secondary_opts):
                if name.startswith("-"):
                    names = (*parameter.opts, *parameter.secondary_opts)
                    names = ("--output-dir", "-o") if (path, names) == (("report",), ("--output", "-o")) else names
                    assert seen.setdefault(name, names) == names, f"{name} of {path} is another option elsewhere"


def test_every_module_of_a_command_is_registered() -> None:
    files = (Path(main.__file__).parent / "commands").glob("[!_]*.py")
    assert sorted(file.stem.rstrip("_") for file in files) == sorted(main.COMMANDS)


def test_version_and_help(cli: Cli, here: Cli) -> None:
    assert cli("--version").stdout == f"{vpgea.__version__}\n"
    bare = cli()
    assert bare.returncode == 0
    assert bare.stdout == here("--help").stdout == here("-h").stdout
    assert all(name in bare.stdout for name in main.COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["confg"], ["error: no such command: confg", "why:   vpgea does not have it", "mend:  did you mean config?"]),
        (["config", "sho"], ["no such command: sho", "vpgea config does not", "did you mean show?"]),
        (["zzz"], ["no such command: zzz", "vpgea", "the commands are: "]),
        (["config"], ["Missing command", "vpgea config", "vpgea config --help"]),
        (["doctor", "--jsn"], ["no such option: --jsn", "vpgea doctor", "did you mean --json?"]),
        (["--verson"], ["no such option: --verson", "vpgea", "did you mean --version?"]),
        (["config", "show", "--config"], ["'--config' requires an argument", "vpgea", "vpgea --help"]),
        (["config", "init", "a", "b"], ["(b)", "vpgea config init", "vpgea config init --help"]),
    ],
)
def test_usage_errors_are_three_lines_with_the_nearest_name(here: Cli, arguments: list[str], lines: list[str]) -> None:
    done = here(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    told = done.stderr.splitlines()
    assert [line[:7] for line in told] == ["error: ", "why:   ", "mend:  "]
    for line, expected in zip(told, lines, strict=True):
        assert expected in line


def test_a_log_gets_no_bars_of_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    for asked, then in ((None, "1"), ("0", "0")):
        monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
        if asked is not None:
            monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", asked)
        assert main.run(["--version"]) == 0
        assert os.environ.pop("HF_HUB_DISABLE_PROGRESS_BARS") == then


def test_names_that_are_not_utf8_are_refused_before_anything_is_written(here: Cli, tmp_path: Path) -> None:
    for arguments in (
        ["config", "init", f"{tmp_path}/mod\udce9l.yaml"],
        ["config", "show", "--set", "model.path=\udcff"],
    ):
        done = here(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: not UTF-8: the argument '")
    assert list(tmp_path.iterdir()) == []


def test_a_result_beyond_the_terminals_encoding_is_printed_escaped(cli: Cli, tmp_path: Path) -> None:
    done = cli("config", "init", tmp_path / "ε³.yaml", env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/\\u03b5\\xb3.yaml\n")


def test_debug_adds_the_traceback(here: Cli) -> None:
    assert "Traceback" not in here("config", "show", "-c", "none").stderr
    shown = here("config", "show", "-c", "none", env={"VPGEA_DEBUG": "1"})
    assert shown.returncode == 2
    assert "Traceback" in shown.stderr
    assert shown.stderr.splitlines()[-1].startswith("mend:  ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device without space")
def test_a_full_disk_is_told_as_such(here: Cli) -> None:
    done = here("config", "init", "--overwrite", "/dev/full")
    assert done.returncode == 1
    assert "why:   the disk is full" in done.stderr


class OutOfMemoryError(RuntimeError):
    """Stands where torch's class of this name would: it is recognised by its name."""


_THREE = {"why": "because", "mend": "so"}


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (VpgeaError("w", **_THREE), 1, "error: w\nwhy:   because\nmend:  so\n"),
        (UsageError("w", **_THREE), 2, "because"),
        (QualityGateError("w", **_THREE), 3, "because"),
        (EngineError("w", **_THREE), 4, "because"),
        (Stopped("w", why="because", mend="so"), 75, "because"),
        (Stopped("w", why="because", mend="so", exit_code=130), 130, "because"),
        (UsageError("red \x1b[31m", **_THREE), 2, "red \\x1b[31m"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (RecursionError("maximum recursion depth exceeded"), 2, "nested too deeply"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), 2, "no name as long"),
        (ValueError("embedded null byte"), 2, "null byte"),
        (ZeroDivisionError("division by zero"), 1, "error: ZeroDivisionError: division by zero\nwhy:   a bug"),
        (EOFError(), 1, "error: EOFError\n"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, "BrokenPipeError"),  # stdout is fine: it was another pipe
        (OSError(errno.ENOSPC, "No space left on device"), 1, "the disk is full"),
        (MemoryError(), 1, "memory"),
        (OutOfMemoryError("CUDA out of memory"), 1, "distill.max_tokens_per_batch"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 1, "distill.max_tokens_per_batch"),
        (typer.Exit(7), 7, ""),
    ],
)
def test_exceptions_become_exit_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, told: str
) -> None:
    def command() -> None:
        raise error

    module = types.ModuleType("vpgea_cli.commands.trouble")
    module.__dict__["command"] = command
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(main, "COMMANDS", ("trouble",))
    assert main.run(["trouble"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert told in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["config", "show"], 0), (["--version"], 0), (["--help"], 0), (["no-such"], 2)],
)
def test_a_reader_that_leaves_changes_no_exit_code(
    arguments: list[str], code: int, environment: Callable[..., dict[str, str]]
) -> None:
    command = [sys.executable, "-m", "vpgea_cli", *arguments]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert (process.stderr.read() == b"") == (code == 0)
        assert process.wait() == code


@pytest.mark.parametrize(
    ("stdout", "stderr", "arguments", "code"),
    [
        (None, None, ["config", "show"], 0),  # both closed, as by >&- 2>&-
        (None, None, ["config", "show", "-c", "none"], 2),
        ("gone", "gone", ["config", "show", "-c", "none"], 2),
        ("/dev/null", "/dev/full", ["config", "show", "-c", "none"], 2),
        ("/dev/full", "/dev/null", ["config", "show"], 1),  # nobody left: the result is lost
        ("/dev/full", "/dev/null", ["config", "show", "-c", "none"], 2),
    ],
)
def test_words_that_nobody_can_take_leave_the_exit_code(
    stdout: str | None, stderr: str | None, arguments: list[str], code: int, environment: Callable[..., dict[str, str]]
) -> None:
    kinds = {None: "&-", "gone": "&3"}
    redirected = f">{kinds.get(stdout, stdout)} 2>{kinds.get(stderr, stderr)}"
    reading, writing = os.pipe()
    os.close(reading)
    shell = ["bash", "-c", f'exec 3>&{writing}; exec "$@" {redirected}', "bash", sys.executable, "-m", "vpgea_cli"]
    done = subprocess.run([*shell, *arguments], env=environment(), pass_fds=[writing], check=False)
    os.close(writing)
    assert done.returncode == code


def test_a_stream_that_was_closed_is_no_file_that_is_opened_later(
    tmp_path: Path, environment: Callable[..., dict[str, str]]
) -> None:
    script = "import os, sys; from vpgea_cli.streams import hold_open; hold_open(); print('word', file=sys.stderr)"
    script += f"; file = open({str(tmp_path / 'data')!r}, 'wb'); os.write(2, b'from C'); print(file.fileno() > 2)"
    shell = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", script]
    done = subprocess.run(shell, env=environment(), stdout=subprocess.PIPE, text=True, check=False)
    assert done.stdout == "True\n"
    assert (tmp_path / "data").read_bytes() == b""


# A command that works in units until it is asked to stop; "stubborn" never looks.
_SPIN = """
import subprocess, sys, time, types
from vpgea_cli import main
from vpgea_cli.output import Output
from vpgea_cli.signals import install_signal_handlers
from vpgea.runs.stopping import StopRequest

def command(stubborn: bool = False):
    with install_signal_handlers(StopRequest(), Output().urgent) as stop:
        child = subprocess.Popen(["sleep", "60"], start_new_session=True, stdout=-3, stderr=-3)
        stop.process_groups.add(child.pid)
        print(child.pid, flush=True)
        while True:
            time.sleep(0.02)
            if not stubborn:
                stop.check("three units are on disk")

module = types.ModuleType("vpgea_cli.commands.spin")
module.command = command
sys.modules[module.__name__] = module
main.COMMANDS = ("spin",)
sys.exit(main.run(["spin", *sys.argv[1:]]))
"""


def _spin(forks: Forks, folder: Path, *arguments: str) -> tuple[Fork, int]:
    """The command at work, and the process that it has started."""
    process = forks.start(arguments, folder, "spin", script=_SPIN)
    _wait_until(lambda: process.out.read_text().endswith("\n"))
    return process, int(process.out.read_text())


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGHUP, 75), (signal.SIGINT, 130)]
)
def test_a_signal_stops_after_saving(number: signal.Signals, code: int, forks: Forks, tmp_path: Path) -> None:
    process, child = _spin(forks, tmp_path)
    process.send_signal(number)
    process.wait(120)
    told = process.err.read_text()
    os.killpg(child, signal.SIGKILL)  # ending children in an orderly way is the phase's own work; it was left alone
    assert process.returncode == code
    assert "why:   three units are on disk" in told
    assert "mend:  run the same command again" in told


def test_a_hangup_that_is_told_again_is_no_second_signal(forks: Forks, tmp_path: Path) -> None:
    """A terminal that closes sends it more than once, and a session that ends sends TERM along with it."""
    process, child = _spin(forks, tmp_path, "--stubborn")
    process.send_signal(signal.SIGHUP)
    _wait_until(lambda: "once more" in process.err.read_text())
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    _wait_until(lambda: "SIGTERM" in process.err.read_text())
    process.send_signal(signal.SIGTERM)
    process.wait(120)
    assert process.returncode == 143
    _wait_until(lambda: _is_gone(child))  # the kernel ends a killed process in its own time


def test_a_hangup_that_was_ignored_from_the_start_stays_ignored(environment: Callable[..., dict[str, str]]) -> None:
    """As `nohup` starts a command."""
    command = [sys.executable, "-c", _SPIN]
    process = subprocess.Popen(
        ["bash", "-c", "trap '' HUP; exec \"$@\"", "bash", *command],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=120)
    os.killpg(child, signal.SIGKILL)
    assert "error: stopped by SIGTERM" in told


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        (signal.SIGTERM, signal.SIGTERM, 143),
        (signal.SIGUSR1, signal.SIGTERM, 143),
        (signal.SIGINT, signal.SIGINT, 130),
        (signal.SIGTERM, signal.SIGINT, 130),
    ],
)
def test_a_second_signal_leaves_at_once_and_kills_own_children(
    first: signal.Signals, second: signal.Signals, code: int, forks: Forks, tmp_path: Path
) -> None:
    process, child = _spin(forks, tmp_path, "--stubborn")
    process.send_signal(first)
    _wait_until(lambda: "once more" in process.err.read_text())
    process.send_signal(second)
    process.wait(120)
    assert process.returncode == code
    _wait_until(lambda: _is_gone(child))  # the kernel ends a killed process in its own time


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _is_gone(pid: int) -> bool:
    """Killed: no such process, or one that only waits to be reaped."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True
