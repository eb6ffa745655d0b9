"""A whole run as a chain of jobs on the real scheduler, disturbed on the way, against the same run in one process."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.campaigns.slurm_kills import kill
from tests.support.cluster import (
    ROOT,
    ClusterRun,
    cluster,
    jobs,
    scancel,
    scontrol,
    vpgea,
    wait_for,
    wait_for_chunks,
    without_parts,
    write_config,
    write_site,
)
from tests.support.servers import until
from vpgea.cluster import queue
from vpgea.cluster.chain import job_prefix

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("cluster")]
__all__ = ["cluster"]


def queued(run: ClusterRun) -> dict[str, list[queue.Job]]:
    """Step → its jobs in the queue."""
    found: dict[str, list[queue.Job]] = {}
    for job in queue.queued(prefix := job_prefix(run.folder)):
        found.setdefault(job.name.removeprefix(prefix), []).append(job)
    return found


def finish(run: ClusterRun, timeout_s: float = 400) -> dict[str, Any]:
    until(lambda: not queue.queued(job_prefix(run.folder)), timeout_s, "the chain ends", 0.5)
    status = vpgea("slurm", "status", run.folder, "--json")
    return json.loads(status.stdout)


def test_a_chain_with_requeues_is_the_loop_of_one_process(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-m", "vpgea_cli", "loop", "-c", config, "-o", tmp_path / "alone", "-q"], cwd=ROOT
    ) as alone:
        run = ClusterRun.prepare(tmp_path / "run", config, write_site(tmp_path))
        told = run.submit()
        assert "r001-eval" in told.stderr
        ids = {name: found[0].id.partition("_")[0] for name, found in queued(run).items()}
        assert "preflight" in ids

        wait_for_chunks(run, "round-000/rollout", 3)
        scancel("-b", "-s", "USR1", ids["r000-rollout"])  # what SLURM does before a time limit
        wait_for_chunks(run, "round-000/filter", 3)
        scontrol("requeue", f"{ids['r000-filter']}_1")  # what an administrator does
        until(lambda: list((run.folder / "round-000/distill").rglob("step-*")), 120, "a checkpoint", 0.01)
        scancel("-b", "-s", "USR1", ids["r000-distill"])
        wait_for_chunks(run, "round-001/rollout", 3)
        scancel("-s", "TERM", f"{ids['r001-rollout']}_0")  # the step alone, as a preemption does
        status = finish(run)
        assert alone.wait(300) == 0

    assert all(step["state"] == "done" for step in status["steps"]), status
    assert "all 2 rounds are finished" in status["advice"]
    restarts = {name: sum(one.restarts for one in jobs(job)) for name, job in ids.items()}
    assert restarts["r000-rollout"] >= 1
    assert restarts["r000-filter"] == 1
    assert restarts["r000-distill"] == 1
    assert restarts["r001-rollout"] >= 1
    straight = without_parts(ClusterRun(tmp_path / "alone", run.site).results())
    assert straight
    assert without_parts(run.results()) == straight


def test_ranks_train_together_and_a_failed_element_is_run_again_alone(tmp_path: Path) -> None:
    config = write_config(tmp_path, loop__rounds=1)
    training = {"partition": "main", "time": "10", "nodes": 2, "tasks_per_node": 1, "options": ["--exclude=n2,n3"]}
    run = ClusterRun.prepare(tmp_path / "run", config, write_site(tmp_path, training=training))
    with ThreadPoolExecutor(2) as pool:  # two submits at the same moment: the twin chain waits, and finds all done
        for done in pool.map(lambda _: vpgea("slurm", "submit", run.folder, "--site", run.site), range(2)):
            assert done.returncode == 0, done.stderr
    first = min(queued(run)["r000-rollout"], key=lambda job: int(job.id.partition("_")[0])).id.partition("_")[0]
    assert "nothing to do: it goes on by itself" in vpgea("slurm", "status", run.folder).stdout
    wait_for_chunks(run, "round-000/rollout", 1)
    assert kill(job_prefix(run.folder), part=1)
    until(lambda: "r000-filter" not in queued(run) or len(queued(run)["r000-filter"]) < 5, 60, "dependents go")
    wait_for(first)
    assert {one.state for one in jobs(first)} == {"COMPLETED", "FAILED"}

    vpgea("slurm", "cancel", run.folder)  # the twin chain would mend it by itself
    until(lambda: not queued(run), 60, "the queue is empty")
    status = vpgea("slurm", "status", run.folder)
    assert status.returncode == 0
    assert "round-000/rollout part 1: job" in status.stderr
    assert "exit code 137" in status.stderr
    assert "vpgea slurm submit" in status.stdout
    run.submit()
    again = queued(run)["r000-rollout"]
    assert [job.part for job in again] == [1]
    assert finish(run)["advice"].startswith("all 1 rounds are finished")
    nodes = run.log("").count("round-000/distill is done")
    assert nodes == 1  # rank 0 alone speaks

    nothing = run.submit()
    assert "nothing was queued: all 1 rounds are finished" in nothing.stderr
