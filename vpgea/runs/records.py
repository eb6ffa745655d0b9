"""The JSON records of a run beside manifests and sidecars: one class each, written in the order of its fields."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path

from vpgea.errors import DamagedError
from vpgea.metrics.bootstrap import Estimate
from vpgea.metrics.curves import BudgetPoint
from vpgea.runs.layout import COMPLETE, WEIGHTS
from vpgea.storage.files import read_json
from vpgea.storage.records import damaged_record, from_json, json_of
from vpgea.storage.shards import Sidecar


@dataclass(frozen=True)
class PartMarker:
    """COMPLETE of a part: what the phase says of it, and the shards with which it was completed, by their names."""

    summary: dict[str, object]
    shards: dict[str, Sidecar]

    @classmethod
    def read(cls, part: Path) -> PartMarker:
        """Of a part's folder.

        Raises:
            DamagedError: It is gone, or is none.
        """
        path = part / COMPLETE
        value = read_json(path)
        try:
            return from_json(cls, value, path)
        except DamagedError as error:
            raise DamagedError(
                f"not the marker of a finished part: {path}",
                why=f"it does not list the part's shards with their rows and checksums: {error.why}",
                mend="delete it and run the command that wrote it again: what is there is kept",
            ) from error

    def __post_init__(self) -> None:
        for name, sidecar in self.shards.items():
            if sidecar.file != name:
                raise ValueError(f"what it says of {name} is of {sidecar.file}")


@dataclass(frozen=True)
class PhaseMarker:
    """COMPLETE of a phase, derived from those of its parts."""

    parts: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class RolloutSummary:
    """What a rollout says of a part.

    rejected: question id → why it was not sampled. samples, at_cap, no_end_of_thinking: how they ended, the last of
    those that ended by themselves; None: not counted.
    """

    questions: int
    rejected_overlong: int
    rejected_control_tokens: int
    rejected: dict[str, str]
    chunks: int
    samples: int | None = None
    at_cap: int | None = None
    no_end_of_thinking: int | None = None


@dataclass(frozen=True)
class Term:
    """A mean over questions and its standard error, both in the term's unit; None where there is too little data."""

    value: float | None
    standard_error: float | None


@dataclass(frozen=True, kw_only=True)
class ElboEstimate:
    """ELBO_EA = log_s_cue - length_cost - kl, in nats, and the health of its importance weights.

    Attributes:
        ess_share: Effective sample size / K of a question, mean over questions.
        log_weight_variance: Variance of log w within a question, mean over the questions with at least two paths and
            finite weights.
        paths: Those used.
        left_out: Those without a measurement.
    """

    elbo: Term
    log_s_cue: Term
    length_cost: Term
    kl: Term
    ess_share: Term
    log_weight_variance: Term
    questions: int
    paths: int
    left_out: int


@dataclass(frozen=True, kw_only=True)
class FilterSummary:
    """summary.json of a filter.

    Attributes:
        plausibility_limits: In words where there are none.
        elbo: In words where there is none.
        checks: Means over posterior paths, and how many have each of them (NAME_n).
        tokens: Sampled by the rollout (not counted by earlier versions), sampled for the checks, scored for them; of
            paths that are learnt in part, learnt and masked (nor counted by these).
        no_end_of_thinking: Samples, of either view, that ended by themselves without an end of thinking.
        selection: Fingerprint of what is learnt from, as this filter selected it; None before that was kept.
        answers: Continuations of paths: those with a grade, and how many of them came to their cap without the right
            answer.
        reference_lengths: Questions by where their L_ref is from: given, their own samples, or the default for all.
        tempering_power: Of the importance gate: mean over questions; None with other gates.
    """

    counts: dict[str, int]
    plausibility_limits: dict[str, float] | str
    needs_no_thinking: list[str]
    elbo: ElboEstimate | str
    checks: dict[str, float | None]
    tokens: dict[str, int]
    no_end_of_thinking: int | None = None
    selection: str | None = None
    answers: dict[str, int] = field(default_factory=dict)
    reference_lengths: dict[str, int] = field(default_factory=dict)
    tempering_power: float | None = None


@dataclass(frozen=True)
class EngineMismatch:
    """Differences of log-probabilities per token between the engine that sampled and the trainer, in nats."""

    mean: float
    mean_absolute: float
    largest: float


@dataclass(frozen=True)
class CanaryPath:
    """A sequence that was trained on. logprobs: of the ids from `start` on, as the stored weights give them."""

    ids: list[int]
    start: int
    logprobs: list[float]


@dataclass(frozen=True)
class Canary:
    """vpgea_canary.json beside published weights: by it any host checks what an engine serves.

    dtype: what was computed in, as torch names it.
    """

    dtype: str
    paths: list[CanaryPath]


@dataclass(frozen=True, kw_only=True)
class DistillSummary:
    """summary.json of a distill, and what its part says.

    Attributes:
        ended_early: Why, where a guard ended it.
        reload_difference: Largest of a log-probability after reloading what was published, in nats.
        output: Name of the folder with the weights, one of WEIGHTS.
        content: All bytes of the published folder, of which model_fingerprint has samples; None before that was kept.
        masters_fingerprint: Of the float32 weights beside a model that was published rounded.
        optimizer_fingerprint: Of the optimiser's state beside it; None where the next training begins anew.
    """

    steps: int
    paths: int
    trained_tokens: int
    skipped_steps: int
    alarms: int
    ended_early: str | None
    truncated_support: bool
    reload_difference: float
    engine_mismatch: EngineMismatch | None
    output: str
    model_fingerprint: str
    masters_fingerprint: str | None = None
    optimizer_fingerprint: str | None = None
    content: str | None = None

    def __post_init__(self) -> None:
        if self.output not in WEIGHTS:
            raise ValueError(f"{self.output!r} is no folder of published weights: {' or '.join(WEIGHTS)}")


