"""Every test of this folder is skipped, with the reason, where there is no GPU."""

from __future__ import annotations

import pytest

from tests.gpu.places import missing


@pytest.fixture(autouse=True, scope="session")
def _on_a_gpu() -> None:
    if why := missing():
        pytest.skip(why)
