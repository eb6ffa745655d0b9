"""The devices that a run is given, as `model.devices` says it: read without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator

_FORMS = "auto, cpu, cpu:N (N processes), N (the first N GPUs), or numbers of GPUs with commas: 0,2,5, or 0, for one"


@dataclass(frozen=True)
class Devices:
    """What was asked for.

    Attributes:
        kind: auto: all GPUs that are visible, else the CPU once.
        count: Processes on the CPU, or the first so many GPUs.
        numbers: GPUs by number, as torch counts those that are visible; empty: the first `count`.
    """

    kind: Literal["auto", "cpu", "cuda"]
    count: int = 1
    numbers: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Devices:
        """Read `auto`, `cpu`, `cpu:N`, `N` or `0,2,5`.

        Raises:
            ValueError: It is none of these.
        """
        if text in ("auto", "cpu"):
            return cls("auto" if text == "auto" else "cpu")
        if found := re.fullmatch(r"(cpu:)?([1-9]\d{0,3})", text):
            return cls("cpu" if found[1] else "cuda", int(found[2]))
        if re.fullmatch(r"\d{1,4}(,\d{1,4})*,?", text) and "," in text:
            numbers = tuple(int(number) for number in text.split(",") if number)
            if len(set(numbers)) == len(numbers):
                return cls("cuda", len(numbers), numbers)
            raise ValueError(f"{text} names a GPU twice")
        raise ValueError(f"{text!r} is not one of: {_FORMS}")


def _readable(text: str) -> str:
    Devices.parse(text)
    return text


DevicesText = Annotated[str, AfterValidator(_readable)]
