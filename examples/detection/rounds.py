"""A round against the ground truth: its right paths, what every check says of each, and what it was measured with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any

from examples.detection.cost import CheckCost, costs
from examples.detection.thresholds import DIALS, Measure
from examples.detection.truth import Asked, Kind, truth_of
from examples.inputs import judged_rows
from vpgea.config.resolve import resolve_recorded
from vpgea.config.schema import RunConfig, with_values
from vpgea.errors import UsageError
from vpgea.filtering.checks.base import UNDECIDED, Check, Judge
from vpgea.filtering.checks.registry import CHECKS
from vpgea.filtering.samples import JudgedSample
from vpgea.filtering.selection import Verdicts, paired_chunks, read_samples
from vpgea.grading.base import Status
from vpgea.grading.values import value_is_distinct
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.layout import SUMMARY
from vpgea.runs.records import FilterSummary
from vpgea.storage.records import read_record
from vpgea.storage.schemas import IDENTITY, POSTERIOR, PRIOR, SampleKey, View
from vpgea.storage.shards import read_table

_WHOLE = {"filter.note_dependence.dependent": "reject"}
_ASKED = ("question", "answer", "options", "completion")


class Verdict(Enum):
    """What one check says of one path."""

    CAUGHT = auto()
    PASSED = auto()
    NOT_JUDGED = auto()


@dataclass(frozen=True, kw_only=True)
class RightSample:
    """A sample whose own answer is right.

    Attributes:
        question: Its id.
        family: Of the question, as the testbed has it.
        is_distinct: Whether the answer's value can be told apart in a text, without which derivation cannot judge.
    """

    question: str
    family: str
    is_distinct: bool
    kind: Kind


@dataclass(frozen=True, kw_only=True)
class RightPath(RightSample):
    """One of the posterior view, which the filter has judged.

    Attributes:
        reasons: Why the filter rejects it as a whole; empty where it does not.
        verdicts: Check → what it says by itself.
        rejected_without: The checks without each of which the filter would reject it.
        values: Check → what it holds against its threshold; absent where it measured nothing.
    """

    reasons: tuple[str, ...]
    verdicts: Mapping[str, Verdict]
    rejected_without: frozenset[str]
    values: Mapping[str, float]

    @property
    def is_rejected(self) -> bool:
        return bool(self.reasons)

    def only_caught_by(self, check: str) -> bool:
        """Whether this check catches it and no other does."""
        return [name for name, verdict in self.verdicts.items() if verdict == Verdict.CAUGHT] == [check]


@dataclass(frozen=True, kw_only=True)
class Round:
    """A round's right paths of either view, and what the checks cost.

    Attributes:
        settings: Check → its threshold, of those that have one.
        tokens: Sampled by the rollout, sampled for the checks, scored for them, as the filter recorded them.
        costs: Check → what it asks of the engine by its own account.
    """

    name: str
    prior: list[RightSample]
    posterior: list[RightPath]
    checks: tuple[str, ...]
    settings: dict[str, float]
    tokens: dict[str, int]
    costs: dict[str, CheckCost]


def read_round(folder: Path, questions: Path | None = None) -> Round:
    """The round in a folder. Of a filter that learns paths in part, the verdicts are those on whole paths.

    Args:
        folder: Of the round.
        questions: Question file with the steps of each; None: the questions' own words tell them.

    Raises:
        UsageError: It is of no testbed, its rollout or filter is not complete, or its filter decided otherwise than
            this version does.
        DamagedError: What was measured is not of this rollout.
    """
    rollout = CompletePhase.open(folder / "rollout", "rollout")
    measured = CompletePhase.open(folder / "filter", "filter")
    config = resolve_recorded(f"filter folder {measured.root}", measured.manifest.config)
    pairs, whole = paired_chunks(rollout, measured), with_values(config, _WHOLE)
    samples = read_samples(whole, pairs)
    texts = _texts([path for path, _ in pairs])
    stored = {_key(row): row for row in judged_rows(folder)}
    truth = truth_of(rollout.root, list({asked.id: asked for asked, _ in texts.values()}.values()), questions)
    right = [sample for sample in samples if sample.status == Status.CORRECT and not sample.cut_off]
    checks = [check for check in CHECKS if check.is_enabled(config.filter) and check.reasons]
    judges, prior, posterior = _Judges(whole, samples, checks), list[RightSample](), list[RightPath]()
    decided = _decided(config, samples if whole == config else read_samples(config, pairs), checks)
    for sample in right:
        asked, completion = texts[sample.key]
        known = RightSample(
            question=asked.id,
            family=truth.family(asked),
            is_distinct=value_is_distinct(asked.answer, asked.text, options=asked.options),
            kind=truth.kind(asked, completion),
        )
        if sample.view == PRIOR:
            prior.append(known)
        else:
            _require_decided(folder, sample.key, stored[sample.key]["reasons"], decided[sample.key])
            posterior.append(judges.path(known, sample))
    summary = read_record(measured.root / SUMMARY, FilterSummary)
    return Round(
        name=folder.name,
        prior=prior,
        posterior=posterior,
        checks=tuple(check.name for check in checks),
        settings={name: dial.setting(config) for name, dial in DIALS.items() if name in judges.of},
        tokens=dict(summary.tokens),
        costs=costs(config, checks, right, _prompts(stored.values())),
    )


class _Judges:
    """The checks by themselves, the filter of all of them, and the filters that lack one."""

    def __init__(self, config: RunConfig, samples: Sequence[JudgedSample], checks: Sequence[Check]) -> None:
        self.of: dict[str, Judge] = {check.name: check.judge(config, samples) for check in checks}
        self.whole = Verdicts(config, samples, checks)
        self.without = {
            check.name: Verdicts(config, samples, [other for other in checks if other is not check]) for check in checks
        }
        self.measures: dict[str, Measure] = {
            name: dial.measure(config, samples) for name, dial in DIALS.items() if name in self.of
        }

    def path(self, known: RightSample, sample: JudgedSample) -> RightPath:
        """A posterior path."""
        return RightPath(
            **vars(known),
            reasons=tuple(self.whole.reasons(sample)),
            verdicts={name: _verdict(judge(sample)) for name, judge in self.of.items()},
            rejected_without=frozenset(name for name, verdicts in self.without.items() if verdicts.reasons(sample)),
            values={name: value for name, measure in self.measures.items() if (value := measure(sample)) is not None},
        )


def _decided(config: RunConfig, samples: Sequence[JudgedSample], checks: Sequence[Check]) -> dict[SampleKey, list[str]]:
    """Why the run's own filter rejects each path, by what was measured."""
    verdicts = Verdicts(config, samples, checks)
    return {sample.key: verdicts.reasons(sample) for sample in samples}


