"""The adapter of a server: named by what it holds, loaded from disk, and seen to be applied."""

from __future__ import annotations

import asyncio
from pathlib import Path

from vpgea.engines.sglang.traffic.answers import Models, Words
from vpgea.engines.sglang.traffic.client import Refused, ServerClient
from vpgea.engines.sglang.weights.facts import CALL_S, Facts, cannot_see, router_cannot
from vpgea.errors import UsageError
from vpgea.modeling.adapter_files import adapter_modules, require_adapter_fits, special_settings
from vpgea.modeling.fingerprint import adapter_fingerprint
from vpgea.modeling.local_model import LocalModel
from vpgea.modeling.weight_files import verify_checksums
from vpgea.storage.files import read_json

PREFIX = "vpgea-"
# Modules that SGLang holds as one: it drops or refuses an adapter on the first without one on all of the others.
_NEEDS = {"k_proj": ("q_proj", "v_proj"), "v_proj": ("q_proj",), "q_proj": ("v_proj",), "up_proj": ("gate_proj",)}


def require_servable(adapter: Path, base: Path) -> None:
    """Raise UsageError for an adapter of another base, or one that SGLang would apply in another way."""
    unserved = special_settings(adapter)  # SGLang passes over them, with other results then
    if read_json(adapter / "adapter_config.json").get("fan_in_fan_out"):
        unserved.append("fan_in_fan_out")
    modules = adapter_modules(adapter).keys()
    alone = sorted(module for module in modules if not _partners(module) <= modules)
    if unserved or alone:
        reason = f"it sets {', '.join(unserved)}" if unserved else f"it changes {alone[0]} and not its neighbours"
        raise UsageError(
            f"SGLang cannot serve the adapter {adapter}",
            why=f"{reason}, which SGLang would pass over without a word",
            mend="merge it with `vpgea export --merge` and give the model, or use the transformers engine",
        )
    require_adapter_fits(adapter, base)


def require_room(rank: int, facts: Facts) -> None:
    """Raise UsageError where the server takes no adapters, or none of this rank."""
    if facts.is_router:
        raise router_cannot(facts.url, "no adapter can be loaded")
    how = "start it with `vpgea serve --model ... --adapter ...`"
    if not facts.options.get("enable_lora"):
        raise UsageError(
            f"{facts.url} does not take adapters",
            why="LoRA is not enabled there",
            mend=f"{how}, or with --enable-lora --max-lora-rank {rank} --lora-target-modules all",
        )
    largest, copies = facts.options.get("max_lora_rank"), facts.options.get("dp_size")
    if largest is not None and rank > largest:
        raise UsageError(
            f"{facts.url} does not take this adapter",
            why=f"its rank is {rank}, and the server has room for {largest}",
            mend=f"{how}, or with --max-lora-rank {rank}",
        )
    if copies is not None and copies > 1:
        raise UsageError(
            f"{facts.url} does not take adapters",
            why=f"it runs {copies} data-parallel copies, and SGLang loads adapters only where there is one",
            mend="start one server for each copy, and give --server-url all of them",
        )


def _partners(module: str) -> set[str]:
    parent, dot, name = module.rpartition(".")
    return {f"{parent}{dot}{partner}" for partner in _NEEDS.get(name, ())}


async def bring_adapter(client: ServerClient, wanted: LocalModel, timeout_s: float) -> str | None:
    """The name under which the adapter is loaded; other adapters of vpgea's are unloaded. None without one.

    Nothing need be flushed: SGLang keeps cached prefixes apart by adapter, and each loading counts as another one.
    """
    if wanted.adapter is None:
        return None
    await asyncio.to_thread(verify_checksums, wanted.adapter)
    name = PREFIX + await asyncio.to_thread(adapter_fingerprint, wanted.adapter)
    loaded = await loaded_adapters(client)
    if name not in loaded:
        await _load(client, name, wanted.adapter, timeout_s)
    for other in loaded:
        if other.startswith(PREFIX) and other != name:
            await client.post("/unload_lora_adapter", {"lora_name": other}, Words, timeout_s=timeout_s, admin=True)
    return name


async def loaded_adapters(client: ServerClient) -> list[str]:
    told = await client.get("/v1/models", Models, timeout_s=CALL_S)
    return [model.id for model in told.data if model.parent is not None]


async def _load(client: ServerClient, name: str, adapter: Path, timeout_s: float) -> None:
    body = {"lora_name": name, "lora_path": str(adapter)}
    try:
        await client.post("/load_lora_adapter", body, Words, timeout_s=timeout_s, admin=True)
    except Refused as error:
        if "Repo id" in error.message or "No such file" in error.message:  # an unknown path is taken for a hub's id
            raise cannot_see(client.endpoint.url, adapter, error) from error
        raise UsageError(
            f"{client.endpoint.url} does not take the adapter {adapter}",
            why=error.message,
            mend="start it with `vpgea serve --model ... --adapter ...`; else look at its log",
        ) from error
