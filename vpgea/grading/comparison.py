"""Which answers are the same: numbers exactly, lists by their elements, words by what they say, formulas by value."""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction
from functools import cached_property

from vpgea.grading.asked import is_name, without_asked
from vpgea.grading.clock import read_moment
from vpgea.grading.containers import Container, read_container
from vpgea.grading.copies import leaves_work, numerals_from, states_value
from vpgea.grading.kinds import asked_units, contradicts
from vpgea.grading.measures import Measure, read_measure, with_letter, without_letter
from vpgea.grading.normalise import balanced, normalise
from vpgea.grading.numbers import Number, read_number
from vpgea.grading.numeric import clearly_different
from vpgea.grading.regions import Piece, is_inequality, read_region, read_sets
from vpgea.grading.sizes import is_out_of_bounds, spelling
from vpgea.grading.symbolic import formulas_equal
from vpgea.grading.units import SCALES, Unit, nouns, says_more
from vpgea.grading.wording import read_words

_BASE = re.compile(
    r"(-?[0-9A-Z]+(?:\.[0-9A-Z]+)?)\s*"
    r"(?:_\s*(?:\{\s*(?:\\text\s*\{\s*)?(?:base ?\}? ?)?(\w+)\s*\}{1,2}|(\d+))"
    r"|(?:\\text ?\{ ?)?\(?(?:in )?base[ -]?\}? ?(\w+) ?\)?\}?)"
)
_BRACKETED = re.compile(r"^[({](-?[\dA-Z.]+)[)}](?= ?_)")
_NAMED = re.compile(
    r"(?P<name>\\?[A-Za-z]\w*(?:_\{\w+\})?'*)(?:\((?P<argument>[A-Za-z])\)|\([\w, ]+\))?"
    r"\s*(?:=|\\in(?![A-Za-z]))\s*(?P<value>[^=<>]+)",
    re.DOTALL,
)
_NAMED_GOLD = re.compile(
    r"(?:\|[A-Z]+\||\\?[A-Za-z]\w*(?:_\{\w+\})? ?: ?\\?[A-Za-z]\w*(?:_\{\w+\})?"
    r"|\\frac ?\{[A-Z]{2}\} ?\{[A-Z]{2}\}) ?= ?(?P<value>[^=<>]+)"
)
_RELATION = re.compile(r"[=<>]|\\(?:le|ge|ne|in)(?![A-Za-z])")
_REGION = re.compile(r"\\(?:cup|ne|mathbb|setminus)(?![A-Za-z])")
_PADDED = re.compile(r"-?0\d")  # no element of a list: 12,000 is one number whatever is asked for
_MAX_CHAIN = 6
_MAX_EQUATION = 1000  # characters
_EXPONENT = r"(?:-?\d{1,4}(?!\d)|[in]|\{[-\d i/]{1,12}\}|\{(?:[-\d i/]|\\pi|\\frac|[{}]){1,24}\})"
_POWER = rf"(?:\d+|i|e|\((?:-?\d+|-?\\frac ?\{{\d+\}} ?\{{\d+\}}|-?\d+/\d+)\)) ?\^ ?{_EXPONENT}"
_NOTATION = re.compile(
    rf"-? ?(?:\d+ ?(?:\\cdot|\\times|\*) ?)?{_POWER}(?: ?(?:\\cdot|\\times|\*)? ?{_POWER}){{0,9}}|-?i"
)
_IRRATIONAL = re.compile(r"\\sqrt|\\pi|\\ln|\\log|e\^|\^ ?\{? ?\\frac|\\(?:sin|cos|tan|arctan|arcsin|arccos)")
_SEVERAL = re.compile(
    r"\A(?!.*\bhow many\b).*(?:\bboth\b|\b(?:all|the|two|three|four|list|set of|find|give)\s+(?:\w+\s+){0,2}"
    r"(?:values|solutions|roots|pairs?|numbers|integers|elements)\b|\b[a-z]\$? and \$?[a-z]\b)",
    re.IGNORECASE | re.DOTALL,
)
_INTERVAL_ASKED = re.compile(
    r"\b(?:intervals?|domain|range|inequalit(?:y|ies))\b|[<>≤≥]|\\(?:le|ge|leq|geq|lt|gt|leqslant|geqslant)(?![A-Za-z])",
    re.IGNORECASE,
)
_POINT_ASKED = re.compile(
    r"\b(?:pairs?|points?|coordinates?|vectors?|tuples?|vertex|vertices|cent(?:er|re)|(?:inter|end|mid)points?"
    r"|focus|foci)\b",
    re.IGNORECASE,
)
_PERCENT_ASKED = re.compile(
    r"\b(?:what|which|how much|how many|find|determine|calculate|compute|express|as|in|by|the)"
    r"\s+(?:[a-z]+\s+){0,3}(?:percent|\\?%)",
    re.IGNORECASE,
)
_POSITIVE = re.compile(r"\bpositive\b|>\s*0\b|\\gt\s*0\b|\bnon-?negative\b|\\geq?\s*0\b", re.IGNORECASE)
_WITH_CONSTANT = re.compile(r"integra|antiderivative|differential|general solution", re.IGNORECASE)
_CONSTANT = re.compile(r"(?<![A-Za-z\\])[cK](?![A-Za-z])")
_COPRIME = re.compile(r"\bgcd\b|\\gcd|relatively prime|coprime", re.IGNORECASE)


