"""A small slice of the fuzzing campaign; the full one is `python -m tests.campaigns.fuzz`."""

from __future__ import annotations

from tests.campaigns.fuzz.campaign import TARGETS, campaign
from tests.support.forks import Forks

INPUTS = 800
SEED = 20  # the campaigns draw and print their own


def test_odd_input_is_accepted_or_refused(forks: Forks) -> None:
    """Nothing but errors of vpgea's own, no crash, no hang."""
    results = campaign(forks, inputs=INPUTS, seed=SEED)
    assert results.keys() == TARGETS.keys()
    for name, tally in results.items():
        assert tally.findings == {}, name
        assert tally.outcomes["accepted"] > 0, f"{name} made nothing that can be used"
    assert sum(tally.inputs for tally in results.values()) >= INPUTS
