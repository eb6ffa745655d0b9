"""What a report shows: sections of words, tables and charts, and traces. How it looks is elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

Cells = tuple[str, ...]


@dataclass(frozen=True)
class Words:
    """A paragraph."""

    kind: ClassVar[str] = "words"
    text: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """marked: rows that want attention. note: how it was come by. closed: shown when it is opened."""

    kind: ClassVar[str] = "table"
    title: str
    head: Cells
    rows: Sequence[Cells]
    note: str = ""
    marked: frozenset[int] = frozenset()
    closed: bool = False


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt as a model sees it. tokens: (id, its string) each."""

    kind: ClassVar[str] = "prompt"
    title: str
    text: str
    tokens: Sequence[tuple[int, str]]


@dataclass(frozen=True, kw_only=True)
class Point:
    """A measured value; the bounds are those of its 95 % interval, where it has one. beside: shown next to its mark."""

    x: float
    y: float
    x_bounds: tuple[float, float] | None = None
    y_bounds: tuple[float, float] | None = None
    label: str = ""
    beside: str = ""


@dataclass(frozen=True)
class Series:
    """Points of one run, or means of several: runs has then the points of each of them, drawn as thin lines."""

    name: str
    points: Sequence[Point]
    runs: Sequence[Sequence[Point]] = ()


@dataclass(frozen=True, kw_only=True)
class Hollow:
    """A value of others, of which no x is known: it is drawn hollow on the y axis.

    Attributes:
        series: Number of the series that it is to be held against, whose colour it has.
        kind: As the legend names it; each kind has a shape of its own.
    """

    y: float
    series: int
    kind: str
    label: str


@dataclass(frozen=True, kw_only=True)
class Points:
    """A chart of points.

    Attributes:
        name: Of the file that it becomes.
        joined: A line through the points of a series, in their order.
        log_x: The x axis is logarithmic.
        percent_y: y is a share, shown in percent.
        level: A y that is marked by a line across.
        hollow: What others have found.
    """

    kind: ClassVar[str] = "points"
    name: str
    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    joined: bool = False
    log_x: bool = False
    percent_y: bool = False
    level: float | None = None
    hollow: Sequence[Hollow] = ()
    note: str = ""

    @property
    def kinds(self) -> list[str]:
        """Of hollow values, in the order in which they come."""
        return list(dict.fromkeys(one.kind for one in self.hollow))


@dataclass(frozen=True, kw_only=True)
class Bars:
    """A chart of stacked bars.

    Attributes:
        name: Of the file that it becomes.
        labels: One per bar, or, with `edges`, one more than bars.
        stacks: (what, a height for each bar), from the bottom up.
        edges: The labels stand between the bars: those of a histogram.
    """

    kind: ClassVar[str] = "bars"
    name: str
    title: str
    x_label: str
    y_label: str
    labels: Sequence[str]
    stacks: Sequence[tuple[str, Sequence[float]]]
    edges: bool = False
    note: str = ""


Block = Words | Table | Prompt | Points | Bars


@dataclass(frozen=True)
class Section:
    """key: its name in links."""

    key: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One sample for reading.

    Attributes:
        column: 0 before, 1 posterior, 2 after.
        source: Where it is from, in words.
        name: VIEW/INDEX.
        status: Of its grade; "" where it was not graded.
        facts: What else is known of it, by name.
        reasons: Why it was rejected.
        pieces: The completion token by token, or as one.
        thinking: Number of pieces that are the thinking; 0 where the text is in one piece.
        ratios: log q - log pi in nats of the leading pieces; empty where it is not stored.
        marked: The piece on which its note dependence stands.
    """

    column: int
    source: str
    name: str
    status: str
    tokens: int | None
    truncated: bool
    facts: dict[str, str]
    reasons: Sequence[str]
    pieces: Sequence[str]
    thinking: int
    ratios: Sequence[float]
    marked: int | None = None


@dataclass(frozen=True, kw_only=True)
class TracedQuestion:
    """A question with the samples that stand side by side. change: of its accuracy, where two runs have it."""

    group: str
    question_id: str
    question: str
    answer: str
    change: str
    traces: Sequence[Trace]


@dataclass(frozen=True, kw_only=True)
class Traces:
    """rule: which samples are in the file, and which are not. columns: what the three show."""

    questions: Sequence[TracedQuestion]
    columns: tuple[str, str, str]
    rule: str
    available: int
    notes: Sequence[str] = ()

    @property
    def included(self) -> int:
        return sum(len(question.traces) for question in self.questions)


@dataclass(frozen=True)
class Download:
    """A file inside the report."""

    name: str
    media_type: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """All of it. verdict: in words, the whole first."""

    title: str
    verdict: Sequence[str]
    sections: Sequence[Section]
    traces: Traces | None = None
    downloads: Sequence[Download] = field(default_factory=list)

    @property
    def charts(self) -> list[Points | Bars]:
        """Every chart, in the order in which they are shown."""
        blocks = (block for section in self.sections for block in section.blocks)
        return [block for block in blocks if isinstance(block, Points | Bars)]
