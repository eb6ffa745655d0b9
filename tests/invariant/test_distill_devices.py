"""`--devices cpu:2`: ranks that vpgea starts by itself train what ranks under torchrun train, stop and fail as one."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.invariant.test_distill_ranks import CASES, lines_of, prepared, ran
from tests.support import tiny
from tests.support.forks import COMMAND_LINE, Fork, Forks
from tests.support.loops import essence, write_config
from tests.support.ranks import run_ranks
from vpgea_cli.main import run

TIMEOUT_S = 100
# Ranks are copies of the command, which has imported everything: their start would take longer than their training.
COPIED = f"""
import vpgea.training.launch
from tests.support.copies import SUBPROCESS
vpgea.training.launch.subprocess = SUBPROCESS
{COMMAND_LINE}
"""
# Amid its training the command is sent a Ctrl-C; no rank goes on before it has heard of that. RANKS: for their ids.
STRUCK = f"""
import os, signal, threading
from pathlib import Path
from vpgea.runs.stopping import StopRequest
from vpgea.training.trainer import Trainer
heard, request, train_step = threading.Event(), StopRequest.request, Trainer.train_step

def hear(stop, *words):
    request(stop, *words)
    heard.set()

def strike(trainer, step):
    if trainer.next_step == 1:
        Path(os.environ["RANKS"], "rank-" + os.environ["RANK"]).write_text(str(os.getpid()))
        if os.environ["RANK"] == "0":
            os.kill(os.getppid(), signal.SIGINT)
        assert heard.wait({TIMEOUT_S})
    return train_step(trainer, step)

StopRequest.request, Trainer.train_step = hear, strike
{COPIED}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("model"))


def trained(folder: Path) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """Every figure but times, and every byte of the weights."""
    lines = [{name: value for name, value in line.items() if name != "seconds"} for line in lines_of(folder)]
    return lines, {path.name: path.read_bytes() for path in folder.glob("*/*.safetensors")}


def ranks_of(parent: Fork) -> dict[int, int]:
    """Rank → process id of the ranks that a command has started."""
    found: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text().rpartition(")")[2].split()
            words = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        if int(status[1]) == parent.pid and status[0] != "Z":
            found |= {int(word[5:]): int(folder.name) for word in words if word.startswith(b"RANK=")}
    return found


def until(condition: Callable[[], object], process: Fork) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert process.poll() is None, process.err.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_devices_train_bit_for_bit_what_two_ranks_do_also_after_one_was_killed(
    forks: Forks, model: Path, tmp_path: Path
) -> None:
    command = prepared(tmp_path, model, **CASES["ddp-lora"], epochs=8)
    ran(run_ranks(forks, [*command, "-o", tmp_path / "ranks"], 2, tmp_path), tmp_path)
    command += ["-o", tmp_path / "devices", "--devices", "cpu:2"]
    process = forks.start(command, tmp_path, "killed")
    metrics = tmp_path / "devices" / "metrics.jsonl"
    until(metrics.is_file, process)
    ranks = ranks_of(process)
    until(lambda: metrics.read_text().count("\n") > 2, process)
    os.kill(ranks[1], signal.SIGKILL)
    assert process.wait(TIMEOUT_S) == 4
    told = process.err.read_text()
    assert told.count("error:") == 1
    assert "rank 1 of the training was killed by signal 9" in told
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks.values())
    again = forks.start(command, tmp_path, "again", script=COPIED)
    assert again.wait(TIMEOUT_S) == 0, again.err.read_text()
    assert trained(tmp_path / "devices") == trained(tmp_path / "ranks")
    assert again.out.read_text().count("\n") == 1


def test_a_loop_on_two_devices_is_stopped_in_its_training_and_goes_on(
    forks: Forks, tiny_model: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path, tiny_model, loop__rounds=1, distill__train="lora", distill__epochs=4)
    assert run(["loop", "-c", str(config), "-o", str(tmp_path / "one"), "-q"]) == 0
    command: list[str | Path] = ["loop", "-c", config, "-o", tmp_path / "two", "--devices", "cpu:2", "-q"]
    process = forks.start(command, tmp_path, "stopped", {"RANKS": str(tmp_path)}, script=STRUCK)
    assert process.wait(TIMEOUT_S) == 130
    told = process.err.read_text()
    assert "error: stopped by Ctrl-C\nwhy:   the checkpoint is written" in told
    assert told.count("error:") == 1
    ranks = [(tmp_path / f"rank-{rank}").read_text() for rank in range(2)]
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks)
    again = forks.start(command, tmp_path, "again", script=COPIED)
    assert again.wait(TIMEOUT_S) == 0, again.err.read_text()
    one, two = (json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1]) for folder in roots(tmp_path))
    assert two["accepted_share"] == one["accepted_share"]
    assert two["kl"] == pytest.approx(one["kl"], rel=1e-3)
    one, two = (set(essence(folder)) for folder in roots(tmp_path))
    assert two == one | {"round-000/distill/optimizer/rank-00001.safetensors"}


def roots(folder: Path) -> tuple[Path, Path]:
    return folder / "one", folder / "two"
