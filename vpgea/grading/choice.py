"""Grading of multiple choice: one letter or several, A to Z."""

from __future__ import annotations

import re
from string import ascii_uppercase

from vpgea.grading.answers import Source, after_thinking, find_answer
from vpgea.grading.base import Grade, GradeRequest, Status
from vpgea.grading.normalise import normalise

_NAMED = re.compile(r"^(?:(?:i think|i believe|it is|it['’]s|probably|the)\s+)*(?:(?:correct|right|best)\s+)?"
                    r"(?:(?:options?|choices?|answers?|letters?)\s*:?\s+)?", re.IGNORECASE)  # fmt: skip
_SEVERAL = re.compile(r"\(?[A-Za-z]\)?(?:\s*(?:,|&|\+|,?\s*\band\b)?\s*\(?[A-Z]\)?)*")
_LABEL = re.compile(r"\(?([A-Za-z])(?:\)[.:]?|[.:](?=\s))\s*(?=\S)(.*)", re.DOTALL)
_OTHER = re.compile(r"\([A-Z]\)|(?<![\w(])[A-Z]\)|\bor\b|/\s*\(?[A-Z]\b", re.IGNORECASE)
_EITHER = re.compile(r"\bor\b|/", re.IGNORECASE)
_GOES_ON = re.compile(
    r"\(?([A-Z])\)?(?:\s*[,;:.–—-]|\s+(?:because|since|as|and|with|which|for|is|due)\b)(.*)", re.DOTALL
)
# Sentences that name a letter without the word "answer".
_SAID = re.compile(
    r"\b(?:answer\s*-|answer|option|choice|closest|nearest|correct|right|best)(?:\s+[a-z]+){0,3}?\s*(?:is|:|-)\s*"
    r"(?:the\s+)?(?:(?:option|choice|letter|answer)\s+)?[$*_(\[{\s\\]{0,4}(?-i:([A-Z]))(?![\w'’])[)\]}*_$]*"
    r"(?!\s+(?!because|since|as|and|with|which|for|is|due)[a-z])(?!\s*(?:/|\?|or\b|,\s*(?:\(?[A-Z]\b|or\b)))"
    r"|(?<![\w'’(])\(?(?-i:([A-Z]))\)?\s+is\s+(?:the\s+)?(?:correct|right|best|answer)\b",
    re.IGNORECASE,
)
_LONE_LETTER = re.compile(r"[\s*_$(\[\\]*(?:(?:text|boxed|mathrm|mathbf|textbf)\s?\{\(?)?([A-Z])[\s*_$)\]}.:\\]*")
_DENIED = re.compile(
    r"\b(?:not|isn['’]t|never|wrong|incorrect|suppose|if|whether|doubt|unlikely|deny|unsure)\b|n['’]t\b", re.IGNORECASE
)
_MAX_LAST_LINE = 60
# In the answer as it was written, behind the letter: another option, or a word that takes it back.
_TAKEN_BACK = re.compile(
    r"\b(?:or|maybe|perhaps|possibly)\b|\\(?:lor|vee)\b|\?|\b(?:is|was|be)\s+(?:wrong|incorrect|false|not)\b|\b(?:isn|wasn)['’]t\b",
    re.IGNORECASE,
)
_REASON = re.compile(r"\b(?:because|since|(?<!well )as(?!\s+well)|for|due)\b", re.IGNORECASE)
_LONE = re.compile(r"(?P<before>[A-Za-z]{0,20})[^A-Za-z\\]{0,8}(?<![\\\w'’])(?P<letter>[A-Z])(?![\w'’])(?!\s+[a-z])")
_JOINTS = frozenset(
    [
        "and",
        "or",
        "nor",
        "but",
        "also",
        "then",
        "maybe",
        "perhaps",
        "possibly",
        "option",
        "choice",
        "answer",
        "letter",
        "not",
    ]
)


