"""Several real processes that train together over Gloo, each a run of the command line or of another script."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.support.forks import COMMAND_LINE, Fork, Forks
from vpgea.engines.sglang.server.command import free_port

TIMEOUT_S = 150


def start_ranks(
    forks: Forks, arguments: Sequence[str | Path], world: int, folder: Path, script: str = COMMAND_LINE
) -> list[Fork]:
    """Processes with the variables that torchrun or a SLURM script sets; what they say lands in rank-N.err."""
    port = free_port("127.0.0.1")
    processes = []
    for rank in range(world):
        variables = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": world,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        environment = {name: str(value) for name, value in variables.items()}
        processes.append(forks.start(arguments, folder, f"rank-{rank}", environment, script))
    return processes


def run_ranks(
    forks: Forks, arguments: Sequence[str | Path], world: int, folder: Path, script: str = COMMAND_LINE
) -> list[int]:
    """Their exit codes, once all have ended."""
    processes = start_ranks(forks, arguments, world, folder, script)
    try:
        return [process.wait(TIMEOUT_S) for process in processes]
    finally:
        for process in processes:
            process.kill()
