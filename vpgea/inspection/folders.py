"""Looking into what vpgea wrote: what a folder or shard is, how far it is, its rows and its statistics. Reads only."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vpgea.config.problems import FIELDS
from vpgea.config.resolve import DEFAULT, resolve
from vpgea.config.schema import RunConfig, value_of
from vpgea.errors import UsageError
from vpgea.filtering.measurements import check_numbers
from vpgea.runs.clock import seconds_of
from vpgea.runs.complete_phase import chunk_paths
from vpgea.runs.history import all_lines
from vpgea.runs.layout import (
    COMPLETE,
    CONFIG,
    MANIFEST,
    METRICS,
    PARTS,
    PUBLISHED,
    RESULTS,
    SETS,
    SUMMARY,
    Step,
    journal_chunk,
    round_numbers,
    round_phases,
)
from vpgea.runs.links import refuse_links
from vpgea.runs.manifest import Manifest
from vpgea.runs.parts import part_folders
from vpgea.storage.files import read_json, read_json_lines
from vpgea.storage.journal import read_journal
from vpgea.storage.schemas import IDENTITY, POSTERIOR, PRIOR
from vpgea.storage.shards import (
    committed,
    damaged,
    iterate_rows,
    read_sidecar,
    read_table,
    shard_files,
    shard_order,
    sidecar_path,
)

_QUANTILES = {"min": 0.0, "q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95, "max": 1.0}
# What a shard holds is told by a column that only its schema has.
_SHARD_KINDS = {
    "gate": "selection",
    "other_view_logprobs": "measurements",
    "first_correct_tokens": "graded samples",
    "finish_reason": "samples",
}


@dataclass(frozen=True)
class Source:
    """A phase folder, or one shard. kind: the phase, or what the shard holds. root: the phase folder around it."""

    path: Path
    kind: str
    root: Path | None
    manifest: Manifest | None

    @property
    def is_shard(self) -> bool:
        return self.path != self.root

    def measurements(self) -> list[Path]:
        """Shards with a filter's measurements."""
        return chunks(self.root) if self.root and self._phase == "filter" else []

    def selection(self) -> list[Path]:
        """Shards of a filter's selected and rejected set; none before the selection is made."""
        if self.root is None or self._phase != "filter" or not (self.root / SUMMARY).is_file():
            return []
        return [file for name in SETS for file in shard_files(self.root / name)]

    def rows(self) -> list[Path]:
        """The shards to look at: of a filter its selection, or its measurements before there is one."""
        if self.is_shard:
            return [self.path]
        return self.selection() or chunks(self.path)

    @property
    def _phase(self) -> str | None:
        return None if self.manifest is None else self.manifest.phase


def open_source(path: Path) -> Source:
    """What stands at a path.

    Raises:
        UsageError: There is nothing, or nothing that vpgea wrote.
    """
    if path.is_dir():
        return Source(path, (manifest := read_manifest(path)).phase, path, manifest)
    if not path.exists():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        nearest = difflib.get_close_matches(path.name, siblings, n=1)
        mend = f"did you mean {path.parent / nearest[0]}?" if nearest else "check the path for a typing error"
        raise UsageError(f"not found: {path}", why="there is no such folder or file", mend=mend)
    if path.suffix != ".arrow":
        raise UsageError(
            f"cannot inspect {path}", why="it is neither a folder nor an .arrow shard", mend="give the folder it is in"
        )
    if not sidecar_path(path).is_file():
        raise UsageError(
            f"{path} is no committed shard of vpgea",
            why=f"{sidecar_path(path).name} with its checksum does not stand beside it",
            mend="copy that file too, or give the phase folder",
        )
    names = read_table(path).column_names
    kind = next((kind for column, kind in _SHARD_KINDS.items() if column in names), None)
    if kind is None or not set(IDENTITY) <= set(names):
        raise UsageError(
            f"{path} holds no samples of vpgea", why=f"its columns are {', '.join(names)}", mend="give another shard"
        )
    root = next((folder for folder in islice(path.absolute().parents, 3) if (folder / PARTS).is_dir()), None)
    return Source(path, kind, root, None if root is None else read_manifest(root))


def read_manifest(root: Path) -> Manifest:
    """The manifest of a phase folder, complete or not.

    Raises:
        UsageError: It is none.
    """
    refuse_links(root)
    own = [root / MANIFEST, *(part / MANIFEST for part in part_folders(root))]
    found = next((file for file in own if file.is_file()), None)
    if found is not None:
        return Manifest.read(found)
    inner = sorted(folder.parent.name for folder in root.glob("*/parts"))
    raise UsageError(
        f"{root} is not a folder of a vpgea phase",
        why="it has no manifest.json and no parts",
        mend=f"inspect one of its folders: {', '.join(inner)}" if inner else "give the --output-dir of a phase",
    )


