"""The one output sink: stdout carries the result and nothing else, stderr everything for people."""

from __future__ import annotations

import errno
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vpgea.errors import UsageError
from vpgea.report.text import aligned, duration, rate, visible
from vpgea.runs.progress import NullProgress, Progress

if TYPE_CHECKING:
    from vpgea_cli.screen import Bar, Screen

LINE_SECONDS = 30.0
LINE_SHARE = 0.05
SHORTEST_SECONDS = 2.0  # a quick phase would fill the log
AddRow = Callable[[Sequence[str]], None]
_NO_PLACE = {  # of errors: nothing can be written there, and another place would do
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP),
    *(errno.EPIPE, errno.ENXIO),  # of a pipe or a device
}


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
        self._screen: Screen | None = None
        self._warned: set[str] = set()

    def result(self, value: Path | str | Mapping[str, object]) -> None:
        """Print the one result: with --json an object, else the text or path (a mapping's `path`, if it has one)."""
        if self.as_json:
            text = json.dumps(_jsonable(value if isinstance(value, Mapping) else {"path": str(value)}))
        elif isinstance(value, Mapping):
            text = str(value["path"]) if "path" in value else json.dumps(_jsonable(value), indent=2)
        else:
            text = str(value)
        sys.stdout.write(visible(text) + "\n")
        sys.stdout.flush()

    def info(self, text: str) -> None:
        if not self.quiet:
            _to_stderr(text)

    def detail(self, text: str) -> None:
        """Shown with --verbose only."""
        if self.verbose:
            _to_stderr(text)

    def warn(self, text: str) -> None:
        """Each text once: what a phase says, its next part or round says again."""
        if text not in self._warned:
            self._warned.add(text)
            _to_stderr(f"warning: {text}")

    def warn_all(self, texts: Sequence[str]) -> None:
        for text in texts:
            self.warn(text)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table for people; cells are never cut."""
        if self.quiet:
            return
        cells = [[visible(str(cell)) for cell in row] for row in rows]
        if _on_terminal():
            _rich_table(title, columns, cells)
        else:
            _to_stderr("\n".join([title, *aligned([list(columns), *cells])]))

    @contextmanager
    def live_table(self, title: str, columns: Sequence[str]) -> Iterator[AddRow]:
        """A table that grows while progress runs below it; in a log, each row is a line of its own."""
        if self.quiet:
            yield lambda cells: None
        elif _on_terminal():
            with self._showing(title, columns) as screen:
                yield screen.add_row
        else:
            yield lambda cells: _to_stderr(
                "  ".join(f"{name} {cell}" for name, cell in zip(columns, cells, strict=True))
            )

    @contextmanager
    def progress(self, total: int, unit: str) -> Iterator[Progress]:
        """Progress over `total` steps called `unit`: a bar on a terminal, else a line every 30 s or 5 %."""
        if self.quiet:
            yield _Warning(NullProgress(), self.warn)
        elif _on_terminal():
            showing = nullcontext(self._screen) if self._screen else self._showing()
            with showing as screen, screen.bar(total, unit, self._now) as bar:
                yield _Warning(bar, self.warn)
        else:
            yield _Warning(PlainProgress(total, unit, now=self._now), self.warn)

    def urgent(self, text: str) -> None:
        """Say something from within a signal handler: print() is not safe there, which may have come amid one."""
        if self._screen:
            self._screen.notice = text
        else:
            with suppress(OSError):
                os.write(2, f"\n{text}\n".encode())

    @contextmanager
    def _showing(self, title: str = "", columns: Sequence[str] = ()) -> Iterator[Screen]:
        from vpgea_cli.screen import Screen

        with Screen(title, columns) as screen:
            self._screen = screen
            try:
                yield screen
            finally:
                self._screen = None


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """While a file or folder that the user named is written.

    Raises:
        UsageError: It cannot be at that place.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_PLACE:
            raise
        of = "" if error.filename in (None, str(path)) else f": {error.filename}"
        mend = "give a path in a folder that you may write to"
        raise UsageError(f"cannot write {path}", why=f"{error.strerror}{of}", mend=mend) from error


class _Warning:
    """A progress whose warnings go where the output's go."""

    def __init__(self, progress: Bar | PlainProgress | NullProgress, warn: Callable[[str], None]) -> None:
        self.advance, self.note, self.warn = progress.advance, progress.note, warn


class PlainProgress:
    """Progress as lines in a log."""

    def __init__(
        self, total: int, unit: str, *, now: Callable[[], float], write: Callable[[str], None] | None = None
    ) -> None:
        self._total, self._unit, self._now = total, unit, now
        self._write = write or _to_stderr
        self._start = self._last_time = now()
        self._done = self._tokens = self._last_done = 0
        self._before: int | None = None  # steps of earlier attempts: they say nothing about the pace
        self._note = ""

    def advance(self, steps: int, tokens: int = 0) -> None:
        if self._before is None:
            self._before = 0 if tokens else steps
        self._done += steps
        self._tokens += tokens
        now = self._now()
        grown, waited = self._done - self._last_done, now - self._last_time
        share_done = grown >= LINE_SHARE * self._total and waited >= SHORTEST_SECONDS
        if share_done or waited >= LINE_SECONDS or (grown and self._done >= self._total):
            self._last_time, self._last_done = now, self._done
            self._write(self._line(now - self._start))

    def note(self, text: str) -> None:
        self._note = text

    def _line(self, elapsed: float) -> str:
        left, done_now = self._total - self._done, self._done - (self._before or 0)
        share = self._done / self._total if self._total else 1.0
        parts = [f"{self._unit} {self._done}/{self._total} ({share:.0%})"]
        parts += [rate(self._tokens, elapsed)] if self._tokens else []
        if not left:
            parts += [f"in {duration(elapsed)}"]
        elif done_now:
            parts += [f"{duration(elapsed / done_now * left)} left"]
        return ", ".join([*parts, *([self._note] if self._note else [])])


def _on_terminal() -> bool:
    """Whether people look at stderr, on something that can move its cursor."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


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


def _jsonable(value: object) -> object:
    """For strict JSON, which knows no NaN: numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def _to_stderr(text: str) -> None:
    sys.stderr.write(visible(text) + "\n")
    sys.stderr.flush()
