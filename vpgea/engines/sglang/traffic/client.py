"""Calls to one server: deadlines, keys, and which failures are worth another try."""

from __future__ import annotations

import json
from typing import Any

import aiohttp

from vpgea.engines.sglang.traffic.endpoints import ADMIN_KEY_VARIABLE, API_KEY_VARIABLE, Endpoint
from vpgea.errors import UsageError


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

    async def get(self, path: str, *, timeout_s: float, admin: bool = False) -> dict[str, Any]:
        """The answer to a GET; see post."""
        return await self._call("GET", path, None, timeout_s, admin)

    async def post(self, path: str, body: dict[str, Any], *, timeout_s: float, admin: bool = False) -> dict[str, Any]:
        """Send a JSON object.

        Args:
            path: Behind the server's URL.
            body: The object.
            timeout_s: Deadline of the whole call, in seconds.
            admin: Use the admin key.

        Returns:
            The answer's JSON object, {} when it is none.

        Raises:
            Unreachable: The server does not answer, not within the deadline, or not now (429, 5xx).
            Refused: It does not take the request (3xx, 4xx).
            UsageError: It does not accept the key.
        """
        return await self._call("POST", path, json.dumps(body).encode(), timeout_s, admin)

    async def _call(self, method: str, path: str, body: bytes | None, timeout_s: float, admin: bool) -> dict[str, Any]:
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
                text = await response.read()
                status = response.status
        except TimeoutError as error:
            raise Unreachable(f"no answer to {path} within {timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"{path}: {error or type(error).__name__}") from error
        if status in (401, 403):
            raise self._key_refused(path, admin)
        if status >= 500 or status == 429:
            raise Unreachable(f"{path} was answered with HTTP {status}: {_message(text)}")
        if status >= 300:
            raise Refused(status, _message(text))
        return _json_object(text)

    def _key_refused(self, path: str, admin: bool) -> UsageError:
        kind, variable = ("admin key", ADMIN_KEY_VARIABLE) if admin else ("API key", API_KEY_VARIABLE)
        given = self.endpoint.admin_key if admin else self.endpoint.api_key
        return UsageError(
            f"{self.endpoint.url} does not accept the {kind}",
            why=f"it refused {path} " + ("with the key that was given" if given else "and no key was given"),
            mend=f"set {variable}, or give --server-url the file that `vpgea serve` wrote",
        )


def _json_object(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text) if text else {}
    except ValueError:
        return {}  # /flush_cache and its like answer in words
    return value if isinstance(value, dict) else {}


def _message(text: bytes) -> str:
    """What the server said, short."""
    fields = _json_object(text)
    error = fields.get("error")
    said = fields.get("message") or fields.get("error_message")
    said = said or (error.get("message") if isinstance(error, dict) else error)
    return " ".join((str(said) if said else text.decode(errors="replace")).split())[:300]
