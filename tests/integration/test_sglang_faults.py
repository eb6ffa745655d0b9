"""What happens when servers die, hang or are the wrong ones: exit code, message, nothing lost, nothing left behind."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import overthinker, rollouts, servers
from tests.support.rollouts import committed, rows_of
from tests.support.servers import Command, until
from vpgea.engines.sglang.server.process import ServerProcess
from vpgea.runs.complete_phase import chunk_paths

pytestmark = pytest.mark.sglang
LONG = {"data.limit": 160, "rollout.questions_per_chunk": 8}  # some 20 s of sampling
OWN = ("--sglang-python", servers.ROOT / ".venv-sglang/bin/python")
IMPATIENT = ("--set", "sglang.stall_timeout_s=2", "--set", "sglang.patience_s=3")
KEYS = ("question_id", "view", "sample_index", "prompt_ids", "completion_ids")


def long_run(*words: str | Path) -> list[str | Path]:
    return [*servers.testbed_options(), *[w for k, v in LONG.items() for w in ("--set", f"{k}={v}")], *words]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The long rollout by the transformers engine: the same paths, since both engines draw the same tokens."""
    folder = tmp_path_factory.mktemp("undisturbed") / "rollout"
    rollouts.run(overthinker.config(data__limit=160, rollout__questions_per_chunk=8), folder)
    return folder


def assert_same_paths(folder: Path, undisturbed: Path) -> None:
    found, expected = rows_of(folder), rows_of(undisturbed)
    assert [[row[name] for name in KEYS] for row in found] == [[row[name] for name in KEYS] for row in expected]


