"""What a terminal shows while a command works: a table that grows, below it the bar of the running phase."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column, Table
from rich.text import Text

from vpgea.report.text import duration, rate, visible

_BESIDE_ROWS = 6  # lines of title, header, "...", bar, notice and the cursor's own
_WIDE, _NARROW, _NARROWEST = 100, 78, 60  # columns of terminals with a long bar, a short one, none, and no pace either


class Screen:
    """One display at the foot of stderr's terminal; whatever else is written to stderr meanwhile appears above it.

    A bar is gone when its work is done where there is a table, else it stays. `notice` is a last line, set at any
    time, also from a signal handler.

    Args:
        title: Of the table.
        columns: Of the table, whose cells are never cut; empty for bars alone.
    """

    def __init__(self, title: str = "", columns: Sequence[str] = ()) -> None:
        self.notice = ""
        self._title, self._columns = title, columns
        self._rows: list[list[str]] = []
        self._closing = False
        console = Console(stderr=True)
        self._bars = Bars(*_columns(console.width), console=console, auto_refresh=False)
        # stdout is the result's: it must not be redirected to where people look
        self._live = Live(get_renderable=lambda: self, console=console, refresh_per_second=8, redirect_stdout=False)

    def __enter__(self) -> Screen:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.notice, self._closing = "", True
        self._live.stop()

    def add_row(self, cells: Sequence[str]) -> None:
        self._rows.append([visible(cell) for cell in cells])

    @contextmanager
    def bar(self, total: int, unit: str, now: Callable[[], float] = time.monotonic) -> Iterator[Bar]:
        """A bar over `total` steps called `unit`."""
        task = self._bars.add_task(visible(unit), total=total, speed="", note="", before=0)
        try:
            yield Bar(self._bars, task, now)
        finally:
            if self._columns:
                self._bars.remove_task(task)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._columns:
            yield self._table(len(self._rows) if self._closing else max(console.height - _BESIDE_ROWS, 2))
        if self._bars.tasks:
            yield self._bars.get_renderable()
        if self.notice:
            yield Text(self.notice, style="bold")

    def _table(self, most: int) -> Table:
        """The first row and as many of the last as fit."""
        table = Table(title=Text(self._title), title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
        for index, column in enumerate(self._columns):
            width = max((len(row[index]) for row in self._rows), default=0)
            header = Text(column.replace("-", "-\n"), style="bold")
            table.add_column(header, min_width=width, justify="right", vertical="bottom")
        left_out = len(self._rows) - most
        shown = self._rows if left_out <= 0 else [self._rows[0], ["..."], *self._rows[left_out + 1 :]]
        for row in shown:
            table.add_row(*(Text(cell) for cell in row))
        return table


class Bar:
    """One task of the display, as a vpgea Progress."""

    def __init__(self, bars: Bars, task: TaskID, now: Callable[[], float]) -> None:
        self._bars, self._task, self._now = bars, task, now
        self._start, self._tokens, self._calls = now(), 0, 0

    def advance(self, steps: int, tokens: int = 0) -> None:
        if not self._calls and not tokens:
            self._bars.update(self._task, before=steps)
        self._calls += 1
        self._tokens += tokens
        speed = rate(self._tokens, self._now() - self._start) if self._tokens else ""
        self._bars.update(self._task, advance=steps, speed=speed)

    def note(self, text: str) -> None:
        self._bars.update(self._task, note=visible(text))


def _columns(width: int) -> list[ProgressColumn]:
    """What a terminal of so many columns has room for: the count always, uncut; the bar and the note only beside it."""
    folds = Column(no_wrap=width >= _NARROWEST)
    unit = TextColumn("{task.description}", markup=False, table_column=folds)
    count = MofNCompleteColumn(table_column=Column(no_wrap=True))
    pace: list[ProgressColumn] = [TextColumn("{task.fields[speed]}", markup=False), _TimeLeft()]
    if width < _NARROWEST:
        return [unit, count]
    if width < _NARROW:
        return [unit, count, *pace]
    bar = BarColumn(bar_width=40 if width > _WIDE else 12)
    return [unit, bar, count, *pace, TextColumn("{task.fields[note]}", markup=False, table_column=Column())]


class _TimeLeft(ProgressColumn):
    """Time left at the mean pace of this attempt: rich's own estimate jumps when steps come in bursts."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        done = task.completed - task.fields["before"]
        if not done or not task.total or task.elapsed is None or task.finished:
            return Text("")
        return Text(f"{duration(task.elapsed / done * (task.total - task.completed))} left")
