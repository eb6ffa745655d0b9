"""The house as its source shows it: rooms, the floors on which they stand, and who imports whom.

Imports inside functions and for type checkers count as well.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from docs.tools.pages import ROOT

# A room stands on the floor that the numbers say, and imports only rooms on lower floors.
FLOORS = {
    "vpgea_cli": 11,
    "benchmarks": 11,
    "vpgea.experiment": 10,
    "vpgea.estimate": 9,
    "vpgea.cluster": 9,
    "vpgea.report": 9,
    "vpgea.phases": 8,
    "vpgea.inspection": 7,
    "vpgea.filtering": 6,
    "vpgea.engines": 5,
    "vpgea.foreign": 5,
    "vpgea.training": 5,
    "vpgea.prompts": 5,
    "vpgea.protocols": 5,
    "vpgea.objective": 4,
    "vpgea.runs": 4,
    "vpgea.questions": 4,
    "vpgea.modeling": 3,
    "vpgea.grading": 3,
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


def arrows() -> dict[str, set[str]]:
    """Module → the modules of the house that it imports; the bare root, which holds the version, is left out."""
    known = modules()
    return {module: set(_imports(path, known)) - {"vpgea"} for module, path in known.items()}


def _imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            submodules = [name for alias in node.names if (name := f"{node.module}.{alias.name}") in known]
            yield from submodules
            if len(submodules) < len(node.names):
                yield node.module
