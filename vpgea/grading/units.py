"""Units by name: what they measure and how large they are. No word that is not known here is a unit."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

SCALES = {
    **{
        "dozen": 12,
        "dozens": 12,
        "doz": 12,
        "score": 20,
        "gross": 144,
        "hundred": 100,
        "thousand": 1000,
        "lakh": 10**5,
        "crore": 10**7,
    },
    **{"million": 10**6, "billion": 10**9, "trillion": 10**12, "quadrillion": 10**15},
}


def listed(words: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(words.split())


_MEASURES = {
    "length": "mm millimeter millimetre 1/1000; cm centimeter centimetre 1/100; dm decimeter 1/10; m meter metre 1; "
    "km kilometer kilometre 1000; in inch 254/10000; ft foot 3048/10000; yd yard 9144/10000; mi mile 1609344/1000",
    "mass": "mg milligram 1/1000; g gm gram gramme 1; kg kilogram kilo 1000; oz ounce 28349523125/1000000000; "
    "lb pound 45359237/100000; ton 907184740/1000; tonne 1000000",
    "time": "ms millisecond 1/1000; s sec second 1; min minute 60; h hr hour 3600; day 86400; week wk 604800",
    "years": "month mo 1/12; year yr 1; decade 10; century 100",
    "volume": "ml mL milliliter millilitre 1/1000; cl centiliter 1/100; l L liter litre 1; "
    "gallon gal 3785411784/1000000000; quart qt 946352946/1000000000; pint pt 473176473/1000000000; cc 1/1000",
    "dollar": "cent ¢ 1/100; dollar usd buck 1",
    "rupee": "paise paisa 1/100; rupee rs 1",
    "euro": "euro eur 1",
    "yen": "yen jpy 1",
    "angle": "degree deg 1; radian rad 57",
    "arc": "arcsecond arcsec 1/60; arcminute arcmin 1",
    "data": "byte 1; kb kilobyte 1000; mb megabyte 1000000; gb gigabyte 1000000000",
}
_SYMBOLS = {
    **{
        "N": "newton",
        "J": "joule",
        "W": "watt",
        "V": "volt",
        "A": "ampere",
        "Pa": "pascal",
        "Hz": "hertz",
        "mol": "mole",
    },
    **{
        "K": "kelvin",
        "eV": "electronvolt",
        "C": "celsius",
        "F": "fahrenheit",
        "T": "tesla",
        "H": "henry",
        "Wb": "weber",
    },
    **{"pc": "parsec", "erg": "erg", "dyn": "dyne", "cal": "calorie", "bar": "bar", "atm": "atmosphere", "ohm": "ohm"},
    **{
        "ly": "lightyear",
        "AU": "astronomicalunit",
        "Da": "dalton",
        "M": "molar",
        "G": "gauss",
        "rpm": "rpm",
        "sr": "steradian",
    },
    **{"am": "am", "pm": "pm", "mph": "mile/hour", "kph": "km/h", "kmh": "km/h", "kmph": "km/h", "fps": "foot/second"},
}
_PREFIXES = {"n": -9, "u": -6, "µ": -6, "m": -3, "c": -2, "k": 3, "M": 6, "G": 9, "T": 12}
_LETTERS = frozenset("mgshlLNJWVAKCFTMG")  # units of one letter, only where they are set as text

# What may be counted, and what is said beside it.
_COUNTED = listed(
    """
    unit item thing object piece part person people man woman child kid adult student teacher boy girl friend player
    worker employee member guest passenger customer voter family couple team group class club committee way time
    case arrangement combination permutation outcome possibility choice option selection number integer digit term
    value solution root factor divisor multiple pair triple triplet tuple element subset set function polynomial
    sequence path route step move point side edge face vertex corner diagonal angle triangle square rectangle circle
    polygon quadrilateral pentagon hexagon line segment row column tile cube block box bag pack packet package
    carton crate container bottle can jar cup glass bowl plate tray basket bucket barrel page book letter word card
    coin penny nickel dime bill note stamp ticket seat chair table desk room floor house home building apartment
    store shop car bus truck bike bicycle train plane boat wheel tire trip lap mile game match goal point question
    problem answer test grade mark vote share apple orange banana egg cookie candy cake pie pizza slice loaf
    sandwich fruit vegetable flower tree plant seed leaf rose animal dog cat cow horse pig sheep chicken duck bird
    fish rabbit toy doll ball marble balloon pencil pen crayon eraser shirt shoe sock pant hat dress shell rock
    stone brick stick log rope bead gift present message call minute shot hit run inning award prize medal sheet
    sticker picture photo song movie video episode show channel phone computer position place rank level floor story
    ounce serving meal calorie pound bite scoop spoon teaspoon tablespoon cupcake muffin donut brownie chocolate
    pancake potato tomato carrot pepper onion pumpkin peach pear plum cherry strawberry lemon grape watermelon job
    task hour shift day session lesson course semester visit appointment interval region quadrant intersection
    sequence symbol character bit plate license atom electron proton neutron molecule photon ion star planet galaxy
    cell particle wave cycle revolution rotation turn oscillation
    """
)
_BESIDE = listed(
    """
    total in all altogether left remaining only exactly each per different distinct possible
    """
)
_IRREGULAR = {
    **{"people": "person", "men": "man", "women": "woman", "children": "child", "feet": "foot", "leaves": "leaf"},
    **{"inches": "inch", "vertices": "vertex", "pence": "penny", "pennies": "penny", "centuries": "century"},
    **{
        "hertz": "hertz",
        "celsius": "celsius",
        "gross": "gross",
        "halves": "halves",
        "shelves": "shelf",
        "mice": "mouse",
    },
    **{"tbsp": "tablespoon", "tbsps": "tablespoon", "tsp": "teaspoon", "tsps": "teaspoon", "ppl": "person"},
    **{"pcs": "piece", "kgs": "kg", "kms": "km", "persons": "person", "yo": "year", "yos": "year"},
    **{"solutions": "solution", "cookies": "cookie", "pies": "pie", "movies": "movie", "knives": "knife", "lbs": "lb"},
}
# What is said behind a measure: `5 years old`.
_SIZES = listed("old long tall wide high deep thick away apart")
_TEMPERATURES = ("celsius", "fahrenheit")
# Words that say more than what is counted: with one of them a number is another number, or none.
_NO_UNITS = listed(
    """
    half halves third thirds fourth fourths fifth fifths sixth sixths seventh eighth eighths ninth tenth tenths
    hundredth hundredths thousandth thousandths twice double triple thrice plus minus times less more fewer greater
    larger smaller than not no nor none non or and but either maybe perhaps possibly probably wrong incorrect false
    right correct if squared cubed choose factorial mod modulo base binary negative positive root sqrt power to of
    over divided divide multiplied by pi infinity sin cos tan log ln exp percent percentage ratio approximately
    about almost nearly least most at up another other others instead also even odd zero one two three four five six
    seven eight nine ten eleven twelve twenty thirty forty fifty sixty seventy eighty ninety question what which how
    many much the a an is are was be it answer hundred thousand million billion trillion dozen with without
    """
)


@dataclass(frozen=True)
class Unit:
    """A product of powers of what is measured or counted.

    Attributes:
        dimensions: (name, power), sorted; no entry of power 0.
        factor: Its size in the units that the dimensions are measured in.
    """

    dimensions: tuple[tuple[str, int], ...]
    factor: Fraction

    @property
    def measured(self) -> bool:
        """Whether its size is known, so that it can be converted."""
        return all(name in _MEASURES or name.startswith("of ") for name, _ in self.dimensions)


def _named_units() -> dict[str, tuple[str, Fraction]]:
    names: dict[str, tuple[str, Fraction]] = {}
    for dimension, entries in _MEASURES.items():
        for entry in entries.split(";"):
            *words, size = entry.split()
            names.update(dict.fromkeys(words, (dimension, Fraction(size))))
    return names


_NAMED = _named_units()


def stem(word: str) -> str:
    """The singular of a noun, as far as it matters here."""
    lowered = word.lower()
    if lowered in _IRREGULAR:
        return _IRREGULAR[lowered]
    if len(lowered) > 4 and lowered.endswith("ies"):
        return lowered[:-3] + "y"
    if re.search(r"(?:[sxz]|ch|sh)es$", lowered):
        return lowered[:-2]
    return lowered[:-1] if len(lowered) > 3 and lowered.endswith("s") and not lowered.endswith("ss") else lowered


def nouns(question: str) -> frozenset[str]:
    """Stems of the words of a question that an answer may count."""
    words = {word.lower() for word in re.findall(r"(?<![\\A-Za-z])[A-Za-z]{3,}", question)}
    return frozenset(stem(word) for word in words - _NO_UNITS)


def read_unit(words: Iterable[str], also: frozenset[str] | None) -> Unit | None:
    """The unit that words name; None where one of them is no unit.

    Args:
        words: In order, each with its power behind a `^` where it has one; `/` and `per` divide by what follows.
        also: Stems of further words that may be counted; None takes every word.
    """
    dimensions: Counter[str] = Counter()
    factor, sign, power_next, last = Fraction(1), 1, 1, ""
    words = list(words)
    for at, word in enumerate(words):
        name, _, raised = word.partition("^")
        name = name.rstrip(".")
        lowered = name.lower()
        if lowered == "of" and dimensions:
            substance = _substance(words[at + 1 :])
            if substance is None:
                return None
            dimensions[substance] += 1
            break
        if lowered in _SIZES and dimensions:
            continue
        if lowered in ("/", "per"):
            sign = -1
        elif lowered in ("square", "sq", "cubic", "cu"):
            power_next = 2 if lowered.startswith("sq") else 3
        elif lowered in ("squared", "cubed") and last:
            dimensions[last] += sign if lowered == "squared" else 2 * sign
        elif (found := _one(name, also)) is None:
            return None
        else:
            power = sign * power_next * int(raised or 1)
            for last, size, exponent in found:
                dimensions[last] += power * exponent
                factor *= size ** (power * exponent)
            power_next = 1
    if power_next != 1:
        dimensions["square" if power_next == 2 else "cube"] += 1
    return _unit(dimensions, factor)


def _unit(dimensions: Counter[str], factor: Fraction) -> Unit:
    """A unit in few dimensions: liters are cubic meters, a temperature is one in degrees."""
    if power := dimensions.pop("volume", 0):
        dimensions["length"] += 3 * power
        factor /= 1000**power
    if any(dimensions == {scale: 1} for scale in _TEMPERATURES):
        dimensions["angle"] = 1
    return Unit(tuple(sorted((name, power) for name, power in dimensions.items() if power)), factor)


def says_more(one: Unit, other: Unit) -> bool:
    """Whether two units are of one kind: the same, or one of them only names besides what is counted or measured.

    `boys` and `boys, students`, `liters` and `liters of water`, `degrees` and `degrees Celsius`; not `km` and `km/h`.
    """
    first, second = set(one.dimensions), set(other.dimensions)
    if not (first <= second or second <= first):
        return False
    symbols = set(_SYMBOLS.values()) - set(_TEMPERATURES)
    return all(power == 1 and name not in _MEASURES and name not in symbols for name, power in first ^ second)


def _substance(words: list[str]) -> str | None:
    """`of water`, where nothing but nouns stand behind `of`."""
    words = words[1:] if words and words[0].lower() in ("the", "his", "her", "its", "their", "a") else words
    if not words or any(len(word) < 2 or not word.isalpha() or word.lower() in _NO_UNITS for word in words):
        return None
    return f"of {stem(words[-1])}"


def _one(name: str, also: frozenset[str] | None) -> list[tuple[str, Fraction, int]] | None:
    """(dimension, size, power) of one word; empty for one that says nothing of its own; None for no unit."""
    if len(name) == 1 and also is not None and name not in _LETTERS:
        return None
    plural = name.lower()[:-1] if len(name) > 2 and name.lower().endswith("s") else name  # `hrs`, `yrs`
    for key in (name, name.lower(), stem(name), plural):
        if key in _NAMED and not (len(name) == 1 and key != name):
            return [(*_NAMED[key], 1)]
    if (symbol := _symbol(name)) is not None:
        return symbol
    singular = stem(name)
    if singular in ("unit", "total", "altogether") or name.lower() in _BESIDE:
        return []
    counted = also is None or singular in _COUNTED or singular in _SYMBOLS.values()
    if counted or (also is not None and singular in also and name.lower() not in _NO_UNITS):
        return [(singular, Fraction(1), 1)]
    return None


def _symbol(name: str) -> list[tuple[str, Fraction, int]] | None:
    if name in ("mph", "kph", "kmh", "kmph", "fps"):
        above, below = (_NAMED[stem(part)] for part in _SYMBOLS[name].split("/"))
        return [(*above, 1), (*below, -1)]
    if name in _SYMBOLS:
        return [(_SYMBOLS[name], Fraction(1), 1)]
    prefix, base = name[:1], name[1:]
    if prefix in _PREFIXES and base in _SYMBOLS:
        return [(_SYMBOLS[base], Fraction(10) ** _PREFIXES[prefix], 1)]
    if prefix in ("n", "u", "µ") and base in ("m", "g", "s", "L", "l"):
        dimension, size = _NAMED[base]
        return [(dimension, size * Fraction(10) ** _PREFIXES[prefix], 1)]
    return None
