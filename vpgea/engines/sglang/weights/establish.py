"""Make sure that a server serves a model and its adapter, and nothing else.

SGLang checks almost nothing: it answers 200 to a checkpoint of another model or with a tensor missing, and a file cut
short kills it. So everything is compared before a call, and what is served is compared after it.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vpgea.config.schema import ModelConfig
from vpgea.config.training import DistillConfig
from vpgea.engines.base import ScoreRequest
from vpgea.engines.sglang.traffic.answers import Generated, Words
from vpgea.engines.sglang.traffic.client import Refused, ServerClient, Unreachable
from vpgea.engines.sglang.traffic.wire import Aborted, Served, read_scores, score_payload
from vpgea.engines.sglang.weights.adapters import bring_adapter, require_room, require_servable
from vpgea.engines.sglang.weights.base import bring_base, require_same_checksums
from vpgea.engines.sglang.weights.facts import CALL_S, Facts, cannot_see, read_facts, router_cannot
from vpgea.errors import QualityGateError, UsageError
from vpgea.modeling.adapter_files import adapter_has_effect, adapter_rank
from vpgea.modeling.local_model import LocalModel
from vpgea.modeling.weight_files import CANARY
from vpgea.runs.records import Canary, CanaryPath
from vpgea.storage.records import read_record

# Largest difference of a log-probability between SGLang and transformers, by the coarser dtype of the two. In float32
# 2e-6 to 3e-5 were measured, in bfloat16 up to 0.33; other weights differ by whole nats somewhere.
CANARY_TOLERANCE = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.5}
_NOISE_FACTOR = 4
_PROBE_IDS = 64


@dataclass(frozen=True)
class Evidence:
    """By what it was verified: the version read back, how many tensors have the files' checksums (0: they cannot be
    compared there), and the largest difference on canary paths (None: none were published beside the weights)."""

    version: str
    checksums_compared: int
    canary_difference: float | None


async def establish(
    client: ServerClient, model: ModelConfig, *, replaceable: Collection[str], timeout_s: float
) -> tuple[Served, Evidence]:
    """Make a server serve exactly this model and its adapter, and verify it. To be done before the first sample.

    replaceable: fingerprints of base weights that this run may replace there. timeout_s: for calls that load or score.

    Verified are the version read back; on a CPU the checksum of every tensor (a GPU's is another function of the
    bytes: there it is compared which tensors an update changed); that the adapter has an effect; and the canary paths
    beside the weights, where there are any. Checksums need the admin key: without it, a server that carries our
    version is taken at its word.

    Raises:
        UsageError: The server has other weights, or no room for the adapter.
        QualityGateError: What is served is not what was asked for.
        EngineError: The server answers what cannot be right.
        Unreachable: It does not answer.
        Refused: It is none of SGLang's.
    """
    wanted = await asyncio.to_thread(_identified, model)
    if wanted.adapter is not None:
        await asyncio.to_thread(require_servable, wanted.adapter, wanted.folder)
    facts = await read_facts(client)
    _require_dtype(wanted, facts)
    if wanted.adapter is not None:
        require_room(adapter_rank(wanted.adapter), facts)
    facts = await bring_base(client, wanted, facts, replaceable, timeout_s)
    compared = await require_same_checksums(client, wanted, facts, timeout_s)
    base = Served(facts.version, routed=facts.is_router)
    served = replace(base, adapter=await bring_adapter(client, wanted, timeout_s))
    if wanted.adapter is not None:
        await _require_applied(client, wanted, base, served, timeout_s)
    differences = [await _check_canary(client, wanted, facts, base, wanted.folder, timeout_s)]
    if wanted.adapter is not None:
        differences.append(await _check_canary(client, wanted, facts, served, wanted.adapter, timeout_s))
    largest = max((one for one in differences if one is not None), default=None)
    return served, Evidence(served.weight_version, compared, largest)


def _identified(model: ModelConfig) -> LocalModel:
    """The files as they are now, with the base's fingerprint computed: that takes a while, outside the event loop."""
    wanted = LocalModel.resolve(model)
    assert wanted.base.fingerprint
    return wanted