def _require_decided(folder: Path, key: SampleKey, stored: list[str], found: list[str]) -> None:
    """stored: the reasons in the round's folder."""
    if set(found) != set(stored):
        raise UsageError(
            f"{folder / 'filter'} decided otherwise than its measurements say",
            why=f"path {key.sample_index} of {key.question_id} has {stored}, the checks give {found}",
            mend=f"`vpgea doctor {folder / 'filter'} --repair` selects again, from what was measured",
        )


def _verdict(reasons: list[str] | None) -> Verdict:
    """What is undecided by the check itself it did not judge, though the filter rejects it."""
    if reasons is None or reasons == [UNDECIDED]:
        return Verdict.NOT_JUDGED
    return Verdict.CAUGHT if reasons else Verdict.PASSED


def _texts(chunks: Sequence[Path]) -> dict[SampleKey, tuple[Asked, str]]:
    """What was asked, and the completion, of every sample."""
    found = {}
    for path in chunks:
        for row in read_table(path, columns=[*IDENTITY, *_ASKED]).to_pylist():
            asked = Asked(row["question_id"], row["question"], row["answer"], tuple(row["options"]))
            found[_key(row)] = asked, row["completion"]
    return found


def _prompts(rows: Iterable[Mapping[str, Any]]) -> dict[View, dict[str, int]]:
    """Tokens of each question's prompts. rows: of SELECTION."""
    found: dict[View, dict[str, int]] = {PRIOR: {}, POSTERIOR: {}}
    for row in rows:
        for view, column in ((PRIOR, "prompt_ids"), (POSTERIOR, "posterior_prompt_ids")):
            if row[column] is not None:
                found[view][row["question_id"]] = len(row[column])
    return found


def _key(row: Mapping[str, Any]) -> SampleKey:
    return SampleKey(*(row[name] for name in IDENTITY))
