r"""What stands behind `the answer is`: the value with its unit, without the sentence that goes on."""

from __future__ import annotations

import re

MAX_STATEMENT = 4000  # characters read behind a marker
_SENTENCE_END = re.compile(r"[.!][*_\"')\]]*(?=\s|$)|[。！]")
_LEADING_MATH = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_LAST_IS = re.compile(r"^[A-Za-z].*\s(?:is|are|equals)\s+(?=\S)")
_LEADING_NUMBER = re.compile(
    r"([$€£]?[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?\s?\\?%?)(?P<rest>(?:[,;:]?\s+[A-Za-z(][^\d=^+*\\]*)?)$"
)
_COUNTER = re.compile(
    r"(?<=\d)\s?(?:个|個|名|位|只|条|本|件|元|人|岁|天|次|种|米|厘米|公里|千米|度|分|小时|分钟|秒|円|枚|명|개|원|살|번|가지)?(?:입니다|이다|です|である|だ)?$"
)
_CLAUSE = re.compile(
    r"[,;:(]|\b(?:because|since|as(?! well)|which|that|after|before|when|where|while|so|for|at|on|from|with|by|of)\b"
    r"|\band (?:we|i|the|this|that|it|so|thus|hence|he|she|they|there)\b"
    r"|\bin\b(?!\s+(?:base|binary|octal|hex))",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"\b(?:or|not|maybe|perhaps|possibly|wrong|incorrect|if|unless|but|mod|base|no)\b|n't\b|\?", re.IGNORECASE
)
_NO_STATEMENT = re.compile(r"[^.!?\n]{0,60}\?(?:\W|$)|(?:\w{2,12}ly )?(?:not|never)\b", re.IGNORECASE)
_REASON = re.compile(
    r"(?<=\S)(?:\s*[,;:(—–-]\s*|\s+)"
    r"(?:because\b|since\b|as (?!well\b)|which\b(?!.{0,40}?(?:\b(?:not|wrong|incorrect|false|no)\b|n['’]t\b)))",
    re.IGNORECASE,
)
_SET_IN_MATH = re.compile(r"[\d\\=^$]")


def read_statement(text: str) -> str | None:
    """The answer at the start of what follows a marker: `5 because ...` → `5`, `$x+1$ as shown` → `x+1`.

    A sentence such as `The largest n is 34` gives what follows its last `is`. None where it is denied or asked.
    """
    text = text[:MAX_STATEMENT].strip().strip("*_").strip()
    if math := _LEADING_MATH.match(text):
        line = _without_reason(f"{math[0][-1]}{_first_line(text[math.end() :])}")[1:]
        if line.lstrip("*_ ").startswith("?"):
            return None
        if not _SET_IN_MATH.search(line):
            inner = next(group for group in math.groups() if group)
            return _with_unit(inner.strip(), _sentence(line))
    line = _without_reason(_sentence(_first_line(text)))
    if _NO_STATEMENT.match(line):
        return None
    if sentence := _LAST_IS.match(line):
        line = line[sentence.end() :]
    line = _COUNTER.sub("", line.strip(" *_"))
    if number := _LEADING_NUMBER.match(line):
        return _with_unit(number[1], number["rest"])
    return line.strip(" *_")


def _with_unit(value: str, rest: str) -> str:
    """The value with the words behind it, up to where another clause begins that does not take it back."""
    clause = _CLAUSE.search(rest)
    words = rest[: clause.start()] if clause else rest
    if clause and rest[clause.start()] in ",;:(" and _HEDGE.search(rest[clause.start() :][:40]):
        words = rest
    return f"{value} {words.strip(' *_')}".strip()


def _without_reason(line: str) -> str:
    """`5 because 4 is too small` → `5`. What takes the answer back is no reason."""
    reason = _REASON.search(line)
    return line[: reason.start()] if reason else line


def _sentence(line: str) -> str:
    end = _SENTENCE_END.search(line)
    return line[: end.start()] if end else line


def _first_line(text: str) -> str:
    return text.partition("\n")[0]
