"""The scheduler's own commands: sbatch, squeue, scancel. What they say in errors is handed on."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vpgea.errors import UsageError, VpgeaError

_DEADLINE_S = 120.0


@dataclass(frozen=True)
class Job:
    """A job, or one element of an array, that is in the queue."""

    id: str  # 17, or 17_3 of an array
    name: str
    state: str  # PENDING, RUNNING, COMPLETING, ...
    reason: str  # why it waits, as squeue says it

    @property
    def part(self) -> int:
        """The number of the array's element; 0 without an array."""
        return int(self.id.partition("_")[2] or 0)


def queued(prefix: str) -> list[Job]:
    """This user's jobs in the queue whose name begins so, array elements one by one.

    Raises:
        VpgeaError: The scheduler does not say.
    """
    text = _call("squeue", "--me", "-r", "-h", "-o", "%i|%j|%T|%r")
    fields = [line.split("|", 3) for line in text.splitlines()]
    return [Job(*parts) for parts in fields if len(parts) == 4 and parts[1].startswith(prefix)]


def by_name(jobs: Sequence[Job]) -> dict[str, list[Job]]:
    """Job name → its jobs, or the elements of its array."""
    named: dict[str, list[Job]] = {}
    for job in jobs:
        named.setdefault(job.name, []).append(job)
    return named


def submit(script: Path, arguments: Sequence[str], options: Sequence[str]) -> str:
    """Queue a script; return its job id.

    Raises:
        UsageError: sbatch refuses it; with what it says.
    """
    answer = _sbatch("--parsable", *options, str(script), *arguments)
    return answer.strip().partition(";")[0]


def test_only(script: Path, options: Sequence[str]) -> None:
    """Let sbatch say whether it would take a script; nothing is queued.

    Raises:
        UsageError: It would not.
    """
    _sbatch("--test-only", *options, str(script), "test")


def cancel(ids: Sequence[str]) -> None:
    """End jobs; running ones are told TERM first, and save what they can within the site's KillWait."""
    if ids:
        _call("scancel", *ids)


def most_array_elements() -> int | None:
    """MaxArraySize of the cluster, which is one more than the highest index; None when it is not told."""
    try:
        settings = _call("scontrol", "show", "config")
    except _RefusedError:  # some sites keep their configuration to themselves; sbatch will say then
        return None
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", settings, re.MULTILINE)
    return int(match[1]) if match else None


def _sbatch(*words: str) -> str:
    try:
        return _call("sbatch", *words)
    except _RefusedError as error:
        raise UsageError(
            f"sbatch refuses {Path(next(word for word in words if word.endswith('.sh'))).name}",
            why=error.said,
            mend="mend the site file (partition, account, qos, sizes), or the script in the run folder; `sinfo` lists "
            "partitions. What was queued before stays: `vpgea slurm submit` goes on from there",
        ) from error


class _RefusedError(VpgeaError):
    """A command of the scheduler ended with an error."""

    def __init__(self, command: str, said: str) -> None:
        super().__init__(
            f"{command} failed", why=said, mend="is the scheduler up? `sinfo` says; run the command again then"
        )
        self.said = said


def _call(*words: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603  no shell, and the words are ours
            words, capture_output=True, text=True, errors="replace", timeout=_DEADLINE_S, check=False
        )
    except FileNotFoundError as error:
        raise UsageError(
            f"{words[0]} is not on this machine",
            why="SLURM's commands are needed where jobs are queued and looked at",
            mend="run this on a login node of the cluster; `vpgea slurm render` works anywhere",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise _RefusedError(words[0], f"no answer within {_DEADLINE_S:g} s") from error
    if done.returncode != 0:
        said = [line.removeprefix(f"{words[0]}: ").removeprefix("error: ") for line in done.stderr.splitlines() if line]
        raise _RefusedError(words[0], "; ".join(said[-4:]) or f"exit code {done.returncode}")
    return done.stdout
