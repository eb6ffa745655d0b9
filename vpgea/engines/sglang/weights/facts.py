"""What a server tells of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpgea.engines.sglang.traffic.answers import ModelInfo, ServerInfo
from vpgea.engines.sglang.traffic.client import Refused, ServerClient
from vpgea.engines.sglang.weights.checksums import is_plain
from vpgea.errors import UsageError
from vpgea.modeling.weight_files import STORED_NAMES

CALL_S = 60.0  # for calls that touch no weights
_DTYPES = {"float": "float32", "half": "float16", **{name: name for name in STORED_NAMES}}
# Of these it is known how SGLang lays out every tensor.
_KNOWN = {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """options: those that the server was started with; none are told behind a router."""

    url: str
    version: str
    model_path: str
    architecture: str
    options: Mapping[str, Any]

    @property
    def is_router(self) -> bool:
        return not self.options

    @property
    def dtype(self) -> str | None:
        """None where the server left the choice to itself."""
        return _DTYPES.get(str(self.options.get("dtype")))

    @property
    def start(self) -> str:
        """Different after every start: seconds that its parts took, to the last digit."""
        return json.dumps(self.options.get("startup_time"), sort_keys=True)

    @property
    def hashes_bytes(self) -> bool:
        """On a CPU its checksums are sha256 of whole tensors; a GPU hashes in another way, and ranks hold parts."""
        return (self.options.get("device"), self.options.get("tp_size"), self.options.get("pp_size")) == ("cpu", 1, 1)

    @property
    def visible_folder(self) -> Path | None:
        """The server's model folder, where this machine sees it too."""
        folder = Path(self.model_path)
        return folder if folder.is_absolute() and (folder / "config.json").is_file() else None

    def has_layout_of(self, folder: Path) -> bool:
        """Whether the server's tensors can be made from the files: a known architecture, and nothing quantised."""
        plain = self.architecture in _KNOWN and not self.options.get("quantization") and self.dtype is not None
        return plain and is_plain(folder)


async def read_facts(client: ServerClient) -> Facts:
    """What a server tells of itself.

    A router answers /model_info with 404; it knows the deprecated name, and passes it on to one of its servers.

    Raises:
        Refused: No SGLang server answers.
    """
    options: dict[str, Any] = {}
    try:
        told = await client.get("/model_info", ModelInfo, timeout_s=CALL_S)
        options = (await client.get("/server_info", ServerInfo, timeout_s=CALL_S)).model_dump(exclude_unset=True)
    except Refused as error:
        if error.status != 404:
            raise
        told = await client.get("/get_model_info", ModelInfo, timeout_s=CALL_S)
    architecture = (told.architectures or ["?"])[0]
    version, path = str(told.weight_version), str(told.model_path)
    return Facts(url=client.endpoint.url, version=version, model_path=path, architecture=architecture, options=options)


def router_cannot(url: str, what: str) -> UsageError:
    return UsageError(
        f"{url} is a router: {what}",
        why="routers pass on requests, and no calls about weights and adapters",
        mend="give --server-url the servers behind it, with commas between them",
    )


def cannot_see(url: str, folder: Path, error: Refused) -> UsageError:
    return UsageError(
        f"{url} cannot see {folder}",
        why=f"weights reach it through a file system that both machines share; it said: {error.message}",
        mend="put the output folder on a shared file system, under the same path on both machines",
    )