@dataclass(frozen=True)
class Disagreement:
    """A sample of which graders say different things; verdicts: the status by each, by its name."""

    question_id: str
    sample_index: int
    verdicts: dict[str, str]


@dataclass(frozen=True)
class Regraded:
    """Stored samples graded again.

    Attributes:
        source: The folder that they are from.
        accuracy: By each grader's name: as stored there, by the new one, and by plain ones that others use.
        not_graded: Number of samples that each could not grade, which leave its accuracy.
        disagreements: All samples on which they differ.
    """

    source: str
    accuracy: dict[str, Estimate]
    not_graded: dict[str, int]
    disagreements: list[Disagreement]


@dataclass(frozen=True, kw_only=True)
class EvalResults:
    """results.json: every figure of an evaluation with its interval.

    baseline: the folder it is compared with. budget_curve: accuracy if cut at fewer tokens, as `BUDGET_RULE` says.
    drawn_by: what drew the intervals, so that they can be drawn again and compared; None before that was kept.
    """

    questions: int
    rejected_overlong: int
    rejected_control_tokens: int
    samples: int
    not_graded: int
    baseline: str | None
    metrics: dict[str, Estimate]
    budget_curve: list[BudgetPoint] = field(default_factory=list)
    regraded: Regraded | None = None
    drawn_by: str | None = None


@dataclass(frozen=True, kw_only=True)
class ImportSummary:
    """summary.json of an imported evaluation, and what its part says: what was read, and what its log does not say.

    Attributes:
        protocol: Always foreign: no comparison with another evaluation is one of the weights alone.
        rows: Of the log.
        unreadable: Rows that are no samples; listed: the first of them, with why.
        repeated: Rows that stood before, word for word.
        samples_per_question: Fewest and most.
        without_tokens: Samples that no figure of tokens can be made with; then there is none.
        without_end: Samples of which it is not known whether they came to their cap.
        graded_by: Samples by whose verdict they have: vpgea's grader, the recorded one, or none.
        regraded_otherwise: Samples of which our grader says otherwise than the recorded score.
    """

    tool: str
    version: str | None
    model: str | None
    metric: str | None
    protocol: str
    files: dict[str, str]
    rows: int
    samples: int
    questions: int
    samples_per_question: list[int]
    unreadable: int
    listed: dict[str, str]
    repeated: int
    without_tokens: int
    without_end: int
    without_reference: int
    graded_by: dict[str, int]
    regraded_otherwise: int | None


@dataclass(frozen=True)
class Measured:
    """Figures of held-out questions."""

    accuracy: float
    tokens: float
    e3: float


NEWER_FIGURES = {"times", "sampled_tokens"}  # of a round's line, which one of an earlier version does not have


@dataclass(frozen=True, kw_only=True)
class RoundLine:
    """round.json: the figures of a finished round, of the base model where round is None.

    The first ones are measured on the held-out questions, with 95 % intervals; e3 and accuracy_gain against the base
    model. All of them are None in a round that was not measured. Then shares of the posterior paths, kl and elbo in
    nats, what the training was made with and how it went. Those after truncated_high are of rounds alone, e3 excepted,
    which is 1 for the base by definition.

    Attributes:
        sampled_tokens: By the rollout and for the checks; None where an earlier version made the round.
        seconds: Of the process that finished the round; None where jobs of a cluster made it.
        times: Phase → activity → seconds, over all attempts and parts; None where an earlier version made the round.
    """

    round: int | None
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    tokens: float | None
    tokens_low: float | None
    tokens_high: float | None
    truncated: float | None
    truncated_low: float | None
    truncated_high: float | None
    e3: float | None
    e3_low: float | None = None
    e3_high: float | None = None
    accuracy_gain: float | None = None
    accuracy_gain_low: float | None = None
    accuracy_gain_high: float | None = None
    accepted_share: float | None = None
    pseudo_efficient_share: float | None = None
    kl: float | None = None
    elbo: float | None = None
    check_tokens: int | None = None
    sampled_tokens: int | None = None
    length_price: float | None = None
    loss_reference_kl: float | None = None
    trained_tokens: int | None = None
    engine_mismatch: float | None = None
    seconds: float | None
    times: dict[str, dict[str, float]] | None = None

    def __post_init__(self) -> None:
        figures = (self.accuracy, self.tokens, self.truncated, self.e3)
        if None in figures and (self.round is None or any(figure is not None for figure in figures)):
            raise ValueError("it has some of the figures of an evaluation and lacks others")

    @property
    def is_measured(self) -> bool:
        """Whether it has figures of held-out questions."""
        return self.accuracy is not None

    @property
    def measured(self) -> Measured:
        """The figures that decide what follows; of a round that was measured."""
        assert self.accuracy is not None and self.tokens is not None and self.e3 is not None  # noqa: PT018
        return Measured(self.accuracy, self.tokens, self.e3)

    def as_json(self) -> dict[str, object]:
        """The entries that round.json has: of the base model only its own, and none that its version did not write."""
        absent = {entry.name for entry in fields(self) if entry.default is not MISSING and self.round is None}
        absent = absent - NEWER_FIGURES | {name for name in NEWER_FIGURES if getattr(self, name) is None}
        return {name: value for name, value in json_of(self).items() if name not in absent}

    @classmethod
    def read(cls, path: Path) -> RoundLine:
        """The line in a file.

        Raises:
            DamagedError: It is gone, or is no round's line.
        """
        value = read_json(path)
        line = from_json(cls, value, path)
        if lacking := line.as_json().keys() ^ value.keys():
            raise damaged_record(path, f"it has no entry {min(lacking)!r} where there must be one, or one too many")
        return line