class Comparison:
    """Equivalence of normalised answers, for one question.

    The question decides what is left unsaid: whether `10` may stand for `10%`, `52` for `52_8`, `1,234` for a list,
    which units it wants, and whether the form of an equation matters.

    Args:
        question: Its text; empty where it is not known.
        relative_tolerance: For decimals, see `numbers_close`.
    """

    def __init__(self, question: str, relative_tolerance: Fraction) -> None:
        self._question = question
        self._tolerance = relative_tolerance

    @cached_property
    def _nouns(self) -> frozenset[str]:
        return nouns(self._question)

    def equal(self, gold: str, found: str) -> bool:
        """True when the two normalised answers are the same; an empty one equals nothing."""
        if "=" in found and len(found) <= _MAX_EQUATION and not _RELATION.search(gold):
            found = normalise(without_asked(found, self._question))
        if (same := spelling(gold) == spelling(found)) or is_out_of_bounds(gold, found):
            return same and bool(gold)
        if not gold or not found or leaves_work(found, gold):
            return False
        compare_in_order = (
            self._as_numbers, self._as_moments, self._as_based_numerals, self._as_words, self._as_measures,
            self._as_chain, self._as_named, self._as_regions, self._as_containers, self._as_plain,
        )  # fmt: skip
        for compare in compare_in_order:
            if (verdict := compare(gold, found)) is not None:
                return verdict
        return balanced(found) and self._as_formulas(gold, found)

    def _as_numbers(self, gold: str, found: str) -> bool | None:
        gold_number, found_number = read_number(gold), read_number(found)
        if gold_number and found_number:
            if "," in gold + found and (several := self._as_several(gold, found)) is not None:
                return several
            return self._numbers_equal(gold_number, found_number)
        return None

    def _as_several(self, gold: str, found: str) -> bool | None:
        """`100,200` where the question asks for several values is a list."""
        gold_list = read_container(gold, thousands=False)
        if (
            not gold_list
            or not _SEVERAL.search(self._question)
            or any(_PADDED.match(one) for one in gold_list.elements)
        ):
            return None
        found_list = read_container(found, thousands=False)
        return found_list is not None and self._containers_equal(gold_list, found_list)

    def _numbers_equal(self, gold: Number, found: Number) -> bool:
        if gold.percent == found.percent:
            return numbers_close(gold, found.value, found.decimal, self._tolerance)
        asked = _PERCENT_ASKED.search(self._question) is not None
        readings = [] if asked and found.percent else [found.value / 100 if found.percent else found.value * 100]
        if asked or not self._question:
            readings.append(found.value)
        return any(numbers_close(gold, value, found.decimal, self._tolerance) for value in readings)

    def _as_moments(self, gold: str, found: str) -> bool | None:
        """A date or a time of day equals only itself; the half of the day may be left unsaid."""
        wanted = read_moment(gold, self._question)
        if wanted is None:
            return None
        given = read_moment(found, self._question + (" a.m." if len(wanted) > 1 else ""))
        if given is None or len(given) != len(wanted):
            return False
        return wanted[:2] == given[:2] and ("" in (*wanted[2:], *given[2:]) or wanted == given)

    def _as_words(self, gold: str, found: str) -> bool | None:
        """Words are compared as words: they never become products of letters."""
        gold_words, found_words = read_words(gold), read_words(found)
        if gold_words is not None and found_words is not None:
            return gold_words in (found_words, found_words.lower())  # in capitals only where the reference is
        if gold_words is not None and len(gold) > 3 and not _NAMED.fullmatch(found):
            return False
        return None

    def _as_measures(self, gold: str, found: str) -> bool | None:
        gold_measure = read_measure(gold, self._nouns)
        if not gold_measure.known:
            gold_measure = read_measure(gold, None)
        if gold_measure.unit is None and (unscaled := self._without_scale(found)) != found:
            return self.equal(gold, unscaled)
        also = self._nouns | {name for name, _ in gold_measure.unit.dimensions} if gold_measure.unit else self._nouns
        found_measure = read_measure(found, also)
        if gold_measure.value == gold and found_measure.value == found and found_measure.known:
            return None
        if not found_measure.known:
            return False
        return self._measures_equal(gold_measure, found_measure)

    def _measures_equal(self, gold: Measure, found: Measure) -> bool:
        if gold.unit is not None and found.unit is None:
            found = with_letter(found)
        elif gold.unit is None and not self._is_variable(gold.value.lstrip("-0123456789.,/ ")):
            gold = with_letter(gold)
        if gold.value.endswith("%") != found.value.endswith("%"):
            return False  # a percentage has no unit
        if found.unit is None:
            return self.equal(gold.value, found.value)
        wanted = gold.unit or self._wanted(found.unit)
        if wanted is None or not says_more(wanted, found.unit):
            return False
        if wanted.factor == found.unit.factor:
            return self.equal(gold.value, found.value)
        number, gold_number = read_number(found.value), read_number(gold.value)
        if number is None or gold_number is None:
            return False
        value = number.value * found.unit.factor / wanted.factor
        return numbers_close(gold_number, value, number.decimal, self._tolerance)

    def _wanted(self, found: Unit) -> Unit | None:
        """The unit of a reference that names none: the question's, else the answer's own; None where it contradicts."""
        if contradicts(found, self._question):
            return None
        asked = [unit for unit in asked_units(self._question) if says_more(unit, found)]
        return asked[0] if len(asked) == 1 else found

    def _without_scale(self, found: str) -> str:
        """`5` of `5 million` where the question asks how many million."""
        for scale in SCALES if re.search("[a-z]", found) else ():
            if re.search(rf"\b(?:how many|in) {scale}s?\b", self._question, re.IGNORECASE):
                found = normalise(re.sub(rf"\b{scale}s?\b(?: of\b)?", "", found))
        return found

    def _as_based_numerals(self, gold: str, found: str) -> bool | None:
        """Numerals with a base subscript: the digits and the base must agree; None where there is no base."""
        gold_base, found_base = (_BASE.fullmatch(_BRACKETED.sub(r"\1", text)) for text in (gold, found))
        if gold_base and found_base:
            return _numeral(gold_base) == _numeral(found_base)
        if not (based := gold_base or found_base):
            return None
        if not based[1].strip("-").isdigit() and not based[1][:1].isdigit():
            return None  # a letter with an index
        digits, base = _numeral(based)
        other = found if gold_base else gold
        return digits == other.replace(",", "") and (base == "10" or self._names_base(base))

    def _names_base(self, base: str) -> bool:
        word = "|".join([re.escape(base), *(name for name, number in _BASE_NAMES.items() if number == base)])
        named = rf"\b(?:in|to|into|from|of|as)\s+(?:a\s+)?base[-\s{{$]*(?:{word})\b|base-(?:{word})\b"
        if base in _BASE_NUMERALS:
            named += rf"|\b(?:in|to|into|as)\s+(?:a\s+)?{_BASE_NUMERALS[base]}\b"
        return re.search(rf"{named}|_\s*\{{?\s*(?:{word})\b", self._question, re.IGNORECASE) is not None

    def _as_chain(self, gold: str, found: str) -> bool | None:
        """`x = 2 + 3 = 5` for 5: every member is the reference. An equation that is false is no answer."""
        members = [member.strip() for member in found.split("=")]
        if len(members) < 2 or _RELATION.search(gold) or re.search(r"[<>]|\\(?:le|ge|ne|in)(?![A-Za-z])", found):
            return None
        if read_container(found) is not None:
            return None
        if is_name(members[0]):
            members = members[1:]
        if not 0 < len(members) < _MAX_CHAIN:
            return False
        last, *others = reversed([normalise(member) for member in members])
        return self.equal(gold, last) and all(self._as_formulas(last, member) for member in others)

    def _as_named(self, gold: str, found: str) -> bool | None:
        """`x = 5` and `5`, `[0, 1]` and `x \\in [0, 1]`, `f(x) = x` and `f(t) = t`."""
        gold_named, found_named = _NAMED.fullmatch(gold), _NAMED.fullmatch(found)
        if (named := gold_named or _NAMED_GOLD.fullmatch(gold)) and not _RELATION.search(found):
            return self.equal(normalise(named["value"]), found)
        if found_named and not _RELATION.search(gold):
            return self.equal(gold, normalise(found_named["value"]))
        if gold_named and found_named and gold_named["name"] == found_named["name"]:
            value, argument = found_named["value"], found_named["argument"]
            if argument and gold_named["argument"] and argument != gold_named["argument"]:
                value = re.sub(rf"(?<![A-Za-z\\]){argument}(?![A-Za-z])", gold_named["argument"], value)
            return self.equal(normalise(gold_named["value"]), normalise(value))
        return None

    def _as_regions(self, gold: str, found: str) -> bool | None:
        """A region of numbers, as intervals or as solved inequalities; one that has still to be solved is none."""
        gold_region = read_region(gold)
        if gold_region is None and (sets := read_sets(gold)) is not None:
            return read_sets(found) == sets or None
        if gold_region is None or not (is_inequality(gold + found) or _REGION.search(gold + found)):
            return None
        found_region = read_region(found)
        if found_region is None:
            return False
        return len(gold_region) == len(found_region) and self._same_pieces(gold_region, found_region)

    def _same_pieces(self, gold: list[Piece], found: list[Piece]) -> bool:
        left = list(found)
        for piece in gold:
            same = [
                other
                for other in left
                if other.closed == piece.closed
                and self.equal(piece.low, other.low)
                and self.equal(piece.high, other.high)
            ]
            if not same:
                return False
            left.remove(same[0])
        return True

    def _as_containers(self, gold: str, found: str) -> bool | None:
        gold_list = read_container(gold)
        found_list = read_container(found, thousands=gold_list is None)
        if gold_list is None and found_list is not None and "," in gold and _SEVERAL.search(self._question):
            gold_list = read_container(gold, thousands=False)
        if gold_list is None and found_list is None:
            return None
        if gold_list is None or found_list is None:
            return False if not (gold_list and gold_list.rows) and not (found_list and found_list.rows) else None
        return self._containers_equal(gold_list, found_list)

    def _containers_equal(self, gold: Container, found: Container) -> bool:
        if gold.names or found.names:
            return self._assignments_equal(gold, found)
        if not gold.ordered and not found.ordered:
            as_sets = gold.delimiters == found.delimiters == r"\{\}"
            once = as_sets or len(set(map(spelling, gold.elements))) == len(
                gold.elements
            )  # a set, however it is written
            lists = [
                list({spelling(one): one for one in each.elements}.values()) if once else each.elements
                for each in (gold, found)
            ]
            return self._same_elements(*lists)
        if len(gold.elements) != len(found.elements):
            return False
        other_shape = gold.rows != found.rows and not (gold.vector and found.vector) and (gold.rows or found.delimiters)
        other_kind = gold.ordered and found.delimiters not in ("", gold.delimiters)
        no_interval = gold.delimiters and not found.delimiters and not found.rows and self._is_interval(gold)
        return not (other_shape or other_kind or no_interval) and self._in_order(gold.elements, found.elements)

    def _is_interval(self, container: Container) -> bool:
        """Whether a list of two is a part of the number line; with round brackets the question decides."""
        if len(container.elements) != 2 or container.rows:
            return False
        if container.delimiters != "()":
            return container.delimiters in ("[]", "[)", "(]")
        return _INTERVAL_ASKED.search(self._question) is not None and not _POINT_ASKED.search(self._question)

    def _assignments_equal(self, gold: Container, found: Container) -> bool:
        if len(gold.elements) != len(found.elements):
            return False
        if gold.names and found.names:
            return sorted(gold.names) == sorted(found.names) and self._in_order(gold.by_name(), found.by_name())
        if found.names:
            if not gold.ordered:
                return self._same_elements(gold.elements, found.elements)
            return self._in_order(gold.elements, found.by_name())
        if found.delimiters == r"\{\}":
            return False
        return self._in_order(gold.elements, found.elements) or self._in_order(gold.by_name(), found.elements)

    def _in_order(self, gold: list[str], found: list[str]) -> bool:
        return all(self.equal(one, other) for one, other in zip(gold, found, strict=True))

    def _same_elements(self, gold: list[str], found: list[str]) -> bool:
        """As often each, in any order. What is the same text is paired first."""
        if len(gold) != len(found):
            return False
        golds, founds = Counter(map(spelling, gold)), Counter(map(spelling, found))
        left = list((founds - golds).elements())
        for element in (golds - founds).elements():
            near = (i for i, other in enumerate(left) if not clearly_different(element, other, float(self._tolerance)))
            match = next((i for i in near if self.equal(element, left[i])), None)
            if match is None:
                return False
            del left[match]
        return True

    def _as_plain(self, gold: str, found: str) -> bool | None:
        """To a plain number, answers are numbers: in another notation, with a unit of one letter, or rounded off."""
        gold_number = read_number(gold)
        if gold_number is None:
            return None
        plain = without_letter(found)
        if plain != found and read_number(plain) and not self._is_variable(found[len(plain) :]):
            unit = with_letter(Measure(found)).unit
            return not (unit and contradicts(unit, self._question)) and self.equal(gold, plain)
        if _NOTATION.fullmatch(found):
            asked = numerals_from(found, self._question) or states_value(gold, self._question)
            copied = asked and "i" not in found
            return not copied and self._as_formulas(gold, found)
        rounded = gold_number.decimal and _is_fine(gold_number, self._tolerance) and _IRRATIONAL.search(found)
        return bool(rounded) and not numerals_from(found, self._question) and self._as_formulas(gold, found)

    def _is_variable(self, letter: str) -> bool:
        name = re.escape(letter.strip()[:1])
        return (
            re.search(rf"\$[^$]*(?<![A-Za-z\\\d]){name}(?![A-Za-z])[^$]*\$|in terms of \$?{name}\b", self._question)
            is not None
        )

    def _as_formulas(self, gold: str, found: str) -> bool:
        if "=" in gold and _COPRIME.search(self._question):
            return any(formulas_equal(_difference(gold), sign + _difference(found), 0.0) for sign in ("", "-"))
        if clearly_different(gold, found, float(self._tolerance)):
            return False
        if _WITH_CONSTANT.search(self._question) and "C" in gold and "C" not in found:
            found = _CONSTANT.sub("C", found)  # of integration
        positive = _POSITIVE.search(self._question) is not None
        return formulas_equal(gold, found, float(self._tolerance), positive=positive)


