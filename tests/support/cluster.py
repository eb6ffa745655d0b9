"""Runs on the real SLURM that tests/slurm/run.sh starts: what is queued, what became of it, and what disturbs it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import overthinker
from tests.support.loops import essence
from tests.support.servers import until
from vpgea.cluster import queue, scripts
from vpgea.cluster.chain import job_name
from vpgea.config.resolve import dump_yaml, resolve
from vpgea.config.strict_yaml import scalar
from vpgea.runs.layout import Step

ROOT = Path(__file__).parents[2]
PARTS = 2
SHARED_NODES = "--exclude=n2,n3"  # those are for tests that take a node away
OPTIONS: dict[str, Any] = {
    "data.dataset": str(overthinker.ROOT / "questions" / "train.jsonl"),
    "data.limit": 12,
    "rollout.questions_per_chunk": 1,
    "rollout.batch_size": 8,
    "rollout.prior_samples": 8,
    "rollout.posterior_samples": 8,
    "distill.questions_per_step": 2,
    "distill.checkpoint_every": 1,
    "distill.train": "full",
    "distill.learning_rate": 1e-4,
    "loop.eval_dataset": str(overthinker.ROOT / "questions" / "dev.jsonl"),
    "loop.eval_limit": 4,
    "loop.rounds": 2,
}
# Of a round, what the next ones are made from: shards and weights, byte for byte.
RESULTS = re.compile(r"(base|round-\d+)/.*\.(arrow|safetensors)")


def write_config(folder: Path, **dotted: Any) -> Path:
    """A loop on the testbed with chunks of one question, so that there are many moments between two of them."""
    chosen = {**{key.replace(".", "__"): value for key, value in OPTIONS.items()}, **dotted}
    options = overthinker.options(**chosen)
    file = folder / "loop.yaml"
    file.write_text(dump_yaml(resolve(options=options).config), encoding="utf-8")
    return file


def write_site(folder: Path, **keys: Any) -> Path:
    site = {
        "parts": PARTS,
        "environment": {"OMP_NUM_THREADS": "1"},
        "inference": {"partition": "main", "time": "10", "options": [SHARED_NODES]},
        "training": {"partition": "main", "time": "10", "options": [SHARED_NODES]},
        **keys,
    }
    file = folder / "site.yaml"
    file.write_text("".join(f"{key}: {scalar(value)}\n" for key, value in site.items()), encoding="utf-8")
    return file


def vpgea(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, as a user runs it on the login node."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VPGEA_")}
    return subprocess.run(
        [sys.executable, "-m", "vpgea_cli", *map(str, words)],
        env={**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200", **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@dataclass(frozen=True)
class ClusterRun:
    """A run folder whose scripts are written."""

    folder: Path
    site: Path

    @classmethod
    def prepare(cls, folder: Path, config: Path, site: Path) -> ClusterRun:
        """Open the folder, or one that was copied, and write scripts for its place."""
        done = vpgea("slurm", "submit", folder, "--config", config, "--site", site, "--dry-run")
        assert done.returncode == 0, done.stderr + _call("sinfo", "-N", "-l")
        return cls(folder, site)

    def copy(self, folder: Path, config: Path, site: Path | None = None) -> ClusterRun:
        shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns("slurm"))
        return self.prepare(folder, config, site or self.site)

    def submit(self) -> subprocess.CompletedProcess[str]:
        done = vpgea("slurm", "submit", self.folder, "--site", self.site)
        assert done.returncode == 0, done.stderr
        return done

    def queue_step(self, name: str, *options: str, parts: int | None = PARTS) -> str:
        """Queue one step alone; return its job id."""
        step = Step.parse(name)
        output = self.folder / scripts.LOGS / ("%x-%j.out" if parts is None else "%x-%A_%a.out")
        words = [f"--job-name={job_name(self.folder, step)}", f"--output={output}", *options]
        array = [] if parts is None else [f"--array=0-{parts - 1}"]
        script = self.folder / scripts.FOLDER / f"{step.phase}.sh"
        return queue.submit(script, [name, *([] if parts is None else [str(parts)])], [*words, *array])

    def chunks(self, name: str) -> int:
        return len(list((self.folder / name / "parts").glob("*/chunk-*.json")))

    def results(self) -> dict[str, Any]:
        """Shards and weights of the run, by path."""
        return {path: content for path, content in essence(self.folder).items() if RESULTS.fullmatch(path)}

    def log(self, job: str) -> str:
        return "".join(file.read_text() for file in sorted((self.folder / scripts.LOGS).glob(f"*-{job}*.out")))


def without_parts(results: dict[str, Any]) -> dict[str, Any]:
    """Contents by path, wherever a step's parts put them."""
    return {
        "/".join(piece for piece in path.split("/") if "-of-" not in piece): content
        for path, content in results.items()
    }


@dataclass(frozen=True)
class Ended:
    """What the scheduler remembers of a job or of one element of an array."""

    state: str
    restarts: int
    exit_code: int


def jobs(job: str) -> list[Ended]:
    """A job, or all elements of an array."""
    text = _call("scontrol", "-o", "show", "job", job)
    found = []
    for line in text.splitlines():
        fields = dict(re.findall(r"(\w+)=(\S*)", line))
        found.append(Ended(fields["JobState"], int(fields["Restarts"]), int(fields["ExitCode"].partition(":")[0])))
    return found


def wait_for(job: str, timeout_s: float = 200) -> list[Ended]:
    """The job once all of it has come to an end."""
    over = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED"}
    until(lambda: all(one.state in over for one in jobs(job)), timeout_s, f"job {job} ends", 0.3)
    return jobs(job)


def wait_for_chunks(run: ClusterRun, name: str, count: int) -> None:
    until(lambda: run.chunks(name) >= count, 90, f"{count} chunks of {name}", 0.01)


def scontrol(*words: str) -> None:
    _call("scontrol", *words)


def scancel(*words: str) -> None:
    _call("scancel", *words)


def sbatch(*words: str) -> str:
    return _call("sbatch", "--parsable", *words).strip()


def node_of(job: str) -> str:
    found = re.search(r"\bNodeList=(\S+)", _call("scontrol", "-o", "show", "job", job))
    assert found is not None
    return found[1]


def _call(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def cluster() -> None:
    assert os.environ.get("SLURM_CONF"), "these tests need the real SLURM: `make test-slurm` starts it"
