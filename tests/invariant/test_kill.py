"""`kill -9` at random moments of a loop, resumed each time; the full campaign is `python -m tests.campaigns.kills`."""

from __future__ import annotations

from pathlib import Path

from tests.campaigns.kills import campaign
from tests.support.forks import Forks
from tests.support.loops import write_config

KILLS = 4
SEED = 20  # the campaigns draw and print their own


def test_killed_and_resumed_is_bitwise_the_undisturbed_run(tiny_model: Path, tmp_path: Path, forks: Forks) -> None:
    """No row lost, none twice, and no process left behind."""
    result = campaign(write_config(tmp_path, tiny_model), tmp_path, forks, kills=KILLS, seed=SEED)
    assert result.kills == KILLS
    assert result.differences == []
    assert result.repeated == []
    assert result.orphans == 0
