"""The one output sink: stdout carries the result and nothing else, stderr everything for people."""

from __future__ import annotations

import json
import math
import os
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpgea.progress import NullProgress, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

LINE_SECONDS = 30.0
LINE_SHARE = 0.05

_INVISIBLE = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}  # controls, bidirectional marks, line separators, ...


class Output:
    """Where a command's words go. `now` is the clock, in seconds."""

    def __init__(
        self,
        *,
        quiet: bool = False,
        verbose: bool = False,
        as_json: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.quiet = quiet
        self.verbose = verbose
        self.as_json = as_json
        self._now = now

    def result(self, value: Path | str | Mapping[str, Any]) -> None:
        """Print the one result: with --json an object, else the text or path (a mapping's `path`, if it has one)."""
        if self.as_json:
            text = json.dumps(_jsonable(value if isinstance(value, Mapping) else {"path": str(value)}))
        elif isinstance(value, Mapping):
            text = str(value["path"]) if "path" in value else json.dumps(_jsonable(value), indent=2)
        else:
            text = str(value)
        try:
            sys.stdout.write(visible(text) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            _discard_stdout()

    def info(self, text: str) -> None:
        if not self.quiet:
            _to_stderr(text)

    def detail(self, text: str) -> None:
        """Shown with --verbose only."""
        if self.verbose:
            _to_stderr(text)

    def warn(self, text: str) -> None:
        _to_stderr(f"warning: {text}")

    def skipped_rows(self, skipped: Sequence[object], most: int = 20) -> None:
        """Count and list the question rows that were left out."""
        if skipped:
            listed = [f"  {row}" for row in skipped[:most]]
            more = [f"  ... and {len(skipped) - most} more"] if len(skipped) > most else []
            self.warn("\n".join([f"{len(skipped)} unusable rows were left out:", *listed, *more]))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table for people; cells are never cut."""
        if self.quiet:
            return
        cells = [[visible(str(cell)) for cell in row] for row in rows]
        if sys.stderr.isatty():
            _rich_table(title, columns, cells)
        else:
            _to_stderr("\n".join([title, *aligned([list(columns), *cells])]))

    @contextmanager
    def progress(self, total: int, unit: str) -> Iterator[Progress]:
        """Progress over `total` steps called `unit`: a bar on a terminal, else a line every 30 s or 5 %."""
        if self.quiet:
            yield NullProgress()
        elif sys.stderr.isatty():
            with _rich_progress() as bars:
                yield _Bar(bars, bars.add_task(unit, total=total, speed="", note=""), self._now)
        else:
            yield PlainProgress(total, unit, now=self._now)


class PlainProgress:
    """Progress as lines in a log."""

    def __init__(
        self, total: int, unit: str, *, now: Callable[[], float], write: Callable[[str], None] | None = None
    ) -> None:
        self._total, self._unit, self._now = total, unit, now
        self._write = write or _to_stderr
        self._start = self._last_time = now()
        self._done = self._tokens = self._last_done = 0
        self._note = ""

    def advance(self, steps: int, tokens: int = 0) -> None:
        self._done += steps
        self._tokens += tokens
        now = self._now()
        grown = self._done - self._last_done
        enough = grown >= LINE_SHARE * self._total or self._done >= self._total
        if (grown and enough) or now - self._last_time >= LINE_SECONDS:
            self._last_time, self._last_done = now, self._done
            self._write(self._line(now - self._start))

    def note(self, text: str) -> None:
        self._note = text

    def _line(self, elapsed: float) -> str:
        share = self._done / self._total if self._total else 1.0
        parts = [f"{self._unit} {self._done}/{self._total} ({share:.0%})"]
        parts += [rate(self._tokens, elapsed)] if self._tokens else []
        parts += [f"{duration(elapsed / share * (1 - share))} left"] if share else []
        return ", ".join([*parts, *([self._note] if self._note else [])])


class _Bar:
    """The same as a rich bar."""

    def __init__(self, bars: RichProgress, task: TaskID, now: Callable[[], float]) -> None:
        self._bars, self._task, self._now = bars, task, now
        self._start, self._tokens = now(), 0

    def advance(self, steps: int, tokens: int = 0) -> None:
        self._tokens += tokens
        speed = rate(self._tokens, self._now() - self._start) if self._tokens else ""
        self._bars.update(self._task, advance=steps, speed=speed)

    def note(self, text: str) -> None:
        self._bars.update(self._task, note=visible(text))


def _rich_progress() -> RichProgress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}", markup=False),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
    )


def _rich_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left")
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(stderr=True).print(table)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines with columns under one another."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def rate(tokens: int, seconds: float) -> str:
    return f"{tokens / seconds:,.0f} tokens/s" if seconds > 0 else f"{tokens:,} tokens"


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 07 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def visible(text: str) -> str:
    """The text with control characters made visible: what a model wrote must not steer the terminal."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in _INVISIBLE else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _jsonable(value: Any) -> Any:
    """For strict JSON, which knows no NaN: numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def _to_stderr(text: str) -> None:
    with suppress(BrokenPipeError):  # whoever read the log has gone; the work goes on
        sys.stderr.write(visible(text) + "\n")
        sys.stderr.flush()


def _discard_stdout() -> None:
    """After the reader has gone: let what is buffered go nowhere, so that Python's exit stays quiet."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
