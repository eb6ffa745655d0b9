"""`vpgea doctor` on this machine, and on one where something is missing."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from vpgea_cli.commands import doctor

Cli = Callable[..., subprocess.CompletedProcess[str]]


def test_a_working_machine_is_fine(cli: Cli) -> None:
    done = cli("doctor", "--json", env={"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0"})
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["torch"]["found"] == importlib.metadata.version("torch")
    assert result["hugging face"]["found"] == "offline (HF_HUB_OFFLINE)"
    assert {"python", "cores", "memory", "disk", "gpu", "math-verify"} <= set(result)
    for name in result:
        assert name in done.stderr  # the same as a table for people


def test_a_package_that_cannot_be_imported_is_named(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "peft.py").write_text("raise ImportError('libfoo.so is missing')")  # the current folder comes first
    done = cli("doctor", "--quiet")
    assert (done.returncode, done.stdout) == (1, "")
    assert "why:   peft (cannot be imported: ImportError: libfoo.so is missing)" in done.stderr


def test_missing_and_unfit_packages_are_named() -> None:
    assert doctor._package("no-such-package", "1.0", ">=1").missing == "not installed, needs >=1"
    assert doctor._package("numpy", "1.0", "<1.5").missing == "needs <1.5"
    assert doctor._package("numpy", "1.0", ">=1").remark == "tested with 1.0"


@pytest.mark.parametrize(
    ("version", "wanted", "fits"), [("2.13.0+cpu", ">=2.8", True), ("2.7", ">=2.8", False), ("3.0rc1", ">=2.8", True)]
)
def test_version_ranges(version: str, wanted: str, fits: bool) -> None:
    assert doctor._fits(version, wanted) is fits
