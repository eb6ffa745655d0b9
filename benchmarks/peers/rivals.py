"""What rivals there are, and what is swept of each: for the scripts that train one and for the one that sweeps them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vpgea.errors import UsageError

RECORD = "rival.json"  # what a training says of itself, beside its model; written last
Charge = Literal["correct", "all"]  # whose length is priced


@dataclass(frozen=True, kw_only=True)
class Rival:
    """A rival as it is swept.

    Attributes:
        library: Whose trainer it is: `LIBRARY_rivals` trains it, in .venv-LIBRARY.
        options: Of that script.
        charge: None without a price of length.
        swept: The key of the configuration.
    """

    library: Literal["trl", "swift"]
    options: tuple[str, ...]
    charge: Charge | None
    swept: str


_PRICE, _RATE = "filter.utility.length_price", "distill.learning_rate"
RIVALS = {
    "grpo": Rival(library="trl", options=("grpo", "--charge", "correct"), charge="correct", swept=_PRICE),
    "grpo-all": Rival(library="trl", options=("grpo", "--charge", "all"), charge="all", swept=_PRICE),
    "sdft": Rival(library="trl", options=("sdft",), charge=None, swept=_RATE),
    "rlsd": Rival(library="swift", options=("rlsd", "--charge", "correct"), charge="correct", swept=_PRICE),
    "rlsd-all": Rival(library="swift", options=("rlsd", "--charge", "all"), charge="all", swept=_PRICE),
    "opsd": Rival(library="swift", options=("opsd",), charge=None, swept=_RATE),
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
