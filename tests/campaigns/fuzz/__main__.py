"""The fuzzing campaign's command line; see the package."""

from __future__ import annotations

import argparse
import random
import sys

from tests.campaigns import fuzz
from tests.campaigns.fuzz.campaign import TARGETS, campaign
from tests.support.forks import Forks


def main() -> int:
    parser = argparse.ArgumentParser(description=fuzz.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--only", choices=sorted(TARGETS), help="give all inputs to one target")
    parser.add_argument("--jobs", type=int, default=1, help="targets under way at the same time")
    options = parser.parse_args()
    with Forks() as forks:
        results = campaign(forks, inputs=options.inputs, seed=options.seed, only=options.only, jobs=options.jobs)
    return 1 if any(tally.findings for tally in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
