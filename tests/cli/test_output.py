"""The output sink: what goes where, and how progress reads."""

from __future__ import annotations

import json
import math
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from vpgea_cli.output import Output, PlainProgress, aligned, duration, visible
from vpgea_cli.screen import Screen


def test_only_the_result_is_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(verbose=True)
    output.info("information")
    output.detail("detail")
    output.warn("careful")
    output.table("title", ["a", "b"], [[1, "x" * 300]])
    with output.progress(1, "questions") as progress:
        progress.advance(1)
    output.result(Path("run/rollout"))
    captured = capsys.readouterr()
    assert captured.out == "run/rollout\n"
    for expected in (
        "information\n",
        "detail\n",
        "warning: careful\n",
        "title\na  b",
        "x" * 300,
        "questions 1/1 (100%)",
    ):
        assert expected in captured.err


def test_quiet_leaves_warnings_and_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(quiet=True)
    output.info("information")
    output.detail("detail")
    output.table("title", ["a"], [[1]])
    with output.progress(1, "questions") as progress:
        progress.advance(1)
    output.warn("careful")
    output.result("done")
    assert capsys.readouterr() == ("done\n", "warning: careful\n")


def test_json_is_one_strict_object(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=True)
    output.result({"path": Path("x"), "ratio": math.nan, "rows": [1, math.inf, "\x1b"]})
    output.result(Path("y"))
    first, second = capsys.readouterr().out.splitlines()
    assert json.loads(first) == {"path": "x", "ratio": None, "rows": [1, None, "\x1b"]}
    assert json.loads(second) == {"path": "y"}


def test_a_mapping_without_json_is_its_path(capsys: pytest.CaptureFixture[str]) -> None:
    Output().result({"path": "x", "rows": 3})
    Output().result({"rows": 3})
    assert capsys.readouterr().out == 'x\n{\n  "rows": 3\n}\n'


def test_control_characters_are_made_visible() -> None:
    assert visible("a\tb\n") == "a\tb\n"
    assert visible("\x1b]0;title\x07 \r \u202e \x9b \ud800") == "\\x1b]0;title\\x07 \\r \\u202e \\x9b \\ud800"
    assert visible("é 数学\u3000\u00a0 √") == "é 数学\u3000\u00a0 √"


def _lines(total: int, steps: list[tuple[float, int, int]]) -> list[str]:
    """The lines written for (seconds before the step, steps, tokens)."""
    clock = [0.0]
    lines: list[str] = []
    progress = PlainProgress(total, "samples", now=lambda: clock[0], write=lines.append)
    for seconds, count, tokens in steps:
        clock[0] += seconds
        progress.advance(count, tokens)
    return lines


def test_a_line_every_five_percent_with_rate_and_time_left() -> None:
    lines = _lines(1000, [(0.1, 1, 50)] * 1000)
    assert len(lines) == 20
    assert lines[0] == "samples 50/1000 (5%), 500 tokens/s, 1 min 35 s left"
    assert lines[-1] == "samples 1000/1000 (100%), 500 tokens/s, in 1 min 40 s"


def test_a_line_every_thirty_seconds_when_slow() -> None:
    lines = _lines(1000, [(10, 1, 5)] * 9)
    assert lines == [
        "samples 3/1000 (0%), 0 tokens/s, 2 h 46 min left",
        "samples 6/1000 (1%), 0 tokens/s, 2 h 45 min left",
        "samples 9/1000 (1%), 0 tokens/s, 2 h 45 min left",
    ]


def test_a_quick_phase_does_not_fill_the_log() -> None:
    assert _lines(100, [(0.01, 1, 5)] * 100) == ["samples 100/100 (100%), 500 tokens/s, in 1 s"]


def test_steps_of_an_earlier_attempt_do_not_count_for_the_pace() -> None:
    assert _lines(100, [(0, 90, 0), (10, 5, 50)])[-1] == "samples 95/100 (95%), 5 tokens/s, 10 s left"


def test_tokens_alone_show_that_it_lives() -> None:
    assert _lines(10, [(31, 0, 62)]) == ["samples 0/10 (0%), 2 tokens/s"]


def test_nothing_to_do_is_done() -> None:
    assert _lines(0, [(1, 0, 0)]) == []


