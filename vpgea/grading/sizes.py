r"""What is settled before anything is worked out: equal spellings, and answers too large to be one."""

from __future__ import annotations

import re

from vpgea.grading.numbers import read_number
from vpgea.grading.numeric import formula_values

_WORD = re.compile(r"\\[A-Za-z]+|\\?.", re.DOTALL)
_APART = re.compile(r"(?<=\d)\s+(?=\d)")  # `5 2` is not 52
_MAX_AGAINST_NUMBER = 400  # characters
_MAX_AGAINST_FORMULA = (1000, 20)  # characters, and characters for each of the reference's
# A tower of powers, a power or factorial of a number of many digits: what nobody should begin to compute.
_UNBOUNDED = re.compile(r"\^\s*\{?[^{}^]{0,20}\^|\^\s*\{?\s*-?\d{5}|\d{5}\s*\)*\s*!|!\s*\)*\s*!|\\Gamma\s*\(\s*\d{5}")


def spelling(text: str) -> str:
    r"""The text without white space and without braces that hold one character or command: `9^{9^{9}}` → `9^{9^9}`.

    One pass. Texts of the same spelling are the same LaTeX.
    """
    if text.isalnum():
        return text
    parts: list[str] = []
    groups: list[list[int]] = [[0, 0]]  # of each open group: where it opens, and how many things are in it
    for word in _WORD.findall("".join(_APART.sub("\\ ", text).split())):
        if word == "{":
            groups.append([len(parts), 0])
            parts.append(word)
        elif word == "}" and len(groups) > 1:
            start, things = groups.pop()
            if things == 1:
                parts[start] = ""
            else:
                parts.append(word)
            groups[-1][1] += 1
        else:
            parts.append(word)
            groups[-1][1] += 1
    return "".join(parts)


def is_out_of_bounds(gold: str, found: str) -> bool:
    """Whether a normalised answer is too large to be one: wrong, without any attempt to work it out.

    Args:
        gold: The reference. Against a plain number an answer may have 400 characters and no tower of powers; against
            anything else, 1,000 and 20 for each of the reference's.
        found: The answer, of another spelling than the reference.
    """
    if read_number(gold) is None:
        base, each = _MAX_AGAINST_FORMULA
        return len(found) > base + each * len(gold)
    if len(found) > _MAX_AGAINST_NUMBER:
        return True
    return bool(_UNBOUNDED.search(found)) and formula_values(found) is None
