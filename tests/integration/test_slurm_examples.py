"""The scripts of examples/slurm as a user runs them, on a small run of the testbed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import overthinker
from tests.support.cluster import cluster, sbatch, vpgea, wait_for, write_config
from tests.support.servers import until
from vpgea.cluster import queue
from vpgea.cluster.chain import job_prefix

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("cluster")]
__all__ = ["cluster"]
SCRIPTS = overthinker.ROOT.parent / "slurm"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What a user sets before a script; NODES and others stay as the scripts have them."""
    config = write_config(tmp_path, data__limit=4, loop__rounds=1, rollout__questions_per_chunk=2)
    return {
        "CONFIG": str(config),
        "RUN": str(tmp_path / "run"),
        "VPGEA": str(Path(sys.executable).with_name("vpgea")),
        "OMP_NUM_THREADS": "1",
    }


def bash(script: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, **environment}
    done = subprocess.run(
        ["bash", SCRIPTS / script], env=variables, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def test_one_node(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    log = tmp_path / "one.out"
    job = sbatch("-o", str(log), "--exclude=n2,n3", str(SCRIPTS / "one_node.sh"))
    assert wait_for(job)[0].state == "COMPLETED", log.read_text()
    assert (tmp_path / "run" / "round-000" / "round.json").is_file()


def test_an_array_and_a_trainer(environment: dict[str, str], tmp_path: Path) -> None:
    told = bash("array_and_trainer.sh", environment).stdout
    found = re.match(r"rollout (\d+), filter (\d+), distill (\d+); ", told)
    assert found is not None, told
    for job in found.groups():
        assert {one.state for one in wait_for(job)} == {"COMPLETED"}
    assert (tmp_path / "run" / "distill" / "COMPLETE").is_file()
    assert len(list((tmp_path / "run" / "rollout" / "parts").iterdir())) == 2


def test_many_nodes(environment: dict[str, str], tmp_path: Path) -> None:
    bash("multi_node.sh", {**environment, "PARTS": "2", "NODES": "2"})
    prefix = job_prefix(tmp_path / "run")
    assert queue.queued(prefix)
    until(lambda: not queue.queued(prefix), 240, "the chain ends", 0.5)
    status = vpgea("slurm", "status", tmp_path / "run")
    assert "all 1 rounds are finished" in status.stdout, status.stderr
    assert "nothing was queued" in bash("multi_node.sh", {**environment, "PARTS": "2"}).stderr
