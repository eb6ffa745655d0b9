"""Sample logs of lm-evaluation-harness: samples_TASK_DATE.jsonl, and results_DATE.json beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from vpgea.errors import UsageError
from vpgea.foreign.lines import json_object, lines, read_lines, whole_object
from vpgea.foreign.sample import (
    ForeignLog,
    ForeignSample,
    Found,
    Sampling,
    UnusableError,
    mapping,
    optional_text,
    single,
    text_of,
)

_NAME = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[\d.-]+)\.jsonl")
_OF_RUN = ("system_instruction_sha", "chat_template_sha", "fewshot_as_multiturn", "git_hash")
_OF_CONFIG = ("gen_kwargs", "limit", "random_seed", "numpy_seed", "torch_seed", "fewshot_seed")
_OF_TASK = (
    *("dataset_path", "dataset_name", "test_split", "doc_to_text", "doc_to_target", "description", "num_fewshot"),
    *("output_type", "generation_kwargs", "repeats", "filter_list"),
)
_QUESTION = ("question", "problem", "query", "prompt", "Question", "Problem", "input")


def is_row(row: Mapping[str, object]) -> bool:
    """Whether an object is a line of such a log."""
    return {"doc_id", "resps", "arguments"} <= row.keys()


def read_log(files: Sequence[Path]) -> ForeignLog:
    """The log of one run, one file per task.

    Raises:
        UsageError: Files of several runs of a task.
    """
    tasks = {path: _task(path) for path in files}
    if len(set(tasks.values())) < len(files):
        raise UsageError(
            f"{files[0].parent} holds several runs of one task",
            why=f"the files are {', '.join(path.name for path in files[:4])}",
            mend="give the file of one run",
        )
    summaries = {path: found for path in files if (found := _results(path)) is not None}
    results = {path: whole_object(found) for path, found in summaries.items()}
    of_run = next(iter(results.values()), {})
    metrics = _metrics(files)
    return ForeignLog(
        tool="lm-eval",
        version=optional_text(of_run.get("lm_eval_version")),
        model=optional_text(of_run.get("model_name")),
        protocol=_protocol(results, tasks),
        files=(*files, *dict.fromkeys(summaries.values())),
        metrics=metrics,
        sampling=_sampling(results, tasks),
        samples=partial(_samples, tasks, next(iter(metrics), None)),
        remarks=() if len(results) == len(files) else ("no results_*.json stands beside it: its protocol is unknown",),
    )


def _task(path: Path) -> str:
    match = _NAME.fullmatch(path.name)
    return match["task"] if match else path.stem


def _results(path: Path) -> Path | None:
    match = _NAME.fullmatch(path.name)
    beside = path.with_name(f"results_{match['date']}.json") if match else path
    return beside if match and beside.is_file() else None


def _protocol(results: Mapping[Path, Mapping[str, object]], tasks: Mapping[Path, str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for path, result in results.items():
        config, task = mapping(result.get("config")), tasks[path]
        found |= {name: result[name] for name in _OF_RUN if result.get(name) is not None}
        found |= {name: config[name] for name in _OF_CONFIG if config.get(name) not in (None, {})}
        stated = mapping(mapping(result.get("configs")).get(task))
        own = {name: stated[name] for name in _OF_TASK if stated.get(name) not in (None, "")}
        own["version"] = mapping(result.get("versions")).get(task)
        own["hash"] = mapping(result.get("task_hashes")).get(task)
        found[f"task {task}"] = own
    return found


def _sampling(results: Mapping[Path, Mapping[str, object]], tasks: Mapping[Path, str]) -> Sampling:
    """That of all tasks; nothing where they differ."""
    found = set()
    for path, result in results.items():
        task = mapping(mapping(result.get("configs")).get(tasks[path]))
        found.add(
            Sampling.stated_in(
                mapping(task.get("generation_kwargs")), mapping(mapping(result.get("config")).get("gen_kwargs"))
            )
        )
    return found.pop() if len(found) == 1 else Sampling()


def _metrics(files: Sequence[Path]) -> tuple[str, ...]:
    """Every `METRIC,FILTER` that a row has: each filter has rows of its own."""
    names: dict[str, None] = {}
    for path in files:
        for _, line in lines(path):
            try:
                names |= dict.fromkeys(_scores(json_object(line)))
            except UnusableError:
                continue  # told of when the samples are read
    return tuple(names)


def _scores(row: Mapping[str, object]) -> dict[str, object]:
    names = row.get("metrics")
    listed = names if isinstance(names, list) else []
    suffix = optional_text(row.get("filter")) or "none"
    return {f"{name},{suffix}": row[name] for name in listed if isinstance(name, str) and name in row}


def _samples(tasks: Mapping[Path, str], first: str | None, metric: str | None) -> Iterator[Found]:
    """Of the metric's filter; of the first one where no metric is wanted, since all filters have the same responses."""
    wanted = None if first is None else (metric or first).rpartition(",")[2]
    for path, task in tasks.items():
        yield from read_lines(path, partial(_sample, task, wanted))


def _sample(task: str, wanted: str | None, row: Mapping[str, object]) -> Iterator[ForeignSample]:
    """The responses to one question, of the wanted filter's rows."""
    if not is_row(row):
        raise UnusableError("it has not the fields of a sample: doc_id, resps, arguments")
    if wanted is not None and (optional_text(row.get("filter")) or "none") != wanted:
        return
    responses = row["resps"][0] if isinstance(row["resps"], list) and len(row["resps"]) == 1 else None
    if not isinstance(responses, list) or not all(isinstance(text, str) for text in responses):
        raise UnusableError("it holds no response: choices were compared by their log-likelihoods")
    document = mapping(row.get("doc"))
    filtered = row.get("filtered_resps")
    for index, text in enumerate(responses):
        yield ForeignSample(
            question_id=f"{task}/{text_of(row['doc_id'], 'doc_id')}",
            index=index,
            completion=text,
            question=next((text for name in _QUESTION if (text := optional_text(document.get(name)))), None),
            reference=single(row.get("target")),
            scores=_scores(row) if len(responses) == 1 else {},
            extracted=single(filtered) if len(responses) == 1 else None,
        )
