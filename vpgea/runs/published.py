"""Published weights against what their training recorded of them: whole and consistent is not yet ours."""

from __future__ import annotations

from pathlib import Path

from vpgea.errors import DamagedError
from vpgea.modeling.local_model import LocalModel
from vpgea.runs.layout import ADAPTER, CHECKPOINT_CHECKSUMS, MODEL, PARTS, SUMMARY
from vpgea.runs.records import DistillSummary
from vpgea.storage.files import file_checksum
from vpgea.storage.records import read_record


def require_published(model: LocalModel) -> None:
    """See that weights that stand in a distill folder are the ones that its training published there.

    Raises:
        DamagedError: They are not, or the record of the training is none.
    """
    for name, folder in ((MODEL, model.folder), (ADAPTER, model.adapter)):
        if folder is None or folder.name != name or not is_training(folder.parent):
            continue
        summary = read_record(folder.parent / SUMMARY, DistillSummary)
        if summary.content is not None:
            found, wanted = model.contents[name], summary.content
        else:  # trained before contents were kept; of an adapter the fingerprint is that of its base with it
            found = model.fingerprint if name == ADAPTER else model.base.fingerprint
            wanted = summary.model_fingerprint
        if found != wanted:
            raise not_published(folder, found, wanted)


def optimizer_fingerprint(folder: Path) -> str:
    """Of all that an optimiser's folder holds; how many ranks wrote it is in it."""
    return file_checksum(folder / CHECKPOINT_CHECKSUMS)[:16]


def not_published(folder: Path, found: str, wanted: str) -> DamagedError:
    """The error for weights that are another training's, or were changed."""
    return DamagedError(
        f"the weights in {folder} are not those that were published",
        why=f"their fingerprint is {found}, {wanted} was published: they, or the base model below the adapter, were "
        "changed",
        mend="restore the files, or `vpgea doctor FOLDER --repair` on the run trains them again",
    )


def is_training(folder: Path) -> bool:
    """Whether a training has finished in a folder."""
    return (folder / PARTS).is_dir() and (folder / SUMMARY).is_file()
