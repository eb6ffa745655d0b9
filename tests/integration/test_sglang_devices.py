"""`--devices cpu:2`: two servers of the run's own share its work, and one does all of it when the other dies."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest

from tests.integration.test_sglang_faults import OWN, assert_same_paths, long_run, parts_of_server
from tests.support import overthinker, rollouts
from tests.support.rollouts import committed
from tests.support.servers import Command, until

pytestmark = pytest.mark.sglang


def test_two_own_servers_of_which_one_dies_draw_what_one_draws(tmp_path: Path) -> None:
    rollouts.run(overthinker.config(data__limit=160, rollout__questions_per_chunk=8), tmp_path / "one")
    command = Command("rollout", *long_run(*OWN, "--devices", "cpu:2", "-o", tmp_path / "two"))
    until(lambda: committed(tmp_path / "two") >= 2, 300, "two chunks are drawn")
    schedulers = parts_of_server(command, "sglang::scheduler")
    assert len(schedulers) == 2
    dying = psutil.Process(schedulers[0])
    for process in (dying.parent(), dying):  # at once: alone a scheduler's server takes its time to see it
        assert process is not None
        process.send_signal(signal.SIGKILL)
    code, _, told = command.end()
    assert code == 0, told
    assert "devices: sampling: 2 SGLang servers on cpu, cpu" in told
    assert "1 of 2 servers ended" in told
    assert len(list((tmp_path / "two" / "logs").glob("sglang-*.log"))) == 2
    assert_same_paths(tmp_path / "two", tmp_path / "one")
