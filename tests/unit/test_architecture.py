"""The floors of the house: what each package may import, and that no two files import each other in a circle."""

from __future__ import annotations

import ast
import subprocess

import pytest

from docs.tools import house
from docs.tools.house import FLOORS, room_of
from docs.tools.pages import ROOT


@pytest.fixture(scope="module")
def arrows() -> dict[str, set[str]]:
    return house.arrows()


def test_every_room_has_a_floor_and_every_floor_its_room() -> None:
    assert {room_of(module) for module in house.modules()} - {"vpgea"} == FLOORS.keys()


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
    others = [path for name in ("tests", "examples") for path in (ROOT / name).rglob("*.py")]
    files = [*house.modules().values(), *others]
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert [str(path.relative_to(ROOT)) for path, count in lines.items() if count > MOST_LINES] == []


def test_a_function_fits_a_screen() -> None:
    """Its signature left aside: that of a command is the table of its options."""
    found = [
        f"{name}.{node.name}: {length} lines"
        for name, path in house.modules().items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (length := (node.end_lineno or node.lineno) - node.body[0].lineno + 1) > MOST_FUNCTION_LINES
    ]
    assert found == []


MOST_POSITIONAL_FIELDS = 4


def test_many_fields_are_given_by_name() -> None:
    """A call with five positional values says nothing of what they are."""
    found = [
        f"{module}.{node.name}"
        for module, path in house.modules().items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
        for decorator in node.decorator_list
        if "dataclass" in (text := ast.unparse(decorator)) and "kw_only=True" not in text
        if sum(isinstance(entry, ast.AnnAssign) for entry in node.body) > MOST_POSITIONAL_FIELDS
    ]
    assert found == []


def test_no_two_test_files_have_the_same_name() -> None:
    """pytest takes them for one module where the folders are no packages, and leaves one out with an error."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def private_names() -> set[str]:
    """Every name with one leading underscore that the house gives to something."""
    nodes = [node for path in house.modules().values() for node in ast.walk(ast.parse(path.read_text("utf-8")))]
    names = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    names |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    return {name for name in names if is_private(name)}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def private_uses(source: str, private: set[str]) -> list[str]:
    """What a test imports, reaches or patches of the house under a private name."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("vpgea", "vpgea_cli"):
            found += [name.name for name in node.names if is_private(name.name)]
        elif isinstance(node, ast.Attribute) and node.attr in private:
            if not (isinstance(node.value, ast.Name) and node.value.id == "self"):
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            path = node.value.split(".")
            if path[-1] in private or (path[0] in ("vpgea", "vpgea_cli") and any(map(is_private, path))):
                found.append(node.value)
    return found


@pytest.mark.parametrize(
    "source",
    [
        "from vpgea.cluster.chain import _ranges",
        "chain._ranges([1])",
        "monkeypatch.setattr(chain, '_ranges', None)",
        "monkeypatch.setattr('vpgea.cluster.chain._ranges', None)",
    ],
)
def test_a_private_name_is_seen(source: str) -> None:
    assert len(private_uses(source, {"_ranges"})) == 1


def test_unit_tests_use_public_names_only() -> None:
    private = private_names()
    tests = [path for path in (ROOT / "tests" / "unit").rglob("*.py") if path.name != "test_architecture.py"]
    assert private
    assert tests
    found = {path.name: private_uses(path.read_text(encoding="utf-8"), private) for path in tests}
    assert {name: uses for name, uses in found.items() if uses} == {}


def test_nothing_that_is_ignored_is_in_the_repository() -> None:
    """A link to an environment, once committed, stops the installation of every fresh checkout."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a checkout of git: nothing to ask")
    assert listed.stdout.splitlines() == []
