"""Anchors may repeat a value, not blow a document up."""

from __future__ import annotations

import pytest

from vpgea.config.strict_yaml import parse
from vpgea.errors import UsageError


def test_anchors_that_blow_up_or_hold_themselves_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(UsageError, match="not readable as YAML") as error:
        parse("\n".join(lines), "big")
    assert "too large" in error.value.why
    with pytest.raises(UsageError) as error:
        parse("a: &a [*a]", "self")
    assert "holds itself" in error.value.why
    assert parse("a: &a [1, 2]\nb: *a", "small")[0] == {"a": [1, 2], "b": [1, 2]}
