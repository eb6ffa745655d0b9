"""Evaluations held against one another: paired gains, flips, questions by their change, and a verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vpgea.errors import UsageError
from vpgea.metrics import bootstrap
from vpgea.metrics.bootstrap import Estimate, SampleTable
from vpgea.metrics.curves import BudgetPoint, DifficultyBin, budget_curve, budgets_below, difficulty_bins
from vpgea.metrics.paired import Flips, Gain, flips, gains, holm, question_changes
from vpgea.phases.comparable import require_comparable
from vpgea.phases.evaluate import sample_table
from vpgea.phases.evaluations import find_evaluations
from vpgea.questions.clusters import Numbering
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.manifest import REGRADED
from vpgea.storage.rows import Text, Texts, UInt64, iterate_rows

_ITSELF = "the same evaluation twice, its folder or a copy of it: nothing was compared"
_CLAIM = 0.05  # of all comparisons of a table together


@dataclass(frozen=True, kw_only=True)
class RunFigures:
    """One run on one set. name: as it was called. model: the fingerprint of its weights."""

    name: str
    model: str
    samples: int
    not_graded: int
    metrics: dict[str, Estimate]
    budget_curve: list[BudgetPoint]


@dataclass(frozen=True, kw_only=True)
class QuestionChange:
    """Before (the base) and after. question: its text."""

    question_id: str
    question: str
    accuracy: tuple[float, float]
    tokens: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A run against the base on one set.

    Attributes:
        run: Its name.
        same_weights: Whether the two are of the same model: then what differs is chance. Imports do not tell.
        same_samples: Whether the two have the same samples, graded twice: then chance has no part in what differs.
        is_itself: Whether the two are one folder, or copies of it.
        is_foreign: Whether both are imports: nobody here knows that they were asked alike.
        accuracy: A - A0.
        tokens: T / T0 - 1.
        accuracy_p_holm: Adjusted for all pairs of the comparison; tokens_p_holm as well.
        questions: Those in both, the largest change first.
        alone: Number of questions that are in one of the two only.
        verdict: In words.
    """

    run: str
    same_weights: bool
    same_samples: bool = False
    is_itself: bool = False
    is_foreign: bool = False
    accuracy: Gain
    tokens: Gain
    accuracy_p_holm: float | None = None
    tokens_p_holm: float | None = None
    flips: Flips
    questions: list[QuestionChange]
    alone: int
    verdict: str = ""


@dataclass(frozen=True, kw_only=True)
class SetComparison:
    """All runs on one set of questions, the base first. name: "" where there is but one set.

    records: What the questions are orders or copies of; as many as questions where each stands once.
    """

    name: str
    questions: int
    records: int
    runs: list[RunFigures]
    pairs: list[Pair]
    difficulty: list[DifficultyBin]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """base: its name. left_out: sets that not all runs have. verdict: over all pairs."""

    base: str
    sets: list[SetComparison]
    left_out: list[str]
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Named:
    """The columns of GradedRow that tell samples apart; an imported one has no seed."""

    question_id: Text
    seed: UInt64 | None
    question: Text
    options: Texts


@dataclass(frozen=True, kw_only=True)
class _Run:
    """keys: (question, seed) of each sample. texts: of the questions, by their ids."""

    name: str
    evaluation: CompletePhase
    table: SampleTable
    keys: list[tuple[int, int | None]]
    texts: dict[str, str]


def compare(references: Sequence[str], *, draws: int = 2000, seed: int = 0) -> Comparison:
    """Hold runs against the first of them.

    Args:
        references: Two or more, each as `find_evaluations` reads it.
        draws: Of the bootstrap behind every interval.
        seed: Of these draws.

    Raises:
        UsageError: Fewer than two, one is no complete evaluation, no set is in all, or two were measured otherwise.
    """
    if len(references) < 2:
        raise UsageError(
            "nothing to compare with",
            why=f"{len(references)} evaluation was named",
            mend="name two or more: the base, then what is compared with it",
        )
    return hold(references, [find_evaluations(reference) for reference in references], draws=draws, seed=seed)


