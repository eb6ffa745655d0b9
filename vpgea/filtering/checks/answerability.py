"""Does the thinking alone lead the prior view to the answer, and more often than no thinking does?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from vpgea.config.schema import FilterConfig, RunConfig
from vpgea.filtering.checks.base import UNDECIDED, Check, Judge, below
from vpgea.filtering.cost import Continuations, Cost, RolloutLengths
from vpgea.filtering.prior_view import PriorView, Start, share_correct
from vpgea.filtering.samples import Chunk, JudgedSample
from vpgea.grading.base import Status
from vpgea.storage.schemas import IDS, POSTERIOR


def _measure(chunk: Chunk, view: PriorView) -> None:
    """Share of short continuations of z that are correct, and the same without any thinking."""
    candidates, empty_thinking = chunk.candidates, view.views.empty_thinking_ids
    firsts = {sample.question.id: sample for sample in reversed(candidates)}
    starts = [Start(sample, sample.prior_prompt + sample.z, "answerability") for sample in candidates]
    starts += [Start(sample, sample.prior_prompt + empty_thinking, "empty") for sample in firsts.values()]
    answers = view.answers(starts)
    empty = {
        question: share_correct(grades)[0]
        for question, (_, grades) in zip(firsts, answers[len(candidates) :], strict=True)
    }
    for sample, (completions, grades) in zip(candidates, answers, strict=False):
        answered = [grade.status == Status.CORRECT for grade in grades]
        stopped = [completion.finish_reason == "stop" for completion in completions]
        ended = [
            completion.ids for completion, *is_both in zip(completions, answered, stopped, strict=True) if all(is_both)
        ]
        share, valid = share_correct(grades)
        sample.found |= {
            "answerability": share,
            "answerability_valid": valid,
            "answerability_empty": empty[sample.question.id],
            "answer_tokens": float(np.mean([len(completion.ids) for completion in completions]))
            if completions
            else None,
            "crossview_answer_ids": ended[0] if ended else None,
            "answerability_cut": sum(not done and not right for done, right in zip(stopped, answered, strict=True)),
        }


def _judge(config: RunConfig, samples: Sequence[JudgedSample]) -> Judge:
    options = config.filter.answerability

    def judge(sample: JudgedSample) -> list[str] | None:
        found = sample.measured
        share, empty = found["answerability"], found["answerability_empty"]
        cut = found["answerability_cut"]
        if share is None or found["answerability_valid"] < options.samples / 2:
            return [UNDECIDED]
        if cut is not None and (cut > options.samples / 2 or empty is None):  # else an earlier version measured it
            return [UNDECIDED]
        reasons = ["answerability"] * below(share, options.threshold)
        if empty is not None and below(empty, options.threshold) and below(share - empty, options.lift):
            reasons.append("no-lift")
        return reasons

    return judge


def questions_without_need(samples: Sequence[JudgedSample], config: FilterConfig) -> list[str]:
    """Questions that the prior view answers without any thinking; no lift is asked of their paths."""
    empty = {
        sample.key.question_id: sample.measured["answerability_empty"]
        for sample in samples
        if sample.view == POSTERIOR and sample.measured["answerability_empty"] is not None
    }
    return [question for question, share in empty.items() if not below(share, config.answerability.threshold)]


def _cost(config: RunConfig, lengths: RolloutLengths) -> Cost:
    """Answers behind each path, and behind each question without thinking."""
    options = config.filter.answerability
    return Cost(
        tuple(
            Continuations(starts, options.samples, options.max_new_tokens)
            for starts in (lengths.candidates.end, lengths.prompts)
        )
    )


ANSWERABILITY = Check(
    name="answerability",
    about="does z alone lead the plain prompt to the answer, and more often than no thinking does?",
    columns=(
        pa.field("answerability", pa.float32()),  # share of valid continuations that are correct
        pa.field("answerability_valid", pa.int32()),
        pa.field("answerability_empty", pa.float32()),  # the same without any thinking
        pa.field("answer_tokens", pa.float32()),  # mean |y| over the prior-view continuations
        pa.field("crossview_answer_ids", IDS),  # one correct prior-view continuation with its end
        pa.field("answerability_cut", pa.int32()),  # continuations that came to their cap without the right answer
    ),
    measure=_measure,
    reasons={
        "no-lift": "z makes the prior no better than no thinking",
        "answerability": "the prior does not reach the answer from z often enough",
    },
    judge=_judge,
    cost=_cost,
)