def test_notes_follow_the_line() -> None:
    lines: list[str] = []
    progress = PlainProgress(1, "steps", now=lambda: 0.0, write=lines.append)
    progress.note("loss 0.5")
    progress.advance(1)
    assert lines == ["steps 1/1 (100%), in 0 s, loss 0.5"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_columns_stand_under_one_another() -> None:
    assert aligned([["a", "bb"], ["ccc", "d"]]) == ["a    bb", "ccc  d"]


_ON_A_TERMINAL = """
from vpgea_cli.output import Output
output = Output()
output.table("[bold]title", ["k"], [["[red]\\x1b[31mcell"]])
with output.progress(4, "samples") as progress:
    progress.advance(4, 1000)
    progress.note("[loss] 0.5")
"""


def test_a_terminal_gets_a_bar_and_a_table_and_no_markup_from_text(
    environment: Callable[..., dict[str, str]],
) -> None:
    leader, follower = pty.openpty()
    env = environment({"TERM": "xterm-256color"})
    done = subprocess.run([sys.executable, "-c", _ON_A_TERMINAL], env=env, stderr=follower, check=False)
    os.close(follower)
    shown = b""
    while chunk := _read(leader):
        shown += chunk
    os.close(leader)
    text = shown.decode()
    assert done.returncode == 0
    for expected in ("[bold]title", "[red]\\x1b[31mcell", "samples", "4/4", "tokens/s", "[loss] 0.5", "━"):
        assert expected in text


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_narrow_terminal_keeps_the_count(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    screen, console = Screen(), Console(width=width, file=StringIO())
    with screen.bar(1_234_567, "rollout: questions") as bar, console.capture() as shown:
        bar.advance(1285, 5000)
        console.print(screen)
    assert "1285/1234567" in shown.get()
    assert ("tokens/s" in shown.get()) is (width >= 60), "the pace gives way, and the bar before it"


_LIVE = """
import os, signal, sys, time
from vpgea.runs.stopping import StopRequest
from vpgea_cli.output import Output
from vpgea_cli.signals import install_signal_handlers
from rich.live import Live
output, refresh, drawn = Output(), Live.refresh, []

def refresh_and_count(live):
    refresh(live)
    drawn.append(live)

def wait_until_drawn():
    goal = len(drawn) + 2  # the first may have begun already
    while len(drawn) < goal:
        time.sleep(0.01)

Live.refresh = refresh_and_count
with install_signal_handlers(StopRequest(), output.urgent):
    with output.live_table("rounds", ["round", "pseudo-efficient"]) as add_row:
        with output.progress(4, "base eval: questions") as progress:
            progress.advance(0)
            progress.advance(2, 1000)
            wait_until_drawn()
            progress.advance(2, 1000)
        for number in range(60):
            add_row([f"row {number}", "1.00 [0.90, 1.10]"])
        output.warn("above the table")
        wait_until_drawn()
        os.kill(os.getpid(), signal.SIGTERM)
        wait_until_drawn()
        if sys.argv[1:]:
            os.kill(os.getpid(), signal.SIGTERM)
output.result("the result")
"""


def _on_a_terminal(script: str, env: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout, and everything that a terminal of 80 columns and 24 lines as stderr was sent."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 80))
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments], env=env, stdout=subprocess.PIPE, stderr=follower, text=True
    ) as process:
        os.close(follower)
        shown = b""
        while chunk := _read(leader):
            shown += chunk
        os.close(leader)
        assert process.stdout is not None
        out = process.stdout.read()
    return process.returncode, out, shown.decode()


def test_a_live_table_keeps_the_bar_below_it_and_ends_with_every_row(
    environment: Callable[..., dict[str, str]],
) -> None:
    env = {**environment({"TERM": "xterm-256color"})}
    del env["COLUMNS"]
    code, out, shown = _on_a_terminal(_LIVE, env)
    assert (code, out) == (0, "the result\n")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert "base eval: questions" in plain
    assert "2/4" in plain
    assert "left" in plain
    assert "SIGTERM: stopping after saving; once more to leave at once" in plain
    while_live, last = plain[: plain.rindex("pseudo-")], plain[plain.rindex("pseudo-") :]
    assert "row 0 " in while_live
    assert "..." in while_live
    assert "row 30 " not in while_live, "the table grew over the terminal's height"
    assert [f"row {number} " in last for number in range(60)] == [True] * 60
    assert "warning: above the table" in plain
    assert "questions" not in last
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


def test_leaving_at_once_gives_the_cursor_back(environment: Callable[..., dict[str, str]]) -> None:
    code, out, shown = _on_a_terminal(_LIVE, environment({"TERM": "xterm-256color"}), "twice")
    assert (code, out) == (143, "")
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


def test_a_log_gets_each_row_once(capsys: pytest.CaptureFixture[str]) -> None:
    with Output().live_table("rounds", ["round", "tokens"]) as add_row:
        add_row(["base", "90.0"])
        add_row(["0", "45.0"])
    assert capsys.readouterr().err == "round base  tokens 90.0\nround 0  tokens 45.0\n"


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other side is closed and everything was read
        return b""


_WHILE_IT_HANGS_UP = """
import os, signal, sys, time
from pathlib import Path
from vpgea_cli.output import Output
from vpgea_cli.streams import hold_open
signal.signal(signal.SIGHUP, signal.SIG_IGN)
hold_open()
output = Output()
with output.progress(10, "samples") as progress:
    for step in range(10):
        progress.advance(1)
        output.info("words")
        print("of a library", file=sys.stderr, flush=True)
        while step == 0 and not Path(sys.argv[1]).exists():
            time.sleep(0.01)
output.table("title", ["a"], [["b"]])
output.warn("more")
output.result("x")
Path(sys.argv[2]).touch()
"""


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_terminal_that_hangs_up_does_not_stop_the_work(
    term: str, environment: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    ours, theirs = pty.openpty()
    words = [str(tmp_path / "gone"), str(tmp_path / "done")]
    with subprocess.Popen(
        [sys.executable, "-c", _WHILE_IT_HANGS_UP, *words],
        env=environment({"TERM": term}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        assert _read(ours)
        os.close(ours)
        (tmp_path / "gone").touch()
        assert process.wait(60) == 0
    assert (tmp_path / "done").exists()


def test_a_log_reader_that_leaves_does_not_stop_the_work(environment: Callable[..., dict[str, str]]) -> None:
    script = (
        "import sys; from vpgea_cli.output import Output; from vpgea_cli.streams import hold_open; hold_open(); "
        "o = Output(); sys.stdin.read(); o.info('x'); o.result('y')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stderr.close()
        process.stdin.close()
        assert process.stdout.read() == b"y\n"
