"""What rivals there are, and what is swept of each: for the script that trains one and for the one that sweeps them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vpgea.errors import UsageError

RECORD = "rival.json"  # what a training says of itself, beside its model; written last
Charge = Literal["correct", "all"]  # whose length is priced


@dataclass(frozen=True, kw_only=True)
class Rival:
    """options: of `trl_rivals`. charge: None without a price of length. swept: the key of the configuration."""

    options: tuple[str, ...]
    charge: Charge | None
    swept: str


RIVALS = {
    "grpo": Rival(options=("grpo", "--charge", "correct"), charge="correct", swept="filter.utility.length_price"),
    "grpo-all": Rival(options=("grpo", "--charge", "all"), charge="all", swept="filter.utility.length_price"),
    "sdft": Rival(options=("sdft",), charge=None, swept="distill.learning_rate"),
}


def require_price(charge: Charge | None, price: float) -> None:
    """See that no right sample is worth less than a wrong one, where only right ones pay for their length.

    Raises:
        UsageError: One could be.
    """
    if charge == "correct" and price > 1:
        raise UsageError(
            f"the price of length is {price:g}",
            why="above 1 a right sample that is long would be worth less than a wrong one",
            mend="give at most 1, or charge all samples",
        )