async def require_follows(client: ServerClient, config: DistillConfig, folder: Path) -> None:
    """Raise UsageError for a server that could not take the weights that this run will publish below `folder`.

    Said before the first sample, not after the first training step. That the server sees the folder shows in how it
    refuses to load from one without weights: an unknown path it takes for the id of a hub.
    """
    facts = await read_facts(client)
    is_lora = config.train == "lora"
    if is_lora:
        require_room(config.lora.rank, facts)
    elif facts.is_router:
        raise router_cannot(facts.url, "its weights cannot be replaced")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".seen-") as name:
        probe = Path(name).absolute()
        (probe / "adapter_config.json").write_text("{}", encoding="utf-8")
        call, body = (
            ("/load_lora_adapter", {"lora_name": probe.name, "lora_path": str(probe)})
            if is_lora
            else ("/update_weights_from_disk", {"model_path": str(probe), "flush_cache": False})
        )
        try:
            await client.post(call, body, Words, timeout_s=CALL_S, admin=True)
        except Refused as error:
            if "Repo id" in error.message:
                raise cannot_see(facts.url, folder, error) from error


async def canary_difference(
    client: ServerClient,
    served: Served,
    paths: Sequence[CanaryPath],
    vocabulary: int,
    *,
    timeout_s: float = CALL_S,
) -> float:
    """Largest difference between stored and served log-probabilities; paths: those of vpgea_canary.json."""
    differences = [0.0]
    for path in paths:
        request = ScoreRequest(path.ids, path.start)
        scores = await _score(client, request, served, vocabulary, timeout_s)
        differences.append(_largest(scores, np.asarray(path.logprobs, np.float32)))
    return float(np.max(differences))  # not max(): a NaN stays one


async def _check_canary(
    client: ServerClient, wanted: LocalModel, facts: Facts, served: Served, folder: Path, timeout_s: float
) -> float | None:
    """The difference on the canary paths in a folder, None without any.

    Where the server does not repeat itself, by other kernels for a cached prefix say, that noise widens the tolerance.

    Raises:
        QualityGateError: The difference is beyond the tolerance.
    """
    if not (folder / CANARY).is_file():
        return None
    canary = read_record(folder / CANARY, Canary)
    vocabulary = wanted.vocabulary_size
    request = ScoreRequest(canary.paths[0].ids, canary.paths[0].start)
    first = await _score(client, request, served, vocabulary, timeout_s)
    difference = await canary_difference(client, served, canary.paths, vocabulary, timeout_s=timeout_s)
    noise = _largest(first, await _score(client, request, served, vocabulary, timeout_s))
    dtypes = [canary.dtype.removeprefix("torch."), facts.dtype or "bfloat16"]
    tolerance = max(*(CANARY_TOLERANCE[dtype] for dtype in dtypes), _NOISE_FACTOR * noise)
    if not difference <= tolerance:
        raise QualityGateError(
            f"{facts.url} does not serve the weights of {folder}",
            why=f"log-probabilities of its canary paths differ by {difference:.2g}, {tolerance:.2g} is allowed",
            mend="restart the server; if it stays, compare its SGLang with the tested version (`vpgea doctor`)",
        )
    return difference


async def _require_applied(
    client: ServerClient, wanted: LocalModel, base: Served, served: Served, timeout_s: float
) -> None:
    """An adapter that the server passes over leaves every log-probability as it was, to the last bit."""
    assert wanted.adapter is not None
    vocabulary = wanted.vocabulary_size
    request = ScoreRequest([(1 + 7919 * index) % vocabulary for index in range(_PROBE_IDS)], 1)
    without, with_adapter = [await _score(client, request, which, vocabulary, timeout_s) for which in (base, served)]
    if np.array_equal(without, with_adapter) and await asyncio.to_thread(adapter_has_effect, wanted.adapter):
        raise QualityGateError(
            f"{client.endpoint.url} does not apply the adapter {wanted.adapter}",
            why=f"with it the log-probabilities of {_PROBE_IDS} tokens are exactly those without it",
            mend="compare its SGLang with the tested version (`vpgea doctor`), or merge it: vpgea export --merge",
        )


async def _score(
    client: ServerClient, request: ScoreRequest, served: Served, vocabulary: int, timeout_s: float
) -> np.ndarray:
    answer = await client.post("/generate", score_payload(request, served), Generated, timeout_s=timeout_s)
    try:
        return read_scores(answer, request, served, vocabulary)
    except Aborted as error:
        raise Unreachable(f"a scoring call was given up: {error}") from error


def _largest(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max(initial=0.0))


def _require_dtype(wanted: LocalModel, facts: Facts) -> None:
    asked = wanted.config.dtype
    if asked != "auto" and facts.dtype not in (asked, None):
        raise UsageError(
            f"{facts.url} computes in {facts.dtype}",
            why=f"model.dtype is {asked}",
            mend=f"start the server with --dtype {asked}, or give --set model.dtype={facts.dtype}",
        )
