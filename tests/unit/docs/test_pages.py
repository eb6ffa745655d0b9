"""Links and shell blocks of every Markdown page: the ones lead somewhere, the others are run or say why not."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from docs.tools.pages import (
    ROOT,
    anchors,
    commands_outside_blocks,
    defines,
    links,
    pages,
    shell_blocks,
    source_references,
    torn_rows,
)

PAGES = {page.relative_to(ROOT).as_posix(): page for page in pages()}
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", PAGES)
def test_every_relative_link_leads_to_a_file_and_a_heading(name: str) -> None:
    missing = []
    for link in links(PAGES[name]):
        inside = link.path.is_file() and link.path.is_relative_to(ROOT)
        if not inside or (link.anchor and link.anchor not in anchors(link.path)):
            missing.append(link.target)
    assert missing == []


@pytest.mark.parametrize("name", PAGES)
def test_a_block_that_is_run_elsewhere_names_a_test_or_a_step_of_ci(name: str) -> None:
    named = [block.reason for block in shell_blocks(PAGES[name]) if block.mark == "run by"]
    assert [reason for reason in named if not (ROOT / reason).is_file() and reason not in CI] == []


@pytest.mark.parametrize("name", PAGES)
def test_shell_stands_in_blocks_that_a_test_finds(name: str) -> None:
    assert commands_outside_blocks(PAGES[name]) == []


@pytest.mark.parametrize("name", PAGES)
def test_tables_have_rows_as_wide_as_their_heads(name: str) -> None:
    assert torn_rows(PAGES[name]) == []


@pytest.mark.parametrize("name", [name for name in PAGES if name != "CHANGELOG.md"])
def test_source_that_a_page_names_is_there(name: str) -> None:
    missing = []
    for path, defined in source_references(PAGES[name]):
        if not (ROOT / path).exists() or (defined and not defines(ROOT / path, defined)):
            missing.append(f"{path}:{defined}")
    assert missing == []


def _titles(entries: list[Any]) -> Iterator[str]:
    for entry in entries:
        for target in entry.values():
            yield from [target] if isinstance(target, str) else _titles(target)


def test_the_site_has_every_page_once() -> None:
    nav = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    data = {name for name in PAGES if name.startswith("tests/")}
    assert sorted(_titles(nav)) == sorted(PAGES.keys() - data)


def test_every_package_has_its_page_of_the_api() -> None:
    packages = {path.parent.name for path in (ROOT / "vpgea").glob("*/__init__.py")} | {"errors"}
    assert {page.stem: page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "api").glob("*.md")} == {
        package: f"# vpgea.{package}\n\n::: vpgea.{package}\n" for package in packages
    }


def test_links_and_blocks_are_seen_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("docs.tools.pages.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "# One: *two*\n\n# One: *two*\n\n[a](other.md#b) [c](#d) [e](https://example.org) `[f](g.md)`\n\n"
        "<!-- not run: too long -->\n```sh\nvpgea loop\n```\n\n```sh\nvpgea doctor\n```\n\n"
        "    vpgea eval\n\n```\npython -m this\n```\n",
        encoding="utf-8",
    )
    assert [(link.path.name, link.anchor) for link in links(page)] == [("other.md", "b"), ("page.md", "d")]
    assert anchors(page) == {"one-two", "one-two-1"}
    blocks = list(shell_blocks(page))
    assert [(block.commands, block.mark, block.reason) for block in blocks] == [
        ("vpgea loop\n", "not run", "too long"),
        ("vpgea doctor\n", "", ""),
    ]
    assert commands_outside_blocks(page) == ["vpgea eval", "python -m this"]


def test_source_references_are_looked_up(tmp_path: Path) -> None:
    page, source = tmp_path / "page.md", tmp_path / "source.py"
    page.write_text("`vpgea/a.py` and `vpgea/b/c.py:C.d`, not `other/x.py`\n", encoding="utf-8")
    source.write_text("A = 1\n\nclass C:\n    d: int\n    def e(self): ...\n", encoding="utf-8")
    assert source_references(page) == [("vpgea/a.py", ""), ("vpgea/b/c.py", "C.d")]
    assert [defines(source, name) for name in ("A", "C", "C.d", "C.e", "C.f", "D")] == [True] * 4 + [False] * 2
