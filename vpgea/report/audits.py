"""The sections on grading: what other graders say of the same samples, and where right choices stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from vpgea.grading.choice import normalise_choice
from vpgea.grading.registry import reads_letters
from vpgea.report.comparison_text import interval
from vpgea.report.model import Block, Section, Table
from vpgea.report.sources import Sources
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.layout import RESULTS
from vpgea.runs.records import EvalResults
from vpgea.storage.records import read_record
from vpgea.storage.shards import read_table

_DISAGREEMENTS = 50  # shown; results.json has all
_COLUMNS = ("answer", "options", "extracted", "status")


def audit_sections(sources: Sources) -> list[Section]:
    """Those that the evaluations allow."""
    evaluations = [
        (f"{name}: {run}" if name else run, sets[name])
        for name in sources.sets
        for run, sets in sources.evaluations.items()
    ]
    graders = [block for title, one in evaluations for block in _graders(title, one)]
    choices = [block for title, one in evaluations for block in _choices(title, one)]
    sections = [
        Section("graders", "By other graders", graders),
        Section("choices", "Where right choices stand", choices),
    ]
    return [section for section in sections if section.blocks]


def _graders(title: str, evaluation: CompletePhase) -> Iterator[Block]:
    path = evaluation.root / RESULTS
    regraded = read_record(path, EvalResults).regraded if path.is_file() else None
    if regraded is None:
        return
    yield Table(
        title=f"{title}: accuracy by each grader",
        head=("grader", "accuracy", "not graded"),
        rows=[(name, interval(one), f"{regraded.not_graded[name]:,}") for name, one in regraded.accuracy.items()],
        note=f"the samples of {regraded.source}, graded again with `vpgea regrade`",
    )
    names = list(regraded.accuracy)
    shown = regraded.disagreements[:_DISAGREEMENTS]
    yield Table(
        title=f"{title}: samples on which they differ, {len(shown)} of {len(regraded.disagreements):,}",
        head=("question", "sample", *names),
        rows=[
            (one.question_id, str(one.sample_index), *(one.verdicts.get(name, "-") for name in names)) for one in shown
        ],
        note=f"{RESULTS} has all",
        closed=True,
    )


def _choices(title: str, evaluation: CompletePhase) -> Iterator[Block]:
    """How often each letter is right, and is given, and how often the right one is found there."""
    if not reads_letters(str(evaluation.manifest.identity.get("grading.grader"))):
        return
    right, given, found, graded = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for path in evaluation.chunks():
        for row in read_table(path, columns=_COLUMNS).to_pylist():
            letter, answer = normalise_choice(row["answer"]), row["extracted"]
            right[letter] += 1
            given["none" if answer is None else answer] += 1
            if row["status"] in ("correct", "wrong"):
                graded[letter] += 1
                found[letter] += row["status"] == "correct"
    total = right.total()
    letters = sorted({*right, *given}, key=lambda letter: (letter == "none", letter))
    yield Table(
        title=f"{title}: by letter, {total:,} samples",
        head=("letter", "is right", "is given", "accuracy where it is right"),
        rows=[
            (
                letter,
                f"{right[letter] / total:.1%}",
                f"{given[letter] / total:.1%}",
                f"{found[letter] / graded[letter]:.3f}" if graded[letter] else "-",
            )
            for letter in letters
        ],
        note="where a letter is given far more often than it is right, the model answers by position",
    )
