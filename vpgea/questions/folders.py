"""A folder of question files: which of them are a split, and which are left out.

Splits are told as `datasets` tells them, by the folder's README.md where it has `configs`, else by the names of folders
or files; but every file is read as it would be by itself, and what is left out is said.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from vpgea.config import strict_yaml
from vpgea.config.schema import DataConfig
from vpgea.errors import UsageError, did_you_mean
from vpgea.questions.files import READERS, read_file
from vpgea.questions.rows import RawRow, RawRows

DEFAULT_SPLIT = "train"
_KEYWORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLIT = re.compile(r"(\w+(?:\.\w+)*)(?:\[[^\]]*\])?")
_SPLITS = re.compile(rf"{_SPLIT.pattern}(?:\s*\+\s*{_SPLIT.pattern})*")
_SHARDED = re.compile(r"(?:.*/)?data/(?P<split>\w+(?:\.\w+)*)-\d{5}-of-\d{5}[^/]*\.[^/]*")
_NO_QUESTIONS = re.compile(  # what stands in such folders and is never taken for questions; a table or list is said
    r"(README|LICEN[CS]E|CITATION|NOTICE|CHANGELOG)([-._].*)?|.*\.md|.*\.py|.*\.ya?ml"
    r"|(config|dataset_infos?|dataset_dict|state)\.json",
    re.IGNORECASE,
)
_CAPITAL_INSIDE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class _Sorted:
    """The files of a folder. splits: by the split they belong to. loose: of no split, though others have one."""

    splits: dict[str, list[Path]]
    loose: list[Path] = field(default_factory=list)
    other: list[Path] = field(default_factory=list)


def read_folder(data: DataConfig, folder: Path, wanted: AbstractSet[str]) -> RawRows:
    """The rows of all files of the split `data.split`.

    Raises:
        UsageError: There are none, the split is not there, or a file cannot be read.
    """
    found = _sorted(folder, data.subset)
    names = [match[1] for match in _SPLIT.finditer(data.split)]
    if not found.splits or not _SPLITS.fullmatch(data.split) or not set(names) <= set(found.splits):
        raise _no_such_split(data, folder, found)
    raw = RawRows(file=str(folder))
    rows: dict[str, list[RawRow]] = {name: [] for name in names}
    chosen = {path: name for name in rows for path in found.splits[name]}
    for path, name in chosen.items():
        part = read_file(path, wanted)
        for column, stored in part.columns.items():
            raw.columns.setdefault(column, stored)
        raw.columns_of[str(path)] = part.columns.keys()
        rows[name] += part.rows
        raw.bad += part.bad
        raw.example = raw.example or part.example
        raw.unit = part.unit
    raw.rows += rows[names[0]] if data.split in rows else _sliced(data.split, rows)
    rest = [path for paths in found.splits.values() for path in paths]
    for files, why in (
        (found.other, "no question file by its name"),
        (found.loose, "its name says no split, and other names do"),
        ([path for path in rest if path not in chosen], "of another split"),
    ):
        if files:
            raw.left_out.append(f"{folder}: {_named(files, folder)}: {why}")
    return raw


def _sliced(split: str, rows: Mapping[str, list[RawRow]]) -> list[RawRow]:
    """What `train[:100]` or `train+test` of `datasets` names, of rows that can be read."""
    import datasets

    instruction = datasets.ReadInstruction.from_spec(split)
    parts = instruction.to_absolute({name: len(found) for name, found in rows.items()})
    return [row for part in parts for row in rows[part.splitname][part.from_ : part.to]]


def split_names(folder: Path, subset: str | None = None) -> list[str]:
    """The splits that a folder of question files has."""
    return list(_sorted(folder, subset).splits)


def _named(files: Sequence[Path], folder: Path) -> str:
    names = ", ".join(str(path.relative_to(folder)) for path in files[:_SHOWN])
    return f"left out {len(files)}: {names}{', ...' if len(files) > _SHOWN else ''}"


def _no_such_split(data: DataConfig, folder: Path, found: _Sorted) -> UsageError:
    if found.splits:
        return UsageError(
            f"{folder}: there is no split {data.split!r}",
            why=f"the folder has {', '.join(found.splits)}",
            mend=did_you_mean(data.split, found.splits, "choose one with --set data.split=NAME"),
        )
    others = f"it holds {_named(found.other, folder).partition(': ')[2]}" if found.other else "it holds none at all"
    return UsageError(
        f"{folder}: the data set cannot be loaded: there is no question file",
        why=f"{others}; the names of question files end with one of {', '.join(READERS)}",
        mend="put question files into it, or name a file",
    )


def _sorted(folder: Path, subset: str | None) -> _Sorted:
    files: list[Path] = []
    other: list[Path] = []
    for path in sorted(folder.rglob("*"), key=str):
        inside = path.relative_to(folder)
        hidden = any(part.startswith((".", "__")) for part in inside.parts)
        named_otherwise = _NO_QUESTIONS.fullmatch(path.name) is not None
        if hidden or not path.is_file() or (named_otherwise and not _may_hold_rows(path)):
            continue
        (files if _is_readable(path) and not named_otherwise else other).append(path)
    if any(path.suffix == ".arrow" and path.with_suffix(".json").is_file() for path in files):
        files, other = [path for path in files if path.suffix == ".arrow"], []  # a run's shards, without their records
    if (described := _described_splits(folder, subset)) is not None:
        named = {path for paths in described.values() for path in paths}
        return _Sorted(splits=described, loose=[path for path in files if path not in named], other=other)
    names = {path: PurePosixPath(path.relative_to(folder).as_posix()) for path in files}
    for split_of in (_sharded_split, _folder_split, _file_split):
        splits: dict[str, list[Path]] = {}
        for path in files:
            if (split := split_of(names[path])) is not None:
                splits.setdefault(split, []).append(path)
        if splits:
            told = {path for paths in splits.values() for path in paths}
            return _Sorted(splits=splits, loose=[path for path in files if path not in told], other=other)
    return _Sorted(splits={DEFAULT_SPLIT: files} if files else {}, other=other)


def _is_readable(path: Path) -> bool:
    return path.name.lower().endswith(tuple(READERS))


def _may_hold_rows(path: Path) -> bool:
    """Of a file whose name says that it holds no questions: a configuration is no list."""
    if path.suffix.lower() != ".json":
        return _is_readable(path)
    with path.open("rb") as file:
        return re.match(rb"(?:\xef\xbb\xbf)?\s*\[\s*\{", file.read(64)) is not None


def _sharded_split(name: PurePosixPath) -> str | None:
    found = _SHARDED.fullmatch(str(name))
    return found["split"] if found else None


def _folder_split(name: PurePosixPath) -> str | None:
    return next((split for part in name.parts[:-1] for split in _keyword(part)), None)


def _file_split(name: PurePosixPath) -> str | None:
    return next(_keyword(name.name), None)


def _keyword(name: str) -> Any:
    """The splits that a name's words say, in the order of the list above."""
    words = set(re.split(r"[-._ 0-9]+", _CAPITAL_INSIDE.sub(" ", name).lower()))
    return (split for split, keywords in _KEYWORDS.items() if words.intersection(keywords))


