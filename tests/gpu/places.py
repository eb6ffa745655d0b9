"""Where the tests of this folder run: on the GPUs of this machine, or, for whoever changes them, on its CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from vpgea.config.schema import SglangConfig
from vpgea.engines.sglang.server.installation import find_python
from vpgea.errors import UsageError

ROOT = Path(__file__).parents[2]
SWITCH = "VPGEA_GPU_TESTS_ON"  # cpu: everything runs there, which shows that the tests themselves are right
ON_CPU = os.environ.get(SWITCH) == "cpu"
DEVICE = "cpu" if ON_CPU else "cuda"
COMMAND_S = 300


def missing(gpus: int = 1) -> str | None:
    """Why nothing of this can run here; None where it can."""
    if ON_CPU:
        return None
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found >= gpus:
        return None
    needed = "a GPU" if gpus == 1 else f"{gpus} GPUs"
    return f"needs {needed}, and torch {torch.__version__} sees {found or 'none'}"


def devices(count: int) -> str:
    """What --devices is to be for so many of them."""
    return f"cpu:{count}" if ON_CPU else str(count)


def server_python() -> str | None:
    """The Python of an environment with SGLang for this device; None where there is none."""
    try:
        return str(find_python(SglangConfig()))
    except UsageError:
        return None


def command(folder: Path, *words: str | Path, script: str | None = None) -> str:
    """What a command of vpgea's said on stderr, run to its end in a process of its own; script: in its stead."""
    program = ["-m", "vpgea_cli"] if script is None else ["-c", script]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("VPGEA_")}
    done = subprocess.run(
        [sys.executable, *program, *map(str, words)],
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr
