"""The real command line, in a process of its own or in this one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.campaigns.damage import make_run
from vpgea_cli.main import run as run_here

ROOT = Path(__file__).parents[2]


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without VPGEA_*, with the tree under test on the path and wide lines."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VPGEA_")}
    return {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "OMP_NUM_THREADS": "1", **(extra or {})}


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Configuration of a loop of one round; beside it `whole`, for copies to `copy`: the loop's `run`, and `stopped`,
    a training that was stopped."""
    return make_run(tmp_path_factory.mktemp("damage"), tiny_model)


@pytest.fixture
def environment() -> Callable[..., dict[str, str]]:
    return clean_environment


@pytest.fixture
def cli(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`cli("config", "show", env={...}, cwd=...)` runs `vpgea config show` and returns code, stdout and stderr."""

    def run(
        *arguments: str | Path, env: Mapping[str, str] | None = None, cwd: Path = tmp_path, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "vpgea_cli", *map(str, arguments)],
            env=clean_environment(env),
            cwd=cwd,
            timeout=timeout,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Like `cli` but in this process, which has imported everything before: where a process is not the point."""

    def run(
        *arguments: str | Path, env: Mapping[str, str] | None = None, cwd: Path = tmp_path
    ) -> subprocess.CompletedProcess[str]:
        given = [str(argument) for argument in arguments]
        with monkeypatch.context() as patch:
            patch.chdir(cwd)
            for name in [name for name in os.environ if name.startswith("VPGEA_")]:
                patch.delenv(name)
            # so that what --offline sets in this process is taken back afterwards
            online = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "0")
            for name, value in {"COLUMNS": "200", **online, **(env or {})}.items():
                patch.setenv(name, value)
            capsys.readouterr()
            code = run_here(given)
            printed = capsys.readouterr()
        return subprocess.CompletedProcess(given, code, printed.out, printed.err)

    return run
