"""`vpgea doctor` on this machine, and on one where something is missing."""

from __future__ import annotations

import importlib.metadata
import json
import site
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., subprocess.CompletedProcess[str]]


def test_a_working_machine_is_fine(here: Cli) -> None:
    done = here(
        "doctor", "--json", env={"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0"}
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["torch"]["found"] == importlib.metadata.version("torch")
    assert result["hugging face"]["found"] == "offline (HF_HUB_OFFLINE)"
    assert {"python", "cores", "memory", "disk", "gpu", "math-verify"} <= set(result)
    for name in result:
        assert name in done.stderr  # the same as a table for people


def test_a_package_that_cannot_be_imported_is_named(here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "peft.py").write_text("raise ImportError('libfoo.so is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "peft"]:
        monkeypatch.delitem(sys.modules, name)
    done = here("doctor", "--quiet")
    assert (done.returncode, done.stdout) == (1, "")
    assert "why:   peft (cannot be imported: ImportError: libfoo.so is missing)" in done.stderr


def wanting(folder: Path, wanted: str, version: str | None = None) -> str:
    """Metadata of a vpgea that needs psutil in these versions, and of a psutil of this one."""
    texts = {"vpgea-1": f"Name: vpgea\nVersion: 1\nRequires-Python: >=3\nRequires-Dist: psutil{wanted}\n"}
    if version is not None:
        texts[f"psutil-{version}"] = f"Name: psutil\nVersion: {version}\n"
    for name, text in texts.items():
        (folder / f"{name}.dist-info").mkdir(parents=True)
        (folder / f"{name}.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\n{text}", encoding="utf-8")
    return str(folder)


TESTED = "tested with 7.2.2"


@pytest.mark.parametrize(
    ("version", "wanted", "remark"),
    [
        ("2.13.0+cpu", ">=2.8", TESTED),
        ("2.7", ">=2.8", "needs >=2.8"),
        ("2.7", "<1.5", "needs <1.5"),
        ("3.0rc1", ">=2.8", TESTED),
        ("7.2.2+cpu", ">=2.8", "as tested"),
    ],
)
def test_version_ranges(
    version: str, wanted: str, remark: str, here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(wanting(tmp_path / "site", wanted, version))
    done = here("doctor", "--json")
    assert json.loads(done.stdout)["psutil"] == {"found": version, "remark": remark}
    assert done.returncode == int(remark.startswith("needs"))
    assert (f"psutil ({remark})" in done.stderr) == (done.returncode == 1)


def test_a_missing_package_is_named(here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is installed here, but for psutil's metadata."""
    rest = tmp_path / "rest"
    rest.mkdir()
    installed = [Path(folder) for folder in site.getsitepackages() if Path(folder).is_dir()]
    for entry in (entry for folder in installed for entry in folder.iterdir()):
        if not entry.name.startswith("psutil-") and not (rest / entry.name).exists():
            (rest / entry.name).symlink_to(entry)
    others = [entry for entry in sys.path if entry and Path(entry) not in installed]
    monkeypatch.setattr(sys, "path", [wanting(tmp_path / "site", ">=1"), *others, str(rest)])
    done = here("doctor", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["psutil"] == {"found": "-", "remark": "not installed, needs >=1"}
    assert "psutil (not installed, needs >=1)" in done.stderr
