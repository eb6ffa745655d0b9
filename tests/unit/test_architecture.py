"""The floors of the house: what each package may import, and that no two files import each other in a circle.

docs/architecture.md shows the same floors as a drawing. Imports inside functions and for type checkers count as well.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# A room stands on the floor that the numbers say, and imports only rooms on lower floors.
FLOORS = {
    "vpgea_cli": 10,
    "benchmarks": 10,
    "vpgea.estimate": 9,
    "vpgea.cluster": 9,
    "vpgea.phases": 8,
    "vpgea.inspection": 7,
    "vpgea.filtering": 6,
    "vpgea.engines": 5,
    "vpgea.training": 5,
    "vpgea.grading": 5,
    "vpgea.objective": 4,
    "vpgea.prompts": 4,
    "vpgea.runs": 4,
    "vpgea.modeling": 3,
    "vpgea.questions": 3,
    "vpgea.config": 2,
    "vpgea.storage": 2,
    "vpgea.errors": 1,
    "vpgea.metrics": 1,
}


def modules() -> dict[str, Path]:
    """Dotted name → file of every module of the house."""
    found = {}
    for house in ("vpgea", "vpgea_cli", "benchmarks"):
        for path in sorted((ROOT / house).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room_of(module: str) -> str:
    """The package, or the single file at the root, that a module belongs to."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "vpgea" else parts[0]


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Modules of the house that a file imports, wherever in the file the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            submodules = [name for alias in node.names if (name := f"{node.module}.{alias.name}") in known]
            yield from submodules
            if len(submodules) < len(node.names):
                yield node.module


@pytest.fixture(scope="module")
def arrows() -> dict[str, set[str]]:
    known = modules()
    return {module: set(imports(path, known)) - {"vpgea"} for module, path in known.items()}


def test_every_room_has_a_floor_and_every_floor_its_room() -> None:
    assert {room_of(module) for module in modules()} - {"vpgea", "vpgea.__init__"} == FLOORS.keys()


def test_imports_point_down_only(arrows: dict[str, set[str]]) -> None:
    wrong = [
        f"{module} imports {target}"
        for module, targets in arrows.items()
        for target in sorted(targets)
        if room_of(module) != room_of(target) and FLOORS[room_of(target)] >= FLOORS[room_of(module)]
    ]
    assert wrong == []


def test_no_files_import_each_other_in_a_circle(arrows: dict[str, set[str]]) -> None:
    remaining = {module: set(targets) for module, targets in arrows.items()}
    while free := {module for module, targets in remaining.items() if not targets & remaining.keys()}:
        remaining = {module: targets for module, targets in remaining.items() if module not in free}
    assert sorted(remaining) == []


MOST_LINES, MOST_FUNCTION_LINES = 450, 60


def test_a_file_can_be_read_in_one_go() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in modules().values()}
    assert [str(path.relative_to(ROOT)) for path, count in lines.items() if count > MOST_LINES] == []


def test_a_function_fits_a_screen() -> None:
    """Its signature left aside: that of a command is the table of its options."""
    found = [
        f"{name}.{node.name}: {length} lines"
        for name, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (length := (node.end_lineno or node.lineno) - node.body[0].lineno + 1) > MOST_FUNCTION_LINES
    ]
    assert found == []
