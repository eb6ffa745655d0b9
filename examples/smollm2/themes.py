"""What the word problems are about: names, units, openings, events and closing questions, as texts with gaps.

`{n}` and `{m}` are numbers, `{they}`, `{They}` and `{their}` stand for the person, `{times}` is doubles or triples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["add", "take", "add_groups", "take_groups", "times", "share"]

NAMES = (
    *(("Mia", "she", "her"), ("Omar", "he", "his"), ("Lena", "she", "her"), ("Ravi", "he", "his")),
    *(("Sofia", "she", "her"), ("Jonas", "he", "his"), ("Aiko", "she", "her"), ("Pedro", "he", "his")),
    *(("Nadia", "she", "her"), ("Tom", "he", "his"), ("Grace", "she", "her"), ("Emil", "he", "his")),
)


@dataclass(frozen=True)
class Event:
    """Something that changes the amount.

    Attributes:
        told: Its sentence in the question.
        lead: How a trace names the step; of groups, the one that adds or takes their sum.
        groups_lead: Of groups, how it names the product.
    """

    told: str
    lead: str
    groups_lead: str = ""


@dataclass(frozen=True, kw_only=True)
class Theme:
    """One template of problems.

    Attributes:
        units: What is counted; one is drawn.
        start: Opens with an amount {n}.
        start_groups: Opens with {n} groups of {m}.
        events: By what they do to the amount.
        asks: Closing questions; one is drawn.
    """

    name: str
    units: tuple[str, ...]
    start: Event
    start_groups: Event
    events: Mapping[Kind, tuple[Event, ...]]
    asks: tuple[str, ...]


COLLECTION = Theme(
    name="collection",
    units=("stickers", "marbles", "stamps", "shells", "cards"),
    start=Event("{name} has {n} {units}.", ""),
    start_groups=Event("{name} has {n} boxes with {m} {units} each.", "In the boxes"),
    events={
        "add": (
            Event("A friend gives {name} {n} more {units}.", "With the gift"),
            Event("{They} finds {n} {units} at a fair.", "After the fair"),
            Event("{They} wins {n} {units} in a game.", "After the win"),
        ),
        "take": (
            Event("{They} loses {n} {units} on the way home.", "After the loss"),
            Event("{They} gives {n} {units} to a cousin.", "Without those for the cousin"),
            Event("{They} trades {n} {units} for a poster.", "After the trade"),
        ),
        "add_groups": (
            Event("{They} buys {n} packs of {m} {units}.", "With the packs", "In the packs"),
            Event("{n} neighbours bring {m} {units} each.", "With the neighbours' {units}", "From the neighbours"),
        ),
        "take_groups": (
            Event("{They} gives {m} {units} to each of {n} children.", "After the children", "For the children"),
        ),
        "times": (Event("Over the summer {their} collection {times}.", "After the summer"),),
        "share": (Event("{They} splits the {units} into {n} equal piles and keeps one pile.", "In one pile"),),
    },
    asks=("How many {units} does {name} have now?", "How many {units} are left with {name}?"),
)

MONEY = Theme(
    name="money",
    units=("dollars", "euros", "coins"),
    start=Event("{name} has saved {n} {units}.", ""),
    start_groups=Event("{name} has saved {m} {units} a week for {n} weeks.", "Saved so far"),
    events={
        "add": (
            Event("{They} gets {n} {units} for {their} birthday.", "With the birthday money"),
            Event("{They} earns {n} {units} by washing a car.", "After washing the car"),
        ),
        "take": (
            Event("{They} spends {n} {units} on a book.", "After the book"),
            Event("{They} pays {n} {units} for lunch.", "After lunch"),
            Event("{They} lends {n} {units} to {their} brother.", "After the loan"),
        ),
        "add_groups": (
            Event("{They} works {n} hours for {m} {units} an hour.", "With the pay", "Pay"),
            Event("{They} sells {n} toys for {m} {units} each.", "After the sale", "From the toys"),
        ),
        "take_groups": (
            Event("{They} buys {n} tickets for {m} {units} each.", "After the tickets", "For the tickets"),
            Event("{They} pays {m} {units} a day for {n} days of a course.", "After the course", "For the course"),
        ),
        "times": (Event("{Their} grandmother is so pleased that she {times} the sum.", "With grandmother's help"),),
        "share": (Event("The money is split equally among {n} people, and {name} keeps one share.", "One share"),),
    },
    asks=("How many {units} does {name} have now?", "How many {units} are left?"),
)

BAKERY = Theme(
    name="bakery",
    units=("rolls", "muffins", "cookies", "pretzels"),
    start=Event("{name} has {n} {units} on the counter.", ""),
    start_groups=Event("{name} bakes {n} trays with {m} {units} each.", "From the trays"),
    events={
        "add": (
            Event("{They} takes {n} more {units} out of the oven.", "With those from the oven"),
            Event("A helper brings {n} {units}.", "With the helper's {units}"),
        ),
        "take": (
            Event("{n} {units} are burnt and thrown away.", "Without the burnt ones"),
            Event("{They} sells {n} {units} before noon.", "At noon"),
            Event("A school takes {n} {units}.", "After the school's order"),
        ),
        "add_groups": (
            Event("Then {n} more trays of {m} {units} are ready.", "With the new trays", "On the new trays"),
        ),
        "take_groups": (
            Event("{n} customers buy {m} {units} each.", "After the customers", "Sold to customers"),
            Event("{They} fills {n} bags with {m} {units} each and sells them.", "After the bags", "In the bags"),
        ),
        "times": (Event("A second baker {times} the number of {units}.", "With the second baker"),),
        "share": (Event("The {units} are packed evenly into {n} boxes, and only one box stays.", "In one box"),),
    },
    asks=("How many {units} are there now?", "How many {units} remain?"),
)

ORCHARD = Theme(
    name="orchard",
    units=("trees", "bushes", "vines"),
    start=Event("On {name}'s land stand {n} {units}.", ""),
    start_groups=Event("{name} plants {n} rows of {m} {units}.", "In the rows"),
    events={
        "add": (
            Event("{They} plants {n} more {units} in spring.", "In spring"),
            Event("A neighbour leaves {name} {n} {units}.", "With the neighbour's {units}"),
        ),
        "take": (
            Event("A storm breaks {n} {units}.", "After the storm"),
            Event("{They} cuts down {n} old {units}.", "Without the old ones"),
        ),
        "add_groups": (Event("{They} adds {n} rows of {m} {units}.", "With the added rows", "In the added rows"),),
        "take_groups": (
            Event("Deer eat {m} {units} a night for {n} nights.", "After the deer", "Eaten by deer"),
            Event("{They} sells {n} plots with {m} {units} each.", "After the sale", "On the plots"),
        ),
        "times": (Event("In ten years the number of {units} {times}.", "After ten years"),),
        "share": (Event("The land is cut into {n} equal parts, and {name} keeps one part.", "On one part"),),
    },
    asks=("How many {units} does {name} have now?", "How many {units} stand there in the end?"),
)

JOURNEY = Theme(
    name="journey",
    units=("kilometres", "miles"),
    start=Event("{name} cycles {n} {units} away from home.", ""),
    start_groups=Event("{name} walks away from home, {m} {units} a day for {n} days.", "On foot"),
    events={
        "add": (
            Event("{They} rides {n} {units} further by bus.", "With the bus"),
            Event("{They} goes on for {n} {units} by boat.", "With the boat"),
        ),
        "take": (
            Event("{They} turns round and comes back {n} {units}.", "After turning round"),
            Event("A lift brings {name} {n} {units} closer to home.", "After the lift"),
        ),
        "add_groups": (
            Event("{They} goes on by train for {n} hours at {m} {units} an hour.", "With the train", "By train"),
        ),
        "take_groups": (Event("Then {they} walks back {m} {units} a day for {n} days.", "After that", "Walked back"),),
        "times": (Event("A flight {times} the distance.", "After the flight"),),
    },
    asks=("How many {units} from home is {name} now?",),
)

TANK = Theme(
    name="tank",
    units=("litres", "gallons", "buckets"),
    start=Event("A tank on {name}'s farm holds {n} {units} of water.", ""),
    start_groups=Event("{name} fills a tank for {n} minutes with {m} {units} a minute.", "In the tank"),
    events={
        "add": (
            Event("{They} pours in {n} {units}.", "With what is poured in"),
            Event("Rain adds {n} {units}.", "After the rain"),
        ),
        "take": (
            Event("{They} uses {n} {units} for the garden.", "After the garden"),
            Event("The cows drink {n} {units}.", "After the cows"),
        ),
        "add_groups": (Event("A pump adds {m} {units} a minute for {n} minutes.", "With the pump", "From the pump"),),
        "take_groups": (
            Event("A leak loses {m} {units} an hour for {n} hours.", "After the leak", "Lost by the leak"),
        ),
        "times": (Event("A flood {times} the amount.", "After the flood"),),
        "share": (Event("The water is spread evenly over {n} barrels, and only one barrel is kept.", "In one barrel"),),
    },
    asks=("How many {units} of water are there now?", "How many {units} are left?"),
)

THEMES = (COLLECTION, MONEY, BAKERY, ORCHARD, JOURNEY, TANK)
