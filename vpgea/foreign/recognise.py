"""Which tool wrote a file, by its content, and its log."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from vpgea.errors import UsageError, did_you_mean
from vpgea.foreign import evalscope, inspect_ai, lighteval, lm_eval, openai_chat, table, verl
from vpgea.foreign.lines import first_object
from vpgea.foreign.sample import ForeignLog

Tool = Literal["lm-eval", "inspect", "lighteval", "evalscope", "verl", "openai", "table"]
_READERS: dict[str, Callable[[Sequence[Path]], ForeignLog]] = {
    "lm-eval": lm_eval.read_log,
    "inspect": inspect_ai.read_log,
    "lighteval": lighteval.read_log,
    "evalscope": evalscope.read_log,
    "verl": verl.read_log,
    "openai": openai_chat.read_log,
    "table": table.read_log,
}
TOOLS = tuple(_READERS)
_SUFFIXES = (".eval", ".json", ".jsonl", ".parquet", ".csv")
_HEAD = 4096  # bytes of a JSON file in which a log of inspect names its parts


def read_log(source: Path, tool: str | None = None) -> ForeignLog:
    """The log in a file or folder.

    Args:
        source: The file, or a folder that is searched for logs, links left alone.
        tool: Which wrote it; None: recognised by its content.

    Raises:
        UsageError: There is none, it is of several tools, or the tool's reader refuses it.
    """
    if tool is not None and tool not in _READERS:
        mend = did_you_mean(tool, TOOLS, "give one of these")
        raise UsageError(f"--from knows no {tool!r}", why=f"it knows {', '.join(TOOLS)}", mend=mend)
    if not source.exists():
        raise UsageError(f"not found: {source}", why="there is no such file or folder", mend="correct the path")
    named = {path: recognised(path) for path in _candidates(source)}
    if source.is_file() and tool is not None:
        named = {source: tool}
    found = {path: name for path, name in named.items() if name is not None and tool in (None, name)}
    if tool is None and "evalscope" in found.values():  # its folder has predictions and reports beside its reviews
        found = {path: name for path, name in found.items() if name == "evalscope"}
    tools = sorted(set(found.values()))
    if not tools:
        raise UsageError(
            f"{source} holds no log that is known here",
            why=_why_none(source),
            mend="name the tool with --from, or bring it into a table: docs/import.md has its columns",
        )
    if len(tools) > 1:
        raise UsageError(
            f"{source} holds logs of {' and '.join(tools)}",
            why="an import is of one evaluation",
            mend="give the file or folder of one",
        )
    return _READERS[tools[0]](sorted(found))


def _why_none(source: Path) -> str:
    known = f"what is read are logs of {', '.join(TOOLS)}"
    if source.is_file():
        return known if source.stat().st_size else f"the file is empty; {known}"
    if not _candidates(source):
        return f"no file in it ends in {', '.join(_SUFFIXES)}; {known}"
    return known


def _candidates(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    found = []
    for place, inner, names in os.walk(source):
        inner.sort()
        paths = (Path(place, name) for name in sorted(names) if name.lower().endswith(_SUFFIXES))
        found += [path for path in paths if path.is_file() and not path.is_symlink()]
    return found


def recognised(path: Path) -> str | None:
    """The tool that wrote a file; None where it is no log."""
    suffix = path.suffix.lower()
    if suffix == ".eval":
        return "inspect"
    if suffix == ".json":
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
        return "inspect" if b'"eval"' in head and b'"status"' in head else None
    if suffix == ".parquet":
        return "lighteval" if _parquet_columns(path) >= lighteval.COLUMNS else None
    if suffix == ".csv":
        return "table" if table.is_row(table.columns_of(path)) else None
    row = first_object(path)
    kinds: dict[str, Callable[[dict[str, object]], bool]] = {
        "lm-eval": lm_eval.is_row,
        "evalscope": lambda row: evalscope.is_review(row) or evalscope.is_prediction(row),
        "verl": verl.is_row,
        "openai": openai_chat.is_row,
        "table": table.is_row,
    }
    return None if row is None else next((name for name, is_kind in kinds.items() if is_kind(row)), None)


def _parquet_columns(path: Path) -> set[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return set(pq.read_schema(path).names)
    except (pa.ArrowException, OSError):
        return set()  # no parquet: then it is nobody's