def run_config(run_dir: Path, manifest: Manifest) -> RunConfig:
    """The configuration of a loop's last call.

    Raises:
        UsageError: It is not whole, or not of this run.
    """
    file = run_dir / CONFIG
    resolved = resolve(file=file)
    absent = [key for key in manifest.config if resolved.origins.get(key) == DEFAULT]
    other = [
        key for key, value in manifest.identity.items() if key in FIELDS and value_of(resolved.config, key) != value
    ]
    if absent or other:
        why = f"{absent[0]} is not in it" if absent else f"{other[0]} is another than in the run's manifest"
        raise UsageError(
            f"damaged file: {file}", why=why, mend="`vpgea doctor FOLDER --repair` on the run writes it again"
        )
    return resolved.config


def chunks(root: Path) -> list[Path]:
    """The chunks of a phase folder; of an unfinished one those that are committed, which may be in the midst of it."""
    if (root / COMPLETE).is_file():
        return chunk_paths(root)
    return sorted((path for part in part_folders(root) for path in _committed(part)), key=shard_order)


def _committed(folder: Path) -> list[Path]:
    return sorted((folder / name for name in committed(folder) if name.startswith("chunk-")), key=shard_order)


def overview(source: Source) -> dict[str, Any]:
    """What it is, what it came from, how far it is.

    Raises:
        UsageError: A shard is damaged in a way that its size tells.
    """
    found: dict[str, Any] = {"path": str(source.path), "kind": source.kind}
    if source.is_shard:
        return {**found, "phase_folder": None if source.root is None else str(source.root), **_extent([source.path])}
    root, manifest = source.path, source.manifest
    assert manifest is not None, "a folder was opened by its manifest"
    config = manifest.config
    if source.kind == "loop":
        run = run_config(root, manifest)
        config = {key: value_of(run, key) for key in FIELDS}  # the manifest keeps the first --rounds
        found["rounds"] = [line.as_json() for line in all_lines(root)]
        found["complete"] = len(found["rounds"]) > run.loop.rounds
    else:
        found["complete"] = (root / COMPLETE).is_file()
        found["parts"] = [_part(part) for part in part_folders(root)]
        found["parts_expected"] = manifest.part.count
        found |= _weights(root) if source.kind == "distill" else _extent(chunks(root))
    found |= {"fingerprint": manifest.fingerprint, "inputs": manifest.inputs, "configuration": changed(config)}
    if source.kind == "filter":
        for name in SETS:
            found[name] = _extent(_committed(root / name))["rows"]
    if seconds := seconds_of(root):
        found["seconds"] = seconds
    for name, file in (("summary", SUMMARY), ("results", RESULTS)):
        if (root / file).is_file():
            found[name] = read_json(root / file)
    return found


def changed(config: dict[str, Any]) -> dict[str, Any]:
    """The entries of a recorded configuration that are not the defaults."""
    defaults = RunConfig()
    return {k: v for k, v in config.items() if k not in FIELDS or v != value_of(defaults, k)}


def head(source: Source, count: int) -> list[dict[str, Any]]:
    """The first rows; of a distill folder the last steps.

    Raises:
        UsageError: A loop folder, which has no rows.
    """
    if source.kind == "distill":
        return metrics_lines(source.path)[-count:] if count else []
    require_rows(source)
    return list(islice(iterate_rows(source.rows()), count))


def require_rows(source: Source) -> None:
    """See that a folder holds samples itself.

    Raises:
        UsageError: It does not; those that do are named.
    """
    if source.kind in ("loop", "distill"):
        indices = (None, *round_numbers(source.path))
        steps = [Step(index, phase) for index in indices for phase in round_phases(index)]
        begun = [step for step in steps if (step.folder(source.path) / PARTS).is_dir()]
        inner = [str(step) for step in begun if step.phase != "distill"]
        raise UsageError(
            f"a {source.kind} folder has no samples of its own",
            why=f"{source.path} holds {'the folders of its rounds' if source.kind == 'loop' else 'weights'}",
            mend=f"inspect one of: {', '.join(inner)}" if inner else "inspect the filter folder that it learned from",
        )


def metrics_lines(distill_dir: Path) -> list[dict[str, Any]]:
    """One line per optimiser step made so far."""
    file = distill_dir / METRICS
    return read_json_lines(file) if file.is_file() else []


