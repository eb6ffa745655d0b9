"""What an evaluation by a protocol has beside other figures: its own figures, and its card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from string import ascii_uppercase

import numpy as np

from vpgea import __version__
from vpgea.config.resolve import flat_config
from vpgea.config.schema import RunConfig, identity_of
from vpgea.grading.base import Status
from vpgea.metrics.estimates import Estimate, share_of
from vpgea.modeling.shape import read_shape
from vpgea.phases.rollout import RolloutPlan
from vpgea.protocols.asking import Asked
from vpgea.protocols.card import ProtocolCard, ShownPrompt, SourceLine, deviations_of, settings_of
from vpgea.protocols.published import Measurement, Reproduction, known_model, published_model, reproduce
from vpgea.questions.clusters import Numbering
from vpgea.runs.complete_phase import CompletePhase
from vpgea.runs.records import EvalResults
from vpgea.storage.rows import Text, Texts, iterate_rows
from vpgea.storage.schemas import PRIOR

GUESS = "protocol.guess"  # identity of an evaluation whose protocol guesses where there is no answer
UNGRADED = "a grader's error or time-out leaves every figure, and is counted as not_graded"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Answered:
    question_id: Text
    question: Text
    answer: Text
    options: Texts
    status: Text
    extracted: Text | None


def protocol_figures(evaluation: CompletePhase, *, draws: int, seed: int) -> dict[str, Estimate]:
    """Those that the protocol has beside accuracy: `accuracy_guessed` where it guesses a missing answer."""
    if evaluation.manifest.identity.get(GUESS) != "mmlu-pro":
        return {}
    rows, numbers = list(iterate_rows(evaluation.chunks(), _Answered)), Numbering()
    right = [row.status == Status.CORRECT or _is_lucky(row) for row in rows]
    valid = [Status(row.status).valid for row in rows]
    records = [numbers.of(row.question_id, row.question, row.options)[1] for row in rows]
    index = np.unique(records, return_inverse=True)[1]
    found = share_of(
        np.bincount(index, right).astype(np.float64),
        np.bincount(index, valid).astype(np.float64),
        draws=draws,
        seed=seed,
    )
    guessed = sum(row.status == Status.WRONG and row.extracted is None for row in rows)
    return {"accuracy_guessed": found.also(f"{guessed} of {len(rows)} samples have no answer and count as guesses")}


def guessed_letter(choices: int) -> str:
    """MMLU-Pro's script seeds its generator anew for each guess, so that the number of choices decides it."""
    return ascii_uppercase[Random(12345).randint(0, choices - 1)]  # noqa: S311  # the published rule, no secret


def _is_lucky(row: _Answered) -> bool:
    return row.status == Status.WRONG and row.extracted is None and row.answer == guessed_letter(len(row.options))


def protocol_card(config: RunConfig, plan: RolloutPlan, asked: Asked, found: EvalResults) -> ProtocolCard:
    """How the benchmark was asked, sampled and graded, and whether a known model gave what others found."""
    protocol = asked.protocol
    settings = settings_of(asked, flat_config(config))
    deviations = deviations_of(settings)
    shape = read_shape(plan.model)
    known = known_model(config.model.path, config.model.adapter, shape.hidden, shape.layers)
    card = ProtocolCard(
        benchmark=protocol.benchmark,
        name=protocol.name,
        version=protocol.version,
        fingerprint=asked.fingerprint,
        system=protocol.system,
        prompt=protocol.prompt,
        choice=protocol.choice,
        order=protocol.order,
        examples=0 if protocol.shots is None else protocol.shots.count,
        rows=asked.rows,
        example_rows=asked.examples,
        missing=protocol.missing,
        guess=protocol.guess,
        aggregation=protocol.aggregation,
        ungraded=UNGRADED,
        figure=f"mean@{config.eval.samples}",  # of fewer samples than the protocol's never its number
        settings=settings,
        differs=protocol.differs,
        deviations=deviations,
        template=plan.views.fingerprint,
        vpgea_version=__version__,
        sources=[SourceLine(one.what, one.read) for one in protocol.sources],
        shown=shown_prompt(plan, asked),
        model=None if known is None else known.name,
    )
    return replace(card, reproduction=_reproduction(config, card, found))


def regraded_card(
    config: RunConfig, before: ProtocolCard, was: Mapping[str, object], found: EvalResults
) -> ProtocolCard:
    """The card of samples that were graded again: asked and sampled as before, with what the grading was and is.

    Args:
        config: Of the new grading.
        before: The card of the evaluation that the samples are of.
        was: Its identity.
        found: The new results.
    """
    used, identity = flat_config(config), identity_of(config, "grading")
    settings = [replace(one, used=used[one.key]) for one in before.settings]
    changed = [f"{key} is {value}, and was {was[key]}" for key, value in identity.items() if value != was[key]]
    card = replace(
        before,
        settings=settings,
        deviations=deviations_of(settings),
        vpgea_version=__version__,
        model=before.known_model,
        reproduction=None,
        regraded="; ".join(changed) or f"by the same grader, {config.grading.grader}",
    )
    return replace(card, reproduction=_reproduction(config, card, found))


def shown_prompt(plan: RolloutPlan, asked: Asked) -> ShownPrompt:
    """The first question's prompt, and what the training would have asked in its place."""
    question = plan.chunks[0][0]
    preview = plan.views.preview(question, PRIOR)
    turn, training = asked.turns[question.id], plan.views.template_turn(question)
    return ShownPrompt(
        question_id=question.id,
        text=preview.text,
        ids=preview.ids,
        tokens=preview.tokens,
        user_turn=turn,
        training_turn="" if training == turn else training,
    )


def _reproduction(config: RunConfig, card: ProtocolCard, found: EvalResults) -> Reproduction | None:
    if card.model is None:
        return None
    fewer = "eval.samples is "  # said by the number of samples itself
    made = Measurement(
        benchmark=card.benchmark,
        protocol=card.name,
        samples=config.eval.samples,
        rows=found.questions,
        differs=[one for one in card.deviations if not one.startswith(fewer)],
        accuracy=found.metrics["accuracy"],
    )
    return reproduce(published_model(card.model), made)
