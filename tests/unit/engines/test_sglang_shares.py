"""Work over several servers whose windows do not grow at the same time."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from functools import partial
from socket import socket
from typing import Any, cast

import pytest

from tests.support import tiny
from tests.support.fake_sglang import FakeSglang
from vpgea.config.resolve import resolve
from vpgea.engines.base import GenerateRequest, Sampling
from vpgea.engines.sglang.traffic import fleet
from vpgea.engines.sglang.traffic.answers import Load
from vpgea.engines.sglang.traffic.client import ServerClient
from vpgea.engines.sglang.traffic.engine import SglangEngine
from vpgea.engines.sglang.traffic.fleet import Server
from vpgea.engines.sglang.traffic.windows import even_share
from vpgea.modeling.local_model import LocalModel
from vpgea.runs.stopping import StopRequest

WAIT_S = 60.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    folder = tiny.make_model(tmp_path_factory.mktemp("model"))
    return LocalModel.resolve(resolve(options={"model.path": str(folder)}).config.model)


class Together:
    """Two servers that answer only when all requests are under way, at whichever of them."""

    requests = 60  # fewer than the first window of one

    def __init__(self, model: LocalModel) -> None:
        self.servers = [FakeSglang(model.fingerprint, stop_id=2) for _ in range(2)]
        self._model, self._all_sent = model, threading.Event()
        for server in self.servers:
            server.changes["/generate"] = self._generated

    def _generated(self, answer: Any) -> Any:
        if sum(server.at_once for server in self.servers) >= self.requests:
            self._all_sent.set()
        if answer is not None and "output_ids" in answer:
            self._all_sent.wait(WAIT_S)
        return answer

    def draw(self, *more: str) -> list[int]:
        """The most requests that each of them had at once; `more` are URLs beside theirs."""
        with ExitStack() as stack:
            urls = ",".join([*(stack.enter_context(server.running()).url for server in self.servers), *more])
            options = {"model.path": str(self._model.folder), "sglang.server_url": urls}
            engine = SglangEngine(resolve(options=options).config, self._model, stop=StopRequest())
            stack.callback(engine.close)
            requests = [GenerateRequest([4, 5], seed) for seed in range(self.requests)]
            drawn = list(engine.generate([requests], Sampling(max_new_tokens=20, stop_ids=(2,))))
        assert len(drawn) == self.requests
        return [server.most_at_once for server in self.servers]


class OneGrowsLate(Together):
    """The second tells its load only when the first has what it may have."""

    requests = 200  # more than the first windows of two servers

    def __init__(self, model: LocalModel) -> None:
        super().__init__(model)
        self._established: set[str] = set()
        self._first_is_busy, self._second_works = threading.Event(), threading.Event()
        for server in self.servers:
            server.changes["/v1/loads"] = partial(self._loads, server)

    def _generated(self, answer: Any) -> Any:
        if self.servers[0].at_once >= self.requests // 2:
            self._first_is_busy.set()
        if self.servers[1].at_once:
            self._second_works.set()
        return super()._generated(answer)

    def _loads(self, server: FakeSglang, answer: Any) -> Any:
        if server.url not in self._established:  # asked for its context, before it has any work
            self._established.add(server.url)
        else:  # the first grows when both work, the second when the first has what it may have
            (self._first_is_busy if server is self.servers[1] else self._second_works).wait(WAIT_S)
        load = {"num_running_reqs": server.at_once, "max_running_requests": 4096}
        return answer | {"loads": [answer["loads"][0] | load]}


class OneIsReadyLate(Together):
    """The second answers when the first has begun, or never."""

    def __init__(self, model: LocalModel, *, ever: bool = True) -> None:
        super().__init__(model)
        self._first_is_busy, self._ever = threading.Event(), ever
        self.servers[1].changes["/health_generate"] = self._health

    def _generated(self, answer: Any) -> Any:
        if self.servers[0].at_once >= self.requests // 2:
            self._first_is_busy.set()
        return super()._generated(answer)

    def _health(self, answer: Any) -> Any:
        (self._first_is_busy if self._ever else self._all_sent).wait(WAIT_S)
        return answer


def test_the_last_requests_are_shared_evenly(model: LocalModel) -> None:
    assert OneGrowsLate(model).draw() == [100, 100]


def test_the_first_that_is_ready_leaves_the_other_its_share(model: LocalModel) -> None:
    assert OneIsReadyLate(model).draw() == [30, 30]


def test_a_server_that_refuses_connections_holds_nothing_back(model: LocalModel) -> None:
    with socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and listens to nobody
        assert Together(model).draw(f"http://127.0.0.1:{taken.getsockname()[1]}") == [30, 30]


def test_a_silent_server_holds_work_back_for_a_while_only(model: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "EXPECTED_S", 0.5)
    assert OneIsReadyLate(model, ever=False).draw() == [60, 0]


@pytest.mark.parametrize(
    ("left", "servers", "limits", "share"),
    [
        (200, 2, [], 100),
        (201, 2, [], 101),
        (1, 3, [], 1),
        (200, 2, [4], 196),  # a small server does not hold back a large one
        (200, 2, [150], 100),  # a window that is not full limits nothing
        (100, 4, [30, 10, 20], 40),
        (0, 0, [], 0),
    ],
)
def test_what_a_full_server_cannot_take_is_shared_by_the_others(
    left: int, servers: int, limits: list[int], share: int
) -> None:
    assert even_share(left, servers, limits) == share


def test_windows_alone_bound_servers_that_are_all_full() -> None:
    assert even_share(100, 2, [8, 16]) >= 16


def test_a_server_is_full_while_its_load_does_not_let_its_window_grow() -> None:
    server = Server(client=cast(ServerClient, None))
    for under_way, running, waiting, window, is_limited in (
        (64, 64, 0, 128, False),
        (64, 64, 0, 128, False),  # half of its window is not in use, and says nothing
        (128, 40, 88, 45, True),
        (10, 10, 0, 45, True),  # nor does a few at the end
        (45, 45, 0, 90, False),
    ):
        server.in_flight = cast(Any, dict.fromkeys(range(under_way)))
        load = Load(
            num_running_reqs=running,
            num_waiting_reqs=waiting,
            max_running_requests=4096,
            token_usage=0.5,
            max_total_num_tokens=1,
        )
        server.fit([load], 1024)
        assert (server.window, server.is_limited) == (window, is_limited)
