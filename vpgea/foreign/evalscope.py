"""Outputs of EvalScope: reviews/MODEL/SET.jsonl with scores, predictions/ with how responses ended, configs/."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from vpgea.config.strict_yaml import parse
from vpgea.errors import UsageError
from vpgea.foreign.lines import first_object, json_object, lines, read_lines
from vpgea.foreign.sample import (
    ForeignLog,
    ForeignSample,
    Found,
    Sampling,
    UnusableError,
    count_of,
    finish_of,
    last_user_text,
    mapping,
    optional_text,
    response_of,
    single,
    text_of,
)

_REVIEWS, _PREDICTIONS = "reviews", "predictions"
_STATED = ("generation_config", "seed", "repeats", "limit", "evaluation_identity", "resolved_benchmarks")


def is_review(row: Mapping[str, object]) -> bool:
    """Whether an object is a line of a review."""
    return {"index", "messages", "sample_score"} <= row.keys()


def is_prediction(row: Mapping[str, object]) -> bool:
    """Whether an object is a line of a prediction."""
    return {"index", "messages", "model_output"} <= row.keys()


def read_log(files: Sequence[Path]) -> ForeignLog:
    """The reviews of one run with their predictions; predictions alone where nothing was reviewed.

    Raises:
        UsageError: The files are of several models.
    """
    reviews = [path for path in files if _is_of(path, is_review)]
    chosen = reviews or list(files)
    models = {path.parent.name for path in chosen}
    if len(models) > 1:
        raise UsageError(
            "the reviews are of several models",
            why=f"there are {', '.join(sorted(models)[:4])}",
            mend="give the folder of one: reviews/MODEL",
        )
    predictions = {path: found for path in reviews if (found := _prediction(path)) is not None}
    run = chosen[0].parents[2] if chosen[0].parent.parent.name in (_REVIEWS, _PREDICTIONS) else None
    stated = None if run is None else run / "configs" / "task_config.yaml"
    config_file = stated if stated is not None and stated.is_file() else None
    config = mapping(parse(config_file.read_text(encoding="utf-8"), str(config_file))[0]) if config_file else {}
    first = next((row for path in reviews if (row := first_object(path)) is not None), {})
    score = mapping(mapping(first.get("sample_score")).get("score"))
    kept = (*chosen, *predictions.values(), *([config_file] if config_file else []))
    return ForeignLog(
        tool="evalscope",
        version=optional_text(config.get("evalscope_version")),
        model=optional_text(config.get("model_id")) or next(iter(models)),
        protocol={name: config[name] for name in _STATED if config.get(name) is not None},
        files=tuple(dict.fromkeys(kept)),
        metrics=tuple(str(name) for name in mapping(score.get("value"))),
        main_metric=optional_text(score.get("main_score_name")),
        sampling=Sampling.stated_in(mapping(config.get("generation_config"))),
        samples=partial(_samples, chosen, predictions),
        remarks=() if config else ("no configs/task_config.yaml stands there: its protocol is unknown",),
    )


def _is_of(path: Path, kind: object) -> bool:
    row = first_object(path)
    return row is not None and callable(kind) and bool(kind(row))


def _prediction(review: Path) -> Path | None:
    if review.parent.parent.name != _REVIEWS:
        return None
    path = review.parents[2] / _PREDICTIONS / review.parent.name / review.name
    return path if path.is_file() else None


def _samples(files: Sequence[Path], predictions: Mapping[Path, Path], metric: str | None) -> Iterator[Found]:
    for path in files:
        ended = _ends(predictions[path]) if path in predictions else {}
        yield from read_lines(path, partial(_sample, path.stem, ended))


def _ends(path: Path) -> dict[object, object]:
    """Index of a prediction → the word for how it ended; a few bytes of each are kept."""
    ended: dict[object, object] = {}
    for _, line in lines(path):
        try:
            row = json_object(line)
            ended[optional_text(row.get("index"))] = _first_choice(row).get("stop_reason")
        except UnusableError:
            continue  # then it is not known how that response ended
    return ended


def _first_choice(row: Mapping[str, object]) -> Mapping[str, object]:
    choices = mapping(row.get("model_output")).get("choices")
    return mapping(choices[0]) if isinstance(choices, list) and choices else {}


def _sample(name: str, ended: Mapping[object, object], row: Mapping[str, object]) -> Iterator[ForeignSample]:
    messages = row.get("messages")
    if not (is_review(row) or is_prediction(row)) or not isinstance(messages, list) or not messages:
        raise UnusableError("it has not the fields of a review or prediction")
    if (error := mapping(row.get("model_output")).get("error")) is not None:
        raise UnusableError(f"the model did not answer: {str(error)[:80]}")
    message = mapping(messages[-1])
    if message.get("role") != "assistant":
        raise UnusableError("its last message is not the assistant's")
    review, measured = mapping(row.get("sample_score")), mapping(message.get("perf_metrics"))
    score, number = mapping(review.get("score")), text_of(row.get("index"), "index")
    group, index = review.get("group_id"), review.get("generation_index")
    finish = finish_of(ended.get(number, _first_choice(row).get("stop_reason")))
    yield ForeignSample(
        question_id=f"{name}/{number if group is None else group}",
        index=index if isinstance(index, int) and group is not None else None,
        completion=response_of(message, is_unended=finish == "length"),
        question=last_user_text(messages[:-1]),
        reference=single(row.get("target")),
        tokens=count_of(measured.get("output_tokens")),
        finish_reason=finish,
        scores=mapping(score.get("value")) if score.get("status", "success") == "success" else {},
        extracted=optional_text(score.get("extracted_prediction")),
    )
