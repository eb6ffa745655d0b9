"""What docs/architecture.md takes from the source: `python -m docs.tools.architecture` writes it anew.

The drawing docs/architecture.svg shows every room on its floor. Of the arrows between rooms it has those that do not
follow from others: where a room reaches another one through a third, it has no arrow of its own to it.
"""

from __future__ import annotations

import ast
from itertools import groupby

from docs.tools.house import FLOORS, arrows, modules, room_of
from docs.tools.pages import ROOT

PAGE = ROOT / "docs" / "architecture.md"
DRAWING = ROOT / "docs" / "architecture.svg"
BEGIN = "<!-- from here on written by `python -m docs.tools.architecture` -->\n"

WIDTH, ROW, BOX, HEIGHT = 900, 78, 150, 36
HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"
font-family="sans-serif" font-size="13">
<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0 0L8 4L0 8z" fill="#7a869a"/></marker></defs>
<rect width="100%" height="100%" fill="#ffffff"/>
"""


def room_arrows() -> dict[str, set[str]]:
    """Room → the other rooms that any of its files imports."""
    found: dict[str, set[str]] = {room: set() for room in FLOORS}
    for module, targets in arrows().items():
        if module != "vpgea":
            found[room_of(module)] |= {room_of(target) for target in targets} - {room_of(module)}
    return found


def essential(between: dict[str, set[str]]) -> dict[str, set[str]]:
    """The arrows that do not follow from two others; `between` must have no circle."""
    below: dict[str, set[str]] = {}
    for room in sorted(between, key=FLOORS.__getitem__):
        below[room] = between[room].union(*(below[target] for target in between[room]))
    return {
        room: {target for target in targets if not any(target in below[other] for other in targets)}
        for room, targets in between.items()
    }


def drawing() -> str:
    """The rooms on their floors with the essential arrows, as SVG."""
    top = max(FLOORS.values())
    counts = {room: sum(room_of(module) == room for module in modules() if module != "vpgea") for room in FLOORS}
    middle = {}
    for floor, rooms in groupby(FLOORS, key=FLOORS.__getitem__):
        names = list(rooms)
        for index, room in enumerate(names):
            middle[room] = (WIDTH * (2 * index + 1) // (2 * len(names)), ROW * (top - floor) + ROW // 2)
    parts = [HEAD.format(width=WIDTH, height=ROW * top)]
    for room, targets in essential(room_arrows()).items():
        for target in sorted(targets):
            (x1, y1), (x2, y2) = middle[room], middle[target]
            y1, y2 = y1 + HEIGHT // 2, y2 - HEIGHT // 2
            bend = (y2 - y1) // 2
            parts.append(
                f'<path d="M{x1} {y1}C{x1} {y1 + bend} {x2} {y2 - bend} {x2} {y2}" fill="none" stroke="#7a869a" '
                f'stroke-width="1.2" marker-end="url(#tip)"/>\n'
            )
    for room, (x, y) in middle.items():
        label = f"{room.removeprefix('vpgea.')} ({counts[room]})"
        parts.append(
            f'<rect x="{x - BOX // 2}" y="{y - HEIGHT // 2}" width="{BOX}" height="{HEIGHT}" rx="6" fill="#eef2f8" '
            f'stroke="#51607a"/><text x="{x}" y="{y + 5}" text-anchor="middle" fill="#1d2733">{label}</text>\n'
        )
    return "".join([*parts, "</svg>\n"])


def first_line(module: str) -> str:
    """What a module's docstring says of it first."""
    text = ast.get_docstring(ast.parse(modules()[module].read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def listing() -> str:
    """A section per floor, a table per room: each file with the first line of its docstring."""
    parts, between = [], room_arrows()
    for floor, rooms in groupby(FLOORS, key=FLOORS.__getitem__):
        parts.append(f"\n### Floor {floor}\n")
        for room in rooms:
            home = room.replace(".", "/")
            imported = ", ".join(sorted(target.removeprefix("vpgea.") for target in between[room])) or "nothing"
            parts.append(f"\n**{home}** imports {imported}.\n\n| file | |\n|---|---|\n")
            for module in sorted(module for module in modules() if room_of(module) == room):
                path = modules()[module].relative_to(ROOT).as_posix()
                name = path.removeprefix(f"{home}/").removesuffix("__init__.py") or "the package"
                parts.append(f"| [{name}](../{path}) | {first_line(module)} |\n")
    return "".join(parts)


def page() -> str:
    """docs/architecture.md: what stands there by hand, and the listing behind `BEGIN`."""
    return PAGE.read_text(encoding="utf-8").partition(BEGIN)[0] + BEGIN + listing()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    DRAWING.write_text(drawing(), encoding="utf-8")
