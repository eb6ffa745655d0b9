"""Diagnostic: the path under a note with another question's answer."""

from __future__ import annotations

import pyarrow as pa

from vpgea.config.schema import RunConfig
from vpgea.engines.base import ScoreRequest
from vpgea.filtering.checks.base import Check
from vpgea.filtering.cost import Cost, RolloutLengths
from vpgea.filtering.prior_view import PriorView
from vpgea.filtering.samples import Chunk


def _measure(chunk: Chunk, view: PriorView) -> None:
    """Mean log q(z) per token when the note holds another of the chunk's answers, if there is one."""
    distinct = list(dict.fromkeys(view.views.final_answer(sample.question) for sample in chunk.samples))
    swapped, requests = [], []
    for sample in chunk.candidates:
        others = [answer for answer in distinct if answer != view.views.final_answer(sample.question)]
        if others:
            other = others[sample.key.seed(0, use="counterfactual") % len(others)]
            prompt = view.views.posterior_prompt(sample.question, answer=other)
            requests.append(ScoreRequest(prompt + sample.z, len(prompt)))
            swapped.append(sample)
    for sample, logprobs in zip(swapped, view.score(swapped, requests), strict=True):
        if logprobs is not None:
            sample.found["counterfactual_logprob"] = float(logprobs.mean(dtype="float64"))


def _cost(config: RunConfig, lengths: RolloutLengths) -> Cost:
    return Cost(scored=(lengths.noted_candidates.end,))


COUNTERFACTUAL = Check(
    name="counterfactual",
    about="diagnostic: mean log-probability of z with another answer of the same chunk in the note",
    columns=(pa.field("counterfactual_logprob", pa.float32()),),  # mean log q(z) under another question's answer
    measure=_measure,
    cost=_cost,
)
