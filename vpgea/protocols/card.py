"""protocol.json of an evaluation: how the benchmark was asked, sampled and graded, for whoever reads its figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vpgea.protocols.asking import Asked, Rows
from vpgea.protocols.published import Reproduction


@dataclass(frozen=True)
class SourceLine:
    """Where the protocol is from. read: the date."""

    what: str
    read: str


@dataclass(frozen=True)
class Setting:
    """One setting as the protocol has it and as it was used; key: of the configuration."""

    key: str
    protocol: str | int | float
    used: str | int | float


@dataclass(frozen=True, kw_only=True)
class ShownPrompt:
    """One question as the model read it.

    Attributes:
        text: Special tokens included.
        ids: One per token, and tokens one visible string each.
        user_turn: What the protocol writes.
        training_turn: What the template of the training would write for the same question; "" where that is the same.
    """

    question_id: str
    text: str
    ids: list[int]
    tokens: list[str]
    user_turn: str
    training_turn: str


@dataclass(frozen=True, kw_only=True)
class ProtocolCard:
    """All of it.

    Attributes:
        fingerprint: Of the protocol and every user turn.
        system: The protocol's system text; None: none is sent, and the model's chat template may write its own.
        choice: How a choice is written; order: by what rule the choices are ordered.
        examples: Solved ones before each question, and example_rows where they are from.
        missing: What a response without an answer counts as; guess: the rule behind accuracy_guessed.
        ungraded: What a grader's error or time-out does.
        figure: Name of the figure that is the protocol's result.
        settings: Those of the protocol beside those used.
        differs: What is otherwise than at the protocol's source, in words; deviations: what is otherwise than the
            protocol itself, since the user said so.
        template: Fingerprint of the chat template and what else shapes a prompt; vpgea_version graded it.
        model: Name of the known model that was measured; None where it is none, or an earlier version wrote the card.
        reproduction: Beside what others published of this model; None where nobody did.
        regraded: Of stored samples that were graded again, by what, in words; "" where they were graded once.
    """

    benchmark: str
    name: str
    version: int
    fingerprint: str
    system: str | None
    prompt: str
    choice: str | None
    order: str
    examples: int
    rows: Rows
    example_rows: Rows | None
    missing: str
    guess: str | None
    aggregation: str
    ungraded: str
    figure: str
    settings: list[Setting]
    differs: list[str]
    deviations: list[str]
    template: str
    vpgea_version: str
    sources: list[SourceLine] = field(default_factory=list)
    shown: ShownPrompt
    model: str | None = None
    reproduction: Reproduction | None = None
    regraded: str = ""

    @property
    def known_model(self) -> str | None:
        """Name of the published model that was measured, which earlier cards have in their reproduction alone."""
        return self.model if self.reproduction is None else self.reproduction.model


def settings_of(asked: Asked, used: Mapping[str, object]) -> list[Setting]:
    """Each setting of a protocol beside what a configuration has, by dotted keys."""
    return [Setting(key, _plain(value), _plain(used[key])) for key, value in asked.protocol.settings.items()]


def deviations_of(settings: list[Setting]) -> list[str]:
    """In words, what the user has set otherwise."""
    return [f"{one.key} is {one.used}, not {one.protocol}" for one in settings if one.used != one.protocol]


def _plain(value: object) -> str | int | float:
    assert isinstance(value, str | int | float), "settings are plain values"
    return value
