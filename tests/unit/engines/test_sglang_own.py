"""Servers of a run's own that are to stay while it trains; that they do is tested with real ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vpgea.config.resolve import resolve
from vpgea.engines.sglang.server import own
from vpgea.errors import UsageError
from vpgea.runs.stopping import StopRequest


def test_servers_do_not_stay_on_a_gpu_that_is_trained_on_unless_something_says_how_much_they_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "torch_device", lambda model: torch.device("cuda", 0))
    options = {"model.path": "model", "sglang.keep_servers": True, "sglang.python": str(tmp_path / "no-python")}
    with pytest.raises(UsageError, match="would leave no room on a GPU"):
        own.OwnServers(tmp_path, StopRequest()).start(resolve(options=options).config)
    assert list(tmp_path.iterdir()) == [], "nothing was started"
    options["sglang.options"] = ["--mem-fraction-static=0.3"]
    with pytest.raises(UsageError, match="no-python"):  # it is looked for: the servers may stay
        own.OwnServers(tmp_path, StopRequest()).start(resolve(options=options).config)