def statistics(source: Source) -> dict[str, Any]:
    """Per view: counts, token lengths, grades, and what a filter decided. Reads every shard, checksums included."""
    require_rows(source)
    tables = [_summary_columns(read_table(path)) for path in source.rows()]
    table = pa.concat_tables(tables, promote_options="permissive") if tables else None
    views = {}
    for view in (PRIOR, POSTERIOR):
        part = None if table is None else table.filter(pc.equal(table["view"], view))
        if part is not None and part.num_rows:
            views[view] = _view_statistics(part)
    return {"views": views}


def distribution(values: Sequence[float]) -> dict[str, float | int]:
    """Number, mean and quantiles of the values that are there; of none only the number."""
    array = np.asarray([value for value in values if value is not None], np.float64)
    if not array.size:
        return {"n": 0}
    quantiles = {name: float(np.quantile(array, share)) for name, share in _QUANTILES.items()}
    return {"n": int(array.size), "mean": float(array.mean()), **quantiles}


def _summary_columns(table: pa.Table) -> pa.Table:
    """What statistics need of a shard: scalars as they are, completions as their number of tokens."""
    wanted = [
        "question_id",
        "view",
        "thinking_tokens",
        "learnt_tokens",
        "cut_off",
        "finish_reason",
        "status",
        "reasons",
    ]
    wanted += _numbers()
    kept = table.select([name for name in wanted if name in table.column_names])
    if "completion_ids" in table.column_names:
        tokens = pc.list_value_length(table["completion_ids"])
        if "recorded_tokens" in table.column_names:  # of an import, where a count may stand without ids
            tokens = pc.coalesce(tokens, table["recorded_tokens"])
        kept = kept.append_column("tokens", tokens)
    return kept


def _numbers() -> list[str]:
    """Columns whose distribution is shown."""
    return ["utility", "advantage", "gate", *check_numbers()]


def _view_statistics(table: pa.Table) -> dict[str, Any]:
    columns = {name: table[name].to_pylist() for name in table.column_names}
    found: dict[str, Any] = {"samples": table.num_rows, "questions": len(set(columns["question_id"]))}
    for name in ("tokens", "thinking_tokens"):
        if name in columns:
            found[name] = distribution(columns[name])
    if "finish_reason" in columns:
        found["finish_reasons"] = dict(Counter(columns["finish_reason"]))
    if "cut_off" in columns:
        found["cut_off"] = sum(columns["cut_off"])
    if "status" in columns:
        grades = Counter(columns["status"])
        graded = grades["correct"] + grades["wrong"]
        found["grades"] = dict(grades)
        found["accuracy"] = grades["correct"] / graded if graded else None
    if "reasons" in columns:
        reasons = Counter(reason for row in columns["reasons"] for reason in row)
        learnt = columns.get("learnt_tokens", [None] * table.num_rows)
        found["in_part"] = sum(tokens is not None for tokens in learnt)
        found["accepted"] = sum(not row for row in columns["reasons"]) - found["in_part"]
        found["reasons"] = dict(reasons.most_common())
    for name in _numbers():
        if name in columns and (spread := distribution(columns[name]))["n"]:
            found[name] = spread
            if name in ("advantage", "gate"):
                found[f"{name}_not_zero"] = sum(bool(value) for value in columns[name])
    return found


def _part(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {
        "part": folder.name,
        "complete": (folder / COMPLETE).is_file(),
        **_extent(_committed(folder)),
    }
    journals = [read_journal(path) for path in folder.iterdir() if journal_chunk(path.name) is not None]
    if journals:
        found["kept"] = {
            "completions": sum(len(journal.rows) for journal in journals),
            "torn_bytes": sum(journal.torn for journal in journals),
            "damaged_journals": sum(bool(journal.damage) for journal in journals),
        }
    return found


def _weights(distill_dir: Path) -> dict[str, Any]:
    """Steps made so far, and the bytes of what is published."""
    folders = [distill_dir / name for name in PUBLISHED if (distill_dir / name).is_dir()]
    sizes = {folder.name: sum(file.stat().st_size for file in folder.iterdir()) for folder in folders}
    return {"steps": len(metrics_lines(distill_dir)), "weights": sizes}


def _extent(shards: Sequence[Path]) -> dict[str, int]:
    """Number of shards, rows and bytes, by their sidecars."""
    sidecars = [read_sidecar(path) for path in shards]
    for path, sidecar in zip(shards, sidecars, strict=True):
        if (size := path.stat().st_size) != sidecar.bytes:
            raise damaged(path, f"{size} bytes are there, {sidecar.bytes} bytes were committed")
    return {
        "shards": len(shards),
        "rows": sum(sidecar.rows for sidecar in sidecars),
        "bytes": sum(sidecar.bytes for sidecar in sidecars),
    }
