"""Details of lighteval: details_TASK_DATE.parquet with a row per question, and results_DATE.json of the same run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from vpgea.errors import UsageError
from vpgea.foreign.lines import found, whole_object
from vpgea.foreign.sample import (
    ForeignLog,
    ForeignSample,
    Found,
    Sampling,
    UnusableError,
    mapping,
    optional_text,
    text_of,
)

COLUMNS = frozenset({"doc", "metric", "model_response"})
_NAME = re.compile(r"details_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[\d.-]+)\.parquet")
_ROWS = 64  # in memory at a time
_OF_MODEL = ("dtype", "system_prompt", "override_chat_template", "max_length")
_OF_TASK = (
    *("hf_repo", "hf_subset", "hf_revision", "evaluation_splits", "generation_size", "stop_sequence"),
    *("num_fewshots", "version", "prompt_function"),
)


def read_log(files: Sequence[Path]) -> ForeignLog:
    """The details of one run, one file per task.

    Raises:
        UsageError: Files of several runs, or no parquet.
    """
    dates = {match["date"] if (match := _NAME.fullmatch(path.name)) else path.name for path in files}
    if len(dates) > 1:
        raise UsageError(
            "the details are of several runs",
            why=f"they are dated {', '.join(sorted(dates)[:4])}",
            mend="give the folder of one date",
        )
    results_file = _results(files[0])
    results = {} if results_file is None else whole_object(results_file)
    general = mapping(results.get("config_general"))
    model, sha = mapping(general.get("model_config")), optional_text(general.get("lighteval_sha"))
    metrics = {name: None for path in files for name in _metrics(path)}
    return ForeignLog(
        tool="lighteval",
        version=None if sha in (None, "?") else sha,
        model=optional_text(general.get("model_name")),
        protocol=_protocol(model, mapping(results.get("config_tasks"))),
        files=(*files, *([results_file] if results_file else [])),
        metrics=tuple(metrics),
        sampling=Sampling.stated_in(mapping(model.get("generation_parameters"))),
        samples=partial(_samples, files),
        remarks=() if results else ("no results_*.json of the same run was found: its protocol is unknown",),
    )


def _results(details: Path) -> Path | None:
    """OUT/results/MODEL/results_DATE.json of OUT/details/MODEL/DATE/details_TASK_DATE.parquet."""
    match = _NAME.fullmatch(details.name)
    above = next((folder for folder in details.parents if folder.name == "details"), None)
    if match is None or above is None:
        return None
    model = details.parent.parent.relative_to(above)
    path = above.parent / "results" / model / f"results_{match['date']}.json"
    return path if path.is_file() else None


def _protocol(model: Mapping[str, object], tasks: Mapping[str, object]) -> dict[str, object]:
    sampling = mapping(model.get("generation_parameters"))
    found = {name: model[name] for name in _OF_MODEL if model.get(name) is not None}
    found |= {name: value for name, value in sampling.items() if value is not None}
    for name, task in tasks.items():
        stated = mapping(task)
        found[f"task {name}"] = {key: stated[key] for key in _OF_TASK if stated.get(key) is not None}
    return found


def _metrics(path: Path) -> list[str]:
    kind = _open(path).schema_arrow.field("metric").type
    return [kind.field(place).name for place in range(kind.num_fields)]


def _open(path: Path):  # type: ignore[no-untyped-def]
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"cannot read {path}", why=str(error)[:200], mend="let lighteval write it again") from error


def _samples(files: Sequence[Path], metric: str | None) -> Iterator[Found]:
    for path in files:
        number = 0
        for batch in _open(path).iter_batches(batch_size=_ROWS, columns=sorted(COLUMNS)):
            for row in batch.to_pylist():
                number += 1
                yield from found(f"{path.name}, row {number}", partial(_sample, row))


def _sample(row: Mapping[str, object]) -> Iterator[ForeignSample]:
    document, response = mapping(row.get("doc")), mapping(row.get("model_response"))
    texts, ids, choices, gold = (
        response.get("text"),
        response.get("output_tokens"),
        document.get("choices"),
        document.get("gold_index"),
    )
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise UnusableError("it holds no response: choices were compared by their log-likelihoods")
    golds = gold if isinstance(gold, list) else [gold]
    listed = choices if isinstance(choices, list) else []
    named = golds[0] if len(golds) == 1 and isinstance(golds[0], int) and 0 <= golds[0] < len(listed) else None
    for index, text in enumerate(texts):
        tokens = ids[index] if isinstance(ids, list) and len(ids) == len(texts) else None
        yield ForeignSample(
            question_id=f"{text_of(document.get('task_name'), 'task_name')}/{text_of(document.get('id'), 'id')}",
            index=index,
            completion=text,
            question=optional_text(document.get("original_query")) or optional_text(document.get("query")),
            reference=None if named is None else optional_text(listed[named]),
            options=tuple(map(str, listed)) if len(listed) > 1 else (),
            tokens=len(tokens) or None if isinstance(tokens, list) else None,
            scores=mapping(row.get("metric")) if len(texts) == 1 else {},
        )