def numbers_close(gold: Number, found: Fraction, found_decimal: bool, tolerance: Fraction) -> bool:
    """Whether a number is the reference, or a decimal that rounds it.

    Two numbers with an end to their decimals are compared exactly, unless the last digit of the reference is itself
    finer than the tolerance: it was rounded then. Integers and fractions are never equal by tolerance.
    """
    if gold.value == found:
        return True
    if not (gold.decimal or found_decimal):
        return False
    if gold.finite and Number(value=found).finite and not (_is_fine(gold, tolerance) and found_decimal):
        return False
    return abs(gold.value - found) <= tolerance * abs(gold.value)


def _is_fine(number: Number, tolerance: Fraction) -> bool:
    return number.decimal and number.step <= 2 * tolerance * abs(number.value)


def _difference(equation: str) -> str:
    left, _, right = equation.partition("=")
    return f"({left}-({right}))"


_BASE_NUMERALS = {"2": "binary", "3": "ternary", "8": "octal", "16": "hex(?:adecimal)?"}
_BASE_NAMES = {
    name: str(base)
    for base, name in enumerate(["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"], 2)
}


def _numeral(match: re.Match[str]) -> tuple[str, str]:
    base = match[2] or match[3] or match[4]
    return match[1], _BASE_NAMES.get(base.lower(), base)
