r"""Graders that others use, to see how much a figure owes to ours: they read the last `\boxed{}` of a response alone.

Both have the signature of a grader of one's own (`package.module:function`).
"""

from __future__ import annotations

from vpgea.grading.exact import fold_whitespace
from vpgea.grading.references import final_answer

MATH_VERIFY, BOX = "vpgea.grading.plain:grade_math_verify", "vpgea.grading.plain:grade_box"


def last_box(text: str) -> str:
    """The inside of the last box, empty without one or where it is never closed."""
    _, found, inside = text.rpartition("\\boxed{")
    depth = 1
    for place, character in enumerate(inside if found else ""):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return inside[:place]
    return ""


def grade_math_verify(*, response: str, reference: str, question: str) -> bool:
    """Whether math-verify, as its readme shows it, finds the last box equal to the reference."""
    from math_verify import LatexExtractionConfig, parse, verify

    config = [LatexExtractionConfig(boxed_match_priority=0)]
    gold, found = (
        parse(f"\\boxed{{{text}}}", extraction_config=config)
        for text in (final_answer(reference, "math"), last_box(response))
    )
    return bool(verify(gold, found))


def grade_box(*, response: str, reference: str, question: str) -> bool:
    """Whether the last box is the reference, letter by letter after whitespace folding."""
    found = fold_whitespace(last_box(response))
    return bool(found) and found == fold_whitespace(final_answer(reference, "math"))
