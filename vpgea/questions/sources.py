"""Where questions come from: a file, a folder, or a Hugging Face data set through `datasets`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vpgea.config.schema import DataConfig
from vpgea.errors import UsageError, did_you_mean
from vpgea.questions.features import is_media_column
from vpgea.questions.files import READERS, add_batches, read_file
from vpgea.questions.folders import read_folder
from vpgea.questions.rows import RawRows

if TYPE_CHECKING:
    from datasets import Dataset

_FILE_SUFFIXES = (*READERS, ".gz", ".txt", ".zip")
_ROWS_AT_A_TIME = 1000
_COMMIT = re.compile(r"@([0-9a-f]{40})(?:/|$)")
_SAVED = ("state.json", "dataset_dict.json")  # one of them lies in a folder from `save_to_disk`


def read_source(data: DataConfig, wanted: AbstractSet[str], *, offline: bool = False) -> RawRows:
    """The rows behind `data.dataset`, with the wanted columns only.

    What exists on disk is read from there; a name that looks like a path but is not there is an error, never a
    look-up on the hub.

    Raises:
        UsageError: There is no such source, or it cannot be read.
    """
    path = Path(data.dataset).expanduser()
    if not data.dataset:
        raise UsageError("no questions were given", why="the dataset is empty", mend="name a file: --dataset FILE")
    if path.is_dir() and not any((path / marker).exists() for marker in _SAVED):
        return read_folder(data, path, wanted)
    if path.is_dir():
        return _read_with_datasets(data, path, wanted, offline=offline)
    if path.exists():
        return read_file(path, wanted)
    if _looks_local(data.dataset):
        raise UsageError(f"{path}: there is no such file or folder", why=_neighbours(path), mend="correct the path")
    return _read_with_datasets(data, None, wanted, offline=offline)


def _looks_local(dataset: str) -> bool:
    """Hub ids are `name` or `owner/name`; anything that no hub id can be, or that starts in a folder here, is local."""
    path = Path(dataset)
    return (
        dataset.startswith((".", "/", "~"))
        or dataset.endswith("/")
        or "\\" in dataset
        or dataset.count("/") > 1
        or dataset.lower().endswith(_FILE_SUFFIXES)
        or ("/" in dataset and path.parent.is_dir())
    )


def _neighbours(path: Path) -> str:
    """What stands beside a missing path, nearest names first."""
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    if folder != path.absolute().parent:
        return f"the folder {path.parent} does not exist; the nearest that does is {folder}"
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5) or names[:5]
    return f"{folder} has {', '.join(near)}" if near else f"{folder} is empty"


def _read_with_datasets(data: DataConfig, folder: Path | None, wanted: AbstractSet[str], *, offline: bool) -> RawRows:
    where = str(folder) if folder else f"{data.dataset} ({data.subset + ', ' if data.subset else ''}{data.split})"
    raw = RawRows(file=where)
    try:
        with _network(off=offline):
            table = _saved(data, folder) if folder else _from_hub(data)
        raw.revision = "" if folder else _revision(table)
        features, schema = table.features.to_dict(), table.features.arrow_schema
        read = [
            field.name for field in schema if field.name in wanted or is_media_column(field, features.get(field.name))
        ]
        batches = (
            batch
            for part in table.select_columns(read).with_format("arrow").iter(batch_size=_ROWS_AT_A_TIME)
            for batch in part.to_batches()
        )
        add_batches(raw, schema, batches, wanted, features)
    except UsageError:
        raise
    except Exception as error:  # the library has no common base class: hub, HTTP, file, schema and builder errors
        reason = error.__cause__ or error  # a builder's own error says only that there was one
        raise UsageError(
            f"{where}: the data set cannot be loaded",
            why=f"{type(reason).__name__}: {' '.join(str(reason).split())[:300]}",
            mend="check the name, data.subset and data.split"
            + ("" if folder else ", and the network or the offline cache"),
        ) from error
    return raw


def _saved(data: DataConfig, folder: Path) -> Dataset:
    """A folder from `save_to_disk`: one table, or a dict of splits."""
    import datasets

    saved = datasets.load_from_disk(str(folder))
    if isinstance(saved, datasets.Dataset):
        return saved
    if data.split not in saved:
        raise UsageError(
            f"{folder}: there is no split {data.split!r}",
            why=f"the folder has {', '.join(saved)}",
            mend=did_you_mean(data.split, saved, "choose one with --set data.split=NAME"),
        )
    return saved[data.split]


def _from_hub(data: DataConfig) -> Dataset:
    import datasets

    return datasets.load_dataset(data.dataset, data.subset, split=data.split)


def _revision(table: Dataset) -> str:
    """The commit that the files of a hub's data set are of; "" where the library does not say."""
    commits = {found[1] for name in table.info.download_checksums or {} if (found := _COMMIT.search(str(name)))}
    return commits.pop() if len(commits) == 1 else ""


@contextmanager
def _network(*, off: bool) -> Iterator[None]:
    """With `off`, what HF_HUB_OFFLINE=1 does, also after the libraries were imported: local caches only."""
    import datasets
    from huggingface_hub import constants

    before = (datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE)
    if off:
        datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before