def _described_splits(folder: Path, subset: str | None) -> dict[str, list[Path]] | None:
    """Split → files, as the head of README.md describes the subset; None where it describes nothing."""
    configs = _configs(folder)
    if not configs:
        if subset is not None:
            raise UsageError(
                f"{folder}: there is no subset {subset!r}",
                why="subsets of a folder stand under `configs` at the head of its README.md, and it has none",
                mend="leave data.subset out, or name a folder or file",
            )
        return None
    names = [str(config.get("config_name", "default")) for config in configs]
    preferred = [name for name, config in zip(names, configs, strict=True) if config.get("default")] or ["default"]
    name = subset or (names[0] if len(names) == 1 else preferred[0])
    if name not in names:
        raise UsageError(
            f"{folder}: " + (f"there is no subset {subset!r}" if subset else "a subset is to be chosen"),
            why=f"its README.md has {', '.join(names)}",
            mend=did_you_mean(subset or "", names, "choose one with --set data.subset=NAME"),
        )
    config = configs[names.index(name)]
    base = folder / str(config.get("data_dir", "."))
    described = _patterns(config.get("data_files", "**"))
    splits = {split: _matching(folder, base, patterns) for split, patterns in described}
    if missing := next((split for split, paths in splits.items() if not paths), None):
        raise UsageError(
            f"{folder}: its README.md names files that are not there",
            why=f"nothing fits the paths of the split {missing!r} of {name!r}",
            mend="mend `configs` in README.md, or name the files themselves",
        )
    return splits


def _configs(folder: Path) -> list[dict[str, Any]]:
    readme = folder / "README.md"
    try:
        text = readme.read_text(encoding="utf-8-sig") if readme.is_file() else ""
        head = re.match(r"---\s*\n(.*?)\n---\s*(?:\n|$)", text, re.DOTALL)
        described = strict_yaml.parse(head[1], str(readme))[0] if head and "configs" in head[1] else {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{readme}: it cannot be read", why=str(error), mend="mend it, or take it away") from error
    configs = described.get("configs") if isinstance(described, dict) else None
    return [config for config in configs or [] if isinstance(config, dict)]


def _patterns(data_files: Any) -> list[tuple[str, list[str]]]:
    """(split, patterns) of what `data_files` may be: one pattern, several, or some for each split."""
    if isinstance(data_files, dict):
        pairs = list(data_files.items())
    elif isinstance(data_files, list) and data_files and isinstance(data_files[0], dict):
        pairs = [(entry.get("split", DEFAULT_SPLIT), entry.get("path", [])) for entry in data_files]
    else:
        pairs = [(DEFAULT_SPLIT, data_files)]
    return [(str(split), [paths] if isinstance(paths, str) else list(paths)) for split, paths in pairs]


def _matching(folder: Path, base: Path, patterns: Sequence[str]) -> list[Path]:
    found: set[Path] = set()
    for pattern in patterns:
        try:
            names = [os.path.normpath(path.relative_to(folder)) for path in base.glob(pattern)]
        except (ValueError, NotImplementedError, TypeError):  # it begins elsewhere, is empty, or no text
            names = [os.pardir]
        if any(Path(name).parts[:1] == (os.pardir,) for name in names):
            raise UsageError(
                f"{folder}: its README.md names files that are not in it",
                why=f"the path {pattern!r} leaves the folder",
                mend="mend `configs` in README.md, or name those files themselves",
            )
        found.update(folder / name for name in names)  # the folder's own name is no pattern
    return [path for path in sorted(found, key=str) if _is_readable(path) and path.is_file()]
