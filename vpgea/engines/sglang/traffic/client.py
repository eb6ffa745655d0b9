"""Calls to one server: deadlines, keys, and which failures are worth another try."""

from __future__ import annotations

import errno
import json
import os
import resource
from typing import Any

import aiohttp

from vpgea.engines.sglang.traffic.answers import A, malformed, read_answer
from vpgea.engines.sglang.traffic.endpoints import ADMIN_KEY_VARIABLE, API_KEY_VARIABLE, Endpoint
from vpgea.errors import UsageError, VpgeaError

_MOST_BYTES = 512 << 20  # of an answer; 131,000 positions with 64 tokens each have half as many

_SPARE, _FEWEST = 16, 4  # descriptors for everything but connections; without so many there is no point in beginning


class Unreachable(Exception):
    """The server did not answer, broke off, or is not able to: another one may."""


class Refused(Exception):
    """The server understood and said no."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status = status
        self.message = message


def open_session() -> aiohttp.ClientSession:
    """Connections without a bound of their own (the window is the bound), and never through a proxy."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60), trust_env=False, auto_decompress=False
    )


class ServerClient:
    """One server."""

    def __init__(self, endpoint: Endpoint, session: aiohttp.ClientSession) -> None:
        self.endpoint = endpoint
        self._session = session

    async def get(self, path: str, kind: type[A], *, timeout_s: float, admin: bool = False) -> A:
        """The answer to a GET; see post."""
        return read_answer(kind, await self._call("GET", path, None, timeout_s, admin), self.endpoint.url, path)

    async def post(self, path: str, body: dict[str, Any], kind: type[A], *, timeout_s: float, admin: bool = False) -> A:
        """Send a JSON object.

        Args:
            path: Behind the server's URL.
            body: The object.
            kind: What it has to answer.
            timeout_s: Deadline of the whole call, in seconds.
            admin: Use the admin key.

        Raises:
            EngineError: It answers something else.
            Unreachable: The server does not answer, not within the deadline, or not now (429, 5xx).
            Refused: It does not take the request (3xx, 4xx).
            UsageError: It does not accept the key.
            VpgeaError: This process may open no more files.
        """
        answer = await self._call("POST", path, json.dumps(body).encode(), timeout_s, admin)
        return read_answer(kind, answer, self.endpoint.url, path)

    async def _call(self, method: str, path: str, body: bytes | None, timeout_s: float, admin: bool) -> bytes:
        endpoint = self.endpoint
        key = (endpoint.admin_key or endpoint.api_key) if admin else endpoint.api_key
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(timeout_s, 10))
        try:
            async with self._session.request(
                method, endpoint.url + path, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                text = await self._read(response, path)
                status = response.status
        except TimeoutError as error:
            raise Unreachable(f"no answer to {path} within {timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
                raise no_descriptors() from error
            raise Unreachable(f"{path}: {error or type(error).__name__}") from error
        if status in (401, 403):
            raise self._key_refused(path, admin)
        if status >= 500 or status == 429:
            raise Unreachable(f"{path} was answered with HTTP {status}: {_message(text)}")
        if status >= 300:
            raise Refused(status, _message(text))
        return text

    async def _read(self, response: aiohttp.ClientResponse, path: str) -> bytes:
        text = bytearray()
        async for part in response.content.iter_any():
            text += part
            if len(text) > _MOST_BYTES:
                raise malformed(self.endpoint.url, path, f"it is longer than {_MOST_BYTES >> 20} MiB")
        return bytes(text)

    def _key_refused(self, path: str, admin: bool) -> UsageError:
        kind, variable = ("admin key", ADMIN_KEY_VARIABLE) if admin else ("API key", API_KEY_VARIABLE)
        given = self.endpoint.admin_key if admin else self.endpoint.api_key
        return UsageError(
            f"{self.endpoint.url} does not accept the {kind}",
            why=f"it refused {path} " + ("with the key that was given" if given else "and no key was given"),
            mend=f"set {variable}, or give --server-url the file that `vpgea serve` wrote",
        )


def descriptors(wanted: int) -> int:
    """How many more files this process may open, after its soft limit was raised to what is wanted, if that may be.

    Raises:
        VpgeaError: Next to none.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
        soft = max(soft, most)
    if soft == resource.RLIM_INFINITY:
        return wanted
    left = soft - len(os.listdir("/proc/self/fd")) - _SPARE  # noqa: PTH208 - names, not paths
    if left < _FEWEST:
        raise no_descriptors()
    return left


def no_descriptors() -> VpgeaError:
    """The error where a limit of this process's own stands in the way, and no server."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return VpgeaError(
        "too few files may be open at a time for requests to servers",
        why=f"this process may have {soft:,} (ulimit -n), or the machine has no more",
        mend="raise the limit, e.g. ulimit -n 4096, then run the command again: it continues",
    )


def _json_object(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}  # an error in words
    return value if isinstance(value, dict) else {}


def _message(text: bytes) -> str:
    """What the server said, short."""
    fields = _json_object(text)
    error = fields.get("error")
    said = fields.get("message") or fields.get("error_message")
    said = said or (error.get("message") if isinstance(error, dict) else error)
    return " ".join((str(said) if said else text.decode(errors="replace")).split())[:300]
