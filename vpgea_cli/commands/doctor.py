"""`vpgea doctor`: is this machine ready, and what is missing? With a folder: is it whole, and can it be mended?"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.resources
import json
import os
import platform
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import vpgea
from vpgea.config.schema import RunConfig, SglangConfig
from vpgea.engines.sglang.server.installation import doctor_rows
from vpgea.errors import UsageError, VpgeaError
from vpgea_cli.options import JsonOption, QuietOption
from vpgea_cli.output import Output
from vpgea_cli.phase import running

if TYPE_CHECKING:
    from vpgea.inspection.verify_phase import Report

_GIB = 2**30
_LISTED = 3  # damages that an error names; the table has all
_MODULES = {"math-verify": "math_verify", "pyyaml": "yaml"}  # where a package's import name is another
_OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")


@dataclass(frozen=True)
class Check:
    """One line of the table. `missing` says what keeps the core from working; empty when nothing does."""

    name: str
    found: str
    remark: str = ""
    missing: str = ""


def command(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of a loop, rollout, filter, distill or eval to verify.")
    ] = None,
    *,
    repair: Annotated[
        bool, typer.Option("--repair", help="Set aside what is damaged in the folder, and make only that again.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check Python, packages, processors, memory, disk, GPU and network settings; or every file of a folder."""
    output = Output(quiet=quiet, as_json=as_json)
    if folder is not None:
        _folder(folder, output, repair=repair)
    elif repair:
        raise UsageError("--repair needs a folder", why="it mends what vpgea wrote there", mend="give FOLDER --repair")
    else:
        _machine(output)


def _folder(folder: Path, output: Output, *, repair: bool) -> None:
    """Verify a folder; with `repair` mend it, and verify it once more."""
    report = _verified(folder, output)
    before = report.findings
    if repair and before:
        from vpgea.phases.repair import repair as repair_folder

        with running(output, offline=False) as stop:
            repair_folder(folder, before, stop, output)
        report = _verified(folder, output)
    if report.findings:
        listed = "; ".join(f"{finding.path}: {finding.problem}" for finding in report.findings[:_LISTED])
        more = f"; and {len(report.findings) - _LISTED} more" if len(report.findings) > _LISTED else ""
        mend = f"vpgea doctor {shlex.quote(str(folder))} --repair sets it aside and makes only that again"
        raise UsageError(f"{len(report.findings)} damaged in {folder}", why=listed + more, mend=mend)
    counts = {name: getattr(report, name) for name in ("shards", "checkpoints", "weights", "records")}
    if output.as_json:
        output.result({"path": str(folder), **counts, "mended": len(before)})
        return
    words = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    output.result(f"checked {words}: all whole")


def _verified(folder: Path, output: Output) -> Report:
    from vpgea.inspection.verify import shard_count, verify

    with output.progress(shard_count(folder) if folder.is_dir() else 0, "verify: shards") as progress:
        report = verify(folder, progress)
    if report.findings:
        rows = [(str(finding.path), finding.problem, finding.redo) for finding in report.findings]
        output.table(f"damaged in {folder}", ["what", "why", "to be made again"], rows)
    return report


def _machine(output: Output) -> None:
    """Check this machine and its packages.

    Raises:
        VpgeaError: The core cannot work here.
    """
    as_json = output.as_json
    checks = [_python(), *_packages(), _cores(), _memory(), _disk(), _gpu(), _devices(), _hugging_face()]
    rows = [(check.name, check.found, check.missing or check.remark) for check in checks]
    rows += doctor_rows(SglangConfig())
    output.table(f"vpgea {vpgea.__version__}", ["what", "found", "remark"], rows)
    missing = [check for check in checks if check.missing]
    if as_json:
        output.result({name: {"found": found, "remark": remark} for name, found, remark in rows})
    if missing:
        what = ", ".join(f"{check.name} ({check.missing})" for check in missing)
        mend = "pip install --upgrade vpgea, in a virtual environment of its own"
        raise VpgeaError("vpgea cannot work here", why=what, mend=mend)
    if not as_json:
        output.result("everything that the core needs is here")


