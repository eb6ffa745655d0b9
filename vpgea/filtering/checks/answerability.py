"""Does the thinking alone lead the prior view to the answer, and more often than no thinking does?

Of a path that may be learnt in part that part is asked: thought on in the prior view, does it lead to the answer?
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from vpgea.config.filtering import AnswerabilityConfig, FilterConfig
from vpgea.config.schema import RunConfig
from vpgea.filtering.checks.base import UNDECIDED, Check, Judge, below
from vpgea.filtering.checks.note_dependence import sound_beginning
from vpgea.filtering.cost import Continuations, Cost, RolloutLengths
from vpgea.filtering.prior_view import PriorView, Start
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
    empty = dict(zip(firsts, answers[len(candidates) :], strict=True))
    for sample, own in zip(candidates, answers, strict=False):
        ended = [completion.ids for completion in own.right if completion.finish_reason == "stop"]
        lengths = [len(completion.ids) for completion in own.completions]
        without = empty[sample.question.id]
        sample.found |= {
            "answerability": own.share,
            "answerability_valid": own.decided,
            "answerability_empty": without.share,
            "answer_tokens": float(np.mean(lengths)) if lengths else None,
            "crossview_answer_ids": ended[0] if ended else None,
            "answerability_cut": own.cut,
            "answerability_empty_valid": without.decided,
            "answerability_empty_cut": without.cut,
        }
    _measure_beginnings(chunk, view)


def _measure_beginnings(chunk: Chunk, view: PriorView) -> None:
    """As many whole samples of the prior behind each; one that comes to the rollout's cap is wrong, as there."""
    options, cap = view.config.filter, view.config.rollout.max_new_tokens
    cuts = [(one, cut) for one in chunk.candidates if (cut := sound_beginning(options, one.found)) is not None]
    starts = [Start(one, one.prior_prompt + one.z[:cut], "beginning") for one, cut in cuts]
    continued = view.thought_on(starts, options.answerability.samples, [cap - cut for _, cut in cuts])
    for (sample, cut), samples in zip(cuts, continued, strict=True):
        right = [len(behind.ids) for behind, grade in samples if grade.status == Status.CORRECT]
        valid = sum(grade.status.valid for _, grade in samples)
        sample.found |= {
            "beginning_answerability": len(right) / valid if valid else None,
            "beginning_valid": valid,
            "beginning_tokens": cut + float(np.mean(right)) if right else None,
        }


def possible_shares(share: float | None, decided: int, cut: int) -> list[float]:
    """What a share may have become, had the continuations that were cut been longer: each is right or wrong."""
    if decided + cut == 0:
        return []
    right = round((share or 0.0) * decided)
    return [(right + more) / (decided + cut) for more in range(cut + 1)]


def _judge(config: RunConfig, samples: Sequence[JudgedSample]) -> Judge:
    options = config.filter.answerability

    def judge(sample: JudgedSample) -> list[str] | None:
        """Reasons that stand however the continuations that were cut would have ended."""
        if sample.learnt_tokens is not None:
            return _judge_beginning(options, sample)
        share, decided = sample.measured["answerability"], sample.measured["answerability_valid"]
        if share is None or decided < options.samples / 2:
            return [UNDECIDED]
        cut, with_nothing = sample.measured["answerability_cut"], _without_thinking(sample)
        if cut is not None and not with_nothing:  # else an earlier version measured it
            return [UNDECIDED]
        empties: list[float | None] = [*with_nothing] or [None]
        verdicts = [
            set(_reasons(options, with_z, empty))
            for with_z in possible_shares(share, decided, cut or 0)
            for empty in empties
        ]
        if all(verdicts):
            return sorted(set.intersection(*verdicts)) or [UNDECIDED]
        return [UNDECIDED] if any(verdicts) else []

    return judge


def _judge_beginning(options: AnswerabilityConfig, sample: JudgedSample) -> list[str]:
    """No lift is asked of it: its gate is what it is worth more than the prior's own samples."""
    share, valid = sample.measured["beginning_answerability"], sample.measured["beginning_valid"]
    if share is None or valid < options.samples / 2:
        return [UNDECIDED]
    return ["answerability"] * below(share, options.threshold)


def _reasons(options: AnswerabilityConfig, share: float, empty: float | None) -> list[str]:
    reasons = ["answerability"] * below(share, options.threshold)
    if empty is not None and below(empty, options.threshold) and below(share - empty, options.lift):
        reasons.append("no-lift")
    return reasons


def _without_thinking(sample: JudgedSample) -> list[float]:
    """What the share without any thinking may be; none where nothing of it is known."""
    share, decided = sample.measured["answerability_empty"], sample.measured["answerability_empty_valid"]
    if decided is None:  # not counted by what measured it
        return [] if share is None else [share]
    return possible_shares(share, decided, sample.measured["answerability_empty_cut"])


def questions_without_need(samples: Sequence[JudgedSample], config: FilterConfig) -> list[str]:
    """Questions that the prior view answers without any thinking; no lift is asked of their paths."""
    shares = {sample.key.question_id: _without_thinking(sample) for sample in samples if sample.view == POSTERIOR}
    threshold = config.answerability.threshold
    return [question for question, found in shares.items() if found and not below(min(found), threshold)]


def cut_answers(samples: Sequence[JudgedSample]) -> dict[str, int]:
    """Continuations of paths that got a grade, and how many of them came to their cap without the right answer."""
    counted = [sample.measured for sample in samples if sample.measured["answerability_valid"] is not None]
    cut = sum(found["answerability_cut"] or 0 for found in counted)
    return {"graded": sum(found["answerability_valid"] for found in counted) + cut, "cut": cut}


def _cost(config: RunConfig, lengths: RolloutLengths) -> Cost:
    """Answers behind each path, and behind each question without thinking; of all paths the beginnings, at most."""
    options = config.filter.answerability
    kinds = [
        Continuations(starts, options.samples, options.max_new_tokens)
        for starts in (lengths.candidates.end, lengths.prompts)
    ]
    if config.filter.learns_beginnings:
        kinds.append(Continuations(lengths.candidates.prompt, options.samples, config.rollout.max_new_tokens))
    return Cost(tuple(kinds))


ANSWERABILITY = Check(
    name="answerability",
    about="does z alone lead the plain prompt to the answer, and more often than no thinking does?",
    columns=(
        pa.field("answerability", pa.float32()),  # share of the decided continuations that are correct
        pa.field("answerability_valid", pa.int32()),  # decided: graded, and not cut before the right answer
        pa.field("answerability_empty", pa.float32()),  # the same without any thinking
        pa.field("answer_tokens", pa.float32()),  # mean |y| over the prior-view continuations
        pa.field("crossview_answer_ids", IDS),  # one correct prior-view continuation with its end
        pa.field("answerability_cut", pa.int32()),  # continuations that came to their cap without the right answer
        pa.field("answerability_empty_valid", pa.int32()),  # the same two without any thinking
        pa.field("answerability_empty_cut", pa.int32()),
        pa.field("beginning_answerability", pa.float32()),  # share of whole samples behind a beginning that are correct
        pa.field("beginning_valid", pa.int32()),  # of them with a grade
        pa.field("beginning_tokens", pa.float32()),  # mean length of the correct ones, beginning and answer included
    ),
    measure=_measure,
    reasons={
        "no-lift": "z makes the prior no better than no thinking",
        "answerability": "the prior does not reach the answer from z often enough",
    },
    judge=_judge,
    cost=_cost,
)
