"""Requests over one or many servers: a window that keeps each full, work that goes elsewhere when one dies.

Everything here runs in one asyncio loop. Work that is not yet sent waits in one queue for all servers, so that a fast
one takes more of it, but none more than its even share of what is left; requests of one group go to one server, where
their shared prefix is computed once.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from vpgea.config.schema import SglangConfig
from vpgea.engines.sglang.traffic.answers import Generated, Load, Loads, Words
from vpgea.engines.sglang.traffic.client import Refused, ServerClient, Unreachable
from vpgea.engines.sglang.traffic.endpoints import Endpoint
from vpgea.engines.sglang.traffic.windows import FIRST_WINDOW, adapted_window, even_share, is_in_use
from vpgea.engines.sglang.traffic.wire import Aborted, Served
from vpgea.errors import EngineError, UsageError, VpgeaError

MAX_TRIES = 8
FIRST_CONTACT_S = 15.0  # a URL at which nothing ever answered is more likely wrong than late
EXPECTED_S = 15.0  # in which a server makes sure of its weights; work is not held back for it any longer
_POLL_S, _IDLE_POLL_S, _REREAD_S = 0.5, 2.0, 2.0
_LONGEST_PAUSE_S = 10.0
_ROUTER_WINDOW = 256  # behind a router nobody tells the load of its servers


@dataclass(kw_only=True)
class Work:
    """One call to /generate.

    Attributes:
        payload: Its body, for the server that takes it.
        read: What to make of the answer.
        deliver: Takes what was read.
        fail: Takes why there is no answer.
        group: Work of one group goes to one server, where it waits in a row.
        tries: How often it was sent.
        cancelled: Nobody waits for it any more.
    """

    payload: Callable[[Served], dict[str, Any]]
    read: Callable[[Generated, Served], Any]
    deliver: Callable[[Any], None]
    fail: Callable[[BaseException], None]
    group: str = ""
    tries: int = 0
    cancelled: bool = False


@dataclass(kw_only=True)
class Server:
    """A server as the fleet sees it."""

    client: ServerClient
    served: Served | None = None
    up: bool = False
    named_at: float = field(default_factory=time.monotonic)
    leaving: bool = False  # no longer in the list: finishes what it has
    window: int = FIRST_WINDOW
    is_limited: bool = False  # its window was in use, and its load did not let it grow
    in_flight: dict[asyncio.Task[None], Work] = field(default_factory=dict)
    suspect: asyncio.Event = field(default_factory=asyncio.Event)
    trouble: str = ""

    @property
    def takes_work(self) -> bool:
        return self.up and not self.leaving

    @property
    def is_expected(self) -> bool:
        """Whether it is about to take work for the first time."""
        is_new = self.served is None and not self.trouble and not self.leaving
        return is_new and time.monotonic() < self.named_at + EXPECTED_S

    @property
    def room(self) -> int:
        return self.window - len(self.in_flight) if self.takes_work else 0

    def fit(self, loads: Sequence[Load], cap: int) -> None:
        """Fit the window to what its ranks tell, and see whether it can grow."""
        before, in_flight = self.window, len(self.in_flight)
        self.window = adapted_window(before, in_flight, loads, cap)
        if is_in_use(before, in_flight):
            self.is_limited = self.window <= before


class Fleet:
    """All servers of a run."""

    def __init__(
        self,
        endpoints: Callable[[], list[Endpoint]],
        options: SglangConfig,
        session: aiohttp.ClientSession,
        establish: Callable[[ServerClient], Awaitable[Served]],
        diagnose: Callable[[], None],
        remedy: str,
        most: int,
    ) -> None:
        """Begin to look for servers; call within a running event loop.

        Args:
            endpoints: Gives the servers named now.
            options: Deadlines and windows.
            session: For all connections.
            establish: Makes sure of a server's weights before its first request and whenever it comes back; raises
                Unreachable to be tried again, VpgeaError to end the run.
            diagnose: Raises EngineError when a server of our own has died.
            remedy: What to do when none answers.
            most: Connections to all servers that there are descriptors for.
        """
        self._endpoints, self._options, self._session = endpoints, options, session
        self._establish, self._diagnose, self._remedy = establish, diagnose, remedy
        self._servers: dict[str, Server] = {}
        self._attending: dict[str, asyncio.Task[None]] = {}
        self._queue: deque[Work] = deque()
        self._ever_up = False
        self._most = most
        self._dark_since = time.monotonic()
        self._broken: Exception | None = None
        self._rereading = asyncio.create_task(self._reread())

    # --- for the engine ---------------------------------------------------------------------------------------

    @property
    def queued(self) -> int:
        """Requests that no server has taken yet."""
        return len(self._queue)

    @property
    def trouble(self) -> str:
        """Why no server works at present; empty while one does."""
        if any(server.up for server in list(self._servers.values())):  # asked for from another thread
            return ""
        return f"no server answers: {self._troubles()}"

    @property
    def appetite(self) -> int:
        """Requests that should be waiting so that no server runs dry: a window of each."""
        return max(sum(server.window for server in self._servers.values() if server.up), FIRST_WINDOW)

    def submit(self, work: list[Work]) -> None:
        self._queue.extend(work)
        self._dispatch()

    def withdraw(self, work: list[Work]) -> None:
        """Forget work; a call under way is broken off, whereupon its server stops it too."""
        for one in work:
            one.cancelled = True
        self._queue = deque(one for one in self._queue if not one.cancelled)
        for server in self._servers.values():
            for task, one in list(server.in_flight.items()):
                if one.cancelled:
                    task.cancel()

    async def wait_ready(self) -> list[Server]:
        """The servers that are up, once there is one. What ended the run is raised here."""
        while True:
            ready = [server for server in self._servers.values() if server.up]
            if ready:
                return ready
            if self._broken is not None:
                raise self._broken
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        tasks = [self._rereading, *self._attending.values()]
        for server in self._servers.values():
            tasks += server.in_flight
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- the list of servers ----------------------------------------------------------------------------------

    async def _reread(self) -> None:
        """Follow the list: newcomers are attended to, those that left it get no more work."""
        while True:
            try:
                self._follow(self._endpoints())
                self._dispatch()  # also what was held back for servers that do not come
            except VpgeaError as error:
                if not self._servers:
                    self._break(error)
                    return
                # a list that is being rewritten is read again; the servers known so far stay
            await asyncio.sleep(_REREAD_S)

    def _follow(self, endpoints: list[Endpoint]) -> None:
        named = {endpoint.url: endpoint for endpoint in endpoints}
        for url, server in list(self._servers.items()):
            if url in named and server.client.endpoint == named[url]:
                server.leaving = False
                continue
            server.leaving = True
            if not server.in_flight:
                self._attending.pop(url).cancel()
                del self._servers[url]
        for url, endpoint in named.items():
            if url not in self._servers:
                self._servers[url] = Server(client=ServerClient(endpoint, self._session))
                self._attending[url] = asyncio.create_task(self._attend(self._servers[url]))

    async def _attend(self, server: Server) -> None:
        """One server's life: make sure of its weights, use it while it answers, and again when it comes back."""
        pause = _POLL_S
        while True:
            try:
                await self._require_answer(server.client)
                server.served = await self._establish(server.client)
                self._take_up(server)
                await self._watch(server)
                self._leave(server)
                pause = _POLL_S
            except Unreachable as error:
                server.trouble = str(error)
                if not self._still_patient():
                    return
                self._dispatch()
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
                pause = min(pause * 2, _LONGEST_PAUSE_S)
            except Exception as error:  # whatever it is, those who wait must hear of it
                self._break(error)
                return

    def _take_up(self, server: Server) -> None:
        server.up, server.trouble, self._ever_up = True, "", True
        self._dispatch()

    def _leave(self, server: Server) -> None:
        server.up = False
        self._dark_since = time.monotonic()
        for task in list(server.in_flight):
            task.cancel()  # each puts its work back into the queue

    async def _require_answer(self, client: ServerClient) -> None:
        """Raise Unreachable for a server that generates nothing: calls that establish weights would wait for it."""
        with suppress(Refused):  # a router may not know the call
            await client.get("/health_generate", Words, timeout_s=self._options.stall_timeout_s)

    def _still_patient(self) -> bool:
        """False once no server has answered for so long that the run ends."""
        if any(server.up for server in self._servers.values()):
            self._dark_since = time.monotonic()
            return True
        try:
            self._diagnose()
        except VpgeaError as error:
            self._break(error)
            return False
        patience = self._options.patience_s if self._ever_up else min(self._options.patience_s, FIRST_CONTACT_S)
        if time.monotonic() - self._dark_since < patience:
            return True
        self._break(
            EngineError(
                "no SGLang server answers",
                why=f"for {patience:g} s: {self._troubles()}",
                mend=f"{self._remedy}, then run the command again: it continues",
            )
        )
        return False

    def _troubles(self) -> str:
        servers = list(self._servers.values())
        return "; ".join(f"{server.client.endpoint.url}: {server.trouble}" for server in servers)

    def _break(self, error: Exception) -> None:
        """End the run: everything that waits gets the error, and so does everything that comes."""
        self._broken = self._broken or error
        for server in self._servers.values():
            for task, work in list(server.in_flight.items()):
                work.cancelled = True
                work.fail(error)
                task.cancel()
        self._dispatch()

    # --- load -------------------------------------------------------------------------------------------------

    async def _watch(self, server: Server) -> None:
        """Fit the window to the server's load; return when it no longer answers, or no longer works.

        Its HTTP process tells what the scheduler last wrote down, also of a scheduler that hangs or is gone: then
        nothing of it changes, not even the time that stands beside it.

        Raises:
            EngineError: It answers something else than its load.
        """
        stall_s = self._options.stall_timeout_s
        written: list[Load] = []
        moved = time.monotonic()
        while True:
            try:
                loads = (await server.client.get("/v1/loads", Loads, timeout_s=stall_s)).loads
                server.fit(loads, self._options.max_concurrency)
                if loads != written or not server.in_flight:
                    written, moved = loads, time.monotonic()
                elif time.monotonic() - moved > stall_s:
                    server.trouble = f"it has requests and did nothing for {stall_s:g} s"
                    return
            except (Unreachable, UsageError) as error:
                server.trouble = str(error)
                return
            except Refused:
                server.window, server.is_limited = min(_ROUTER_WINDOW, self._options.max_concurrency), True
                if server.suspect.is_set():
                    return  # nothing else tells whether a router lives: begin again with its weights
            self._dispatch()
            server.suspect.clear()
            try:
                await asyncio.wait_for(server.suspect.wait(), _POLL_S if server.in_flight else _IDLE_POLL_S)
            except TimeoutError:
                continue

    # --- work -------------------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Send what there is room for, a group at a time."""
        share = self._share()
        while self._queue:
            if self._broken is not None:
                self._queue.popleft().fail(self._broken)
                continue
            server = max(self._servers.values(), key=lambda one: _room(one, share), default=None)
            if server is None or _room(server, share) <= 0 or self._is_full:
                return
            group = self._queue[0].group
            while self._queue and self._queue[0].group == group:
                self._send(server, self._queue.popleft())
                if not group or self._is_full:
                    break

    def _share(self) -> int:
        """Requests that a server may have under way of all that are left; what others finish is not theirs to share.

        Windows grow at different times. Without the share, the first to grow would take the last of a rollout, and
        the others would have nothing to do until it is done. The same holds for the first that is ready of servers
        that begin together.
        """
        servers = [server for server in self._servers.values() if server.takes_work or server.is_expected]
        left = len(self._queue) + sum(len(server.in_flight) for server in servers)
        limits = [max(server.window, len(server.in_flight)) for server in servers if server.is_limited]
        return even_share(left, len(servers), limits)

    @property
    def _is_full(self) -> bool:
        """Whether the requests under way, and a call about its load to each server, use all descriptors.

        As many requests as there are servers may always be under way: with fewer nothing would ever be done.
        """
        under_way = sum(len(server.in_flight) for server in self._servers.values())
        return under_way >= max(self._most - len(self._servers), len(self._servers))

    def _send(self, server: Server, work: Work) -> None:
        task = asyncio.create_task(self._call(server, work))
        server.in_flight[task] = work
        task.add_done_callback(lambda done: self._finished(server, done))

    def _finished(self, server: Server, task: asyncio.Task[None]) -> None:
        work = server.in_flight.pop(task)
        if task.cancelled() and not work.cancelled:
            self._queue.appendleft(work)  # its server was lost
        self._dispatch()

    async def _call(self, server: Server, work: Work) -> None:
        assert server.served is not None
        served = server.served
        try:
            payload = work.payload(served)
            answer = await server.client.post(
                "/generate", payload, Generated, timeout_s=self._options.request_timeout_s
            )
            value = work.read(answer, served)
        except (Unreachable, Aborted) as error:
            server.suspect.set()
            await self._again(server, work, error)
        except Refused as error:
            work.fail(
                EngineError(
                    f"{server.client.endpoint.url} refused a request",
                    why=error.message,
                    mend="compare its options with the model's context and the run's max_new_tokens",
                )
            )
        except Exception as error:  # whatever it is, the one who waits for the result must hear of it
            work.fail(error)
        else:
            work.deliver(value)

    async def _again(self, server: Server, work: Work, error: Exception) -> None:
        """Back into the queue after a pause, for whichever server has room then; not for ever."""
        work.tries += 1
        if work.tries >= MAX_TRIES:
            work.fail(
                EngineError(
                    f"a request failed {work.tries} times",
                    why=f"last at {server.client.endpoint.url}: {error}",
                    mend="look at the servers' logs, then run the command again: it continues",
                )
            )
            return
        await asyncio.sleep(random.uniform(0, min(0.1 * 2**work.tries, _LONGEST_PAUSE_S)))  # noqa: S311 - jitter
        if not work.cancelled:
            self._queue.appendleft(work)


def _room(server: Server, share: int) -> int:
    return min(server.room, share - len(server.in_flight))
