"""How the devices of a run are written."""

from __future__ import annotations

import pytest

from vpgea.config.devices import Devices
from vpgea.config.resolve import resolve
from vpgea.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("auto", Devices("auto")),
        ("cpu", Devices("cpu")),
        ("cpu:3", Devices("cpu", 3)),
        ("4", Devices("cuda", 4)),
        ("0,2,5", Devices("cuda", 3, (0, 2, 5))),
        ("0,", Devices("cuda", 1, (0,))),
    ],
)
def test_every_form_is_read(text: str, expected: Devices) -> None:
    assert Devices.parse(text) == expected


@pytest.mark.parametrize("text", ["", "0", "cpu:0", "cpu:", "cuda", "1,1", ",", "1,,2", "-1", "2 ", "cpu:two"])
def test_everything_else_is_refused_by_its_key(text: str) -> None:
    with pytest.raises(UsageError, match=r"model\.devices"):
        resolve(options={"model.devices": text})
