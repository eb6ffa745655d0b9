"""Several real processes that train together over Gloo, each a run of the command line."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TIMEOUT_S = 150


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start_ranks(arguments: Sequence[str | Path], world: int, folder: Path) -> list[subprocess.Popen[str]]:
    """Processes with the variables that torchrun or a SLURM script sets; what they say lands in rank-N.err."""
    port = str(free_port())
    processes = []
    for rank in range(world):
        variables = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": world,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in variables.items()}}
        with (folder / f"rank-{rank}.out").open("w") as out, (folder / f"rank-{rank}.err").open("w") as err:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "vpgea_cli", *map(str, arguments)],
                    env=environment,
                    stdout=out,
                    stderr=err,
                    text=True,
                )
            )
    return processes


def run_ranks(arguments: Sequence[str | Path], world: int, folder: Path) -> list[int]:
    """Their exit codes, once all have ended."""
    processes = start_ranks(arguments, world, folder)
    try:
        return [process.wait(TIMEOUT_S) for process in processes]
    finally:
        for process in processes:
            process.kill()
