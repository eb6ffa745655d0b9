"""What a response gives beside its final answer: another value in another place, or as an alternative to it."""

from __future__ import annotations

import re
from fractions import Fraction

from vpgea.grading.containers import Container, read_container
from vpgea.grading.measures import Measure, read_measure
from vpgea.grading.normalise import normalise
from vpgea.grading.numbers import Number, read_number
from vpgea.grading.numeric import clearly_different
from vpgea.grading.signs import spell_signs
from vpgea.grading.sizes import spelling
from vpgea.grading.units import Unit, nouns
from vpgea.grading.wording import read_label, read_words

_NUMBER = r"(?:-?\$?(?:\d[\d,]*(?:\.\d+)?(?:/\d+)?|\\[dt]?frac ?\{\d+\} ?\{\d+\})\\?%?)"
_VALUE = rf"(?:\$([^$\n]{{1,60}})\$|\\\(([^\n]{{1,60}}?)\\\)|({_NUMBER}(?: [A-Za-z]{{1,20}}\b)?))"
_LEAD = (
    r"(?:,?\s*(?:then|it|it['’]s|is|be|the|answer|value|result|possibly|maybe|perhaps|even|if [^,.]{1,30},"
    r"|[a-z]\s*=|:))*\s*"
)
_OR = r"(?:\bor(?: else)?\b|\\text ?\{ ?or ?\}|\\lor\b|\\vee\b|(?<= )/(?= ))"
_BOX = r"(?:\\boxed\s?\{)?"
_CONDITION = r"(?=,?\s+(?:otherwise|else|if|when|in the (?:other|second))\b)"
_OR_BEHIND = re.compile(
    rf"[\s$*_)\]}},;.\\]{{0,8}}(?:[a-z]{{3,20}} ?){{0,2}},? ?[(\[]?{_OR}{_LEAD}{_BOX}{_VALUE}", re.IGNORECASE
)
_ELSE_BEHIND = re.compile(
    rf"\b(?:otherwise|else|alternatively|if not|unless)\b{_LEAD}{_BOX}{_VALUE}|\b(?:and|or){_LEAD}{_VALUE}{_CONDITION}"
    rf"|\b(?:might|may|could)(?: also)?(?: be| equal)\s+{_VALUE}",
    re.IGNORECASE,
)
_OR_BEFORE = re.compile(
    rf"(?:\b(?:either|is|are|be|answer|then):?|=|^)[\s$\\(]*({_NUMBER})[\s$\\),;]*"
    rf"\b(?:or(?: else)?|otherwise|else)\b{_LEAD}[\s$\\(\[*_]*$",
    re.IGNORECASE,
)
# Between two statements of one kind: what makes the second an alternative to the first.
_BETWEEN = re.compile(
    r"\b(?:or|else|otherwise|alternatively|either|if|when|unless|cases?|second|another|could|might|may)\b",
    re.IGNORECASE,
)
_RATHER = re.compile(r"\bor rather\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.?](?=\s|$)|!(?=\s+[A-Z]|$)|\n\s*\n")
_ALONE = re.compile(rf"[\s$*_\\(]*{_NUMBER}[\s$*_\\)\](\[,;:]*")
_WORK = re.compile(r"(?:[-+*/]|\\(?:cdot|times|frac|div)(?![A-Za-z]))[^=\n]{1,40}=")
_BEHIND, _BEFORE, MAX_BETWEEN = 120, 60, 160  # characters
_MAX_LENGTH = 400
_ROUNDED = 1e-3  # formulas that differ by less may be one, rounded
_RELATION = re.compile(r"([A-Za-z] ?(?:<|>|\\le|\\ge|\\ne)) ?([^<>=\\]+)")
_NAME = re.compile(r"\A(?:[A-Za-z](?:_\w)?|[^A-Za-z=]+) ?= ?(?=[^=]+$)")  # of `x = 4` and `2+2 = 4`


