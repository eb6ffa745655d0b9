"""All checks, in the order in which their reasons are blamed.

The schema of MEASUREMENTS, the selection with its table of counts, `vpgea inspect`, the estimate of `--dry-run` and the
tests of docs/filter.md read this list and nothing else: a new check is its own file, its options, and a line here.
"""

from __future__ import annotations

from vpgea.filtering.checks.answerability import ANSWERABILITY
from vpgea.filtering.checks.base import Check
from vpgea.filtering.checks.counterfactual import COUNTERFACTUAL
from vpgea.filtering.checks.derivation import DERIVATION
from vpgea.filtering.checks.early_exits import EARLY_EXITS
from vpgea.filtering.checks.leaks import LEAKS
from vpgea.filtering.checks.note_dependence import NOTE_DEPENDENCE
from vpgea.filtering.checks.plausibility import PLAUSIBILITY

CHECKS: tuple[Check, ...] = (
    LEAKS,
    NOTE_DEPENDENCE,
    DERIVATION,
    ANSWERABILITY,
    PLAUSIBILITY,
    EARLY_EXITS,
    COUNTERFACTUAL,
)