def parts_of_server(command: Command, name: str) -> list[int]:
    """Processes that the command's server consists of, by a part of what /proc says of them."""
    return [pid for pid in command.descendants() if name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_server_killed_during_rollout_loses_nothing(undisturbed: Path, tmp_path: Path) -> None:
    command = Command("rollout", *long_run(*OWN, "-o", tmp_path / "out"))
    until(lambda: committed(tmp_path / "out") >= 2, 150, "two chunks are drawn")
    (scheduler,) = parts_of_server(command, "sglang::scheduler")
    os.kill(scheduler, signal.SIGKILL)
    code, out, told = command.end()
    assert (code, out) == (4, "")
    assert "error: the SGLang server" in told
    assert "why: " in told
    assert str(tmp_path / "out/logs/sglang-1.log") in told
    assert "Traceback" not in told.split("error: ", 1)[1].split("\n", 1)[0]
    kept = committed(tmp_path / "out")
    assert 2 <= kept < len(chunk_paths(undisturbed))
    code, _, told = Command("rollout", *long_run(*OWN, "-o", tmp_path / "out", "--quiet")).end()
    assert code == 0, told
    assert_same_paths(tmp_path / "out", undisturbed)


def test_a_server_that_hangs_is_given_up_and_stopped(undisturbed: Path, tmp_path: Path) -> None:
    command = Command("rollout", *long_run(*OWN, *IMPATIENT, "-o", tmp_path / "out"))
    until(lambda: committed(tmp_path / "out") >= 1, 150, "a chunk is drawn")
    for pid in parts_of_server(command, "sglang::scheduler"):
        os.kill(pid, signal.SIGSTOP)
    code, _, told = command.end()
    assert code == 4
    assert "no SGLang server answers" in told
    assert str(tmp_path / "out/logs/sglang-1.log") in told
    assert committed(tmp_path / "out") >= 1


def test_a_server_killed_during_scoring_loses_nothing(undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "filter"
    command = Command("filter", undisturbed, *OWN, "-o", folder)
    until(lambda: committed(folder) >= 2, 150, "two chunks are measured")
    kept = committed(folder)
    (scheduler,) = parts_of_server(command, "sglang::scheduler")
    os.kill(scheduler, signal.SIGKILL)
    code, _, told = command.end()
    assert code == 4
    assert "error: the SGLang server" in told
    assert kept <= committed(folder) < len(chunk_paths(undisturbed))
    code, _, told = Command("filter", undisturbed, *OWN, "-o", folder, "--quiet").end()
    assert code == 0, told
    plain = ("--set", "rollout.engine=transformers")
    code, _, told = Command("filter", undisturbed, *plain, "-o", tmp_path / "plain", "--quiet").end()
    assert code == 0, told
    decided = [
        [(row["question_id"], row["sample_index"], row["reasons"]) for row in _selection(one)]
        for one in (folder, tmp_path / "plain")
    ]
    assert decided[0] == decided[1]


def _selection(folder: Path) -> list[dict[str, object]]:
    from vpgea.storage.shards import iterate_rows

    return list(iterate_rows(sorted((folder / "rejected").glob("*.arrow"))))


def test_nothing_outlives_a_killed_command(tmp_path: Path) -> None:
    command = Command("rollout", *long_run(*OWN, "-o", tmp_path / "out"))
    until(lambda: committed(tmp_path / "out") >= 1, 150, "a chunk is drawn")
    command.process.kill()
    command.process.communicate()
    command.expect_nothing_left()


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_stop_ends_the_server_too(tmp_path: Path, number: int, expected: int) -> None:
    command = Command("rollout", *long_run(*OWN, "-o", tmp_path / "out"))
    condition = {
        75: lambda: committed(tmp_path / "out") >= 1,  # while it draws
        130: (tmp_path / "out/logs/sglang-1.log").is_file,  # while the server starts
    }[expected]
    until(condition, 150, "the command is where it should be stopped")
    command.process.send_signal(number)
    code, out, told = command.end()
    assert (code, out) == (expected, "")
    assert "stopped by" in told
    assert ("requests are withdrawn from servers" in told) == (number == signal.SIGTERM)


# --- servers behind URLs --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ServerProcess]]:
    """Two servers whose files lie in one folder."""
    folder = tmp_path_factory.mktemp("pair")
    with servers.serving(folder / "one") as one, servers.serving(folder / "two") as two:
        one.endpoint.write(folder / "one.json")
        two.endpoint.write(folder / "two.json")
        yield [one, two]


def folder_of(pair: list[ServerProcess]) -> Path:
    return pair[0].log.parent.parent


def test_a_server_that_hangs_leaves_its_work_to_the_other_and_is_used_again(
    pair: list[ServerProcess], undisturbed: Path, tmp_path: Path
) -> None:
    slow = ("--set", "sglang.max_concurrency=8")  # so that enough is left when it comes back
    command = Command(
        "rollout", *long_run("--server-url", folder_of(pair), *IMPATIENT, *slow, "-o", tmp_path / "out", "--quiet")
    )
    until(lambda: committed(tmp_path / "out") >= 1, 150, "a chunk is drawn")
    os.killpg(pair[0].pid, signal.SIGSTOP)
    for pid in _sessions_of(pair[0].pid):
        os.kill(pid, signal.SIGSTOP)
    before = committed(tmp_path / "out")
    until(lambda: committed(tmp_path / "out") >= before + 2, 150, "the other server goes on")
    for pid in _sessions_of(pair[0].pid):
        os.kill(pid, signal.SIGCONT)
    used = until(lambda: servers.load(pair[0]) > 0 or command.process.poll() is not None, 60, "it is used again")
    assert used
    assert command.process.poll() is None, "the first server was not used again before the end"
    code, _, told = command.end()
    assert code == 0, told
    assert_same_paths(tmp_path / "out", undisturbed)


def _sessions_of(leader: int) -> list[int]:
    """Every process in the session that the server's first process leads."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader:
            found.append(int(path.parent.name))
    return found


def test_parts_on_several_machines_are_one_rollout(
    pair: list[ServerProcess], undisturbed: Path, tmp_path: Path
) -> None:
    urls = [folder_of(pair) / "one.json", folder_of(pair) / "two.json"]
    parts = [
        Command("rollout", *long_run("--server-url", url, "--shard", f"{index}/2", "-o", tmp_path / "out", "-q"))
        for index, url in enumerate(urls)
    ]
    for part in parts:
        code, _, told = part.end()
        assert code == 0, told
    assert_same_paths(tmp_path / "out", undisturbed)
    code, out, told = Command(
        "filter", tmp_path / "out", "--server-url", folder_of(pair), "-o", tmp_path / "filter", "--json", "-q"
    ).end()
    assert code == 0, told
    assert '"complete": true' in out


def test_a_server_with_another_model_is_refused_before_the_first_sample(
    pair: list[ServerProcess], tmp_path: Path
) -> None:
    other = servers.testbed_options(model__path=str(overthinker.ROOT / "base-local"))
    code, _, told = Command("rollout", *other, "--server-url", folder_of(pair), "-o", tmp_path / "out").end()
    assert code == 2
    assert "another model" in told
    assert committed(tmp_path / "out") == 0


def test_a_wrong_key_is_refused(pair: list[ServerProcess], tmp_path: Path) -> None:
    (tmp_path / "url.txt").write_text(f"{pair[0].endpoint.url}\n")
    code, _, told = Command(
        "rollout", *servers.testbed_options(), "--server-url", tmp_path / "url.txt", "-o", tmp_path / "out"
    ).end()
    assert code == 2
    assert "does not accept the API key" in told
    assert "VPGEA_SERVER_API_KEY" in told


def test_a_server_killed_on_the_way_loses_no_sample(
    pair: list[ServerProcess], undisturbed: Path, tmp_path: Path
) -> None:
    """The last test of the pair: one of them is dead after it."""
    shutil.copytree(folder_of(pair), tmp_path / "list", ignore=lambda _, names: [n for n in names if ".json" not in n])
    command = Command("rollout", *long_run("--server-url", tmp_path / "list", "-o", tmp_path / "out", "--quiet"))
    until(lambda: committed(tmp_path / "out") >= 1, 150, "a chunk is drawn")
    for pid in _sessions_of(pair[0].pid):
        os.kill(pid, signal.SIGKILL)
    code, _, told = command.end()
    assert code == 0, told
    assert_same_paths(tmp_path / "out", undisturbed)


def test_a_url_where_nothing_listens(tmp_path: Path) -> None:
    code, _, told = Command(
        "rollout", *servers.testbed_options(), "--server-url", "http://127.0.0.1:9", "-o", tmp_path / "out"
    ).end()
    assert code == 4
    assert "no SGLang server answers" in told
    assert "127.0.0.1:9" in told


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("127.0.0.1:30000", "cannot be read"),
        ("http://somewhere.example:30000", "its keys are missing"),
        ("ftp://127.0.0.1", "not a server's URL"),
        ("http://127.0.0.1:99999", "not a server's URL"),
    ],
)
def test_a_url_that_is_none_is_a_usage_error(tmp_path: Path, value: str, said: str) -> None:
    code, _, told = Command("rollout", *servers.testbed_options(), "--server-url", value, "-o", tmp_path / "out").end()
    assert code == 2
    assert said in told
