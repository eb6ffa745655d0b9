"""Phrases that betray the note."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa

from vpgea.config.schema import RunConfig
from vpgea.filtering.checks.base import Check, Judge
from vpgea.filtering.cost import Cost, RolloutLengths
from vpgea.filtering.prior_view import PriorView
from vpgea.filtering.samples import Chunk, JudgedSample
from vpgea.storage.schemas import TEXT


def _measure(chunk: Chunk, view: PriorView) -> None:
    phrases = (*view.views.template.leak_phrases, *view.config.filter.leaks.phrases)
    patterns = [re.compile(phrase, re.IGNORECASE) for phrase in phrases]
    for sample in chunk.candidates:
        matches = [match for pattern in patterns if (match := pattern.search(sample.z_text))]
        if matches:
            first = min(match.start() for match in matches)
            sample.found |= {
                "leak": matches[0].group(0),
                "leak_token": view.views.tokens_before(sample.z, first),
            }


def _judge(config: RunConfig, samples: Sequence[JudgedSample]) -> Judge:
    def judge(sample: JudgedSample) -> list[str] | None:
        """Of a path that is learnt in part, phrases that begin in that part count, or may: where is not known."""
        is_leaking = sample.measured["leak"] is not None
        return ["leak"] * (is_leaking and sample.reaches(sample.measured["leak_token"]))

    return judge


def _cost(config: RunConfig, lengths: RolloutLengths) -> Cost:
    return Cost()


LEAKS = Check(
    name="leaks",
    about="does z mention the note?",
    columns=(
        pa.field("leak", TEXT),  # the phrase that betrays the note
        pa.field("leak_token", pa.int32()),  # where in z the first of such phrases begins
    ),
    measure=_measure,
    reasons={"leak": "a phrase betrays the note"},
    judge=_judge,
    cost=_cost,
)
