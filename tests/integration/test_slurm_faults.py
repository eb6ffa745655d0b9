"""What a cluster does to jobs: limits, preemption, nodes that fail, requeues without end, cancellation."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.cluster import (
    PARTS,
    ClusterRun,
    cluster,
    jobs,
    node_of,
    sbatch,
    scancel,
    scontrol,
    vpgea,
    wait_for,
    wait_for_chunks,
    write_config,
    write_site,
)
from tests.support.loops import sample_keys
from tests.support.servers import until
from vpgea.cluster import queue
from vpgea.cluster.chain import job_prefix

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("cluster")]
__all__ = ["cluster"]
ROLLOUT = "round-000/rollout"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, config: Path) -> ClusterRun:
    """A run whose base model is measured, and nothing else."""
    folder = tmp_path_factory.mktemp("base")
    run = ClusterRun.prepare(folder / "run", config, write_site(folder))
    step(run, "base/eval")
    return run


@pytest.fixture(scope="module")
def expected(base: ClusterRun, config: Path, tmp_path_factory: pytest.TempPathFactory) -> ClusterRun:
    """The round's rollout in peace, in the same parts."""
    run = base.copy(tmp_path_factory.mktemp("expected") / "run", config)
    for part in range(PARTS):
        step(run, ROLLOUT, part)
    return run


def step(run: ClusterRun, name: str, part: int | None = None) -> None:
    shard = [] if part is None else ["--shard", f"{part}/{PARTS}"]
    done = vpgea("loop", "-c", run.folder / "config.yaml", "-o", run.folder, "--step", name, *shard, "-q")
    assert done.returncode == 0, done.stderr


def expect_same(run: ClusterRun, expected: ClusterRun) -> None:
    assert run.results() == expected.results()
    assert (run.folder / ROLLOUT / "COMPLETE").is_file()


def test_the_signal_before_a_time_limit(base: ClusterRun, expected: ClusterRun, config: Path, tmp_path: Path) -> None:
    run = base.copy(tmp_path / "run", config)
    job = run.queue_step(ROLLOUT)
    wait_for_chunks(run, ROLLOUT, 2)
    scancel("-b", "-s", "USR1", job)
    ended = wait_for(job)
    assert {one.state for one in ended} == {"COMPLETED"}
    assert any(one.restarts == 1 for one in ended)
    assert "stopped by SIGUSR1" in run.log(job)
    assert f"vpgea: {ROLLOUT} exit 75" in run.log(job)
    assert "exit 0" in run.log(job), "the log of the first attempt was kept"
    expect_same(run, expected)


def test_a_real_time_limit(tmp_path: Path) -> None:
    """One minute for work that takes longer: the job stops by itself or is told to, as often as it needs."""
    samples = {"rollout__prior_samples": 16, "rollout__posterior_samples": 16}
    # one after the other, so that some attempts are needed; each keeps what it has finished
    config = write_config(tmp_path, data__limit=16, rollout__batch_size=1, **samples)
    site = write_site(tmp_path, inference={"partition": "main", "time": "1", "options": ["--exclude=n2,n3"]})
    run = ClusterRun.prepare(tmp_path / "run", config, site)
    step(run, "base/eval")
    job = run.queue_step(ROLLOUT)
    ended = wait_for(job, 500)
    assert {one.state for one in ended} == {"COMPLETED"}
    assert sum(one.restarts for one in ended) >= 1, "it was over before the limit: nothing was tested"
    assert (run.folder / ROLLOUT / "COMPLETE").is_file()
    rows = [key for keys in sample_keys(run.folder / ROLLOUT).values() for key in keys]
    assert len(rows) == len(set(rows)) == 16 * 32


def test_preemption(base: ClusterRun, expected: ClusterRun, config: Path, tmp_path: Path) -> None:
    """With a grace time SLURM TERMs the steps alone; the batch script must put the job back into the queue."""
    site = write_site(tmp_path, inference={"partition": "low", "time": "10", "options": ["--nodelist=n2"]})
    run = base.copy(tmp_path / "run", config, site)
    job = run.queue_step(ROLLOUT)
    wait_for_chunks(run, ROLLOUT, 2)
    urgent = sbatch("-p", "main", "--nodelist=n2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 5")
    assert wait_for(urgent)[0].state == "COMPLETED"
    ended = wait_for(job)
    assert {one.state for one in ended} == {"COMPLETED"}
    assert any(one.restarts >= 1 for one in ended)
    assert "stopped by SIGTERM" in run.log(job)
    expect_same(run, expected)


def test_a_node_that_fails(base: ClusterRun, expected: ClusterRun, config: Path, tmp_path: Path) -> None:
    site = write_site(tmp_path, inference={"partition": "main", "time": "10", "options": ["--nodelist=n3"]})
    run = base.copy(tmp_path / "run", config, site)
    job = run.queue_step(ROLLOUT)
    wait_for_chunks(run, ROLLOUT, 2)
    scontrol("update", "nodename=n3", "state=down", "reason=test")
    until(lambda: any(one.restarts for one in jobs(job)), 60, "the job is queued again", 0.1)
    resume("n3")
    ended = wait_for(job)
    assert {one.state for one in ended} == {"COMPLETED"}
    expect_same(run, expected)


def resume(name: str) -> None:
    """A node whose daemon answers may come back by itself, also between a look at it and the order to resume."""
    try:
        scontrol("update", f"nodename={name}", "state=resume")
    except AssertionError:
        assert "DOWN" not in node_state(name)


