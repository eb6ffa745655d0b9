"""The trained weights become an adapter or a model folder, which appears only once it was reloaded and compared."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vpgea.config.schema import RunConfig
from vpgea.errors import QualityGateError
from vpgea.modeling.load import load_model
from vpgea.modeling.local_model import LocalModel
from vpgea.modeling.policy import completion_logprobs
from vpgea.modeling.tokenizer_files import copy_tokenizer
from vpgea.modeling.weight_files import CANARY, write_checksums
from vpgea.runs.layout import ADAPTER, MASTERS, MODEL
from vpgea.runs.records import Canary, CanaryPath
from vpgea.storage.files import publish_folder, said_of, write_json
from vpgea.storage.records import json_of
from vpgea.training.data import TrainingPath
from vpgea.training.masters import seal_masters
from vpgea.training.ranks import Ranks
from vpgea.training.roles import Roles, sequences_of

# Largest difference between a log-probability in memory and after reloading, by the dtype that was stored. bfloat16
# and float16 round the weights themselves when they are stored, so that only a gross error can be seen there.
RELOAD_TOLERANCE = {torch.float32: 1e-4, torch.float16: 0.05, torch.bfloat16: 0.5}
_CANARY_PATHS = 4


@dataclass(frozen=True)
class Published:
    """What came of publishing.

    Attributes:
        difference: Largest of a log-probability after reloading what was published, in nats; 0 on other ranks.
        model: As it was reloaded, for an engine of this process; None on other ranks.
    """

    difference: float = 0.0
    model: Any = None


def publish(config: RunConfig, roles: Roles, paths: Sequence[TrainingPath], output: Path, ranks: Ranks) -> Published:
    """Write output/adapter, or output/model with its masters.

    Masters are the float32 weights behind a model that is rounded. The published weights are reloaded and compared.
    Collective: every rank calls it, rank 0 writes. The roles have no weights afterwards.

    Args:
        config: Of the run.
        roles: Whose student is published.
        paths: The shortest of them are canaries, published beside the weights with their log-probabilities.
        output: The distill folder.
        ranks: All that train together.

    Raises:
        QualityGateError: The difference is too large; the other ranks raise OtherRankFailed.
    """
    canaries = sorted(paths, key=lambda path: path.length)[:_CANARY_PATHS]
    # one path at a time: no more memory than a training step; and before saving, which rounds full weights
    in_memory = torch.cat([roles.student_logprobs([path]).cpu() for path in canaries])
    weights = roles.whole_weights(ranks)
    published: list[Published] = []
    has_masters = roles.rounds_when_saved

    def write() -> None:
        name = published_name(config)
        temporary, masters = output / f".{name}.tmp", output / f".{MASTERS}.tmp"
        with said_of(output / name, temporary), said_of(output / MASTERS, masters):
            for folder in (temporary, masters):
                shutil.rmtree(folder, ignore_errors=True)
            if has_masters:
                roles.save_masters(masters, weights)
            roles.save(temporary, weights)
            roles.release()
            copy_tokenizer(roles.model.folder, roles.model.adapter, temporary)
            change = {"adapter": str(temporary)} if roles.is_lora else {"path": str(temporary), "adapter": None}
            reloaded = LocalModel.resolve(roles.model.config.model_copy(update=change))
            model = load_model(reloaded)
            published.append(Published(_compare(model, canaries, in_memory, roles.compute_dtype, temporary), model))
            write_checksums(temporary)  # a server that is told to load the folder is only told so when they still hold
            if has_masters:
                seal_masters(masters, reloaded)
                publish_folder(masters, output / MASTERS)
            publish_folder(temporary, output / name)

    ranks.on_first(write)
    return published[0] if published else Published()


def published_name(config: RunConfig) -> str:
    """Name of the folder inside the distill folder."""
    return ADAPTER if config.distill.train == "lora" else MODEL


def _compare(model: Any, paths: Sequence[TrainingPath], in_memory: Tensor, dtype: torch.dtype, folder: Path) -> float:
    """Largest difference of what was reloaded from in_memory (T,) as trained; writes the canaries into the folder."""
    sequences, starts = sequences_of(paths)
    pairs = zip(sequences, starts, strict=True)
    stored = torch.cat([completion_logprobs(model, [ids], [start]).cpu() for ids, start in pairs])
    difference = float((in_memory - stored).abs().max())
    tolerance = RELOAD_TOLERANCE[dtype]
    if not difference <= tolerance:
        raise QualityGateError(
            f"the weights written to {folder} differ from those that were trained",
            why=f"log-probabilities differ by {difference:.2g} after reloading, {tolerance:g} is allowed",
            mend="run the command again; if it stays, please report the model's architecture",
        )
    values = torch.split(stored, [len(path.completion_ids) for path in paths])
    canaries = [
        CanaryPath(ids, start, part.tolist()) for ids, start, part in zip(sequences, starts, values, strict=True)
    ]
    write_json(folder / CANARY, json_of(Canary(str(dtype), canaries)))
    return difference
