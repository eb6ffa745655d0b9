"""log pi_old: what the weights at the start of the round say of the prior samples, for the importance ratio."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vpgea.errors import UsageError
from vpgea.runs.records import EngineMismatch
from vpgea.storage.files import file_checksum, grant_usual_access
from vpgea.training.batching import rank_batches
from vpgea.training.data import OptimizerStep, TrainingPath, TrainingSet
from vpgea.training.ranks import Ranks
from vpgea.training.roles import Roles


class OldLogprobs:
    """log pi_old of every prior path, kept in a file for resumed runs.

    Those of the first step are what its own forward pass says, unless dropout changes that: `complete` adds them.

    Attributes:
        values: Path index → float32 (T,), on the CPU.
        checksum: Of the file; None where there is none.
    """

    def __init__(self, file: Path, data: TrainingSet, roles: Roles, ranks: Ranks) -> None:
        """Read the file, or score what the first step will not say. Before a checkpoint is loaded; collective.

        Raises:
            UsageError: The file is damaged.
        """
        self._file, self._roles, self._ranks = file, roles, ranks
        self.checksum = file_checksum(file) if file.is_file() else None
        self.values = _by_index(file) if file.is_file() else self._score(data)

    def require(self, recorded: str | None) -> None:
        """They must be those of a checkpoint: once the weights have moved they cannot be scored again.

        Raises:
            UsageError: They are not.
        """
        if recorded not in (None, self.checksum):
            raise _damaged(self._file, "its checksum is not the one in the checkpoint")

    def complete(self, step: OptimizerStep, seen: dict[int, Tensor]) -> None:
        """After the first step's forward passes: its own log-probabilities are added, and all go to disk."""
        if self._file.is_file():
            return
        new = [path for path in step.paths if path.is_prior and path.index not in self.values]
        self.values |= self._from_all_ranks(new, seen)
        if self._ranks.is_first and self.values:
            temporary = self._file.with_suffix(".tmp")
            save_file({str(index): part for index, part in self.values.items()}, temporary)
            grant_usual_access(temporary)
            temporary.replace(self._file)
            self.checksum = file_checksum(self._file)
        self._ranks.barrier()

    def engine_mismatch(self, paths: Sequence[TrainingPath]) -> EngineMismatch | None:
        """How far the engine's log-probabilities of prior samples are from the trainer's of the same weights, in nats.

        None without prior samples, and where sampling was tempered or truncated.
        """
        prior = [path for path in paths if path.is_prior]
        pairs = [torch.as_tensor(path.sampler_logprobs).double() - self.values[path.index].double() for path in prior]
        difference = torch.cat(pairs) if pairs else torch.empty(0)
        difference = difference[~difference.isnan()]
        if not difference.numel():
            return None
        return EngineMismatch(
            mean=float(difference.mean()),
            mean_absolute=float(difference.abs().mean()),
            largest=float(difference.abs().max()),
        )

    def _score(self, data: TrainingSet) -> dict[int, Tensor]:
        first = set() if data.config.lora.dropout else {path.index for path in data.step(0).paths}
        later = [path for path in data.paths if path.is_prior and path.index not in first]
        scored: dict[int, Tensor] = {}
        for paths in rank_batches(later, data.config, self._roles.hidden_size, self._ranks):
            if paths:
                parts = self._roles.student_logprobs(paths).cpu().split([len(path.completion_ids) for path in paths])
                scored |= {path.index: part for path, part in zip(paths, parts, strict=True)}
            elif self._roles.is_sharded:
                self._roles.idle_forward()
        return self._from_all_ranks(later, scored)

    def _from_all_ranks(self, paths: Sequence[TrainingPath], own: dict[int, Tensor]) -> dict[int, Tensor]:
        """Every rank's parts on every rank, on the CPU: path index → float32 (T,)."""
        lengths = [len(path.completion_ids) for path in paths]
        flat = torch.zeros(sum(lengths), device=self._roles.device)
        for path, part in zip(paths, flat.split(lengths), strict=True):
            if path.index in own:
                part.copy_(own[path.index])
        parts = self._ranks.sum(flat).cpu().split(lengths)
        return {path.index: part.clone() for path, part in zip(paths, parts, strict=True)}


def _by_index(file: Path) -> dict[int, Tensor]:
    try:
        return {int(index): logprobs for index, logprobs in load_file(file).items()}
    except (SafetensorError, ValueError) as error:
        raise _damaged(file, str(error)) from error


def _damaged(file: Path, why: str) -> UsageError:
    mend = "`vpgea doctor FOLDER --repair` on the distill folder begins the training anew; or restore the file"
    return UsageError(f"damaged log-probabilities: {file}", why=why, mend=mend)
