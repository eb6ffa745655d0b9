"""What a question wants counted or measured, and whether the unit of an answer contradicts it."""

from __future__ import annotations

import re
from functools import lru_cache

from vpgea.grading.units import Unit, listed, read_unit, says_more, stem

_ASKED = re.compile(
    r"\b(?:in(?!\s+second\b)|to the nearest)\s+\$?((?:square |cubic )?[A-Za-z]+(?:\s*(?:per|/)\s*[A-Za-z]+)?)",
    re.IGNORECASE,
)
_VERB = r"do|does|did|is|are|was|were|will|would|can|could|must|should|may|has|have|had|than|there|in|on|at|if|to"
_HOW_MANY = re.compile(rf"\bhow many((?:(?:\s+|/)(?!(?:{_VERB})\b)[A-Za-z'’-]+){{1,6}})", re.IGNORECASE)
_ASKS_MORE = re.compile(r"\b(?:what|how (?!many)\w+|find|determine|compute|calculate|when)\b", re.IGNORECASE)
# What a quantity asked for by `how far` and the like is measured in.
_LENGTH, _TIME, _MASS = frozenset({"length"}), frozenset({"time", "years"}), frozenset({"mass"})
_BY_WORD = {
    **dict.fromkeys(("far", "tall", "wide", "deep", "high"), _LENGTH),
    **{"old": _TIME, "long": _TIME | _LENGTH, "heavy": _MASS},
}
_HOW = re.compile(rf"\bhow ({'|'.join(_BY_WORD)})\b", re.IGNORECASE)
# Names that fit whatever is counted: `5 values` for five roots, `5 ways` for five orders.
_ANYTHING = listed(
    """
    unit item thing object piece part people person individual member way time case arrangement combination permutation
    outcome possibility choice option selection number integer digit term value solution root factor divisor multiple
    element subset set function polynomial sequence path route step move count total
    """
)


@lru_cache(maxsize=256)
def asked_units(question: str) -> list[Unit]:
    """Measured units in which a question wants its answer: `in km`, `how many dollars`, `how many more hours`."""
    units = [read_unit(re.findall(r"[A-Za-z]+|/", words), frozenset()) for words in _ASKED.findall(question)]
    units += [_measured(phrase) for phrase in _counted(question)]
    return list(dict.fromkeys(unit for unit in units if unit is not None and _is_measure(unit)))


def contradicts(unit: Unit, question: str) -> bool:
    """Whether a question wants something else counted or measured than an answer with this unit says.

    `5 km` contradicts `How many apples`, `in hours` and `square km`; `5 pears` contradicts `How many apples`.
    """
    asked, phrases = asked_units(question), _counted(question)
    if phrases and all(_is_of_other_substance(unit, phrase) for phrase in phrases):
        return True
    if any(says_more(one, unit) for one in asked):
        return False
    if unit.measured or not phrases:
        return bool(asked or phrases) or _is_of_another_kind(unit, question)
    return not any(_is_counted(unit, phrase) for phrase in phrases)


def _is_of_another_kind(unit: Unit, question: str) -> bool:
    ways = [_BY_WORD[word.lower()] for word in _HOW.findall(question)]
    names = {name for name, _ in unit.dimensions}
    return unit.measured and bool(ways) and not any(names & way for way in ways)


@lru_cache(maxsize=256)
def _counted(question: str) -> tuple[tuple[str, ...], ...]:
    """What stands behind each `how many`; nothing where another question follows the last."""
    found = list(_HOW_MANY.finditer(question))
    if not found or _ASKS_MORE.search(question, found[-1].end()):
        return ()
    return tuple(tuple(re.findall(r"[A-Za-z]+(?:-[A-Za-z]+)*|/", match[1])) for match in found)


def _is_measure(unit: Unit) -> bool:
    return unit.measured and any(power > 0 for _, power in unit.dimensions)


def _measured(phrase: tuple[str, ...]) -> Unit | None:
    """The first measured unit of a phrase, as long as it goes: `miles per gallon`, `liters` of `liters of water`."""
    words = phrase[: next((at for at, word in enumerate(phrase) if word in ("of", "each", "every")), None)]
    for start in range(len(words)):
        for end in range(len(words), start, -1):
            unit = read_unit(words[start:end], frozenset())
            if unit is not None and _is_measure(unit):
                return unit
    return None


def _is_of_other_substance(unit: Unit, phrase: tuple[str, ...]) -> bool:
    """Whether an answer counts `liters of milk` where liters of water are asked for."""
    substances = {name[3:] for name, _ in unit.dimensions if name.startswith("of ")}
    return bool(substances) and "of" in phrase and not substances & {stem(word) for word in phrase}


def _is_counted(unit: Unit, phrase: tuple[str, ...]) -> bool:
    wanted = {stem(word) for word in phrase}
    return bool({name for name, _ in unit.dimensions} & (wanted | _ANYTHING)) or bool(wanted & _ANYTHING)
