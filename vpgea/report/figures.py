"""Charts as SVG: pure functions of what they show. Colours are classes, so that a page can be light or dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from vpgea.report.model import Bars, Point, Points, Series
from vpgea.report.text import visible

WIDTH, HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 16, 12, 44
_STEPS = (1, 2, 2.5, 5, 10)
_SHAPES = 5
_TICKS = 8  # of a logarithmic axis; fewer values than that are their own
_LEGEND = 20  # height of a line of the legend
_CHARACTER = 7.4  # width of a character of a label

_RECT = Markup('<rect class="bar" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>')

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#7a5195", "#777777")
_COLOURS = "".join(f".s{place}{{--c:{colour}}}" for place, colour in enumerate(PALETTE))
STYLE = f"""
text{{font:12px system-ui,sans-serif;fill:#333}}.axis,.grid{{stroke:#ccc;fill:none}}
.thin{{stroke:var(--c);fill:none;opacity:.45}}
.level{{stroke:#777;stroke-dasharray:5 4}}{_COLOURS}.bar,.mark{{fill:var(--c)}}.mark{{fill-opacity:.75}}
.line,.cross,.hollow{{stroke:var(--c,#777);fill:none}}.line,.hollow{{stroke-width:2}}.band{{fill:var(--c);opacity:.15}}
"""
_DARK_PALETTE = ("#56a9e8", "#f08a3c", "#2cc295", "#e39ac4", "#d9b13b", "#9ad5f5", "#b08fd0", "#aaa")
_DARK_COLOURS = "".join(f".s{place}{{--c:{colour}}}" for place, colour in enumerate(_DARK_PALETTE))
DARK = f"@media(prefers-color-scheme:dark){{{_DARK_COLOURS}}}\n"  # by night, in a page that has its own texts and lines
_ALONE = """.back{fill:#fff}@media(prefers-color-scheme:dark){
.back{fill:#16181a}text{fill:#e6e6e3}.axis,.grid{stroke:#3b4045}}
"""


@dataclass(frozen=True)
class _Axis:
    """From values to places; ticks: (value, its label)."""

    low: float
    high: float
    place: Callable[[float], float]
    ticks: Sequence[tuple[float, str]]


def svg(chart: Points | Bars, *, standalone: bool = False) -> Markup:
    """A chart; standalone: as a file of its own, with its style by day and by night."""
    drawn = _points(chart) if isinstance(chart, Points) else _bars(chart)
    names = [one.name for one in chart.series] if isinstance(chart, Points) else [name for name, _ in chart.stacks]
    kinds = chart.kinds if isinstance(chart, Points) else []
    legend, height = _legend(names, kinds) if len(names) + len(kinds) > 1 else (Markup(""), 0)
    title = escape(visible(chart.title))
    box = (WIDTH, HEIGHT + height)
    size, style = Markup(""), Markup("")
    if standalone:
        size = Markup(' width="{}" height="{}"').format(*box)
        style = Markup(f"<style>{STYLE}{DARK}{_ALONE}</style>")  # noqa: S704 - ours
        style += Markup('<rect class="back" width="{}" height="{}"/>').format(*box)
    start = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}"{} role="img" aria-label="{}" class="chart">'
    ).format(*box, size, title)
    return Markup("").join([start, style, Markup("<title>{}</title>").format(title), drawn, legend, Markup("</svg>")])


# --- points ---------------------------------------------------------------------------------------------------------


def _points(chart: Points) -> Markup:
    points = [point for one in chart.series for each in (one.points, *one.runs) for point in each]
    if not points:
        return _text(WIDTH / 2, HEIGHT / 2, "nothing was measured", "middle")
    xs = [x for point in points for x in (point.x, *(point.x_bounds or ()))]
    ys = [y for point in points for y in (point.y, *(point.y_bounds or ()))]
    ys += [*(one.y for one in chart.hollow), *([] if chart.level is None else [chart.level])]
    across = _logarithmic(xs) if chart.log_x and min(xs) > 0 else _linear(xs, _LEFT, WIDTH - _RIGHT)
    up = _linear(ys, HEIGHT - _BOTTOM, _TOP, percent=chart.percent_y)
    drawn = [_frame(chart.x_label, chart.y_label, across, up)]
    if chart.level is not None:
        drawn.append(_line(_LEFT, up.place(chart.level), WIDTH - _RIGHT, up.place(chart.level), "level"))
    drawn += [_series(one, number, across, up, joined=chart.joined) for number, one in enumerate(chart.series)]
    for one in chart.hollow:
        mark = _hollow(_LEFT, up.place(one.y), chart.kinds.index(one.kind), f"{one.kind}: {one.label}")
        drawn.append(Markup('<g class="s{}">{}</g>').format(one.series % len(PALETTE), mark))
    return Markup("").join(drawn)


def _series(series: Series, number: int, across: _Axis, up: _Axis, *, joined: bool) -> Markup:
    drawn = [_path([(point.x, point.y) for point in each], across, up, "thin") for each in series.runs]
    if joined:
        banded = [point for point in series.points if point.y_bounds is not None]
        edges = [(point.x, point.y_bounds[0]) for point in banded if point.y_bounds]
        edges += [(point.x, point.y_bounds[1]) for point in reversed(banded) if point.y_bounds]
        drawn += [_path(edges, across, up, "band", closed=True)] if len(banded) > 1 else []
        drawn.append(_path([(point.x, point.y) for point in series.points], across, up, "line"))
    many = len(series.points) > 60
    for point in series.points:
        x, y = across.place(point.x), up.place(point.y)
        if not joined and point.x_bounds is not None:
            drawn.append(_line(across.place(point.x_bounds[0]), y, across.place(point.x_bounds[1]), y, "cross"))
        if not joined and point.y_bounds is not None:
            drawn.append(_line(x, up.place(point.y_bounds[0]), x, up.place(point.y_bounds[1]), "cross"))
        if not (joined and many):
            drawn.append(_mark(x, y, number, point, series.name))
        if point.beside:
            is_right = x > (_LEFT + WIDTH - _RIGHT) / 2
            drawn.append(_text(x - 6 if is_right else x + 6, y - 7, point.beside, "end" if is_right else "start"))
    return Markup('<g class="s{}">{}</g>').format(number % len(PALETTE), Markup("").join(drawn))


def _mark(x: float, y: float, number: int, point: Point, name: str) -> Markup:
    """A shape of its own for every run: colours alone do not tell them apart for everybody."""
    said = ": ".join(text for text in (visible(name), visible(point.label)) if text)
    return Markup('<path class="mark" d="{}"><title>{}</title></path>').format(_shape(x, y, number), said)


def _hollow(x: float, y: float, kind: int, label: str) -> Markup:
    """Shapes from the last one down, so that a chart of few runs has others for them."""
    shape = _shape(x, y, _SHAPES - 1 - kind)
    return Markup('<path class="hollow" d="{}"><title>{}</title></path>').format(shape, visible(label))


def _shape(x: float, y: float, number: int) -> str:
    return {
        0: f"M{x - 4:.1f} {y:.1f}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
        1: f"M{x - 4:.1f} {y - 4:.1f}h8v8h-8z",
        2: f"M{x:.1f} {y - 5:.1f}l5 9h-10z",
        3: f"M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z",
        4: f"M{x:.1f} {y + 5:.1f}l5 -9h-10z",
    }[number % _SHAPES]


# --- bars -----------------------------------------------------------------------------------------------------------


def _bars(chart: Bars) -> Markup:
    count = len(chart.labels) - chart.edges
    heights = [sum(values[place] for _, values in chart.stacks) for place in range(count)]
    if not heights:
        return _text(WIDTH / 2, HEIGHT / 2, "nothing was measured", "middle")
    up = _linear([0.0, max(heights) or 1.0], HEIGHT - _BOTTOM, _TOP)
    wide = (WIDTH - _LEFT - _RIGHT) / count
    every = max(1, math.ceil(max(map(len, chart.labels)) * _CHARACTER / wide))
    shift = 0.0 if chart.edges else 0.5
    ticks = [(place + shift, label) for place, label in enumerate(chart.labels) if place % every == 0]
    across = _Axis(0, count, lambda value: _LEFT + value * wide, ticks)
    drawn = [_frame(chart.x_label, chart.y_label, across, up)]
    bottoms = [0.0] * count
    gap = min(1.0, wide * 0.1)
    for number, (name, values) in enumerate(chart.stacks):
        rects = []
        for place, value in enumerate(values):
            if value > 0:
                top, bottom = up.place(bottoms[place] + value), up.place(bottoms[place])
                label = "-".join(chart.labels[place : place + 2]) if chart.edges else chart.labels[place]
                sizes = map(_number, (across.place(place) + gap, top, wide - 2 * gap, bottom - top))
                rects.append(_RECT.format(*sizes, visible(f"{label}: {name} {value:,.6g}")))
                bottoms[place] += value
        drawn.append(Markup('<g class="s{}">{}</g>').format(number % len(PALETTE), Markup("").join(rects)))
    return Markup("").join(drawn)


# --- axes -----------------------------------------------------------------------------------------------------------


def _linear(values: Sequence[float], start: float, end: float, *, percent: bool = False) -> _Axis:
    low, high = min(values), max(values)
    if high == low:
        low, high = low - (abs(low) * 0.1 or 0.5), high + (abs(high) * 0.1 or 0.5)
    step = _step((high - low) / 5)
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    ticks = [(low + place * step) for place in range(round((high - low) / step) + 1)]
    shown = [round(100 * tick if percent else tick, 9) + 0.0 for tick in ticks]  # no -0.0
    digits = next((d for d in range(9) if all(abs(round(value, d) - value) < step * 1e-6 for value in shown)), 9)
    labels = [f"{value:.{digits}f} %" if percent else f"{value:,.{digits}f}" for value in shown]
    scale = (end - start) / (high - low)
    return _Axis(low, high, lambda value: start + (value - low) * scale, list(zip(ticks, labels, strict=True)))


def _logarithmic(values: Sequence[float]) -> _Axis:
    low, high = math.log2(min(values)), math.log2(max(values))
    low, high = (low - 0.5, high + 0.5) if high - low < 1 else (low - 0.1, high + 0.1)
    powers = range(math.ceil(low), math.floor(high) + 1)
    every = max(1, len(powers) // _TICKS)
    own = sorted(set(values))
    shown = own if len(own) <= _TICKS else [2.0**power for power in powers if power % every == 0]
    ticks = [(value, f"{value:,.6g}") for value in shown]
    scale = (WIDTH - _RIGHT - _LEFT) / (high - low)
    return _Axis(low, high, lambda value: _LEFT + (math.log2(value) - low) * scale, ticks)


def _step(rough: float) -> float:
    """The smallest round number that is not below."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in _STEPS if factor * power >= rough * (1 - 1e-9))


def _frame(x_label: str, y_label: str, across: _Axis, up: _Axis) -> Markup:
    bottom = HEIGHT - _BOTTOM
    drawn = []
    for value, label in up.ticks:
        y = up.place(value)
        drawn += [_line(_LEFT, y, WIDTH - _RIGHT, y, "grid"), _text(_LEFT - 6, y + 4, label, "end")]
    for value, label in across.ticks:
        x = across.place(value)
        middle = min(x, WIDTH - 2 - len(label) * _CHARACTER / 2)  # inside the picture
        drawn += [_line(x, bottom, x, bottom + 4, "axis"), _text(middle, bottom + 17, label, "middle")]
    drawn.append(_line(_LEFT, bottom, WIDTH - _RIGHT, bottom, "axis"))
    drawn.append(_text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 8, x_label, "middle"))
    turned = Markup('<text transform="translate(13 {}) rotate(-90)" text-anchor="middle">{}</text>')
    drawn.append(turned.format(_number((_TOP + bottom) / 2), visible(y_label)))
    return Markup("").join(drawn)


# --- pieces ---------------------------------------------------------------------------------------------------------


def _legend(names: Sequence[str], kinds: Sequence[str]) -> tuple[Markup, int]:
    """One line of names after the other below the chart, those of hollow marks last, and how high they are."""
    drawn, x, line = [], float(_LEFT), 0
    for number, name in enumerate((*names, *kinds)):
        shown = visible(name)
        width = 22 + len(shown) * _CHARACTER
        if x + width > WIDTH and x > _LEFT:
            x, line = float(_LEFT), line + 1
        y = HEIGHT + line * _LEGEND + 8
        label = _text(x + 15, y + 4, shown, "start")
        if number < len(names):
            mark = _mark(x + 5, y, number, Point(x=0, y=0), "")
            drawn.append(Markup('<g class="s{}">{}{}</g>').format(number % len(PALETTE), mark, label))
        else:
            drawn.append(Markup("<g>{}{}</g>").format(_hollow(x + 5, y, number - len(names), ""), label))
        x += width
    return Markup("").join(drawn), (line + 1) * _LEGEND


def _path(
    places: Sequence[tuple[float, float]], across: _Axis, up: _Axis, name: str, *, closed: bool = False
) -> Markup:
    steps = " ".join(_steps(places, across, up)) + ("Z" if closed else "")
    return Markup('<path class="{}" d="{}"/>').format(name, steps)


def _steps(places: Sequence[tuple[float, float]], across: _Axis, up: _Axis) -> Iterator[str]:
    for number, (x, y) in enumerate(places):
        yield f"{'L' if number else 'M'}{_number(across.place(x))} {_number(up.place(y))}"


def _line(x1: float, y1: float, x2: float, y2: float, name: str) -> Markup:
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(name, *map(_number, (x1, y1, x2, y2)))


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(
        _number(x), _number(y), anchor, visible(text)
    )


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