def hold(
    references: Sequence[str], found: Sequence[Mapping[str, CompletePhase]], *, draws: int = 2000, seed: int = 0
) -> Comparison:
    """The same of evaluations that were found already; one alone has figures, and no pairs.

    Args:
        references: What each is called.
        found: Of each its evaluations by the names of their sets.
        draws: As for `compare`.
        seed: As for `compare`.

    Raises:
        UsageError: As `compare` does.
    """
    shared = [name for name in found[0] if all(name in one for one in found)]
    every = sorted({name for one in found for name in one})
    if not shared:
        raise UsageError(
            "the runs have no set of questions in common",
            why=f"their sets are {'; '.join(', '.join(name or 'one alone' for name in one) for one in found)}",
            mend="name evaluations themselves, or folders whose evaluations have the same names",
        )
    sets = [_compare_set(name, references, [one[name] for one in found], draws=draws, seed=seed) for name in shared]
    sets = _corrected(sets)
    left_out = [name or "the one alone" for name in every if name not in shared]
    return Comparison(base=references[0], sets=sets, left_out=left_out, verdict=_summary(sets))


def _compare_set(
    name: str, references: Sequence[str], evaluations: Sequence[CompletePhase], *, draws: int, seed: int
) -> SetComparison:
    for evaluation in evaluations[1:]:
        require_comparable(evaluations[0], evaluation.manifest, str(evaluation.root))
    runs, records = _read(references, evaluations)
    ids = sorted(set().union(*(one.texts for one in runs)))
    base, *others = runs
    cap = base.evaluation.manifest.identity["eval.max_new_tokens"]
    budgets = budgets_below(cap) if isinstance(cap, int) else []  # an import may not say it
    pairs = [_pair(base, one, ids, draws=draws, seed=seed) for one in others]
    figures = []
    for one, pair in zip(runs, (None, *pairs), strict=True):
        metrics = bootstrap.evaluate(one.table, None if pair is None else base.table, draws=draws, seed=seed)
        if pair is not None:  # one gain, one interval: that of the verdict
            metrics["accuracy_gain"] = pair.accuracy.estimate
        figures.append(
            RunFigures(
                name=one.name,
                model=_model(one.evaluation),
                samples=len(one.keys),
                not_graded=int(np.isnan(np.asarray(one.table.correct, np.float64)).sum()),
                metrics=metrics,
                budget_curve=budget_curve(one.table, budgets, draws=draws, seed=seed),
            )
        )
    return SetComparison(
        name=name,
        questions=len(ids),
        records=records,
        runs=figures,
        pairs=pairs,
        difficulty=difficulty_bins(base.table, [one.table for one in others], draws=draws, seed=seed),
    )


def _read(references: Sequence[str], evaluations: Sequence[CompletePhase]) -> tuple[list[_Run], int]:
    """Also how many records there are. Questions have numbers in the order of their ids, so that nothing depends on
    that of the rows."""
    rows = [list(iterate_rows(one.chunks(), _Named)) for one in evaluations]
    numbers, is_imported = Numbering(), evaluations[0].manifest.is_imported
    asked = {row.question_id: row for one in reversed(rows) for row in one}
    places = {
        key: numbers.of(key, row.question, row.options, is_imported=is_imported)[0]
        for key, row in sorted(asked.items())
    }
    runs = [
        _Run(
            name=name,
            evaluation=evaluation,
            table=sample_table(evaluation, numbers),
            keys=[(places[row.question_id], row.seed) for row in own],
            texts={row.question_id: row.question for row in own},
        )
        for name, evaluation, own in zip(references, evaluations, rows, strict=True)
    ]
    return runs, numbers.records


def _model(evaluation: CompletePhase) -> str:
    """Fingerprint of its weights; of an import the name that the log has for them."""
    manifest = evaluation.manifest
    return str(manifest.identity.get("foreign.model")) if manifest.is_imported else manifest.inputs["model"]


def _drawn_as(evaluation: CompletePhase) -> str:
    """Content fingerprint of the evaluation that its samples were drawn in."""
    return evaluation.manifest.inputs.get(REGRADED, evaluation.content_fingerprint)


def _pair(base: _Run, run: _Run, ids: Sequence[str], *, draws: int, seed: int) -> Pair:
    accuracy, tokens = gains(run.table, base.table, draws=draws, seed=seed)
    has_seeds = all(seed is not None for _, seed in run.keys)
    seeds_agree = has_seeds and len(set(run.keys)) == len(run.keys) and set(run.keys) == set(base.keys)
    return Pair(
        run=run.name,
        same_weights=not run.evaluation.manifest.is_imported and _model(run.evaluation) == _model(base.evaluation),
        same_samples=_drawn_as(run.evaluation) == _drawn_as(base.evaluation),
        is_itself=run.evaluation.content_fingerprint == base.evaluation.content_fingerprint,
        is_foreign=run.evaluation.manifest.is_imported,
        accuracy=accuracy,
        tokens=tokens,
        flips=flips(run.table, base.table, (run.keys, base.keys) if seeds_agree else None),
        questions=[
            QuestionChange(
                question_id=ids[one.question],
                question=run.texts[ids[one.question]],
                accuracy=one.accuracy,
                tokens=one.tokens,
            )
            for one in question_changes(run.table, base.table)
        ],
        alone=len(run.texts.keys() ^ base.texts.keys()),
    )


