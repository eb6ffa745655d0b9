"""Phase 2 in the configuration: the checks, and what a path is worth."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from vpgea.config.fields import Section, Share, execution, identity


class AnswerabilityConfig(Section):
    """Does the path alone lead the prior view to the answer?"""

    enabled: bool = identity(True, "check it")
    samples: int = identity(8, "continuations per path (m)", ge=1)
    threshold: Share = identity(0.875, "share of valid continuations that must be correct")
    lift: float = identity(0.0, "must exceed the share without any thinking by this much", ge=-1, le=1)
    max_new_tokens: int = identity(512, "cap on one continuation's tokens", ge=1)


class NoteDependenceConfig(Section):
    """Was some token of the path written because of what the note says?"""

    enabled: bool = identity(True, "check it", absent=False)
    notes: int = identity(3, "notes with another answer that the path is scored under (k)", absent=3, ge=1)
    threshold: float = identity(
        1.0, "nats by which the note may make a token likelier than no note and other notes do", absent=1.0, gt=0
    )
    dependent: Literal["reject", "mask"] = identity(
        "reject",
        "a path with a dependent token is rejected | learnt up to the first of them, the rest of it masked",
        absent="reject",
        experimental=("mask",),
    )
    end: Literal["judged", "free"] = identity(
        "judged",
        "the end of the thinking is judged like any token | may depend on the note: a path may stop at its answer",
        absent="judged",
        experimental=("free",),
    )


class DerivationConfig(Section):
    """Cut before the value first appears: does the prior view get there by itself?"""

    enabled: bool = identity(True, "check it")
    samples: int = identity(4, "continuations per path", ge=1)
    threshold: Share = identity(0.5, "share of continuations that must state the value next")
    window: int = identity(16, "tokens after the cut, beyond the value's own, in which it must appear", ge=0)


class PlausibilityConfig(Section):
    """Is the path one that the prior view could have written?"""

    enabled: bool = identity(True, "check it")
    window: int = identity(8, "tokens in the sliding window of log q - log pi", ge=1)
    quantile: Share = identity(0.995, "per-path quantile of log q - log pi that is compared")
    calibration_quantile: Share = identity(
        0.99, "a path is implausible beyond this quantile of the prior's own correct paths"
    )
    slack: float = identity(2.0, "nats by which a limit may be exceeded", ge=0)


class LeaksConfig(Section):
    """Phrases that betray the note."""

    enabled: bool = identity(True, "check it")
    phrases: list[str] = identity([], "more regular expressions, besides those of the template")


class UtilityConfig(Section):
    """What a correct path of some length is worth."""

    kind: Literal["exponential", "linear", "sigmoid", "step", "distance"] = identity(
        "exponential",
        "r exp(-lambda c) | r - lambda r min(c, c_max) | r (1 - lambda sigmoid(z-scored length)) | "
        "r (1 + lambda where not longer than the target of its difficulty) | r - lambda |l - shortest correct| / L_ref",
        experimental=("linear", "sigmoid", "step", "distance"),
    )
    length_price: float = identity(0.1, "lambda: the price of length", ge=0)
    c_max: float = identity(4.0, "cap on relative length for the linear form", experimental=True, gt=0)

    @model_validator(mode="after")
    def _linear_stays_positive(self) -> UtilityConfig:
        if self.kind == "linear" and self.length_price * self.c_max >= 1:
            raise ValueError("length_price * c_max must stay below 1: a correct path would be worth nothing")
        if self.kind == "sigmoid" and self.length_price > 1:
            raise ValueError("length_price must be at most 1 with the sigmoid form")
        return self


class AdvantageConfig(Section):
    """Baselines, advantages and gates."""

    kind: Literal["normalised", "positive", "utility", "one"] = identity(
        "normalised",
        "A of a prior sample: (u - b) / sigma | that where it is above 0, else 0 | u itself | 1",
        absent="normalised",
        experimental=("positive", "utility", "one"),
    )
    group: Literal["prior", "joint"] = identity("prior", "whose mean utility is the baseline", experimental=("joint",))
    normalise: Literal["std", "none"] = identity("std", "divide by the spread of the prior's utilities, or not")
    std_min: float = identity(0.1, "floor of that spread (sigma_min)", gt=0)
    gate_max: float = identity(2.0, "cap on a posterior path's gate (A_max)", gt=0)
    gate: Literal["advantage", "plausible", "importance", "contrast", "mean", "one"] = identity(
        "advantage",
        "plausible: gates shrink with the mean log-ratio of the views; importance: they are multiplied with tempered, "
        "self-normalised importance weights; contrast: they shrink with note dependence; mean: all accepted paths have "
        "the mean gate; one: 1",
        experimental=("plausible", "importance", "contrast", "mean", "one"),
    )
    plausible_slack: float = identity(0.1, "kappa of the plausible gate, nats per token", experimental=True, ge=0)
    ess_min: Share = identity(
        0.5,
        "least effective sample size of the importance gate's weights, as a share of a question's accepted paths",
        absent=0.5,
        experimental=True,
    )
    contrast_rate: float = identity(
        2.0, "gamma of the contrast gate, per nat of note dependence", absent=2.0, experimental=True, ge=0
    )


class FilterConfig(Section):
    """Phase 2: grading and the cross-view evaluation."""

    answerability: AnswerabilityConfig = Field(default_factory=AnswerabilityConfig)
    note_dependence: NoteDependenceConfig = Field(default_factory=NoteDependenceConfig)
    derivation: DerivationConfig = Field(default_factory=DerivationConfig)
    plausibility: PlausibilityConfig = Field(default_factory=PlausibilityConfig)
    leaks: LeaksConfig = Field(default_factory=LeaksConfig)
    accept_undecided: bool = identity(
        False, "learn also from paths that neither note dependence nor derivation could judge", absent=True
    )
    early_exits: bool = identity(False, "diagnostic: answerability at 25, 50 and 75 % of each path", experimental=True)
    counterfactual: bool = identity(False, "diagnostic: the path's log-probability under another question's answer")
    teacher_top_k: int = identity(
        0, "store the posterior view's so many likeliest tokens along its paths, for distill.teacher=stored", ge=0
    )
    utility: UtilityConfig = Field(default_factory=UtilityConfig)
    advantage: AdvantageConfig = Field(default_factory=AdvantageConfig)
    min_reference_tokens: int = identity(16, "floor of the reference length L_ref", ge=1)
    reference_lengths: str | None = execution(None, "JSON file with the base model's L_ref per question")
    min_selected: int = execution(1, "exit 3 when fewer paths and advantages are left to learn from", ge=0)

    @property
    def learns_beginnings(self) -> bool:
        """Whether a path may be learnt up to its first token that depends on the note."""
        return self.note_dependence.enabled and self.note_dependence.dependent == "mask"
