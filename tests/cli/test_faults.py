"""What goes wrong at a user's: each ends in three lines and the documented exit code, and can be mended."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.forks import Forks
from tests.support.loops import essence, write_config
from vpgea_cli.main import run

Call = Callable[..., Any]
PHASES = ("rollout", "filter", "distill", "eval", "loop")
STOPPED = "once more to leave at once"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    return write_config(tmp_path_factory.mktemp("faults"), tiny_model)


@pytest.fixture(scope="module")
def undisturbed(config: Path) -> Path:
    """A folder per phase, made without a fault; do not change them."""
    folder = config.parent / "undisturbed"
    for phase in PHASES:
        assert run(command(phase, config, folder)) == 0
    return folder


def command(phase: str, config: Path, folder: Path) -> list[str]:
    """`vpgea PHASE` from and to the folders of a chain below `folder`; two questions are evaluated."""
    held_out = ["--dataset", str(config.parent / "held-out.jsonl")] if phase == "eval" else []
    source = {"filter": ["rollout"], "distill": ["filter"]}.get(phase, [])
    inputs = [str(folder / name) for name in source]
    return [phase, *inputs, "--config", str(config), "--output-dir", str(folder / phase), *held_out, "--quiet"]


def chain(undisturbed: Path, phase: str, folder: Path) -> Path:
    """A copy of the undisturbed folders that a phase reads."""
    folder.mkdir()
    for name in {"filter": ["rollout"], "distill": ["rollout", "filter"]}.get(phase, []):
        shutil.copytree(undisturbed / name, folder / name)
    return folder


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The three lines of an error; that there is nothing else but warnings is asserted."""
    captured = capsys.readouterr()
    words = [line for line in captured.err.splitlines() if line and STOPPED not in line]
    lines = [line for line in words if not line.startswith("warning: ")]
    assert captured.out == ""
    assert [line.split(":")[0] for line in lines] == ["error", "why", "mend"], captured.err
    return lines


# --- models --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["rollout", "eval", "loop"])
def test_a_wrong_model_path(phase: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command(phase, config, tmp_path), "--model", "./no-such-model"]) == 2
    error, _, mend = told(capsys)
    assert error == "error: model not found: ./no-such-model"
    assert "--model" in mend
    assert not (tmp_path / phase).exists()


def without_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()