def alternatives(text: str, start: int, end: int) -> list[str]:
    """Values that the sentence around a statement in [start, end) gives in its stead: `or 4`, `otherwise 4`, `3 or`."""
    behind = text[end : end + _BEHIND]
    stop = _SENTENCE_END.search(behind)
    behind = behind[: stop.start()] if stop else behind
    before = text[max(0, start - _BEFORE) : start]
    *_, last = [0, *(match.end() for match in _SENTENCE_END.finditer(before))]
    matches = [_OR_BEHIND.match(behind), *_ELSE_BEHIND.finditer(behind), _OR_BEFORE.search(before[last:])]
    return [next(filter(None, match.groups())) for match in matches if match]


def ends_sentence(between: str) -> bool:
    """Whether a statement ends in a text, so that what follows it is another one: `4. So `, `4, `."""
    return _ALONE.fullmatch(between) is not None or _SENTENCE_END.search(between) is not None


def goes_on_working(between: str) -> bool:
    """Whether what stands behind the sentence of a statement computes further, so that it was no final one."""
    end = _SENTENCE_END.search(between)
    return _WORK.search(between, end.end() if end else 0) is not None


def are_alternatives(between: str) -> bool:
    """Whether what stands between two statements of one kind makes the second an alternative to the first.

    `If that is wrong, ` does, which takes nothing back for certain.
    """
    if _RATHER.search(between):
        return False
    same_sentence = len(between) <= _BEFORE and not _SENTENCE_END.search(between)
    return same_sentence or (len(between) <= MAX_BETWEEN and _BETWEEN.search(between) is not None)


def differ(one: str, other: str, question: str) -> bool:
    """Whether two stated answers are certainly not the same. What needs more than a look is not certain."""
    if max(len(one), len(other)) > _MAX_LENGTH:
        return False
    labels = [read_label(_NAME.sub("", normalise(spell_signs(text)), count=1)) for text in (one, other)]
    if labels[0].letter and labels[1].letter:
        return labels[0].letter != labels[1].letter
    first, second = (read_measure(label.value, nouns(question)) for label in labels)
    if not first.known or not second.known or _size(first) != _size(second):
        return False
    return _values_differ(first.value, second.value)


def _size(measure: Measure) -> Unit | None:
    """The unit, where it has a size; `4 marbles` is 4."""
    return measure.unit if measure.unit and measure.unit.measured else None


def _values_differ(one: str, other: str) -> bool:
    if not one or not other or spelling(one) == spelling(other):
        return False
    numbers = read_number(one), read_number(other)
    if numbers[0] and numbers[1]:
        return _apart(numbers[0], numbers[1])
    words = read_words(one), read_words(other)
    if words[0] and words[1]:
        return words[0] != words[1]
    lists = read_container(one), read_container(other)
    if lists[0] and lists[1]:
        return _lists_differ(lists[0], lists[1])
    relations = _RELATION.fullmatch(one), _RELATION.fullmatch(other)
    if relations[0] and relations[1] and relations[0][1] == relations[1][1]:
        return _values_differ(relations[0][2], relations[1][2])
    return clearly_different(one, other, _ROUNDED)


def _lists_differ(one: Container, other: Container) -> bool:
    first, second = one.elements, other.elements
    if one.ordered and other.ordered:
        return len(first) != len(second) or any(map(_values_differ, first, second))
    return any(all(_values_differ(element, each) for each in second) for element in first)


def _apart(one: Number, other: Number) -> bool:
    """Whether two numbers differ by more than rounding one of them explains; a percentage may stand for its digits."""
    steps = [number.step or Fraction(int(number.value.denominator == 1)) for number in (one, other)]
    decimals = one.decimal or other.decimal
    rounding = max(steps) / 2 if decimals and steps[0] != steps[1] else Fraction(0)
    values = [(one.value, other.value)]
    if one.percent != other.percent:
        values.append((one.value * (100 if other.percent else 1), other.value * (100 if one.percent else 1)))
    return all(abs(first - second) > rounding for first, second in values)
