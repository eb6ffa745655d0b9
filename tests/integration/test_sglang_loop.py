"""The whole loop on the testbed with the real server: its own, and one behind a URL that takes new weights."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_sglang_faults import parts_of_server
from tests.support import overthinker, servers
from tests.support.servers import Command, until
from vpgea.engines.sglang.server.process import ServerProcess

pytestmark = pytest.mark.sglang
SMALL = {
    "data.dataset": str(overthinker.ROOT / "questions" / "train.jsonl"),
    "data.limit": 64,
    "loop.eval_dataset": str(overthinker.ROOT / "questions" / "dev.jsonl"),
    "loop.eval_limit": 32,
    "loop.questions_per_round": 32,
    "rollout.prior_samples": 4,
    "rollout.posterior_samples": 4,
    "rollout.questions_per_chunk": 16,
    "model.dtype": "float32",
    "filter.plausibility.enabled": "false",
    "distill.learning_rate": 2e-4,
    "distill.questions_per_step": 8,
}


def loop(folder: Path, *words: str | Path, rounds: int = 2, **dotted: Any) -> Command:
    chosen = {**SMALL, **{key.replace("__", "."): value for key, value in dotted.items()}}
    options = [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]
    return Command(
        "loop", *servers.testbed_options(), *options, "--rounds", str(rounds), "-o", folder, "--json", "-q", *words
    )


def rounds_of(command: Command) -> list[dict[str, Any]]:
    code, out, told = command.end(480)
    assert code == 0, told
    rounds: list[dict[str, Any]] = json.loads(out)["rounds"]
    return rounds


def assert_trained(rounds: list[dict[str, Any]], count: int) -> None:
    assert [line["round"] for line in rounds] == [None, *range(count)]
    for line in rounds[1:]:
        assert line["engine_mismatch"] < 1e-4  # the trainer's log-probabilities of the same weights, float32
        assert line["accepted_share"] > 0
        assert line["trained_tokens"] > 0
    assert len({line["tokens"] for line in rounds}) > 1, "the weights moved, and the servers sampled from the new ones"


def test_the_loop_starts_and_stops_its_own_server_around_the_training(tmp_path: Path) -> None:
    rounds = rounds_of(loop(tmp_path / "own", "--sglang-python", servers.python(), distill__train="full"))
    assert_trained(rounds, 2)
    # one server for the base's evaluation and the first round, one for each round's new weights
    assert sorted(path.name for path in (tmp_path / "own/logs").iterdir()) == [
        "sglang-1.log",
        "sglang-2.log",
        "sglang-3.log",
    ]
    plain = rounds_of(loop(tmp_path / "plain", "--set", "rollout.engine=transformers", distill__train="full"))
    for ours, theirs in zip(rounds, plain, strict=True):
        assert ours["accuracy"] == pytest.approx(theirs["accuracy"], abs=0.1)
        assert ours["tokens"] == pytest.approx(theirs["tokens"], rel=0.15)


@pytest.mark.parametrize("train", ["full", "lora"])
def test_a_server_that_is_kept_is_given_the_new_weights(train: str, tmp_path: Path) -> None:
    own = ("--sglang-python", servers.python(), "--keep-servers")
    rate = 2e-3 if train == "lora" else SMALL["distill.learning_rate"]
    rounds = rounds_of(loop(tmp_path / "run", *own, distill__train=train, distill__learning_rate=rate))
    assert_trained(rounds, 2)
    assert [path.name for path in (tmp_path / "run" / "logs").iterdir()] == ["sglang-1.log"], "it was started once"


def test_a_kept_server_that_dies_while_the_loop_trains_is_started_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = loop(folder, "--sglang-python", servers.python(), "--keep-servers", distill__train="full")
    begun = folder / "round-000" / "distill" / "parts" / "0-of-1" / "manifest.json"
    until(begun.is_file, 240, "a training has begun", pause_s=0.01)
    (server,) = parts_of_server(command, "sglang.launch_server")
    os.kill(_processes(server)[0], signal.SIGKILL)
    assert_trained(rounds_of(command), 2)
    assert sorted(path.name for path in (folder / "logs").iterdir()) == ["sglang-1.log", "sglang-2.log"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    with servers.serving(folder, distill__train="lora", model__dtype="float32") as process:
        yield process


def keys_file(server: ServerProcess) -> Path:
    return server.log.parent / "server.json"


def test_adapters_go_to_a_server_behind_a_url(server: ServerProcess, tmp_path: Path) -> None:
    rounds = rounds_of(
        loop(tmp_path / "run", "--server-url", keys_file(server), distill__train="lora", distill__learning_rate=2e-3)
    )
    assert_trained(rounds, 2)


def test_an_update_cut_off_by_a_kill_is_made_again(server: ServerProcess, tmp_path: Path) -> None:
    """Full weights go to the server by a path; it dies while it loads them; another takes its place."""
    folder = tmp_path / "run"
    impatient = ("--set", "sglang.stall_timeout_s=3", "--set", "sglang.patience_s=5")
    command = loop(folder, "--server-url", keys_file(server), *impatient, distill__train="full")
    begun = b"Update engine weights online from disk begin"
    until(lambda: begun in server.log.read_bytes(), 240, "new weights are read", pause_s=0.001)
    for pid in _processes(server.pid):
        os.kill(pid, signal.SIGKILL)
    code, _, told = command.end()
    assert code == 4, told
    assert "no SGLang server answers" in told
    with servers.serving(tmp_path / "next", distill__train="lora", model__dtype="float32") as following:
        rounds = rounds_of(loop(folder, "--server-url", keys_file(following), distill__train="full"))
        assert_trained(rounds, 2)


def _processes(server: int) -> list[int]:
    """Those of a server, whose first one leads their session; its scheduler first: the process that loads weights."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == server:
                found[int(path.name)] = (path / "cmdline").read_bytes()
        except OSError:
            continue
    return sorted(found, key=lambda pid: b"scheduler" not in found[pid])
