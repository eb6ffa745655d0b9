"""A report in a real browser: nothing complains, every filter works, and it is photographed.

Needs Chromium: `make test-report` fetches it, VPGEA_CHROMIUM names another one.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import Page, chromium
from tests.unit.report.test_report_page import hostile_report
from vpgea.report.figures import svg
from vpgea.report.model import Point, Points, Report, Series, Trace, TracedQuestion, Traces
from vpgea.report.page import page as page_of

pytestmark = pytest.mark.chromium
ROOT = Path(__file__).parents[2]
PROGRAM = Path(os.environ.get("VPGEA_CHROMIUM", ROOT / "build" / "chromium" / "chromium"))
PHOTOGRAPHS = ROOT / "build" / "report"
QUESTIONS = 1200
LONG = 30_000  # tokens of the longest trace

Visit = Callable[[Page], Awaitable[Any]]


def question(number: int) -> TracedQuestion:
    """Every third one is right before, every second one was rejected for a leak, every fifth was cut."""
    tokens = LONG if number == 7 else 50 + number
    pieces = [f"w{place} " for place in range(min(tokens, 60) if number != 7 else LONG)]
    traces = [
        Trace(
            column=column,
            source=f"source {column}",
            name=f"prior/{column}",
            status="correct" if number % 3 == 0 or column == 2 else "wrong",
            tokens=tokens,
            truncated=number % 5 == 0,
            facts={"answer found": "w3"},
            reasons=["leak"] if column == 1 and number % 2 == 0 else [],
            pieces=pieces,
            thinking=len(pieces) // 2,
            ratios=[place % 11 - 5.0 if place % 5 == 0 else 0.1 for place in range(len(pieces) // 2)]
            if column == 1
            else [],
            marked=6 if column == 1 else None,
        )
        for column in range(3)
    ]
    return TracedQuestion(
        group="even" if number % 2 == 0 else "odd",
        question_id=f"q{number}",
        question=f"What is {number}? <b>bold</b>",
        answer="w3",
        change="more often right" if number % 3 else "as often right",
        traces=traces,
    )


@pytest.fixture(scope="module")
def report() -> Report:
    """A hostile one with many traces."""
    traces = Traces(
        questions=[question(number) for number in range(QUESTIONS)],
        columns=("prior, before", "posterior, with the note", "prior, after"),
        rule="all of them.",
        available=3 * QUESTIONS,
    )
    return replace(hostile_report(), traces=traces)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, report: Report) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_bytes(page_of(report).encode())
    return path


@pytest.fixture
def visit(tmp_path: Path) -> Callable[[Visit], Any]:
    """Run what is to be done with a page; afterwards nothing may have complained or been fetched."""
    if not PROGRAM.is_file():
        pytest.skip(f"no browser: {PROGRAM} is not there; make test-report fetches it")

    async def visited(what: Visit) -> Any:
        async with chromium(PROGRAM, tmp_path / "profile") as page:
            await page.look(width=1280, height=900)
            found = await what(page)
            assert page.complaints == []
            assert [url for url in page.requests if not url.startswith(("file:", "about:", "blob:"))] == []
            return found

    return lambda what: asyncio.run(visited(what))


async def ready(page: Page, file: Path, fragment: str = "") -> None:
    await page.open(file, fragment)
    await page.until("document.documentElement.dataset.ready === 'yes'")


async def set_filter(page: Page, name: str, value: str) -> int:
    """Set one filter; how many questions are then listed."""
    await page.run(
        f"(() => {{ const f = document.getElementById('f-{name}'); f.value = '{value}';"
        "f.dispatchEvent(new Event('input')) })()"
    )
    return int((await page.run("document.getElementById('count').textContent")).split()[0])


def test_hostile_texts_do_nothing(visit: Callable[[Visit], Any], tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    path.write_bytes(page_of(hostile_report()).encode())

    async def look(page: Page) -> None:
        await page.run("window.alert = () => { throw new Error('it ran') }")
        await ready(page, path)
        await page.until("document.querySelectorAll('#trace .sample').length === 3")
        assert await page.run("document.images.length") == 0
        assert await page.run("document.querySelectorAll('script:not([type])').length") == 1
        assert "<script>alert(1)</script>" in await page.run("document.getElementById('trace').textContent")

    visit(look)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("group", "1", QUESTIONS // 2),
        ("status", "wrong", QUESTIONS - QUESTIONS // 3),
        ("change", "as often right", QUESTIONS // 3),
        ("reason", "leak", QUESTIONS // 2),
        ("cut", "cut", QUESTIONS // 5),
        ("from", "1000", QUESTIONS - 950 + 1),
        ("to", "59", 9),
        ("search", "q119", 11),
        ("search", "WHAT IS 1199?", 1),
    ],
)
def test_every_filter_works(visit: Callable[[Visit], Any], file: Path, name: str, value: str, expected: int) -> None:
    async def look(page: Page) -> None:
        await ready(page, file)
        assert await set_filter(page, name, value) == expected
        assert await set_filter(page, name, "") == QUESTIONS

    visit(look)


def test_keys_move_search_and_colour_and_an_address_leads_back(visit: Callable[[Visit], Any], file: Path) -> None:
    async def look(page: Page) -> None:
        await ready(page, file)
        title = "document.querySelector('#trace h3')?.textContent"
        for key, expected in (("j", "q1 (odd)"), ("j", "q2 (even)"), ("k", "q1 (odd)")):
            await page.press(key)
            await page.until(f"{title} === '{expected}'")
        assert await page.run("location.hash") == "#q=q1&g=1"
        assert await page.run("document.querySelectorAll('#trace.colour .r3, #trace.colour .b3').length") > 0
        await page.press("c")
        assert await page.run("document.querySelectorAll('#trace.colour').length") == 0
        await page.press("/")
        assert await page.run("document.activeElement.id") == "f-search"
        await ready(page, file, "#q=q9&g=1")
        await page.until(f"{title} === 'q9 (odd)'")

    visit(look)


def test_a_trace_of_thirty_thousand_tokens_opens_at_once(visit: Callable[[Visit], Any], file: Path) -> None:
    async def look(page: Page) -> None:
        await ready(page, file)
        await set_filter(page, "search", "q7")
        script = (
            "(async () => { const start = performance.now(); document.querySelector('#list button').click();"
            "while (!document.querySelector('#trace h3')?.textContent.startsWith('q7 '))"
            "  await new Promise(requestAnimationFrame);"
            "document.getElementById('trace').offsetHeight; return performance.now() - start })()"
        )
        milliseconds = await page.run(script)
        print(f"opened in {milliseconds:.0f} ms")
        assert milliseconds < 2000  # 200 with nothing else to do
        assert await page.run("document.querySelectorAll('#trace .here').length") == 2  # in the legend too

    visit(look)


def test_what_is_saved_is_what_was_packed(visit: Callable[[Visit], Any], file: Path) -> None:
    async def look(page: Page) -> None:
        await ready(page, file)
        await page.run(
            "window.saved = [];"
            "URL.createObjectURL = blob => { blob.text().then(text => saved.push(text)); return '#' };"
            "HTMLAnchorElement.prototype.click = () => {}"
        )
        await page.run("document.querySelector('[data-file]').click()")
        await page.until("saved.length === 1")
        assert r"{{ 7*7 }}" in await page.run("saved[0]")
        await page.run("document.querySelector('[data-svg]').click()")
        await page.until("saved.length === 2")
        assert "<style" in await page.run("saved[1]")

    visit(look)


def test_it_fits_a_desk_and_a_phone_by_day_and_night(visit: Callable[[Visit], Any], file: Path) -> None:
    PHOTOGRAPHS.mkdir(parents=True, exist_ok=True)

    async def look(page: Page) -> None:
        await ready(page, file)
        backs = set()
        for name, screen in (
            ("desktop", {"width": 1280, "height": 900}),
            ("dark", {"width": 1280, "height": 900, "dark": True}),
            ("phone", {"width": 390, "height": 844, "phone": True}),
        ):
            await page.look(**screen)  # type: ignore[arg-type]
            assert await page.run("document.documentElement.scrollWidth <= innerWidth"), name
            backs.add(await page.run("getComputedStyle(document.body).backgroundColor"))
            await page.photograph(PHOTOGRAPHS / f"{name}.png")
            await page.run("document.getElementById('traces').scrollIntoView()")
            await page.photograph(PHOTOGRAPHS / f"{name}-traces.png")
        assert len(backs) == 2
        started = time.monotonic()
        printed = await page.call("Page.printToPDF")
        assert len(printed["data"]) > 1000
        assert time.monotonic() - started < 60

    visit(look)


def test_a_picture_of_its_own_can_be_seen_by_day_and_by_night(visit: Callable[[Visit], Any], tmp_path: Path) -> None:
    PHOTOGRAPHS.mkdir(parents=True, exist_ok=True)
    file = tmp_path / "picture.svg"
    runs = [[Point(x=x, y=0.5 + side * 0.1 + x / 20) for x in range(5)] for side in (-1, 1)]
    series = Series("mean", [Point(x=x, y=0.5 + x / 20, beside=f"λ {x}") for x in range(5)], runs)
    chart = Points(name="p", title="t", x_label="cost", y_label="worth", series=[series], joined=True, level=0.5)
    file.write_bytes(svg(chart, standalone=True).encode())

    async def look(page: Page) -> None:
        await page.open(file)
        grounds, texts = set(), set()
        for name in ("light", "dark"):
            await page.look(width=700, height=360, dark=name == "dark")
            style = "getComputedStyle(document.querySelector('{}')).fill"
            grounds.add(await page.run(style.format(".back")))
            texts.add(await page.run(style.format("text")))
            await page.photograph(PHOTOGRAPHS / f"picture-{name}.png")
        assert len(grounds) == len(texts) == 2
        assert not grounds & texts

    visit(look)