def _python() -> Check:
    wanted = importlib.metadata.metadata("vpgea")["Requires-Python"] if _installed("vpgea") else ""
    fits = not wanted or _fits(platform.python_version(), wanted)
    return Check("python", platform.python_version(), sys.executable, "" if fits else f"needs {wanted}")


def _packages() -> list[Check]:
    tested = json.loads(importlib.resources.files("vpgea").joinpath("tested_versions.json").read_text("utf-8"))
    ranges = _required_ranges()
    return [_package(name, version, ranges.get(name, "")) for name, version in tested.items()]


def _package(name: str, tested: str, wanted: str) -> Check:
    if not _installed(name):
        return Check(name, "-", missing=f"not installed, needs {wanted or tested}")
    version = importlib.metadata.version(name)
    if wanted and not _fits(version, wanted):
        return Check(name, version, missing=f"needs {wanted}")
    try:
        importlib.import_module(_MODULES.get(name, name))
    except Exception as error:  # a broken binary package can raise anything; saying so is this command's work
        return Check(name, version, missing=f"cannot be imported: {type(error).__name__}: {error}")
    same = version.partition("+")[0] == tested  # without the build's own suffix, such as +cpu
    return Check(name, version, "as tested" if same else f"tested with {tested}")


def _required_ranges() -> dict[str, str]:
    """Package name → version range, from the metadata of the installed vpgea."""
    from packaging.requirements import Requirement

    texts = (importlib.metadata.requires("vpgea") or []) if _installed("vpgea") else []
    return {one.name.lower(): str(one.specifier) for one in map(Requirement, texts) if one.marker is None}


def _fits(version: str, wanted: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(wanted).contains(version, prereleases=True)


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _cores() -> Check:
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS")
    return Check("cores", str(allowed), f"OMP_NUM_THREADS={threads}" if threads else "")


def _memory() -> Check:
    try:
        import psutil
    except ImportError:  # already on the list of missing packages
        return Check("memory", "unknown", "needs psutil")
    memory, limit = psutil.virtual_memory(), _cgroup_limit()
    remark = f"this container may use {limit / _GIB:.1f} GiB" if limit and limit < memory.total else ""
    return Check("memory", f"{memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB free", remark)


def _cgroup_limit() -> int | None:
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _disk() -> Check:
    usage = shutil.disk_usage(".")
    writable = os.access(".", os.W_OK)
    found = f"{usage.free / _GIB:.1f} of {usage.total / _GIB:.1f} GiB free"
    return Check("disk", found, "" if writable else "the current folder is not writable: give --output-dir elsewhere")


def _gpu() -> Check:
    try:
        import torch
    except Exception:  # already on the list of packages that cannot be imported
        return Check("gpu", "unknown", "needs torch")
    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
        names = ", ".join(f"{card.name} ({card.total_memory / _GIB:.0f} GiB)" for card in cards)
        return Check("gpu", names, f"CUDA {torch.version.cuda}")
    if Path("/dev/nvidia0").exists():
        build = "a CPU build" if torch.version.cuda is None else f"built for CUDA {torch.version.cuda}"
        return Check("gpu", "not usable", f"there is one, but torch is {build} and cannot see it")
    return Check("gpu", "none", "the transformers engine runs on the CPU")


def _devices() -> Check:
    """What `--devices auto` means here."""
    try:
        from vpgea.engines.lease import placement

        where = placement(RunConfig())
    except ImportError:
        return Check("devices", "unknown", "needs torch")
    return Check("devices", where["training"], f"--devices auto; sampling: {where['sampling']}")


def _hugging_face() -> Check:
    on = [name for name in _OFFLINE_VARIABLES if os.environ.get(name, "").lower() in ("1", "true", "yes", "on")]
    cache = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    return Check("hugging face", f"offline ({', '.join(on)})" if on else "online", f"cache in {cache}")
