"""Two texts word by word: what they share, what only one of them has."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

_WORDS = re.compile(r"\s+|[^\s\w]|\w+")


@dataclass(frozen=True)
class Stretch:
    """of: `both`, or the one of the two texts that alone has it."""

    of: Literal["both", "first", "second"]
    text: str


def stretches(first: str, second: str) -> Iterator[Stretch]:
    """What is in both, in the first alone and in the second alone, in order; each text is the sum of its stretches."""
    one, other = _WORDS.findall(first), _WORDS.findall(second)
    for _, start, end, other_start, other_end in difflib.SequenceMatcher(None, one, other).get_opcodes():
        left, right = "".join(one[start:end]), "".join(other[other_start:other_end])
        if left == right:
            yield Stretch("both", left)
            continue
        yield from [Stretch("first", left)] if left else []
        yield from [Stretch("second", right)] if right else []
