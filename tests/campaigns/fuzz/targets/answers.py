"""Model outputs against references, through the isolated graders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st

from tests.campaigns.fuzz.probe import ACCEPTED, Probe, odd_texts
from tests.support.copies import graders_are_copies
from vpgea.grading.answers import after_thinking
from vpgea.grading.base import GradeRequest, Status
from vpgea.grading.pool import GraderPool
from vpgea.grading.registry import BUILT_IN, canonical_answers, find_value, value_is_distinct

_DEADLINE_S = 0.5
_MEMORY_MB = 1024
_MAX_REFERENCE = 1000  # characters that sympy surely reads


class Answer(NamedTuple):
    """What a grader gets."""

    grader: str
    response: str
    reference: str


_maths = st.sampled_from(
    [
        "12", "-3", "1/2", "0.5", "50\\%", "1,000", "10^{10^{10}}", "9^{9^{9^9}}", "2^{-10^9}", "10^{100000}",
        "1e999999999", "\\frac{1}{0}", "\\frac{1}", "\\frac{{{{1}}}}{2}", "\\sqrt{-1}", "\\sqrt[0]{2}", "\\infty",
        "(1, 2)", "[1, 2)", "\\{1, 2\\}", "\\begin{pmatrix}1 & 2\\\\3\\end{pmatrix}", "x = 5", "x \\in (0, 1]",
        "\\sum_{i=1}^{10^9} i", "\\int_0^1 x dx", "100000!", "((((((((((", "))))", "{" * 300, "\\frac{" * 50,
        "\\sqrt{" * 200 + "2" + "}" * 200, "(" * 500 + "1" + ")" * 500, "x^{" * 60, "1" + "+1" * 2000, "9" * 5000,
        "9" * 4000 + "." + "9" * 4000, "1 \\times 10^{400}", "\\text{" * 20, "\\pi", "\\circ", "\\$5", "A", "(B)",
        "\\mathrm{C}", "D.", "A and B", "\\lim_{x \\to 0} \\frac{\\sin x}{x}", "\\binom{10^6}{10^5}", "0^{0}",
        "1 < 2 < 3", "\\boxed{", "\\boxed{}", "\\fbox{3}", "\\boxed 4", "٣", "𝟗", "½", "−5", "∞", "√2", "²",
        "\\unknown{3}", "%", "&", "\\\\", "\\",
    ]
)  # fmt: skip
_parts = st.lists(
    st.one_of(_maths, odd_texts, st.sampled_from(["+", "*", "^", "/", "=", ",", " ", "\n"])), max_size=4
).map("".join)
_boxed = st.builds(
    "{}{}{}".format,
    st.sampled_from(
        ["", "So ", "\\boxed{1} and then ", "The answer is ", "<answer>", "**Answer:** ", "#### ", "$", "\\["]
    ),
    st.one_of(_parts, st.builds("\\boxed{{{}}}".format, _parts), st.builds("\\boxed{{\\boxed{{{}}}".format, _parts)),
    st.sampled_from(["", ".", "</answer>", "$", "\\]", "}", "\\boxed{"]),
)
_answers = st.builds(
    Answer,
    st.sampled_from(["math", "math", "math", "choice", "exact"]),
    _boxed,
    st.one_of(_maths, _parts.filter(str.strip)),
)


@contextmanager
def probe(folder: Path) -> Iterator[Probe]:
    """One pool per grader. An answer that takes long ends as timeout; the places of values are looked for here."""
    with ExitStack() as stack:
        stack.enter_context(graders_are_copies())  # a good many are killed
        pools = {
            name: stack.enter_context(
                GraderPool(name, relative_tolerance=1e-6, deadline_s=_DEADLINE_S, memory_mb=_MEMORY_MB, workers=1)
            )
            for name in BUILT_IN
        }

        def check(answer: Answer) -> str:
            (grade,) = pools[answer.grader].grade([GradeRequest(answer.response, answer.reference)])
            if answer.grader == "math":
                find_value(answer.response, answer.reference)
                value_is_distinct(answer.reference, answer.response)
            (canonical, *_) = canonical_answers(answer.reference, answer.grader)
            assert canonical in answer.reference or canonical in after_thinking(answer.reference)
            if len(answer.reference) > _MAX_REFERENCE and str(grade.detail).startswith("RecursionError"):
                return "too long a reference"  # no grade, which is counted and said
            assert grade.status is not Status.ERROR, grade.detail
            return ACCEPTED if grade.status.valid else "timeout"

        yield Probe(_answers, check)
