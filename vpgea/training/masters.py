"""The float32 weights behind a model that was published rounded: the next round's training starts from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vpgea.errors import UsageError
from vpgea.modeling.local_model import LocalModel
from vpgea.modeling.weight_files import write_checksums
from vpgea.runs.layout import MASTERS, MODEL, SUMMARY
from vpgea.runs.records import DistillSummary
from vpgea.storage.files import write_json
from vpgea.storage.records import json_of, read_record

RECORD = "vpgea_masters.json"


@dataclass(frozen=True)
class MastersRecord:
    """vpgea_masters.json. model: fingerprint of the published model that was rounded from them."""

    model: str


def seal_masters(folder: Path, published: LocalModel) -> None:
    """Say in a folder of float32 weights what was rounded from them, and what they were."""
    write_json(folder / RECORD, json_of(MastersRecord(published.fingerprint)))
    write_checksums(folder)


def masters_of(model: LocalModel) -> LocalModel | None:
    """The float32 weights beside a published model; None where the model is all there is of its weights.

    Raises:
        UsageError: They are gone, or are those of another model: what rounding lost would be lost without a word.
    """
    home = model.folder.parent
    if model.folder.name != MODEL or model.adapter is not None:
        return None
    masters = LocalModel(config=model.config, folder=home / MASTERS, adapter=None)
    if not masters.folder.is_dir():
        if (home / SUMMARY).is_file() and read_record(home / SUMMARY, DistillSummary).masters_fingerprint is not None:
            raise _not_usable(home, model, "they are gone")
        return None
    recorded = read_record(masters.folder / RECORD, MastersRecord).model
    if recorded != model.fingerprint:
        raise _not_usable(
            home, model, f"they were rounded to the model {recorded}, and this one is {model.fingerprint}"
        )
    return masters


def _not_usable(home: Path, model: LocalModel, why: str) -> UsageError:
    return UsageError(
        f"the float32 weights of {model.folder} cannot be trained on",
        why=f"{home / MASTERS}: {why}",
        mend="restore that folder, or `vpgea doctor --repair`; to start from the rounded weights all the same, give a "
        "copy of the model folder that stands elsewhere",
    )
