"""Where the servers are and the keys that open them: URLs, lists in files, and what `vpgea serve` writes."""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vpgea.errors import UsageError

API_KEY_VARIABLE = "VPGEA_SERVER_API_KEY"
ADMIN_KEY_VARIABLE = "VPGEA_SERVER_ADMIN_KEY"


@dataclass(frozen=True)
class Endpoint:
    """One server. The API key opens generation and scoring, the admin key weights and adapters."""

    url: str
    api_key: str | None = field(default=None, repr=False)
    admin_key: str | None = field(default=None, repr=False)

    def write(self, path: Path) -> None:
        """As JSON that only its owner may read."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(asdict(self), stream)
        temporary.replace(path)


class EndpointList:
    """The value of --server-url: URLs with commas between them, or a file or folder that is read again when asked.

    A file holds one URL per line, or the JSON object that `vpgea serve` writes; a folder holds such JSON files.
    """

    def __init__(self, value: str, environment: Mapping[str, str]) -> None:
        self.value = value
        self._keys = environment.get(API_KEY_VARIABLE), environment.get(ADMIN_KEY_VARIABLE)
        self._path = None if "://" in value else Path(value).expanduser()

    def read(self) -> list[Endpoint]:
        """The servers named now, each once.

        Raises:
            UsageError: None is named, what names them cannot be read, or one that others can reach has no keys.
        """
        if self._path is None:
            found = [self._from_url(text) for text in self.value.split(",") if text.strip()]
        else:
            found = self._from_path(self._path)
        endpoints = list({endpoint.url: endpoint for endpoint in found}.values())
        if not endpoints:
            raise UsageError(
                f"no server in {self.value}",
                why="it names none",
                mend="give --server-url URL[,URL...], or a file that `vpgea serve` wrote",
            )
        for endpoint in endpoints:
            _require_keys(endpoint)
        return endpoints

    def _from_url(self, text: str) -> Endpoint:
        return Endpoint(_checked_url(text.strip()), *self._keys)

    def _from_path(self, path: Path) -> list[Endpoint]:
        if path.is_dir():
            return [one for file in sorted(path.glob("*.json")) for one in self._from_path(file)]
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"server list cannot be read: {path}",
                why=error.strerror or str(error) if isinstance(error, OSError) else str(error),
                mend="give --server-url a URL such as http://127.0.0.1:30000, or a file that `vpgea serve` wrote",
            ) from error
        if text.lstrip().startswith("{"):
            return [self._from_json(text, path)]
        lines = [line.split("#", 1)[0].strip() for line in text.splitlines()]
        return [self._from_url(line) for line in lines if line]

    def _from_json(self, text: str, path: Path) -> Endpoint:
        try:
            fields: dict[str, Any] = json.loads(text)
            endpoint = Endpoint(str(fields["url"]), fields.get("api_key"), fields.get("admin_key"))
        except (ValueError, KeyError) as error:
            raise UsageError(
                f"not a server file: {path}",
                why=f"it is not a JSON object with url, api_key and admin_key: {error}",
                mend="let `vpgea serve` write it, or give the URL",
            ) from error
        return Endpoint(_checked_url(endpoint.url), endpoint.api_key, endpoint.admin_key)


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _checked_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if any(mark in text for mark in ("?", "#", "@")):
        raise UsageError(
            "a server's URL holds a user name, a password, a query or a fragment",
            why="it stands in errors and logs, where no secret may",
            mend=f"give the URL alone, and its keys in {API_KEY_VARIABLE} and {ADMIN_KEY_VARIABLE}",
        )
    if not valid:
        raise UsageError(
            f"not a server's URL: {text}", why="it must look like http://127.0.0.1:30000", mend="check --server-url"
        )
    return text.rstrip("/")


def _require_keys(endpoint: Endpoint) -> None:
    """A server that others can reach takes prompts and weights from whoever asks, unless it has keys."""
    if not is_loopback(urlsplit(endpoint.url).hostname or "") and not (endpoint.api_key and endpoint.admin_key):
        raise UsageError(
            f"{endpoint.url} is not on this machine and its keys are missing",
            why="a server that others can reach needs both an API key and an admin key",
            mend=f"set {API_KEY_VARIABLE} and {ADMIN_KEY_VARIABLE}, or give the file that `vpgea serve` wrote",
        )
