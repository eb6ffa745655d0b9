"""Chats as JSON lines: answers of the chat completions API, outputs of its batches, or lists of messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from vpgea.errors import UsageError
from vpgea.foreign.lines import first_object, read_lines
from vpgea.foreign.sample import (
    ForeignLog,
    ForeignSample,
    Found,
    UnusableError,
    count_of,
    finish_of,
    last_user_text,
    mapping,
    optional_text,
    response_of,
)


def is_row(row: Mapping[str, object]) -> bool:
    """Whether an object is an answer, a batch's line or a chat."""
    messages = row.get("messages")
    return "choices" in _answer(row) or {"custom_id", "response"} <= row.keys() or isinstance(messages, list)


def read_log(files: Sequence[Path]) -> ForeignLog:
    """The answers of one file.

    Raises:
        UsageError: There are several files.
    """
    if len(files) > 1:
        raise UsageError(
            f"{files[0].parent} holds {len(files)} files of chats",
            why="whether they are of one model and one evaluation is not said in them",
            mend="give one file; put them into one if they belong together",
        )
    row = first_object(files[0]) or {}
    return ForeignLog(
        tool="openai",
        version=None,
        model=optional_text(_answer(row).get("model")) or optional_text(row.get("model")),
        protocol={},
        files=(files[0],),
        metrics=(),
        samples=partial(_samples, files[0]),
        remarks=("chats say nothing of their sampling: their protocol is unknown",),
    )


def _answer(row: Mapping[str, object]) -> Mapping[str, object]:
    """The completion object: the line itself, or the body of a batch's response."""
    response = mapping(row.get("response"))
    return mapping(response.get("body")) or response or row


def _samples(path: Path, metric: str | None) -> Iterator[Found]:
    yield from read_lines(path, _sample)


def _sample(row: Mapping[str, object]) -> Iterator[ForeignSample]:
    if not is_row(row):
        raise UnusableError("it has neither choices nor messages")
    answer, messages = _answer(row), row.get("messages")
    name = optional_text(row.get("custom_id")) or optional_text(row.get("question_id"))
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices:
        yield _chat(name, messages, row)
        return
    usage = mapping(answer.get("usage")) if len(choices) == 1 else {}  # of all choices together
    details = mapping(usage.get("completion_tokens_details"))
    for choice in map(mapping, choices):
        finish = finish_of(choice.get("finish_reason"))
        yield ForeignSample(
            question_id=name,
            completion=response_of(mapping(choice.get("message")), is_unended=finish == "length"),
            question=last_user_text(messages),
            reference=optional_text(row.get("reference")),
            tokens=count_of(usage.get("completion_tokens")),
            thinking_tokens=count_of(details.get("reasoning_tokens")),
            finish_reason=finish,
        )


def _chat(name: str | None, messages: object, row: Mapping[str, object]) -> ForeignSample:
    turns = messages if isinstance(messages, list) else []
    last = mapping(turns[-1]) if turns else {}
    if last.get("role") != "assistant":
        error = mapping(row.get("error")).get("message")
        raise UnusableError(f"there is no answer in it{f': {str(error)[:80]}' if error else ''}")
    return ForeignSample(
        question_id=name,
        completion=response_of(last, is_unended=False),
        question=last_user_text(turns[:-1]),
        reference=optional_text(row.get("reference")),
    )
