"""The project's Markdown pages: which there are, where their links lead, their headings, and their shell blocks."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOMES = ("docs", "benchmarks", "examples", "tests/data")

_FENCE = re.compile(
    r"^(?P<indent> *)(?P<ticks>```+) *(?P<language>[\w-]*)[^\n]*\n(?P<body>.*?)^ *(?P=ticks) *$", re.M | re.S
)
_LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(?P<text>.+?) *#*$", re.M)
_MARK = re.compile(r"<!-- (?P<kind>not run|run by): (?P<reason>[^>]+?) -->\n\s*\Z")
_TABLE = re.compile(r"(?:^\|.*\n)+", re.M)
_CELL_END = re.compile(r"(?<!\\)\|")
_INDENTED_COMMAND = re.compile(r"^ {4}(?:\$ )?(?:vpgea|python3?|make|pip|torchrun|sbatch|git) .*$", re.M)
_SOURCE = re.compile(r"`((?:vpgea|vpgea_cli|docs|tests|benchmarks|examples|constraints)/[\w./-]+)(?::([\w.]+))?`")


@dataclass(frozen=True)
class Link:
    """A relative link: the file that it names, and the place in it."""

    target: str
    path: Path
    anchor: str


@dataclass(frozen=True)
class ShellBlock:
    """A block of shell commands, and what stands before it: `not run: REASON`, `run by: TEST FILE`, or nothing."""

    page: str
    line: int
    commands: str
    mark: str
    reason: str


def pages() -> list[Path]:
    """Every Markdown file of the project, in a fixed order: those at the top first."""
    return [*sorted(ROOT.glob("*.md")), *(path for home in HOMES for path in sorted((ROOT / home).rglob("*.md")))]


def _without_code(text: str) -> str:
    return re.sub(r"`[^`\n]+`", "", _FENCE.sub("", text))


def links(page: Path) -> Iterator[Link]:
    """The relative links of a page; code is not looked into."""
    for match in _LINK.finditer(_without_code(page.read_text(encoding="utf-8"))):
        target = match["target"]
        if "://" not in target and not target.startswith("mailto:"):
            name, _, anchor = target.partition("#")
            yield Link(target, (page.parent / name).resolve() if name else page, anchor)


def anchors(page: Path) -> set[str]:
    """The names by which a page's headings are linked to, as GitHub and the site make them."""
    found: dict[str, int] = {}
    for match in _HEADING.finditer(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        name = re.sub(r"[^\w\- ]", "", match["text"].lower()).replace(" ", "-")
        count = found.setdefault(name, 0)
        found[name] += 1
        if count:
            found[f"{name}-{count}"] = 1
    return set(found)


def shell_blocks(page: Path) -> Iterator[ShellBlock]:
    """The fenced blocks of a page that are shell, in order."""
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        if match["language"] in ("sh", "bash", "shell", "console"):
            mark = _MARK.search(text[: match.start()])
            yield ShellBlock(
                page=page.relative_to(ROOT).as_posix(),
                line=text.count("\n", 0, match.start()) + 1,
                commands=match["body"],
                mark=mark["kind"] if mark else "",
                reason=mark["reason"] if mark else "",
            )


def torn_rows(page: Path) -> list[str]:
    """Rows of tables that do not have as many cells as their head: an unescaped `|` within one starts another."""
    torn = []
    for table in _TABLE.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        head, *rows = table.splitlines()
        torn += [row for row in rows if len(_CELL_END.findall(row)) != len(_CELL_END.findall(head))]
    return torn


def commands_outside_blocks(page: Path) -> list[str]:
    """Lines that look like shell and stand where no test would find them: indented, or fenced without a language."""
    text = page.read_text(encoding="utf-8")
    unnamed = [match["body"] for match in _FENCE.finditer(text) if not match["language"]]
    outside = [line.strip() for line in _INDENTED_COMMAND.findall(_FENCE.sub("", text))]
    return outside + [line for body in unnamed for line in body.splitlines() if _INDENTED_COMMAND.match(f"    {line}")]


def source_references(page: Path) -> list[tuple[str, str]]:
    """(file, name) of every code span of a page such as `vpgea/errors.py` or `vpgea/errors.py:UsageError.exit_code`."""
    return _SOURCE.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))


def defines(path: Path, name: str) -> bool:
    """Whether a Python file defines `name` at its top, or `Class.member`."""
    nodes: list[ast.stmt] = ast.parse(path.read_text(encoding="utf-8")).body
    for part in name.split("."):
        found = [node for node in nodes if part in _names(node)]
        if not found:
            return False
        nodes = getattr(found[0], "body", [])
    return True


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]
