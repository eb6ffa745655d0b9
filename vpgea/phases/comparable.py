"""When two evaluations may be held against one another: the one rule, for baselines, comparisons and reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vpgea.errors import UsageError
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.manifest import FOREIGN_TOOL, Manifest
from vpgea.storage.rows import Text, iterate_rows

_SAMPLING = ("eval.max_new_tokens", "eval.temperature", "eval.top_p")
_GRADING = ("grading.grader", "grading.relative_tolerance")
PROTOCOL = ("protocol.benchmark", "protocol.name", "protocol.version")  # identity of an evaluation by a protocol
# what two imports must share: all that their logs state, but for the model
_SAME_FOREIGN = (
    FOREIGN_TOOL,
    *(f"foreign.{name}" for name in ("version", "protocol", "metric", "regraded", "tokenizer")),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AskedColumns:
    """Of a question, as samples repeat it; (question_id, question, answer) of a question in hand as well."""

    question_id: Text
    question: Text
    answer: Text


@dataclass(frozen=True)
class _Rule:
    """A key of both manifests that must be the same, and the way to two evaluations of which it is."""

    key: str
    way: str


def require_comparable(
    base: CompletePhase, run: Manifest, name: str, *, asked: Iterable[AskedColumns] | None = None
) -> None:
    """Same questions, protocol, prompts, cap, sampling and grader, or the comparison says nothing.

    Args:
        base: What is compared with.
        run: Of the other evaluation, which may not be sampled yet.
        name: What the other one is called.
        asked: Its questions, by which the first that differs is named; None: that there are others is all.

    Raises:
        UsageError: One of them differs; it says how to come by two that can be compared.
    """
    theirs = base.manifest
    if run.is_imported != theirs.is_imported:
        foreign = run if run.is_imported else theirs
        raise UsageError(
            f"{name} was measured otherwise than {base.root}",
            why=f"one is an import from {foreign.identity[FOREIGN_TOOL]}, whose protocol is foreign, the other is not",
            mend="compare two imports of one tool, or evaluate both here; `vpgea inspect` shows the figures of each",
        )
    for rule in _rules(base):
        mine, other = _stated(run, rule.key), _stated(theirs, rule.key)
        if mine != other:
            why = f"{rule.key} is {_shown(other)} in the base and {_shown(mine)} in {name}"
            if rule.key == "questions" and asked is not None:
                why = _other_questions(asked, base)
            raise UsageError(f"{name} was measured otherwise than {base.root}", why=why, mend=rule.way)


def _stated(manifest: Manifest, key: str) -> object:
    """Settings have a dotted name; what the samples were made from has none."""
    source: Mapping[str, object] = manifest.identity if "." in key else manifest.inputs
    return source.get(key)


def _shown(value: object) -> str:
    return "not stated" if value is None else repr(value)


def _rules(base: CompletePhase) -> list[_Rule]:
    """In the order in which a difference is spoken of: what was asked, how it was sampled, how it was graded."""
    foreign = _SAME_FOREIGN if base.manifest.is_imported else ()
    protocol = "evaluate both with the same --benchmark and --protocol, by the same version of it"
    prompts = "evaluate both with the same views.* and chat template"
    return [
        *(_Rule(key, "compare two evaluations that the tool made in the same way") for key in foreign),
        *(_Rule(key, protocol) for key in PROTOCOL),
        _Rule("questions", "evaluate both on the same questions"),
        _Rule("protocol", f"{protocol}, and the same rows for its examples"),
        *(_Rule(key, "evaluate both with the same cap, temperature and top_p") for key in _SAMPLING),
        *(_Rule(key, _regrading(key, base)) for key in _GRADING),
        _Rule("template", prompts),
    ]


def _regrading(key: str, base: CompletePhase) -> str:
    """The stored samples of one can be graded as those of the other were."""
    option = f"--grader {base.manifest.identity.get(key)}" if key == "grading.grader" else f"--set {key}=..."
    return f"`vpgea regrade FOLDER {option} -o NEW` grades stored samples as the base's were"


def _other_questions(asked: Iterable[AskedColumns], base: CompletePhase) -> str:
    """In which questions two evaluations differ, by the rows of the base."""
    there = {row.question_id: row for row in iterate_rows(base.chunks(), AskedColumns)}
    here = {row.question_id: row for row in asked}
    for where, ids in (("here", here.keys() - there.keys()), ("there", there.keys() - here.keys())):
        if ids:
            return f"{len(there)} questions were sampled there, {len(here)} are given here; {min(ids)} is {where} alone"
    other = [key for key, one in here.items() if (one.question, one.answer) != (there[key].question, there[key].answer)]
    return f"the {len(here)} questions have the same ids; {other[0] if other else 'one'} is another in it"
