"""Cut before the value first appears: does the prior view get there by itself?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from vpgea.config.schema import RunConfig
from vpgea.filtering.checks.base import Check, Judge, below
from vpgea.filtering.cost import ANSWER_TOKENS, Continuations, Cost, RolloutLengths
from vpgea.filtering.prior_view import PriorView, Start
from vpgea.filtering.samples import Chunk, JudgedSample
from vpgea.grading.values import find_value, value_is_distinct


def _measure(chunk: Chunk, view: PriorView) -> None:
    """Cut z before the value of y* first appears; share of short continuations that state the value next."""
    options, views = view.config.filter.derivation, view.views
    starts, caps, cuts = [], [], []
    for sample in chunk.candidates:
        question = sample.question
        distinct = value_is_distinct(question.answer, question.text, options=question.options)
        if sample.value_offset is not None and distinct:
            cut = views.tokens_before(sample.z, sample.value_offset)
            cuts.append(cut)
            starts.append(Start(sample, sample.prior_prompt + sample.z[:cut], "derivation"))
            caps.append(options.window + len(views.encode(views.final_answer(question))))
    continued = view.continuations(starts, options.samples, caps)
    for start, cut, completions in zip(starts, cuts, continued, strict=True):
        question = start.sample.question
        texts = [views.decode(completion.ids.tolist()) for completion in completions]
        stated = [find_value(text, question.answer, question=question.text) is not None for text in texts]
        if stated:
            start.sample.found |= {"derivation": float(np.mean(stated)), "derivation_token": cut}


def _judge(config: RunConfig, samples: Sequence[JudgedSample]) -> Judge:
    threshold = config.filter.derivation.threshold

    def judge(sample: JudgedSample) -> list[str] | None:
        """A path that is learnt in part, with the value behind that part, is not judged: its steps are masked."""
        share = sample.measured["derivation"]
        if share is None or not sample.reaches(sample.measured["derivation_token"]):
            return None
        return ["derivation"] * below(share, threshold)

    return judge


def _cost(config: RunConfig, lengths: RolloutLengths) -> Cost:
    options = config.filter.derivation
    return Cost((Continuations(lengths.candidates.end, options.samples, options.window + ANSWER_TOKENS),))


DERIVATION = Check(
    name="derivation",
    about="cut before the value first appears: does the prior get there by itself?",
    columns=(
        pa.field("derivation", pa.float32()),  # share of continuations that state the value next
        pa.field("derivation_token", pa.int32()),  # where in z the value first appears
    ),
    measure=_measure,
    reasons={"derivation": "the prior does not reach the value from the steps before it: a step is missing or wrong"},
    judge=_judge,
    cost=_cost,
    reads_content=True,
)