def node_state(name: str) -> str:
    return subprocess.run(
        ["sinfo", "-h", "-n", name, "-o", "%T"], capture_output=True, text=True, check=True
    ).stdout.upper()


def test_a_storm_of_requeues(base: ClusterRun, expected: ClusterRun, config: Path, tmp_path: Path) -> None:
    run = base.copy(tmp_path / "run", config)
    job = run.queue_step(ROLLOUT)
    for storm in range(3):
        until(lambda: any(one.state == "RUNNING" for one in jobs(job)), 60, "it runs", 0.05)
        wait_for_chunks(run, ROLLOUT, min(storm, 2))
        for part in range(PARTS):
            with suppress(AssertionError):  # it has ended, or waits already
                scontrol("requeue", f"{job}_{part}")
    ended = wait_for(job)
    assert {one.state for one in ended} == {"COMPLETED"}
    assert sum(one.restarts for one in ended) >= 3
    expect_same(run, expected)


def test_scancel_stays_cancelled_until_it_is_submitted_again(
    base: ClusterRun, expected: ClusterRun, config: Path, tmp_path: Path
) -> None:
    run = base.copy(tmp_path / "run", config)
    job = run.queue_step(ROLLOUT)
    wait_for_chunks(run, ROLLOUT, 2)
    scancel(job)
    ended = wait_for(job)
    assert {one.state for one in ended} == {"CANCELLED"}
    assert {one.restarts for one in ended} == {0}
    drawn = run.chunks(ROLLOUT)
    status = vpgea("slurm", "status", run.folder)
    assert "failed" in status.stderr
    assert "vpgea slurm submit" in status.stdout
    again = run.queue_step(ROLLOUT)
    assert {one.state for one in wait_for(again)} == {"COMPLETED"}
    assert run.chunks(ROLLOUT) > drawn
    expect_same(run, expected)


def test_requeues_have_an_end(base: ClusterRun, config: Path, tmp_path: Path) -> None:
    run = base.copy(tmp_path / "run", config, write_site(tmp_path, max_requeues=1))
    job = run.queue_step(ROLLOUT, parts=1)
    for count in (1, 2):
        wait_for_chunks(run, ROLLOUT, count)
        until(lambda: jobs(job)[0].state == "RUNNING", 60, "it runs", 0.05)
        wait_for_chunks(run, ROLLOUT, run.chunks(ROLLOUT) + 1)
        scancel("-b", "-s", "USR1", job)
        if count == 1:
            until(lambda: jobs(job)[0].restarts == 1, 60, "it is queued again", 0.1)
    ended = wait_for(job)
    assert (ended[0].state, ended[0].exit_code, ended[0].restarts) == ("FAILED", 75, 1)
    assert "was requeued 1 times; not again (max_requeues)" in run.log(job)


def test_a_step_whose_predecessor_is_not_done_fails_and_is_not_requeued(
    base: ClusterRun, config: Path, tmp_path: Path
) -> None:
    """What an expired dependency leads to: SLURM counts an unknown job as one that ended well."""
    run = base.copy(tmp_path / "run", config)
    job = run.queue_step("round-000/filter", "--dependency=afterok:999999")
    ended = wait_for(job)
    assert {(one.state, one.exit_code, one.restarts) for one in ended} == {("FAILED", 2, 0)}
    assert "round-000/rollout is not complete" in run.log(job)
    assert node_of(job)


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        ({"partition": "gpu-large"}, "invalid partition"),
        ({"partition": "main", "constraint": "h100"}, "feature"),
        ({"partition": "main", "gpus_per_node": 99}, "node configuration"),
    ],
)
def test_what_sbatch_refuses_is_said_before_anything_is_queued(
    base: ClusterRun, config: Path, tmp_path: Path, resources: dict[str, object], said: str
) -> None:
    run = base.copy(tmp_path / "run", config)
    site = write_site(tmp_path, training=resources)
    done = vpgea("slurm", "submit", run.folder, "--site", site)
    assert done.returncode == 2
    error, why, mend = done.stderr.splitlines()[-3:]
    assert error.startswith("error: sbatch refuses ")
    assert said in why.lower()
    assert "site file" in mend
    assert "nothing is queued" in vpgea("slurm", "status", run.folder).stdout
    assert (
        "sbatch would take every script"
        in vpgea("slurm", "submit", run.folder, "--site", base.site, "--dry-run").stderr
    ), "the scripts of the wrong site were replaced"


def test_the_log_folder_may_be_gone_and_the_model_may_not(base: ClusterRun, config: Path, tmp_path: Path) -> None:
    """A missing log folder makes SLURM fail jobs without a word; a model that nodes cannot see ends the preflight."""
    held = {"partition": "main", "time": "10", "options": ["--hold"]}
    run = base.copy(tmp_path / "run", config, write_site(tmp_path, inference=held, training=held))
    shutil.rmtree(run.folder / "logs", ignore_errors=True)
    run.submit()
    assert "JobHeldUser" in vpgea("slurm", "status", run.folder).stdout
    file = run.folder / "config.yaml"
    file.write_text(file.read_text().replace("/base-global", "/base-nowhere"))
    for job in queue.queued(job_prefix(run.folder)):
        scontrol("release", job.id)
    until(lambda: not queue.queued(job_prefix(run.folder)), 60, "the chain is cancelled", 0.5)
    status = vpgea("slurm", "status", run.folder)
    assert "preflight: job " in status.stderr
    assert "model not found" in status.stderr
    assert "mend what the logs say" in status.stdout
