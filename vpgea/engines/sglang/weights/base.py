"""The base weights of a server: compared with files by checksum, and replaced from disk."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from vpgea.engines.sglang.traffic.answers import Checksums, Words
from vpgea.engines.sglang.traffic.client import Refused, ServerClient
from vpgea.engines.sglang.weights.checksums import fused_checksums, fused_names
from vpgea.engines.sglang.weights.facts import CALL_S, Facts, cannot_see, read_facts, router_cannot
from vpgea.errors import EngineError, QualityGateError, UsageError
from vpgea.modeling.fingerprint import fingerprint_of
from vpgea.modeling.local_model import LocalModel
from vpgea.modeling.weight_files import require_same_architecture, require_same_tensors, verify_checksums
from vpgea.storage.files import read_json

_OUTPUT_LAYER = "lm_head.weight"  # a server leaves it out where it is tied to the embedding
_IDLE_S = 60  # in which what others asked of the server must end

Sums = Mapping[str, str]


async def bring_base(
    client: ServerClient, wanted: LocalModel, facts: Facts, replaceable: Collection[str], timeout_s: float
) -> Facts:
    """The server's facts once it serves the wanted base.

    Raises:
        UsageError: It has another base that must stay.
        QualityGateError: It did not take the new one.
    """
    if facts.version == wanted.base.fingerprint:
        return facts
    if re.fullmatch("[0-9a-f]{16}", facts.version):
        present: str | None = facts.version
    else:  # no fingerprint, but SGLang's own label or somebody's
        folder = facts.visible_folder
        present = None if folder is None else await asyncio.to_thread(_fingerprint_at, folder)
        compared, differing = await compare_checksums(client, wanted, facts, timeout_s)
        if (compared and not differing) or (not compared and present == wanted.base.fingerprint):
            return facts
    if present not in replaceable:
        raise UsageError(
            f"{facts.url} serves another model",
            why=f"its weights are {facts.version} ({facts.model_path}), "
            f"the run needs {wanted.base.fingerprint} ({wanted.folder})",
            mend=f"start it with `vpgea serve --model {wanted.config.path}`, or give --model what it serves",
        )
    if facts.is_router:
        raise router_cannot(facts.url, "its weights cannot be replaced")
    await _update(client, wanted, facts, timeout_s)
    updated = await read_facts(client)
    if updated.version != wanted.base.fingerprint:
        raise _not_taken(facts.url, f"after the update its version is {updated.version}, not {wanted.base.fingerprint}")
    return updated


async def require_same_checksums(client: ServerClient, wanted: LocalModel, facts: Facts, timeout_s: float) -> int:
    """Tensors that were compared, 0 where that cannot be done.

    Raises:
        QualityGateError: One of them differs.
    """
    compared, differing = await compare_checksums(client, wanted, facts, timeout_s)
    if differing:
        raise QualityGateError(
            f"{facts.url} does not serve the weights of {wanted.folder}",
            why=f"{len(differing)} of its tensors have another checksum, e.g. {differing[0]}",
            mend="restart the server; if it stays, copy the model again",
        )
    return compared


async def compare_checksums(
    client: ServerClient, wanted: LocalModel, facts: Facts, timeout_s: float
) -> tuple[int, list[str]]:
    """(tensors compared, those that differ); (0, []) where the server's checksums cannot be made from files.

    Equality is remembered for as long as the server runs under this version: large models take minutes.
    """
    if facts.dtype is None or not facts.hashes_bytes or not facts.has_layout_of(wanted.folder):
        return 0, []
    key = (facts.url, facts.start, facts.version, facts.model_path, wanted.base.fingerprint)
    if key in _equal:
        return _equal[key], []
    ranks = await _server_checksums(client, timeout_s)
    if not ranks:
        return 0, []
    expected = await asyncio.to_thread(_file_checksums, wanted.folder, facts.dtype)
    differing = sorted(
        name
        for rank in ranks
        for name in rank.keys() | (expected.keys() - {_OUTPUT_LAYER})
        if rank.get(name) != expected.get(name) and "rotary_emb" not in name  # made from the configuration
    )
    if not differing:
        _equal[key] = len(ranks[0])
    return len(ranks[0]), differing


_equal: dict[tuple[str, ...], int] = {}
_hashing = threading.Lock()


def _file_checksums(folder: Path, dtype: str) -> dict[str, str]:
    """Computed once for all servers."""
    with _hashing:
        return _checksums_of(folder, _fingerprint_at(folder), dtype)


@lru_cache(maxsize=4)
def _checksums_of(folder: Path, fingerprint: str, dtype: str) -> dict[str, str]:
    return fused_checksums(folder, dtype)


@lru_cache(maxsize=4)
def _verify(folder: Path, fingerprint: str) -> None:
    verify_checksums(folder)


def _fingerprint_at(folder: Path) -> str:
    return fingerprint_of([folder])


async def _server_checksums(client: ServerClient, timeout_s: float) -> list[dict[str, str]]:
    """Name → checksum, for each rank; none without the admin key, where the server has one."""
    try:
        asked = {"action": "checksum"}
        answer = await client.post("/weights_checker", asked, Checksums, timeout_s=timeout_s, admin=True)
    except UsageError:
        if client.endpoint.admin_key is not None:
            raise
        return []
    return [rank.checksums for rank in answer.ranks]


# --- updates --------------------------------------------------------------------------------------------------------


async def _update(client: ServerClient, wanted: LocalModel, facts: Facts, timeout_s: float) -> None:
    """Replace the weights, after everything was compared that SGLang does not look at."""
    before = await _server_checksums(client, timeout_s)
    await asyncio.to_thread(_require_fits, wanted, facts, before)
    body = {
        "model_path": str(wanted.folder),
        "weight_version": wanted.base.fingerprint,
        "flush_cache": True,
        "abort_all_requests": False,
    }
    old, comparable = facts.visible_folder, facts.hashes_bytes or not facts.has_layout_of(wanted.folder)
    old_sums = None if old is None or comparable else await asyncio.to_thread(_file_checksums, old, str(facts.dtype))
    await _wait_idle(client)
    try:
        await client.post("/update_weights_from_disk", body, Words, timeout_s=timeout_s, admin=True)
    except Refused as error:
        if "weights iterator" in error.message:  # made before the first tensor is touched
            raise cannot_see(facts.url, wanted.folder, error) from error
        raise EngineError(
            f"{facts.url} could not load the weights of {wanted.folder}",
            why=error.message,
            mend="restart the server: nobody knows what it serves now",
        ) from error
    if old_sums is not None:
        after = await _server_checksums(client, timeout_s)
        new_sums = await asyncio.to_thread(_file_checksums, wanted.folder, str(facts.dtype))
        if wrong := wrongly_moved(before, after, old_sums, new_sums):
            why = f"{len(wrong)} tensors changed there and not in the files, or the other way, e.g. {wrong[0]}"
            raise _not_taken(facts.url, why)


async def _wait_idle(client: ServerClient) -> None:
    """Until nothing runs there: an update that cannot flush the cache fails after it has changed the weights, even
    when the last answer is only just out."""
    try:
        await client.post(f"/flush_cache?timeout={_IDLE_S}", {}, Words, timeout_s=_IDLE_S + CALL_S, admin=True)
    except Refused as error:
        raise EngineError(
            f"{client.endpoint.url} is busy with requests that are not this run's",
            why=f"they did not end within {_IDLE_S} s, and its weights are to be replaced",
            mend="let each run have its servers for itself",
        ) from error


def wrongly_moved(before: Sequence[Sums], after: Sequence[Sums], old: Sums, new: Sums) -> list[str]:
    """Tensors that changed on the server and not in the files, or the other way.

    before, after: checksums of each rank, by whatever function. old, new: those of the files that were loaded.
    """
    moved: dict[str, bool] = {}
    for first, second in zip(before, after, strict=True):
        for name in first.keys() & old.keys() & new.keys():
            moved[name] = moved.get(name, False) or first[name] != second.get(name)
    return sorted(name for name, changed in moved.items() if changed != (old[name] != new[name]))


def _require_fits(wanted: LocalModel, facts: Facts, ranks: Sequence[Sums]) -> None:
    """The files are whole, and of the network that the server was started with."""
    with _hashing:
        _verify(wanted.folder, wanted.base.fingerprint)
    if old := facts.visible_folder:
        require_same_architecture(wanted.folder, old, trust_remote_code=wanted.config.trust_remote_code)
        require_same_tensors(wanted.folder, old)
        return
    architecture = (read_json(wanted.folder / "config.json").get("architectures") or ["?"])[0]
    there = {name for rank in ranks for name in rank}
    names = (fused_names(wanted.folder) ^ there) - {_OUTPUT_LAYER} if there else set()
    if architecture != facts.architecture or (names and facts.has_layout_of(wanted.folder)):
        in_one = f"; {len(names)} tensors are in one only, e.g. {min(names)}" if names else ""
        raise UsageError(
            f"{wanted.folder} is not of the model that {facts.url} was started with",
            why=f"it is a {architecture}, the server has a {facts.architecture}{in_one}",
            mend="start the server with the base that the weights were trained from",
        )


def _not_taken(url: str, why: str) -> QualityGateError:
    return QualityGateError(
        f"{url} did not take the new weights",
        why=why,
        mend="restart the server, and let each run have its servers for itself",
    )
