r"""Answers in words, and letters before an answer: `No solution`, `Yes, because …`, `(C) 15`, `a) 3 b) 5`."""

from __future__ import annotations

import re
from dataclasses import dataclass

_WORDED = re.compile(r"[A-Za-z][A-Za-z'’. ,-]*")
_WORD_IN = re.compile(
    r"[A-Za-z]{4,}|[A-Z]{2,}|[A-Za-z]{2,}[ -][A-Za-z]{2,}|\b[A-Z](?:-[A-Z]){2,}\b"
    r"|(?i:\b(?:yes|no|dne|odd|one|two|six|ten)\b)"
)
_CAPITALS = re.compile(r"[A-Z]{2,}|[A-Z](?:-[A-Z]){2,}")
_REASON = re.compile(r"(yes|no|true|false)\b ?(?:[,;:.(-]|because|since|as) ?(.+)", re.IGNORECASE | re.DOTALL)
_OTHER_VERDICT = re.compile(r"\b(?:yes|no|true|false|or|maybe)\b", re.IGNORECASE)
_SYMBOLS = {r"\emptyset": "none", r"\{\}": "none", r"\{ \}": "none", r"\infty": "infinity", "+\\infty": "infinity"}
_SYNONYMS = {
    wording: meaning
    for meaning, wordings in {
        "none": "no solution;no solutions;no real solution;no real solutions;no such solution;none;empty set;"
        "the empty set;empty;no such value;no such values;there is no solution;there are no solutions;has no solution",
        "undefined": "undefined;does not exist;doesn't exist;dne;not defined;is undefined;d.n.e",
        "infinity": "infinity;infinite;inf;positive infinity;infinitely many",
    }.items()
    for wording in wordings.split(";")
} | {word: word for word in ("yes", "no", "true", "false", "odd", "even")}
_LABEL = re.compile(
    r"\\text ?\{ ?\(?([A-Z])(?:[).:] ?|\}\)?[.:]? )\)?\}? ?(.+)|\(([A-Z])\)[.:]? ?(.+)|([A-Z])(?:\)[.:]?|[.:]) ?(.+)",
    re.DOTALL,
)
_ANOTHER_LABEL = re.compile(r"\(?[A-Z]\)|(?:^|[ ,/])[A-Z](?:[.,:/]|$)|\bor\b")
_QUOTED = re.compile(r"\\(?:text|textbf|textit|mbox) ?\{ ?([A-Za-z]{2,}) ?\}")
_PARTS = re.compile(r"(?:^|(?<=[ ,;]))\(?([a-h])\) ?")


@dataclass(frozen=True)
class Labelled:
    """An answer with the letter of a choice before it; either may be missing."""

    letter: str | None
    value: str


def read_label(text: str) -> Labelled:
    """A normalised answer with its letter, where it has one and no second."""
    match = _LABEL.fullmatch(text)
    if match:
        letter, value = (group for group in match.groups() if group is not None)
        value = value.rstrip("} ") if value.count("}") > value.count("{") else value
        if value.strip() and not _ANOTHER_LABEL.search(value):
            return Labelled(letter, value.strip())
    return Labelled(text if re.fullmatch("[A-Z]", text) else None, text)


def join_parts(text: str) -> str:
    """`a) 3 b) 5` as `(3, 5)`; any other text as it is."""
    labels = list(_PARTS.finditer(text))
    if len(labels) < 2 or labels[0].start() or [label[1] for label in labels] != list("abcdefgh")[: len(labels)]:
        return text
    ends = [label.start() for label in labels[1:]] + [len(text)]
    parts = [text[label.end() : end].strip(" ,;.") for label, end in zip(labels, ends, strict=True)]
    return f"({', '.join(parts)})"


def quoted_word(text: str) -> str | None:
    r"""The word that a reference is, set as one: `\text{cat}` is no product of letters. None for others."""
    match = _QUOTED.fullmatch(text.strip(" $."))
    return None if match is None else match[1]


def same_word(one: str, other: str) -> bool:
    """Whether two words say the same, in any case."""
    return len({_SYNONYMS.get(word.lower(), word.lower()) for word in (one, other)}) == 1


def read_words(text: str) -> str | None:
    r"""What a normalised answer in words says; None for formulas. Synonyms are one: `\emptyset` and `No solution`.

    A short name in capitals such as AB keeps its case; a reason behind yes or no is left out.
    """
    text = re.sub(r"\\text ?\{([^{}]*)\}", r"\1", text).strip(" .")
    if text in _SYMBOLS:
        return _SYMBOLS[text]
    if (reasoned := _REASON.fullmatch(text)) and not _OTHER_VERDICT.search(reasoned[2]):
        return reasoned[1].lower()
    if not _WORDED.fullmatch(text) or not _WORD_IN.search(text):
        return None
    if _CAPITALS.fullmatch(text) and len(text) < 8:
        return _SYNONYMS.get(text.lower(), text)
    if "," in text:
        return None  # a list of words
    folded = " ".join(text.lower().split())
    return _SYNONYMS.get(folded, folded)
