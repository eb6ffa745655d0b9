"""Traces and downloads as compressed texts inside the page, each opened by itself, within a bound on their bytes."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vpgea.report.model import Trace, TracedQuestion, Traces
from vpgea.report.text import visible

MOST_BYTES = 9 * 2**20  # of all traces, as they stand in the page
_QUESTION = 300  # characters of a question in the list; the whole opens with it


@dataclass(frozen=True)
class Packed:
    """What stands in the page: a text for the list, one for each question, and what is said of them."""

    index: str
    chunks: Sequence[str]
    words: Sequence[str]


def packed(text: str) -> str:
    """Text as base64 of gzip, the same bytes every time."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def pack(traces: Traces) -> Packed:
    """As many questions as fit, in turns over their groups; what does not fit is counted."""
    kept: dict[int, str] = {}
    total = 0
    for place in _in_turns(traces.questions):
        chunk = packed(_json(_detail(traces.questions[place])))
        if total + len(chunk) <= MOST_BYTES:
            kept[place] = chunk
            total += len(chunk)
    places = sorted(kept)
    questions = [traces.questions[place] for place in places]
    groups = list(dict.fromkeys(question.group for question in questions))
    index = {
        "groups": [visible(group) for group in groups],
        "columns": [visible(column) for column in traces.columns],
        "questions": [_entry(question, groups.index(question.group)) for question in questions],
    }
    included = sum(len(question.traces) for question in questions)
    words = [f"{included:,} of {traces.available:,} samples are in this file. {traces.rule}"]
    if left := len(traces.questions) - len(questions):
        words.append(f"{left:,} questions that this would add are left out: they pass {MOST_BYTES >> 20} MiB")
    return Packed(packed(_json(index)), [kept[place] for place in places], [*words, *traces.notes])


def _in_turns(questions: Sequence[TracedQuestion]) -> Iterable[int]:
    """Places of the questions: the first of every group, then the second of every group, ..."""
    seen: dict[str, int] = {}
    ranks = []
    for question in questions:
        seen[question.group] = seen.get(question.group, -1) + 1
        ranks.append(seen[question.group])
    return sorted(range(len(questions)), key=lambda place: (ranks[place], place))


def _entry(question: TracedQuestion, group: int) -> dict[str, object]:
    text = visible(question.question)
    return {
        "g": group,
        "k": visible(question.question_id),
        "q": text if len(text) <= _QUESTION else f"{text[:_QUESTION]}… ({len(text) - _QUESTION} more characters)",
        "c": question.change,
        "s": [
            [one.column, visible(one.status), one.tokens, one.truncated, [visible(why) for why in one.reasons]]
            for one in question.traces
        ],
    }


def _detail(question: TracedQuestion) -> dict[str, object]:
    return {
        "q": visible(question.question),
        "a": visible(question.answer),
        "t": [_trace(one) for one in question.traces],
    }


def _trace(one: Trace) -> dict[str, object]:
    return {
        "col": one.column,
        "from": visible(one.source),
        "name": visible(one.name),
        "status": visible(one.status),
        "tokens": one.tokens,
        "cut": one.truncated,
        "facts": {name: visible(value) for name, value in one.facts.items()},
        "reasons": [visible(reason) for reason in one.reasons],
        "p": [visible(piece) for piece in one.pieces],
        "z": one.thinking,
        "r": [round(100 * ratio) if abs(ratio) < 1e6 else None for ratio in one.ratios],
        "m": one.marked,
    }


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
