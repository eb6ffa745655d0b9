"""The environment that holds SGLang: where it is, what is in it, and how to make one.

SGLang pins its own versions of torch and transformers, so it is best kept in a virtual environment of its own. It is
only ever run from there, by that environment's Python.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TypedDict

import vpgea
from vpgea.config.schema import SglangConfig
from vpgea.errors import UsageError, VpgeaError

TESTED = "0.5.23"
GPU_RECIPE = (
    f"python3 -m venv .venv-sglang && .venv-sglang/bin/pip install sglang=={TESTED}"
    "  (CUDA 13 builds, about 4.4 GB to download; Linux with glibc 2.34 or newer)"
)
CPU_RECIPE = "make sglang  (in a checkout of vpgea)"
_FOLDER = ".venv-sglang"
_QUERY_S = 120.0

_QUERY = """
import json, platform
from importlib import metadata
found = {"python": platform.python_version()}
for name in ("sglang", "torch", "transformers", "sglang-kernel"):
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        found[name] = None
found["cpu_plugin"] = any(metadata.entry_points(group="sglang.srt.platforms"))
print(json.dumps(found))
"""
_CUDA_QUERY = """
import torch
cards = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
print(", ".join(cards))
"""

Versions = TypedDict(
    "Versions",
    {
        "python": str,
        "sglang": str | None,
        "torch": str | None,
        "transformers": str | None,
        "sglang-kernel": str | None,
        "cpu_plugin": bool,  # a platform plugin, by which SGLang runs on a CPU
        "gpu": bool,  # a GPU is there, and its torch is no CPU build
    },
)


def find_python(config: SglangConfig) -> Path:
    """The Python of the environment that holds SGLang: the configured one, `.venv-sglang`, or the present one.

    Raises:
        UsageError: There is none.
    """
    if config.python is not None:
        given = Path(config.python).expanduser()
        if not given.is_file() or not os.access(given, os.X_OK):
            raise UsageError(
                f"no Python at {given}",
                why="sglang.python must be the interpreter of the environment that holds SGLang",
                mend=f"give --sglang-python FOLDER/bin/python, or install it with: {recipe()}",
            )
        return given.absolute()  # not resolved: the link's place makes it the environment's
    for folder in (Path.cwd(), Path(vpgea.__file__).parents[1]):
        if (python := folder / _FOLDER / "bin" / "python").is_file():
            return python
    present = importlib.util.find_spec("sglang")
    if present is not None and present.origin is not None:  # a mere folder of that name has no origin
        return Path(sys.executable)
    raise UsageError(
        "SGLang is not installed",
        why=f"there is no {_FOLDER} here, and no sglang in {sys.executable}",
        mend=f"{recipe()}; or name its Python with sglang.python, or a running server with --server-url",
    )


def installed_versions(python: Path) -> Versions:
    """What an environment has, asked of its own Python without importing anything heavy.

    Raises:
        UsageError: That Python cannot be run.
    """
    try:
        found: Versions = json.loads(_answer(python, _QUERY))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise UsageError(
            f"{python} cannot be run",
            why=" ".join(str(error).split())[:300],
            mend="sglang.python must be the interpreter of the environment that holds SGLang",
        ) from error
    found["gpu"] = gpu_device() and "+cpu" not in (found["torch"] or "+cpu")
    return found


def gpu_device() -> bool:
    """Whether this machine has an NVIDIA device that may be used; torch is not asked, which takes seconds."""
    return any(Path("/dev").glob("nvidia[0-9]*")) and os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1")


def recipe() -> str:
    """How to install SGLang on this machine."""
    return GPU_RECIPE if gpu_device() else CPU_RECIPE


def isolated_environment() -> dict[str, str]:
    """This process's environment without what would make another Python load foreign modules."""
    leading = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if name not in leading}
    return {**kept, "PYTHONSAFEPATH": "1"}  # nor what lies in the current folder


def doctor_rows(config: SglangConfig) -> list[tuple[str, str, str]]:
    """(name, found, remark) about SGLang for `vpgea doctor`; SGLang is optional, so nothing here is an error."""
    recipes = [("install on a GPU", TESTED, GPU_RECIPE), ("install on a CPU", TESTED, CPU_RECIPE)]
    return [*_found(config), *((f"sglang, {name}", version, how) for name, version, how in recipes)]


def _found(config: SglangConfig) -> list[tuple[str, str, str]]:
    try:
        python = find_python(config)
        versions = installed_versions(python)
    except VpgeaError as error:
        return [("sglang", "-", f"{error.what}; tested with {TESTED}: {recipe()}")]
    if versions["sglang"] is None:
        return [("sglang", "-", f"not in {python}; tested with {TESTED}: {recipe()}")]
    same = "as tested" if versions["sglang"] == TESTED else f"tested with {TESTED}"
    rows = [("sglang", versions["sglang"], f"{same}; {python}, torch {versions['torch']}")]
    if versions["gpu"]:
        return [*rows, _gpu_row(python, versions)]
    missing = f"its CPU platform is missing: {CPU_RECIPE}"
    return [*rows, ("sglang device", "cpu", "" if versions["cpu_plugin"] else missing)]


def _gpu_row(python: Path, versions: Versions) -> tuple[str, str, str]:
    kernel = versions["sglang-kernel"]
    remark = f"sglang-kernel {kernel}" if kernel else f"sglang-kernel is missing: {GPU_RECIPE}"
    try:
        cards = _answer(python, _CUDA_QUERY).strip()
    except (OSError, subprocess.SubprocessError) as error:
        return "sglang device", "not usable", f"its torch cannot be loaded: {' '.join(str(error).split())[:200]}"
    if not cards:
        return "sglang device", "not usable", f"torch {versions['torch']} sees no GPU: is the NVIDIA driver new enough?"
    return "sglang device", cards, remark


def _answer(python: Path, code: str) -> str:
    done = subprocess.run(  # noqa: S603 - the user's own interpreter
        [str(python), "-c", code],
        env=isolated_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_QUERY_S,
        check=False,
    )
    if done.returncode != 0:
        raise subprocess.SubprocessError(done.stderr.strip().splitlines()[-1:] or f"exit code {done.returncode}")
    return done.stdout.splitlines()[-1] if done.stdout.strip() else ""
