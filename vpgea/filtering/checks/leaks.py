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
        matches = (pattern.search(sample.z_text) for pattern in patterns)
        sample.found["leak"] = next((match.group(0) for match in matches if match), None)


def _judge(config: RunConfig, samples: Sequence[JudgedSample]) -> Judge:
    return lambda sample: ["leak"] * (sample.measured["leak"] is not None)


def _cost(config: RunConfig, lengths: RolloutLengths) -> Cost:
    return Cost()


LEAKS = Check(
    name="leaks",
    about="does z mention the note?",
    columns=(pa.field("leak", TEXT),),  # the phrase that betrays the note
    measure=_measure,
    reasons={"leak": "a phrase betrays the note"},
    judge=_judge,
    cost=_cost,
)
