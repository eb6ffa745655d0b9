"""What a recorded score says of an answer: right, wrong, or nothing that a grade could be."""

from __future__ import annotations

import json
from dataclasses import dataclass

from vpgea.foreign.sample import ForeignSample

_WORDS = {
    **dict.fromkeys(("c", "correct", "true", "yes", "right", "pass", "1", "1.0"), "correct"),
    **dict.fromkeys(("i", "n", "incorrect", "wrong", "false", "no", "fail", "0", "0.0"), "wrong"),
}
_LONGEST = 200  # characters of a score that are kept


@dataclass(frozen=True)
class Recorded:
    """status: correct, wrong, or None where it is neither. score: as JSON. why: there is no status."""

    status: str | None
    score: str | None
    why: str | None


def recorded_verdict(sample: ForeignSample, metric: str | None) -> Recorded:
    """The verdict of the tool's own score: 1 or 0, true or false, or a word for it. Shares of a point are none."""
    if metric is None or metric not in sample.scores:
        return Recorded(None, None, "no grade is recorded")
    value = sample.scores[metric]
    text = json.dumps(value, default=str)[:_LONGEST]
    if isinstance(value, bool | int | float) and value in (0, 1):
        return Recorded("correct" if value else "wrong", text, None)
    if isinstance(value, str) and (status := _WORDS.get(value.strip().lower())):
        return Recorded(status, text, None)
    return Recorded(None, text, f"the recorded score {text} is neither right nor wrong")
