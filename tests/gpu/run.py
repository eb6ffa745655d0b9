"""`python -m tests.gpu.run`: the tests of this folder, or one line that says why nothing ran."""

from __future__ import annotations

import sys

import pytest

from tests.gpu.places import ROOT, missing


def main() -> int:
    if why := missing():
        print(f"no test of tests/gpu ran: it {why}")
        return 0
    return pytest.main(
        ["-rs", "-m", "gpu", "--durations=10", "--timeout", "600", str(ROOT / "tests" / "gpu"), *sys.argv[1:]]
    )


if __name__ == "__main__":
    sys.exit(main())
