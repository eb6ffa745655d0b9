"""What a training takes over from the one whose weights it goes on with: the optimiser's moments and its steps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vpgea.config.schema import RunConfig
from vpgea.errors import UsageError
from vpgea.modeling.local_model import LocalModel
from vpgea.runs.layout import CHECKPOINT_CHECKSUMS, OPTIMIZER, SUMMARY, WEIGHTS
from vpgea.runs.published import is_training, optimizer_fingerprint
from vpgea.runs.records import DistillSummary
from vpgea.storage.records import read_record


@dataclass(frozen=True)
class Carried:
    """A folder that `save_optimizer` wrote, and its fingerprint."""

    folder: Path
    fingerprint: str


def carried_by(config: RunConfig, model: LocalModel) -> Carried | None:
    """What lies beside published weights; None where nothing is to be carried, or they are a model by themselves.

    Raises:
        UsageError: It is gone, or of another training: the next one would begin anew without a word.
    """
    weights = model.folder if model.adapter is None else model.adapter
    home = weights.parent
    if config.distill.optimizer_state == "fresh" or weights.name not in WEIGHTS or not is_training(home):
        return None
    wanted = read_record(home / SUMMARY, DistillSummary).optimizer_fingerprint
    if wanted is None:
        return None
    folder = home / OPTIMIZER
    if not (folder / CHECKPOINT_CHECKSUMS).is_file():
        raise _not_usable(folder, "it is gone")
    found = optimizer_fingerprint(folder)
    if found != wanted:
        raise _not_usable(folder, f"it is {found}, and {wanted} was written with those weights")
    return Carried(folder, found)


def _not_usable(folder: Path, why: str) -> UsageError:
    return UsageError(
        f"the optimiser cannot go on where the training before ended: {folder}",
        why=why,
        mend="restore that folder, or `vpgea doctor --repair`; to begin with a fresh optimiser all the same, use "
        "--set distill.optimizer_state=fresh, or a copy of the weights that stands elsewhere",
    )
