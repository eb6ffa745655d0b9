"""Charts as SVG: well formed, escaped, and every value where its axis says."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from vpgea.report.figures import svg
from vpgea.report.model import Bars, Hollow, Point, Points, Report, Section, Series
from vpgea.report.plots import write_plots

HOSTILE = '</title><script>alert(1)</script>"\u202e\x00'
SPACE = "{http://www.w3.org/2000/svg}"


def points(**changes: object) -> Points:
    values: dict[str, object] = {
        "name": "p",
        "title": "t",
        "x_label": "x",
        "y_label": "y",
        "series": [Series("a", [Point(x=1, y=0.5, x_bounds=(0.5, 2), y_bounds=(0.4, 0.6)), Point(x=4, y=0.9)])],
    }
    return Points(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("log_x", [False, True])
@pytest.mark.parametrize("values", [[(1, 0.5)], [(1, 0), (300, 1)], [(3, -1e-9), (3, 1e9)], []])
def test_charts_of_any_values_are_well_formed(joined: bool, log_x: bool, values: list[tuple[float, float]]) -> None:
    series = [Series("a", [Point(x=x, y=y) for x, y in values]), Series("b", [])]
    for percent in (False, True):
        found = svg(points(series=series, joined=joined, log_x=log_x, percent_y=percent))
        ET.fromstring(found)
        assert "nan" not in found
        assert "inf" not in found.replace("info", "")


def test_bars_stand_on_one_another_and_are_as_high_as_their_values() -> None:
    chart = Bars(
        name="b", title="t", x_label="x", y_label="y", labels=["one", "two"], stacks=[("low", [1, 2]), ("high", [3, 0])]
    )
    rects = [rect.attrib for rect in ET.fromstring(svg(chart)).iter(f"{SPACE}rect")]
    low, low_two, high = ({name: float(rect[name]) for name in ("y", "height")} for rect in rects)
    assert high["height"] == pytest.approx(3 * low["height"], abs=0.2)
    assert low_two["height"] == pytest.approx(2 * low["height"], abs=0.2)
    assert high["y"] + high["height"] == pytest.approx(low["y"], abs=0.2)


def test_points_stand_where_the_ticks_say() -> None:
    root = ET.fromstring(svg(points(series=[Series("a", [Point(x=x, y=0.0) for x in (0, 50, 100)])])))
    ticks = {text.text: float(text.attrib["x"]) for text in root.iter(f"{SPACE}text") if "x" in text.attrib}
    marks = [float(re.findall(r"M([\d.]+)", path.attrib["d"])[0]) + 4 for path in root.iter(f"{SPACE}path")]
    assert marks == pytest.approx([ticks["0"], (ticks["0"] + ticks["100"]) / 2, ticks["100"]], abs=0.2)


def test_values_of_others_stand_hollow_on_the_axis_and_each_kind_in_the_legend() -> None:
    """A value beyond the measured ones widens the axis."""
    hollow = [Hollow(y=y, series=0, kind=kind, label=HOSTILE) for y, kind in ((0.1, "b"), (0.9, "a"), (0.5, "b"))]
    root = ET.fromstring(svg(points(hollow=hollow)))
    marks = [path.attrib["d"] for path in root.iter(f"{SPACE}path") if path.attrib["class"] == "hollow"]
    assert len(marks) == 3 + 2
    ticks = {text.text: float(text.attrib["y"]) - 4 for text in root.iter(f"{SPACE}text") if "y" in text.attrib}
    low, high, middle = (tuple(map(float, re.findall(r"[\d.]+", mark)[:2])) for mark in marks[:3])
    assert {low[0], high[0], middle[0]} == {76}, "that is where the axis is"
    assert low[1] - middle[1] == pytest.approx(ticks["0.0"] - ticks["0.4"], abs=0.2)
    assert marks[0].split("l")[1] == marks[2].split("l")[1] != marks[1].split("l")[1], "a kind has one shape"
    assert {"a", "b"} <= ticks.keys(), "the legend names them"
    assert "\u202e" not in svg(points(hollow=hollow))


def test_a_long_label_of_the_last_tick_stays_inside() -> None:
    root = ET.fromstring(svg(points(series=[Series("a", [Point(x=x, y=0.0) for x in (0, 9_900_000)])])))
    (last,) = (text.attrib for text in root.iter(f"{SPACE}text") if text.text == "10,000,000")
    assert last["text-anchor"] == "middle"
    assert 590 < float(last["x"]) < 640 - len("10,000,000") * 7 / 2


def test_means_have_a_thin_line_for_each_run_within_the_axes_and_a_text_beside_a_mark() -> None:
    mean = [Point(x=x, y=0.5, beside=HOSTILE) for x in (1, 9)]
    runs = [[Point(x=0, y=0.0), Point(x=10, y=0.4)], [Point(x=0, y=1.0), Point(x=10, y=0.6)]]
    root = ET.fromstring(svg(points(series=[Series("a", mean, runs)], joined=True)))
    thin = [path.attrib["d"] for path in root.iter(f"{SPACE}path") if path.attrib["class"] == "thin"]
    assert len(thin) == 2
    places = [float(number) for line in thin for number in re.findall(r"[ML]([\d.]+) ", line)]
    assert places == [76, 624, 76, 624], "the whole width"
    beside = [text.attrib for text in root.iter(f"{SPACE}text") if "script" in (text.text or "")]
    assert [one["text-anchor"] for one in beside] == ["start", "end"], "inside the picture"


def test_a_picture_of_its_own_is_for_day_and_night_and_has_a_size_and_a_ground() -> None:
    found = svg(points(), standalone=True)
    root = ET.fromstring(found)
    assert (root.attrib["width"], root.attrib["height"]) == ("640", "320")
    assert [rect.attrib["class"] for rect in root.iter(f"{SPACE}rect")] == ["back"]
    assert found.count("prefers-color-scheme:dark") == 2
    assert "prefers-color-scheme" not in svg(points()), "a page has its own"


def test_no_text_becomes_markup() -> None:
    labelled = [Series(HOSTILE, [Point(x=1, y=1, label=HOSTILE)]), Series("b", [])]
    bars = Bars(
        name="b", title=HOSTILE, x_label=HOSTILE, y_label=HOSTILE, labels=[HOSTILE], stacks=[(HOSTILE, [1.0])] * 2
    )
    for chart in (points(title=HOSTILE, x_label=HOSTILE, series=labelled), bars):
        for standalone in (False, True):
            found = svg(chart, standalone=standalone)
            root = ET.fromstring(found)
            assert [one for one in root.iter() if one.tag == f"{SPACE}script"] == []
            assert "\u202e" not in found
            assert "\x00" not in found
            assert r"\u202e\x00" in found


def test_a_run_of_three_hundred_rounds_has_a_line_and_few_ticks() -> None:
    series = [Series("a", [Point(x=x, y=math.sin(x)) for x in range(300)])]
    found = svg(points(series=series, joined=True))
    assert len(found) < 20_000
    bars = Bars(
        name="b", title="t", x_label="x", y_label="y", labels=list(map(str, range(300))), stacks=[("a", [1.0] * 300)]
    )
    assert 5 < len(list(ET.fromstring(svg(bars)).iter(f"{SPACE}text"))) < 60


def test_charts_become_the_same_pictures_twice(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="PNG needs matplotlib: pip install 'vpgea[plots]'")
    bars = Bars(name="b", title="$x^", x_label="x", y_label="y", labels=["0", "1"], stacks=[("a", [1.0])], edges=True)
    curve = points(name="../c", joined=True, log_x=True)
    dots = points(level=0.5, hollow=[Hollow(y=0.7, series=0, kind="k", label="")])
    report = Report(title="t", verdict=[], sections=[Section("s", "s", [dots, curve, bars])])
    written = [write_plots(report, tmp_path / name, lambda text: None) for name in "ab"]
    assert [path.name for path in written[0]] == ["p.svg", "p.png", ".._c.svg", ".._c.png", "b.svg", "b.png"]
    for one, other in zip(*written, strict=True):
        assert one.read_bytes() == other.read_bytes()
