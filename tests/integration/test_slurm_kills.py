"""A small slice of the kill campaign on the real SLURM; `make slurm-kills` makes the whole of it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.campaigns import slurm_kills
from tests.support.cluster import cluster

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("cluster")]
__all__ = ["cluster"]


def test_killed_jobs_that_are_submitted_again_give_bitwise_the_same(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    outcome = slurm_kills.campaign(tmp_path, kills=2, seed=seed)
    assert outcome.kills == 2
    assert not outcome.differences
    assert not outcome.repeated
