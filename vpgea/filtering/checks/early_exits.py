"""Diagnostic: answerability when the thinking ends early."""

from __future__ import annotations

import pyarrow as pa

from vpgea.config.schema import RunConfig
from vpgea.filtering.checks.base import Check
from vpgea.filtering.cost import Continuations, Cost, RolloutLengths
from vpgea.filtering.prior_view import PriorView, Start
from vpgea.filtering.samples import Chunk

SHARES = (0.25, 0.5, 0.75)


def _measure(chunk: Chunk, view: PriorView) -> None:
    end = view.views.end_of_thinking_ids
    starts = [
        Start(sample, sample.prior_prompt + sample.z[: int(share * len(sample.z))] + end, f"early-exit-{share}")
        for sample in chunk.candidates
        for share in SHARES
    ]
    shares = [answers.share for answers in view.answers(starts)]
    for index, start in enumerate(starts[:: len(SHARES)]):
        start.sample.found["early_exits"] = shares[index * len(SHARES) : (index + 1) * len(SHARES)]


def _cost(config: RunConfig, lengths: RolloutLengths) -> Cost:
    """Whole paths are counted: an upper bound."""
    options = config.filter.answerability
    return Cost((Continuations(lengths.candidates.end, options.samples, options.max_new_tokens),) * len(SHARES))


EARLY_EXITS = Check(
    name="early_exits",
    about="diagnostic: answerability when the thinking ends after 25, 50 and 75 % of z",
    columns=(pa.field("early_exits", pa.list_(pa.float32())),),  # answerability at 25, 50, 75 % of z
    measure=_measure,
    cost=_cost,
)
