"""A quick look, from a node of the cluster, at everything that a run will need there."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

from vpgea.config.schema import RunConfig
from vpgea.engines.lease import engine_kind
from vpgea.errors import UsageError
from vpgea.phases.loop import Loop
from vpgea.phases.rollout import RolloutPlan
from vpgea.phases.schedule import round_questions
from vpgea.storage.files import require_commits

Row = tuple[str, str]


def preflight(config: RunConfig, run_dir: Path, *, offline: bool = True) -> list[Row]:
    """Compare paths, contents and configuration with those from where the run was submitted.

    By the same fingerprints that every step compares.

    Returns:
        What was looked at and found, as (what, found).

    Raises:
        UsageError: At the first thing that is not as needed.
    """
    loop = Loop.read(config, run_dir, offline=offline)
    loop.require_opened()
    rows = [
        ("node", socket.gethostname()),
        ("run folder", f"{run_dir}, opened with the same model, questions and settings"),
        ("hard links", _links(run_dir)),
        ("free space", _space(loop)),
        ("ports", _port()),
        ("GPU", _gpu()),
        ("engine", _engine(loop.config)),
    ]
    return rows


def _links(run_dir: Path) -> str:
    """Shards are committed so: the one thing that a shared file system must be able to do."""
    try:
        require_commits(run_dir)
    except (OSError, UsageError) as error:
        raise UsageError(
            f"a node cannot write to {run_dir}",
            why=f"{socket.gethostname()}: {error.why if isinstance(error, UsageError) else error}",
            mend="put the run folder on a file system that nodes share, may write to, and that has hard links",
        ) from error
    return "made, or renames that replace nothing"


def _space(loop: Loop) -> str:
    config = loop.config
    questions = round_questions(loop.questions, 0, config.loop.questions_per_round, config.rollout.seed)
    needed = RolloutPlan.make(config, questions).disk_bytes()
    free = shutil.disk_usage(loop.run_dir).free
    if free < needed // 8:  # completions mostly end before their cap; rollout itself asks the same
        raise UsageError(
            f"too little disk space for {loop.run_dir}",
            why=f"{free / 2**30:,.1f} GiB are free, and one round's rollout can write up to {needed / 2**30:,.1f} GiB",
            mend="free some space, put the run folder elsewhere, or lower rollout.max_new_tokens",
        )
    return f"{free / 2**30:,.1f} GiB; a rollout writes {needed / 2**30:,.3f} GiB at most"


def _port() -> str:
    """Ranks of several nodes meet at this node's name; servers listen on loopback."""
    with socket.socket() as loopback:
        loopback.bind(("127.0.0.1", 0))
    try:
        return f"loopback, and {socket.gethostname()} is {socket.gethostbyname(socket.gethostname())}"
    except OSError as error:
        if int(os.environ.get("SLURM_NNODES") or 1) > 1:
            raise UsageError(
                "a node does not know its own name",
                why=f"{socket.gethostname()}: {error}",
                mend="ranks on several nodes meet at the first node's name: have it resolve on every node",
            ) from error
        return "loopback"


def _gpu() -> str:
    given = os.environ.get("SLURM_JOB_GPUS") or os.environ.get("CUDA_VISIBLE_DEVICES")
    if not given:
        return "none was asked for"
    import torch

    if not torch.cuda.is_available():
        raise UsageError(
            "the GPU of this job cannot be used",
            why=f"SLURM gave {given}, and PyTorch {torch.__version__} sees none",
            mend="load the site's CUDA module (`modules` in the site file), or install PyTorch's CUDA build there",
        )
    return torch.cuda.get_device_name(0)


def _engine(config: RunConfig) -> str:
    kind = engine_kind(config)
    if kind != "sglang" or config.sglang.server_url:
        return kind
    from vpgea.engines.sglang.server.installation import find_python

    return f"sglang, {find_python(config.sglang)}"
