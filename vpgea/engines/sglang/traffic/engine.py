"""The engine that samples and scores through SGLang: the synchronous face of a fleet of servers.

The fleet lives in an asyncio loop in a thread of its own; what the phases call runs in theirs and hands requests over.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vpgea.config.schema import RunConfig
from vpgea.engines.base import (
    Completion,
    EngineUsage,
    GenerateRequest,
    LogprobsOf,
    OnTokens,
    Sampling,
    ScoreRequest,
    TopLogprobs,
    ignore_tokens,
)
from vpgea.engines.sglang.server.own import OwnServers
from vpgea.engines.sglang.traffic import wire
from vpgea.engines.sglang.traffic.answers import Generated, Loads, Models
from vpgea.engines.sglang.traffic.client import Refused, ServerClient, descriptors, open_session
from vpgea.engines.sglang.traffic.endpoints import Endpoint, EndpointList
from vpgea.engines.sglang.traffic.fleet import Fleet, Work
from vpgea.engines.sglang.weights import establish as weights
from vpgea.errors import EngineError, UsageError
from vpgea.modeling.local_model import LocalModel
from vpgea.runs.stopping import StopRequest

_CALL_S = 60.0  # for calls that are no generation
_OTHER_FILES = 1024  # that may be open beside two servers' connections
_HEARD_S = 0.2  # how long a stop may go unheard
_TOLD_S = 1.0  # the same where completions come without a pause
_BESIDE_ALL, _BESIDE_INPUT = 2, 7  # positions of its context that SGLang 0.5.23 leaves free beside a sequence, a prompt

T = TypeVar("T")


class SglangEngine:
    """Servers of our own, one for each device or group of them, or those behind sglang.server_url."""

    logprobs_of: LogprobsOf = "temperature"  # SGLang's are taken before top-k and top-p
    draws_together = 1  # which requests a server takes together is chance: nothing could be repeated with them

    def __init__(
        self,
        config: RunConfig,
        model: LocalModel,
        *,
        stop: StopRequest,
        publishes: Path | None = None,
        replaceable: Collection[str] = (),
        servers: OwnServers | None = None,
    ) -> None:
        """Wait until a server serves the model.

        Args:
            config: Of the run.
            model: What is to be served.
            stop: Looked at while waiting.
            publishes: Folder below which this run will publish weights that servers are to load.
            replaceable: Fingerprints of weights that it may replace on servers.
            servers: Our own, which have started; whose they are ends them. None: those behind sglang.server_url.

        Raises:
            UsageError: It cannot work like this.
            QualityGateError: What a server serves is not what was asked for.
            EngineError: No server answers.
            Stopped: A stop was requested meanwhile.
        """
        self.name = "sglang"  # with its version, once a server has told it
        self.config, self.stop = config, stop
        self.usage = EngineUsage()
        self.vocabulary = model.vocabulary_size
        self._model_context = model.context_length or sys.maxsize
        self._publishes, self._replaceable = publishes, replaceable
        self._context: dict[str, int] = {}  # url → longest sequence
        self._own = servers
        endpoints = self._endpoints()
        self._resources = AsyncExitStack()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sglang-client", daemon=True)
        self._thread.start()
        try:
            self._fleet = self._wait(self._open(endpoints))
            self._wait(self._fleet.wait_ready())
        except BaseException:
            self.close()
            raise

    def generate(
        self,
        batches: Iterable[Sequence[GenerateRequest]],
        sampling: Sampling,
        on_tokens: OnTokens = ignore_tokens,
    ) -> Iterator[tuple[int, int, Completion]]:
        """See Engine.generate. A batch is taken whenever fewer requests wait than the servers could take at once."""
        results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        source = enumerate(batches)
        underway: set[int] = set()  # ids of work objects, which `work` keeps alive
        work: dict[int, Work] = {}
        began = time.perf_counter()
        sampled, told = 0, time.monotonic()
        try:
            exhausted = False
            while underway or not exhausted:
                while not exhausted and self._fleet.queued < self._fleet.appetite:
                    number, batch = next(source, (-1, ()))
                    exhausted = number < 0
                    fresh = [
                        self._generation(number, index, request, sampling, results)
                        for index, request in enumerate(batch)
                    ]
                    work |= {id(one): one for one in fresh}
                    underway |= {id(one) for one in fresh}
                    self._loop.call_soon_threadsafe(self._fleet.submit, fresh)
                    if not fresh:
                        break
                    self._settle()
                if not underway:
                    continue
                try:
                    key, result = results.get(timeout=_HEARD_S)
                except queue.Empty:
                    self.usage.trouble, self.stop.account.underway = self._trouble, len(work)
                    on_tokens(0)
                    told = time.monotonic()
                    continue
                underway.discard(key)
                del work[key]
                if isinstance(result, BaseException):
                    raise result
                number, index, prompt, cached, completion = result
                self.usage.prompt_tokens += prompt
                self.usage.cached_tokens += cached
                self.usage.sampled_tokens += len(completion.ids)
                yield number, index, completion
                sampled += len(completion.ids)
                if results.empty() or time.monotonic() >= told + _TOLD_S:  # else what has come is not abandoned
                    self.usage.trouble, self.stop.account.underway = self._trouble, len(work)
                    on_tokens(sampled)
                    sampled, told = 0, time.monotonic()
        finally:
            self._withdraw(list(work.values()))
            self.stop.account.underway = 0
            self.usage.seconds += time.perf_counter() - began

    def score(self, requests: Sequence[ScoreRequest]) -> list[np.ndarray]:
        """See Engine.score."""

        def read(answer: Generated, request: ScoreRequest, served: wire.Served) -> np.ndarray:
            return wire.read_scores(answer, request, served, self.vocabulary)

        return self._read(requests, 0, read, np.empty(0, np.float32))

    def top_logprobs(self, requests: Sequence[ScoreRequest], k: int) -> list[TopLogprobs]:
        """See Engine.top_logprobs."""
        empty = TopLogprobs(np.empty((0, k), np.int32), np.empty((0, k), np.float32))

        def read(answer: Generated, request: ScoreRequest, served: wire.Served) -> TopLogprobs:
            return wire.read_top_logprobs(answer, request, served, k, self.vocabulary)

        return self._read(requests, k, read, empty)

    def _read(
        self,
        requests: Sequence[ScoreRequest],
        top: int,
        read: Callable[[Generated, ScoreRequest, wire.Served], T],
        empty: T,
    ) -> list[T]:
        """What `read` makes of each answer; `empty` for requests without a position to score, which are not sent.

        Sent in the order of their ids, so that what shares a prefix comes together.
        """
        results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        values = [empty] * len(requests)
        order = sorted(
            (index for index, request in enumerate(requests) if request.start < len(request.ids)),
            key=lambda index: list(requests[index].ids),
        )
        work = [self._scoring(index, requests[index], top, read, results) for index in order]
        began = time.perf_counter()
        try:
            self._loop.call_soon_threadsafe(self._fleet.submit, work)
            for _ in order:
                index, cached, value = self._next(results)
                values[index] = value
                self.usage.cached_tokens += cached
                self.usage.prompt_tokens += len(requests[index].ids)
                self.usage.scored_tokens += len(requests[index].ids) - requests[index].start
        finally:
            self._withdraw(work)
            self.usage.seconds += time.perf_counter() - began
        return values

    def close(self) -> None:
        """Stop the client; servers go on."""
        if self._loop.is_running():
            asyncio.run_coroutine_threadsafe(self._resources.aclose(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    # --- requests ---------------------------------------------------------------------------------------------

    def _generation(
        self,
        number: int,
        index: int,
        request: GenerateRequest,
        sampling: Sampling,
        results: queue.SimpleQueue[Any],
    ) -> Work:
        cap = min(sampling.max_new_tokens, request.max_new_tokens or sampling.max_new_tokens)
        self._require_fits(request.prompt_ids, cap)

        def read(answer: Generated, served: wire.Served) -> Any:
            completion = wire.read_completion(answer, cap, sampling, served, self.vocabulary)
            return number, index, len(request.prompt_ids), wire.cached_tokens(answer), completion

        work = Work(
            payload=lambda served: wire.generate_payload(request, sampling, served),
            read=read,
            deliver=lambda value: results.put((id(work), value)),
            fail=lambda error: results.put((id(work), error)),
            group=request.group,
        )
        return work

    def _scoring(
        self,
        index: int,
        request: ScoreRequest,
        top: int,
        read: Callable[[Generated, ScoreRequest, wire.Served], Any],
        results: queue.SimpleQueue[Any],
    ) -> Work:
        self._require_fits(request.ids, 0)
        return Work(
            payload=lambda served: wire.score_payload(request, served, top),
            read=lambda answer, served: (index, wire.cached_tokens(answer), read(answer, request, served)),
            deliver=results.put,
            fail=results.put,
            group=str(hash(tuple(request.ids[: request.start]))),
        )

    def _next(self, results: queue.SimpleQueue[Any]) -> Any:
        """The next result; listens to a stop while it waits."""
        while True:
            try:
                result = results.get(timeout=_HEARD_S)
            except queue.Empty:
                self.stop.check()
                continue
            if isinstance(result, BaseException):
                raise result
            return result

    def _require_fits(self, ids: Sequence[int], new_tokens: int) -> None:
        """An id beyond the vocabulary kills the server, and beyond its context it would cut without a word."""
        array = np.asarray(ids)
        if array.size == 0 or array.min() < 0 or array.max() >= self.vocabulary:
            raise UsageError(
                "token ids outside the model's vocabulary",
                why=f"ids must be from 0 to {self.vocabulary - 1}, and there must be one",
                mend="check that the tokenizer belongs to the model",
            )
        shortest = min(self._context.values())
        if array.size > shortest - _BESIDE_INPUT or array.size + new_tokens > shortest - _BESIDE_ALL:
            raise UsageError(
                f"a sequence of {array.size + new_tokens:,} tokens does not fit the server",
                why=f"its context holds {shortest:,} tokens, of which SGLang keeps some for itself",
                mend="lower max_new_tokens, or give the server more (--context-length, --max-total-tokens)",
            )

    def _settle(self) -> None:
        """Wait until the loop has taken what was handed over, so that `queued` is true."""
        asyncio.run_coroutine_threadsafe(_nothing(), self._loop).result()

    def _withdraw(self, work: list[Work]) -> None:
        if work and self._loop.is_running():
            self._loop.call_soon_threadsafe(self._fleet.withdraw, work)

    # --- servers ----------------------------------------------------------------------------------------------

    def _endpoints(self) -> Callable[[], list[Endpoint]]:
        if (own := self._own) is not None:
            return lambda: own.endpoints
        listed = EndpointList(str(self.config.sglang.server_url), os.environ)
        listed.read()  # a list that cannot be read is the user's to mend, now
        return listed.read

    def _diagnose(self) -> None:
        """Raises EngineError when none of our own servers is left."""
        if self._own is not None:
            self._own.require_one()

    @property
    def _trouble(self) -> str:
        """Why less is done than could be; empty while all servers work."""
        return (self._own.trouble if self._own is not None else "") or self._fleet.trouble

    async def _establish(self, client: ServerClient) -> wire.Served:
        """Make sure of one server before its first request."""
        try:
            if self._publishes is not None and self._own is None:
                await weights.require_follows(client, self.config.distill, self._publishes)
            served, _ = await weights.establish(
                client, self.config.model, replaceable=self._replaceable, timeout_s=self.config.sglang.request_timeout_s
            )
            model = (await client.get("/v1/models", Models, timeout_s=_CALL_S)).data[0]
        except Refused as error:
            raise EngineError(
                f"{client.endpoint.url} is no SGLang server that vpgea can use",
                why=str(error),
                mend="compare its version with the tested one (`vpgea doctor`), or let `vpgea serve` start it",
            ) from error
        context = model.max_model_len or self._model_context
        with suppress(Refused):  # a router does not tell about its servers
            told = await client.get("/v1/loads", Loads, timeout_s=_CALL_S)
            context = min(context, *(rank.max_total_num_tokens for rank in told.loads))
            self.name = f"sglang {told.version}"
        self._context[client.endpoint.url] = context
        return served

    async def _open(self, endpoints: Callable[[], list[Endpoint]]) -> Fleet:
        session = await self._resources.enter_async_context(open_session())
        remedy = "start the server (`vpgea serve`) or check --server-url"
        if self._own is not None:
            remedy = f"look at the servers' logs, {', '.join(map(str, self._own.logs))}"
        most = descriptors(2 * self.config.sglang.max_concurrency + _OTHER_FILES)
        fleet = Fleet(endpoints, self.config.sglang, session, self._establish, self._diagnose, remedy, most)
        self._resources.push_async_callback(fleet.close)
        return fleet

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result, computed in the loop; listens to a stop meanwhile."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        while True:
            try:
                return future.result(timeout=_HEARD_S)
            except TimeoutError:
                if future.done():
                    raise
                try:
                    self.stop.check()
                except BaseException:
                    future.cancel()
                    raise


async def _nothing() -> None:
    """Runs when everything handed to the loop before it has run."""
