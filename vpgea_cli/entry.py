"""The door of the command line: Ctrl-C is heard here while everything behind it is still being imported."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """`vpgea`, and `python -m vpgea_cli`."""
    try:
        from vpgea_cli.main import main as run
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        sys.exit(130)
    run()
