"""Dates and times of day: they look like differences, quotients and ratios, and are none."""

from __future__ import annotations

import re

_DATE = re.compile(r"\d{4}([-/.])\d{1,2}\1\d{1,2}|\d{1,2}([-/.])\d{1,2}\2(?:\d{4}|\d{2})")
_TIME = re.compile(
    r"(?P<hour>\d{1,2}) ?: ?(?P<minute>[0-5]\d)(?: ?(?:\\text ?\{ ?)?(?P<half>[ap])\.? ?m\.?\}?)?", re.IGNORECASE
)
_ASKED = re.compile(r"\b(?:times?|o'clock|clock|when|hours?|minutes?|[ap]\.?m\b|dates?|days?)", re.IGNORECASE)
_RATIO = re.compile(r"\b(?:ratios?|proportions?|odds|scale)\b", re.IGNORECASE)


def read_moment(text: str, question: str) -> tuple[str, ...] | None:
    """What a normalised answer says as a date or a time of day, (hour, minute, half of the day); None for others.

    `5:30` is a time where the question asks for one, or a half of the day stands behind it; else it may be a ratio.
    """
    if _DATE.fullmatch(text):
        return (text,)
    time = _TIME.fullmatch(text)
    if time is None or (not time["half"] and (_RATIO.search(question) or not _ASKED.search(question))):
        return None
    return (time["hour"].lstrip("0"), time["minute"], (time["half"] or "").lower())
