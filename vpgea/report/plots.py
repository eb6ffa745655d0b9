"""A report's figures as files: SVG always, PNG where matplotlib is installed."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vpgea.report import figures
from vpgea.report.model import Bars, Points, Report
from vpgea.storage.files import write_bytes

_HOLLOW = ("v", "D")  # the shapes of `figures` for kinds of hollow values
_UNUSABLE = re.compile(r"[^\w.+-]+")


def write_plots(report: Report, folder: Path, tell: Callable[[str], None]) -> list[Path]:
    """Every figure of a report.

    Args:
        report: Whose.
        folder: Is made where it is not there.
        tell: Is told why there is no PNG.

    Returns:
        What was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    has_png = importlib.util.find_spec("matplotlib") is not None
    if not has_png:
        tell("figures are written as SVG alone: PNG needs matplotlib (pip install 'vpgea[plots]')")
    written = []
    for chart in report.charts:
        path = folder / f"{_UNUSABLE.sub('_', chart.name)}.svg"
        write_bytes(path, figures.svg(chart, standalone=True).encode())
        written.append(path)
        if has_png:
            written.append(_png(chart, path.with_suffix(".png")))
    return written


def _png(chart: Points | Bars, path: Path) -> Path:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    style = {
        "text.usetex": False,
        "text.parse_math": False,
        "axes.prop_cycle": matplotlib.cycler(color=figures.PALETTE),
    }
    with matplotlib.rc_context(style):
        drawn, axes = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")
        if isinstance(chart, Points):
            _points(axes, chart)
        else:
            _bars(axes, chart)
        axes.set(title=chart.title, xlabel=chart.x_label, ylabel=chart.y_label)
        if len(axes.get_legend_handles_labels()[0]) > 1:
            drawn.legend(loc="outside lower center", ncols=3, fontsize="small")
        drawn.savefig(path, dpi=150, metadata={"Software": None})  # so that the bytes are the same every time
        pyplot.close(drawn)
    return path


def _points(axes: Any, chart: Points) -> None:
    if chart.log_x:
        axes.set_xscale("log", base=2)
    if chart.level is not None:
        axes.axhline(chart.level, color="grey", linestyle="--", linewidth=1)
    for series in chart.series:
        xs, ys = [point.x for point in series.points], [point.y for point in series.points]
        bounds = [
            [[0.0, 0.0] if limits is None else [value - limits[0], limits[1] - value] for value, limits in pairs]
            for pairs in (
                [(point.x, point.x_bounds) for point in series.points],
                [(point.y, point.y_bounds) for point in series.points],
            )
        ]
        style = "o-" if chart.joined else "o"
        errors = {name: list(zip(*one, strict=True)) for name, one in zip(("xerr", "yerr"), bounds, strict=True) if one}
        (drawn, *_) = axes.errorbar(xs, ys, fmt=style, label=series.name, markersize=4, **errors)
        for run in series.runs:
            axes.plot([point.x for point in run], [point.y for point in run], color=drawn.get_color(), lw=1, alpha=0.45)
        for point in series.points:
            if point.beside:
                axes.annotate(point.beside, (point.x, point.y), (4, 4), textcoords="offset points", fontsize="small")
    for place, kind in enumerate(chart.kinds):
        for number, one in enumerate(each for each in chart.hollow if each.kind == kind):
            axes.plot(
                0,
                one.y,
                _HOLLOW[place % len(_HOLLOW)],
                transform=axes.get_yaxis_transform(),  # x is a share of the width: on the axis
                markerfacecolor="none",
                color=figures.PALETTE[one.series % len(figures.PALETTE)],
                clip_on=False,
                label=None if number else kind,
            )


def _bars(axes: Any, chart: Bars) -> None:
    count = len(chart.labels) - chart.edges
    bottoms = [0.0] * count
    for name, values in chart.stacks:
        axes.bar(range(count), values, bottom=bottoms, label=name, width=0.9, align="edge" if chart.edges else "center")
        bottoms = [bottom + value for bottom, value in zip(bottoms, values, strict=True)]
    every = max(1, len(chart.labels) // 10)
    places = range(0, len(chart.labels), every)
    axes.set_xticks(list(places), [chart.labels[place] for place in places])