def cut_short(model: Path) -> None:
    file = model / "model.safetensors"
    os.truncate(file, file.stat().st_size // 2)


def other_shapes(model: Path) -> None:
    text = (model / "config.json").read_text(encoding="utf-8")
    (model / "config.json").write_text(text.replace('"intermediate_size": 64', '"intermediate_size": 48'), "utf-8")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without_weights, "no safetensors weights in"),
        (cut_short, "damaged weights:"),
        (other_shapes, "cannot be loaded"),
    ],
)
def test_a_damaged_model(
    damage: Callable[[Path], None],
    words: str,
    config: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    damage(model)
    assert run([*command("rollout", config, tmp_path), "--model", str(model)]) == 2
    error, _, _ = told(capsys)
    assert words in error
    assert str(model) in error


# --- data ----------------------------------------------------------------------------------------------------------


def test_a_corrupt_shard_is_named_and_drawn_again(
    config: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = chain(undisturbed, "filter", tmp_path / "chain")
    shard = folder / "rollout" / "parts" / "0-of-1" / "chunk-00001.arrow"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert run(command("filter", config, folder)) == 2
    error, _, mend = told(capsys)
    assert error == f"error: damaged shard: {shard}"
    assert "vpgea doctor FOLDER --repair" in mend
    other = shard.with_name("chunk-00000.arrow").stat().st_mtime_ns
    assert run(["doctor", str(folder / "rollout"), "--repair"]) == 0
    assert shard.with_name("chunk-00000.arrow").stat().st_mtime_ns == other
    assert run(command("filter", config, folder)) == 0
    assert essence(folder / "filter") == essence(undisturbed / "filter")


def test_an_unfinished_rollout_is_refused(
    config: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = chain(undisturbed, "filter", tmp_path / "chain")
    for marker in (folder / "rollout").rglob("COMPLETE"):
        marker.unlink()
    assert run(command("filter", config, folder)) == 2
    error, _, mend = told(capsys)
    assert error == f"error: the rollout in {folder / 'rollout'} is not complete"
    assert "vpgea rollout" in mend
    assert not (folder / "filter").exists()


# --- disks ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB. Mounting needs root, which `make test` does not: it is skipped then."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("free", [40_000, 1_500_000])
def test_a_full_disk(
    free: int,
    config: Path,
    undisturbed: Path,
    small_disk: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Full in the evaluation of the base, or with the weights of the first round."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - free))
    once = [*command("loop", config, small_disk), "--rounds", "1"]
    assert run(once) == 1
    _, why, mend = told(capsys)
    assert why == "why:   the disk is full"
    assert "free some space" in mend
    ballast.unlink()
    assert run(once) == 0
    expected = essence(undisturbed / "loop" / "round-000")
    found = essence(small_disk / "loop" / "round-000")
    assert found.keys() == expected.keys()
    assert [name for name in found if isinstance(found[name], bytes) and found[name] != expected[name]] == []


def test_a_limit_on_the_size_of_files(
    config: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a full disk is without root: the same refusal of the same writes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 << 10, hard))
    try:
        assert run(command("rollout", config, tmp_path)) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    _, why, mend = told(capsys)
    assert "ulimit -f" in why
    assert "it continues" in mend
    assert not list(tmp_path.rglob("*.tmp"))
    assert run(command("rollout", config, tmp_path)) == 0
    assert essence(tmp_path / "rollout") == essence(undisturbed / "rollout")


@pytest.mark.parametrize("phase", PHASES)
def test_a_file_in_the_place_of_the_folder(
    phase: str, config: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = chain(undisturbed, phase, tmp_path / "chain")
    (folder / phase).write_text("mine", encoding="utf-8")
    assert run(command(phase, config, folder)) == 2
    error, _, mend = told(capsys)
    assert str(folder / phase) in error
    assert "--output-dir" in mend
    assert (folder / phase).read_text(encoding="utf-8") == "mine"


# --- signals -------------------------------------------------------------------------------------------------------

# Where a signal strikes in each phase: at which call of what, so that something is done and something is left.
STRUCK = {
    "rollout": ("vpgea.engines.transformers.TransformersEngine._generate", 2),  # once per chunk
    "filter": ("vpgea.filtering.crossview.CrossView.measure", 2),
    "distill": ("vpgea.phases.distill.Trainer.train_step", 1),
    "eval": ("vpgea.engines.transformers.TransformersEngine.generate", 1),
    "loop": ("vpgea.phases.distill.Trainer.train_step", 3),
}


def strike(monkeypatch: pytest.MonkeyPatch, phase: str, number: signal.Signals) -> None:
    """Send this process a real signal just before the n-th call of what the phase works with."""
    import importlib

    place, call = STRUCK[phase]
    module, owner, name = place.rsplit(".", 2)
    target = getattr(importlib.import_module(module), owner)
    original, calls = getattr(target, name), [0]

    def struck(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            os.kill(os.getpid(), number)
        return original(*arguments, **options)

    monkeypatch.setattr(target, name, struck)


@pytest.mark.parametrize(
    ("phase", "number", "code"),
    [
        *((phase, signal.SIGINT, 130) for phase in PHASES),
        ("rollout", signal.SIGTERM, 75),
        ("distill", signal.SIGTERM, 75),
        ("filter", signal.SIGUSR1, 75),
        ("eval", signal.SIGUSR1, 75),
    ],
)
def test_a_signal_stops_a_phase_which_then_continues(
    phase: str,
    number: signal.Signals,
    code: int,
    config: Path,
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = chain(undisturbed, phase, tmp_path / "chain")
    with monkeypatch.context() as patch:
        strike(patch, phase, number)
        assert run(command(phase, config, folder)) == code
    err = capfd.readouterr().err
    assert STOPPED in err
    error, why, mend = (line for line in err.splitlines() if line.startswith(("error", "why", "mend")))
    assert error == f"error: stopped by {'Ctrl-C' if number == signal.SIGINT else number.name}"
    assert "saved" in why or "written" in why
    assert "run the same command again" in mend
    committed = {path: path.stat().st_mtime_ns for path in (folder / phase).rglob("*.arrow")}
    assert run(command(phase, config, folder)) == 0
    assert {path: path.stat().st_mtime_ns for path in committed} == committed
    assert essence(folder / phase) == essence(undisturbed / phase)


def test_ctrl_c_in_a_process_of_its_own(config: Path, undisturbed: Path, tmp_path: Path, forks: Forks) -> None:
    process = forks.start(command("loop", config, tmp_path), tmp_path, "said")
    while process.poll() is None and not list(tmp_path.rglob("*.arrow")):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    process.wait(120)
    assert (process.returncode, process.out.read_text()) == (130, "")
    assert "Traceback" not in process.err.read_text()
    assert run(command("loop", config, tmp_path)) == 0
    assert essence(tmp_path / "loop") == essence(undisturbed / "loop")