# --- verdicts -------------------------------------------------------------------------------------------------------


def _corrected(sets: Sequence[SetComparison]) -> list[SetComparison]:
    """With p values for all pairs together, and the verdicts that they allow."""
    pairs = [pair for one in sets for pair in one.pairs]
    by_accuracy, by_tokens = (
        iter(holm([gain.p for gain in every]))
        for every in ([pair.accuracy for pair in pairs], [pair.tokens for pair in pairs])
    )
    corrected = []
    for one in sets:
        own = [replace(pair, accuracy_p_holm=next(by_accuracy), tokens_p_holm=next(by_tokens)) for pair in one.pairs]
        own = [replace(pair, verdict=_verdict(pair, one)) for pair in own]
        corrected.append(replace(one, pairs=own))
    return corrected


def _sign(gain: Gain, p_holm: float | None) -> int:
    return gain.sign if p_holm is not None and p_holm < _CLAIM else 0


def decided(gain: Gain, p_holm: float | None, words: tuple[str, str]) -> str:
    """What may be said of a gain at 5 % for all comparisons together: one of the words (more, less), or undecided."""
    if gain.estimate.value is None:
        return "not defined"
    return ("undecided", *words)[_sign(gain, p_holm)] + _too_few(gain)


def _too_few(gain: Gain) -> str:
    return " (no interval: too few questions)" if gain.p is None else ""


def _verdict(pair: Pair, one: SetComparison) -> str:
    if pair.is_itself:
        return _ITSELF
    each = sorted({run.samples / one.questions for run in one.runs if run.name in (pair.run, one.runs[0].name)})
    counts = " and ".join(f"{count:g}" for count in each)
    tokens = f"tokens {_percent(pair.tokens.estimate)}: {decided(pair.tokens, pair.tokens_p_holm, ('more', 'fewer'))}"
    accuracy = decided(pair.accuracy, pair.accuracy_p_holm, ("higher", "lower"))
    text = f"{tokens}; accuracy {_percent(pair.accuracy.estimate, 'points')}: {accuracy}"
    start = "two runs of the same weights differ by chance: " if pair.same_weights else ""
    start = "the same samples graded twice differ by their grading alone: " if pair.same_samples else start
    start = "foreign protocol, alike as far as the logs state it: " if pair.is_foreign else start
    of = f" of {one.records:,} records" if one.records < one.questions else ""
    return f"{start}{text} (paired, {one.questions:,} questions{of} x {counts})"


def _percent(found: Estimate, unit: str = "%") -> str:
    """`-31.2 % [-34.0, -28.1]`."""
    if found.value is None:
        return "-"
    text = f"{_signed(found.value)} {unit}"
    if found.low is None or found.high is None:
        return text
    return f"{text} [{_signed(found.low)}, {_signed(found.high)}]"


def _signed(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:+.1f}"  # no -0.0


def _summary(sets: Sequence[SetComparison]) -> str:
    """How many of all pairs are decided, at 5 % for all of them together."""
    pairs = [pair for one in sets for pair in one.pairs]
    if len(pairs) == 1:
        return pairs[0].verdict
    own = sum(pair.is_itself for pair in pairs)
    if pairs and own == len(pairs):
        return _ITSELF
    said = []
    for name, signs, words in (
        ("accuracy", [_sign(pair.accuracy, pair.accuracy_p_holm) for pair in pairs], ("higher", "lower")),
        ("tokens", [_sign(pair.tokens, pair.tokens_p_holm) for pair in pairs], ("more", "fewer")),
    ):
        up, down = signs.count(1), signs.count(-1)
        said.append(f"{name} {words[0]} in {up}, {words[1]} in {down}, undecided in {len(pairs) - up - down}")
    if own:
        said.append(f"{own} of an evaluation with itself")
    return f"of {len(pairs)} comparisons, at 5 % for all together (Holm): {'; '.join(said)}"
