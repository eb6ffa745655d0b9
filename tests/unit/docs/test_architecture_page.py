"""docs/architecture.md and its drawing say what the source says."""

from __future__ import annotations

from docs.tools import architecture, house

STALE = "stale: run python -m docs.tools.architecture"


def test_the_listing_is_that_of_the_source() -> None:
    assert architecture.PAGE.read_text(encoding="utf-8") == architecture.page(), STALE


def test_the_drawing_is_that_of_the_source() -> None:
    assert architecture.DRAWING.read_text(encoding="utf-8") == architecture.drawing(), STALE


def test_every_file_says_in_one_line_what_it_is() -> None:
    lines = {module: architecture.first_line(module) for module in house.modules()}
    assert [module for module, line in lines.items() if not line.endswith((".", "?", "`"))] == []


def test_arrows_that_follow_from_others_are_left_out() -> None:
    between = {"vpgea_cli": {"vpgea.runs", "vpgea.errors"}, "vpgea.runs": {"vpgea.errors"}, "vpgea.errors": set()}
    left = {"vpgea_cli": {"vpgea.runs"}, "vpgea.runs": {"vpgea.errors"}, "vpgea.errors": set()}
    assert architecture.essential(between) == left
