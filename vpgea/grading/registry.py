"""Finding a grader by its name, and what a reference answer looks like to it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from functools import partial

from vpgea.errors import UsageError, did_you_mean
from vpgea.grading.base import Grade, Grader, GradeRequest, Status
from vpgea.grading.budget import is_own_fault
from vpgea.grading.choice import grade_choice
from vpgea.grading.exact import grade_exact
from vpgea.grading.math import grade_math
from vpgea.grading.patterns import LETTERS, PATTERNS
from vpgea.grading.values import canonical_answers, find_value, value_is_distinct

__all__ = [
    "BUILT_IN",
    "canonical_answers",
    "find_value",
    "is_own_grader",
    "load_grader",
    "not_worked_out",
    "reads_letters",
    "value_is_distinct",
]

BUILT_IN = ("math", "choice", "exact", *PATTERNS)

_SPEC = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_SIGNATURE = "def grade(*, response: str, reference: str, question: str) -> bool: ..."


def is_own_grader(spec: str) -> bool:
    """True for `package.module:function`, False for a built-in grader.

    Raises:
        UsageError: It is neither.
    """
    if spec in BUILT_IN:
        return False
    if _SPEC.fullmatch(spec):
        return True
    raise UsageError(
        f"unknown grader {spec!r}",
        why=f"it is neither one of {', '.join(BUILT_IN)} nor of the form package.module:function",
        mend=did_you_mean(
            spec, BUILT_IN, "set grading.grader to one of these, e.g. math or my_package.my_module:grade"
        ),
    )


def reads_letters(spec: str) -> bool:
    """Whether a grader's answers are letters of options, which are words of their own in any text."""
    return spec == "choice" or spec in LETTERS


def load_grader(spec: str, relative_tolerance: float) -> Grader:
    """The grader behind a name of BUILT_IN, or `package.module:function`.

    A function of one's own is called with the keyword arguments response, reference and question, and returns a
    bool, a Status or its name. It is imported here, so call this inside a worker.

    Raises:
        UsageError: It cannot be imported or is not callable.
    """
    if is_own_grader(spec):
        return partial(_grade_with, _import(spec))
    if spec == "math":
        import math_verify  # noqa: F401  # loaded now, so that its import is not charged to the first answer

        return partial(grade_math, relative_tolerance=relative_tolerance)
    return {"choice": grade_choice, "exact": grade_exact, **PATTERNS}[spec]


def not_worked_out(spec: str, request: GradeRequest, status: Status, detail: str) -> Grade:
    """The grade of an answer that used up its time or its memory: `wrong` where the answer alone is to blame.

    Else a model could leave every mean by answering what cannot be worked out.
    """
    if spec == "math" and is_own_fault(request):
        return Grade(Status.WRONG, detail=detail)
    return Grade(status, detail=detail)


def _import(spec: str) -> Callable[..., object]:
    module_name, _, path = spec.partition(":")
    try:
        function: object = importlib.import_module(module_name)
        for name in path.split("."):
            function = getattr(function, name)
    except Exception as error:  # the user's module may raise anything while it is imported
        raise UsageError(
            f"cannot import the grader {spec!r}",
            why=f"{type(error).__name__}: {error}",
            mend="install its package, or start in the folder that has it, and check the names",
        ) from error
    if not callable(function):
        raise UsageError(
            f"the grader {spec!r} is not callable",
            why=f"it is a {type(function).__name__}",
            mend=f"name a function: {_SIGNATURE}",
        )
    return function


def _grade_with(function: Callable[..., object], request: GradeRequest) -> Grade:
    verdict = function(response=request.response, reference=request.reference, question=request.question)
    if isinstance(verdict, str) and verdict in tuple(Status):
        return Grade(Status(verdict))
    if type(verdict).__name__ in ("bool", "bool_"):  # Python's and numpy's
        return Grade(Status.CORRECT if verdict else Status.WRONG)
    raise TypeError(f"the grader returned {verdict!r}; it must return a bool or one of {', '.join(Status)}")
