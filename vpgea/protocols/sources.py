"""Where a benchmark's rows lie: a path that the user gives, a folder of several sets, or the hub."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from vpgea.config.schema import DataConfig
from vpgea.errors import UsageError
from vpgea.protocols.asking import Asked, Example, Rows, ask, examples_sha256
from vpgea.protocols.protocol import Protocol
from vpgea.questions.benchmarks import find_evalset, load_evalset
from vpgea.questions.load import LoadedQuestions
from vpgea.questions.sources import read_source

FOLDER_VARIABLE = "VPGEA_TEST_DATA"
_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet", ".csv", ".json", ".arrow")
_EXAMPLE_COLUMNS = frozenset({"question", "options", "cot_content", "solution", "answer", "category"})


def load_asked(
    protocol: Protocol,
    data: DataConfig,
    *,
    split: str | None = None,
    offline: bool = False,
    environment: Mapping[str, str] | None = None,
) -> tuple[LoadedQuestions, Asked]:
    """Read a benchmark's rows and render them as a protocol asks them.

    Args:
        protocol: Of which benchmark, and how.
        data: `dataset`: a file, a folder of one set, or one of several in which the set is found by its name; empty:
            such a folder that the environment names, else the hub. `limit` and the rest as for questions.
        split: In place of the set's own.
        offline: Local caches only.
        environment: Of the process, where none is given.

    Raises:
        UsageError: There are no such rows, or they cannot be asked.
    """
    path = find_rows(protocol.benchmark, data.dataset, environment)
    evalset = find_evalset(protocol.benchmark)
    try:
        loaded = load_evalset(
            protocol.benchmark,
            path,
            fields=data.fields,
            split=split,
            subset=data.subset,
            limit=data.limit,
            skip_bad_rows=data.skip_bad_rows,
            offline=offline,
            order=None if protocol.order == "as given" else protocol.order,
        )
    except UsageError as error:
        if path is not None:
            raise
        where = f"a file with --dataset, a folder that has {evalset.places[0]}.jsonl, or access to {evalset.hub_id}"
        raise UsageError(
            f"the rows of {protocol.benchmark} are not here", why=f"{error.what}: {error.why}", mend=f"give {where}"
        ) from error
    source = path or f"{evalset.hub_id} ({', '.join(filter(None, (evalset.subset, split or evalset.split)))})"
    examples, rows = _examples(protocol, path, offline=offline)
    return loaded, ask(protocol, loaded, source=source, examples=examples, examples_rows=rows)


def find_rows(benchmark: str, given: str, environment: Mapping[str, str] | None = None) -> str | None:
    """The file or folder of a benchmark's rows; None for the hub.

    Raises:
        UsageError: The folder of several sets that the user gave has none of this name.
    """
    places = find_evalset(benchmark).places
    folder = Path(given).expanduser()
    if given and not folder.is_dir():
        return given
    if given:
        if found := _in_folder(folder, places):
            return str(found)
        has_rows = any(path.name.endswith(_SUFFIXES) for path in folder.iterdir())
        if has_rows or (folder / "dataset_dict.json").exists():
            return given
        names = ", ".join(f"{place}.jsonl" for place in places)
        raise UsageError(
            f"the rows of {benchmark} are not in {folder}",
            why=f"it has none of {names}, nor the same as .jsonl.gz, .parquet, .csv, .json or .arrow",
            mend="put the file there, give it with --dataset, or leave --dataset out to take it from the hub",
        )
    shared = (os.environ if environment is None else environment).get(FOLDER_VARIABLE)
    found = _in_folder(Path(shared), places) if shared else None
    return str(found) if found else None


def _in_folder(folder: Path, places: tuple[str, ...]) -> Path | None:
    named = (folder / f"{place}{suffix}" for place in places for suffix in _SUFFIXES)
    return next((path for path in named if path.is_file()), None)


def _examples(protocol: Protocol, path: str | None, *, offline: bool) -> tuple[list[Example], Rows | None]:
    """Those of the protocol's split: beside the questions, else on the hub."""
    if protocol.shots is None:
        return [], None
    evalset, split = find_evalset(protocol.benchmark), protocol.shots.split
    beside = None
    if path is not None:
        folder = Path(path) if Path(path).is_dir() else Path(path).parent
        beside = _in_folder(folder, (split,))
    data = DataConfig(
        dataset=str(beside) if beside else evalset.hub_id, subset=None if beside else evalset.subset, split=split
    )
    try:
        raw = read_source(data, _EXAMPLE_COLUMNS, offline=offline)
    except UsageError as error:
        raise UsageError(
            f"the {protocol.shots.count} examples of protocol {protocol.name} are not here",
            why=f"they are rows of the split {split} of {evalset.hub_id}: {error.why or error.what}",
            mend=f"put {split}.jsonl beside the questions, or choose a protocol without examples",
        ) from error
    examples = [_example(row.values) for row in raw.rows]
    where = str(beside) if beside else f"{evalset.hub_id} ({', '.join(filter(None, (evalset.subset, split)))})"
    rows = Rows(source=where, revision=raw.revision, sha256=examples_sha256(examples), count=len(examples))
    return examples, rows


def _example(row: Mapping[str, object]) -> Example:
    """The solution is MMLU-Pro's `cot_content`, or GSM8K's `answer` with `#### N` at its end, in one column or two."""
    answer = str(row.get("answer") or "")
    solution = str(row.get("cot_content") or (answer if "####" in answer else row.get("solution") or ""))
    if "cot_content" not in row and "####" not in solution:
        solution = f"{solution}\n#### {answer}"
    options = row.get("options") or []
    return Example(
        question=str(row.get("question") or ""),
        options=tuple(str(option) for option in options) if isinstance(options, list) else (),
        solution=solution,
        category=str(row.get("category") or ""),
    )