def find_choice(response: str) -> tuple[str, Source] | None:
    r"""The chosen letters, in order, and where they stood; None where none are found.

    In this order: the answer that `find_answer` finds (`\boxed{\text{(C)}}`, `answer is (X)`, `#### A`), where it is
    a choice; the last sentence such as `the closest is (X)` or `X is correct`; a capital alone on the last line. A
    letter in running text never counts: it may be the pronoun I or the article A.
    """
    answer = find_answer(response)
    if answer is not None and answer.source != "whole":
        letters = _settled(read_letters(answer.text), answer.text)
        if any(read_letters(rival) not in (None, letters) for rival in answer.rivals):
            return None
        return (letters, answer.source) if letters else None
    text = after_thinking(response)
    said = [match for match in _SAID.finditer(text) if not _DENIED.search(_sentence_before(text, match.start()))]
    if said:
        return said[-1][1] or said[-1][2], "marker"
    lines = text.split("\n")
    last_line = next((line for line in reversed(lines) if line.strip()), "").strip()
    if len(last_line) <= _MAX_LAST_LINE and (lone := _LONE_LETTER.fullmatch(last_line)):
        return lone[1], "whole"
    return None


def _sentence_before(text: str, end: int) -> str:
    return re.split(r"[.!?\n]", text[max(0, end - _MAX_LAST_LINE) : end + 1])[-1]


def read_letters(text: str) -> str | None:
    """The letters of an answer in capitals and in order; None where it is no choice, or one between several.

    `B`, `(b)`, `B) 5`, `Option B`, `B, D`, `BD`, `B because …`. A small letter counts by itself or with a label only.
    """
    plain = re.sub(r"\\text ?\{([^{}]*)\}", r"\1", normalise(text)).strip(" .")
    plain = _NAMED.sub("", plain, count=1).strip(
        " *_{}()" if plain.count("(") == 1 and plain.startswith("(") else " *_{}"
    )
    if _SEVERAL.fullmatch(plain) or re.fullmatch(r"[A-Z](?:, ?[A-Z])+", plain):
        if _EITHER.search(text):
            return None
        letters = re.sub(r"\band\b|[^A-Za-z]", "", plain).upper()
        return "".join(sorted(letters)) if len(set(letters)) == len(letters) else None
    if (label := _LABEL.fullmatch(plain)) and not _OTHER.search(label[2]):
        return label[1].upper()
    if (sentence := _GOES_ON.fullmatch(plain)) and not _OTHER.search(sentence[2]):
        return sentence[1]
    return None


def _settled(letters: str | None, text: str) -> str | None:
    """The letters, unless the text as it was written names another one, or takes them back.

    A capital behind a word with a capital is a part of a name (`Vitamin C`), and one before a small word an article.
    """
    words = re.sub(r"\\(?:text\w*|math\w+|boxed|fbox|operatorname)(?![A-Za-z])|[{}$]|\\[ ,;:!quad]+", " ", text)
    reason = _REASON.search(words)
    words = words[: reason.start()] if reason else words
    if letters is None or _TAKEN_BACK.search(words):
        return None
    for lone in _LONE.finditer(words):
        before, glued = lone["before"], words[lone.end("before") : lone.start("letter")].isspace()
        named = glued and len(before) > 1 and before[0].isupper() and before.lower() not in _JOINTS
        if lone["letter"] not in letters and not named:
            return None
    return letters


def normalise_choice(reference: str) -> str:
    r"""The letters of a reference such as `C`, `(c)`, `\text{C}` or `B, D`; else the stripped reference."""
    return read_letters(reference) or reference.strip()


def grade_choice(request: GradeRequest) -> Grade:
    """Correct when the chosen letters are the reference's. No letter found is `wrong` with extracted=None."""
    choice = find_choice(request.response)
    if choice is None:
        return Grade(Status.WRONG)
    letters, source = choice
    wanted = normalise_choice(request.reference)
    correct = letters == wanted and set(wanted) <= set(ascii_uppercase)
    return Grade(Status.CORRECT if correct else Status.WRONG, extracted=letters, source=source)
